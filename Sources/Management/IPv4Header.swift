import Ethernet

/// An IPv4 header. Spec: RFC 791 §3.1.
///
/// ```
/// 0       1       2               4               6               8       9       10              12      16      20
/// |ver|ihl|  tos  | total length  |identification |flags, offset  |  ttl  |protocol|   checksum   |source |dest.  |opt…
/// ```
struct IPv4Header: Hashable {
    static let minimumLength = 20

    /// Spec: RFC 790; numbers from the IANA registry.
    enum TransportProtocol {
        static let icmp: UInt8 = 1
        static let udp: UInt8 = 17
    }

    var transportProtocol: UInt8
    var source: IPv4Address
    var destination: IPv4Address
    /// Bytes of header, options included.
    var headerLength: Int
    /// Bytes of header and payload; the frame may hold padding after them.
    var totalLength: Int

    /// Reads a frame's payload and checks all that a header can get wrong. Options are stepped over, as RFC 1122
    /// §3.2.1.8 allows a host to.
    init(_ bytes: Span<UInt8>) throws(PacketRefusal) {
        guard bytes.count >= Self.minimumLength, bytes[0] >> 4 == 4 else { throw .malformedIPv4 }
        headerLength = Int(bytes[0] & 0xF) * 4
        totalLength = Int(bytes.networkUInt16(at: 2))
        guard headerLength >= Self.minimumLength, headerLength <= totalLength, totalLength <= bytes.count else {
            throw .malformedIPv4
        }
        var checksum = InternetChecksum()
        checksum.add(bytes.extracting(0..<headerLength))
        guard checksum.value == 0 else { throw .badIPv4Checksum }
        // More fragments (0x2000) or an offset (0x1FFF).
        guard bytes.networkUInt16(at: 6) & 0x3FFF == 0 else { throw .fragment }
        transportProtocol = bytes[9]
        source = IPv4Address(rawValue: bytes.networkUInt32(at: 12))
        destination = IPv4Address(rawValue: bytes.networkUInt32(at: 16))
    }
}

/// One end of a conversation with a station: where an answer goes.
struct IPv4Route: Hashable {
    var sourceMAC: MACAddress
    var source: IPv4Address
    var destinationMAC: MACAddress
    var destination: IPv4Address
}

extension FrameBatch {
    /// Offsets within a frame of ours: no VLAN tag, no IPv4 options.
    static var ipv4Offset: Int { EthernetFrame.headerLength }
    static var ipv4PayloadOffset: Int { EthernetFrame.headerLength + IPv4Header.minimumLength }

    /// Starts an IPv4 frame; ``endIPv4()`` completes it. False when there is no room.
    mutating func beginIPv4(_ route: IPv4Route, transportProtocol: UInt8, identification: UInt16) -> Bool {
        let header = EthernetHeader(destination: route.destinationMAC, source: route.sourceMAC, etherType: .ipv4)
        guard beginFrame(header) else { return false }
        append(0x45)
        append(0)
        appendNetwork(UInt16(0))
        appendNetwork(identification)
        appendNetwork(UInt16(0x4000))  // don't fragment
        append(64)  // Spec: RFC 1700 "IP time to live parameter"
        append(transportProtocol)
        appendNetwork(UInt16(0))
        appendNetwork(route.source.rawValue)
        appendNetwork(route.destination.rawValue)
        return true
    }

    /// Fills in length and checksum and ends the frame.
    mutating func endIPv4() {
        let total = frameLength - Self.ipv4Offset
        patchNetwork(UInt16(truncatingIfNeeded: total), at: Self.ipv4Offset + 2)
        patchNetwork(checksum(Self.ipv4Offset..<Self.ipv4PayloadOffset), at: Self.ipv4Offset + 10)
        endFrame()
    }

    /// The Internet checksum of `range` of the frame being built, after `initial`.
    func checksum(_ range: Range<Int>, after initial: InternetChecksum = InternetChecksum()) -> UInt16 {
        var checksum = initial
        withFrameBytes(range) { checksum.add($0) }
        return checksum.value
    }
}
