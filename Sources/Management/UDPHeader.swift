import Ethernet

/// A UDP header. Spec: RFC 768.
///
/// ```
/// 0            2                 4        6         8
/// |source port |destination port |length  |checksum | data …
/// ```
struct UDPHeader: Hashable {
    static let length = 8

    var sourcePort: UInt16
    var destinationPort: UInt16
    /// Bytes of header and data.
    var totalLength: Int

    /// Reads an IPv4 payload and checks length and checksum (0 says that the sender made none).
    init(_ bytes: Span<UInt8>, in packet: IPv4Header) throws(PacketRefusal) {
        guard bytes.count >= Self.length else { throw .malformedUDP }
        totalLength = Int(bytes.networkUInt16(at: 4))
        guard totalLength >= Self.length, totalLength <= bytes.count else { throw .malformedUDP }
        if bytes.networkUInt16(at: 6) != 0 {
            var checksum = Self.pseudoHeader(packet.source, packet.destination, length: totalLength)
            checksum.add(bytes.extracting(0..<totalLength))
            guard checksum.value == 0 else { throw .badUDPChecksum }
        }
        sourcePort = bytes.networkUInt16(at: 0)
        destinationPort = bytes.networkUInt16(at: 2)
    }

    /// Spec: RFC 768 "Checksum".
    static func pseudoHeader(_ source: IPv4Address, _ destination: IPv4Address, length: Int) -> InternetChecksum {
        var checksum = InternetChecksum()
        checksum.add(source.rawValue)
        checksum.add(destination.rawValue)
        checksum.add(UInt16(IPv4Header.TransportProtocol.udp))
        checksum.add(UInt16(truncatingIfNeeded: length))
        return checksum
    }
}

extension FrameBatch {
    /// Adds a datagram of at most 65,507 bytes as a frame. False when there is no room.
    mutating func appendDatagram(
        _ data: Span<UInt8>, from sourcePort: UInt16, to destinationPort: UInt16, _ route: IPv4Route,
        identification: UInt16
    ) -> Bool {
        let length = UDPHeader.length + data.count
        guard length <= 65_535 - IPv4Header.minimumLength,
            beginIPv4(route, transportProtocol: IPv4Header.TransportProtocol.udp, identification: identification)
        else { return false }
        appendNetwork(sourcePort)
        appendNetwork(destinationPort)
        appendNetwork(UInt16(truncatingIfNeeded: length))
        appendNetwork(UInt16(0))
        append(bytes: data)
        let start = Self.ipv4PayloadOffset
        let sum = checksum(
            start..<frameLength,
            after: UDPHeader.pseudoHeader(route.source, route.destination, length: length))
        // A sum of 0 is sent as 0xFFFF, since 0 says "none".
        patchNetwork(sum == 0 ? 0xFFFF : sum, at: start + 6)
        endIPv4()
        return true
    }
}
