/// Why a packet was not answered. Silence is what the specifications ask for; the counters tell.
public enum PacketRefusal: String, Error, Hashable, Sendable, CaseIterable {
    /// No Ethernet header, or beyond the largest frame.
    case malformedFrame = "malformed-frame"
    /// A group address as source. Spec: RFC 1122 §2.3.2.1 and IEEE 802.3 §3.2.3.
    case groupSource = "group-source"
    /// For another station.
    case notForUs = "not-for-us"
    /// An EtherType that nobody here speaks.
    case unknownEtherType = "unknown-ethertype"
    case malformedARP = "malformed-arp"
    /// ARP of other networks or operations.
    case foreignARP = "foreign-arp"
    case malformedIPv4 = "malformed-ipv4"
    case badIPv4Checksum = "bad-ipv4-checksum"
    /// Fragments are not put together again: nothing here sends or needs them.
    case fragment = "fragment"
    /// A source that no single station can have. Spec: RFC 1122 §3.2.1.3.
    case badIPv4Source = "bad-ipv4-source"
    case unknownProtocol = "unknown-protocol"
    case malformedICMP = "malformed-icmp"
    case badICMPChecksum = "bad-icmp-checksum"
    /// An ICMP type that is neither answered nor needed.
    case unknownICMPType = "unknown-icmp-type"
    /// An echo request to everybody. Spec: RFC 1122 §3.2.2.6 allows silence, amplification attacks advise it.
    case broadcastEcho = "broadcast-echo"
    case malformedUDP = "malformed-udp"
    case badUDPChecksum = "bad-udp-checksum"
    case closedPort = "closed-port"
    case malformedRMCP = "malformed-rmcp"
    /// An RMCP class or ASF message that is not answered.
    case unknownRMCP = "unknown-rmcp"
    /// There was no room for the answer.
    case noRoom = "no-room"
}
