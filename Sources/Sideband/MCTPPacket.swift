/// An MCTP packet. Spec: DSP0236 1.3.1 §8.1, figure 4.
///
/// ```
/// byte 0   reserved (4) | header version (4) = 1
/// byte 1   destination endpoint id
/// byte 2   source endpoint id
/// byte 3   SOM | EOM | packet sequence (2) | tag owner | message tag (3)
/// byte 4…  payload; of the first packet, byte 4 is the integrity-check bit and the message type
/// ```
public struct MCTPPacket: Hashable, Sendable {
    public static let headerLength = 4
    /// The baseline transmission unit. Spec: DSP0236 §8.3.1.
    public static let baselinePayload = 64
    /// The longest payload taken from a peer: the sideband is a local wire, more than the baseline is allowed.
    public static let maximumPayload = 1024

    /// An endpoint's address. Spec: DSP0236 §8.2. The board's fixed ones are named.
    public struct EndpointID: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let securityLogic = EndpointID(rawValue: 8)
        public static let adapter = EndpointID(rawValue: 9)
        public static let bmc = EndpointID(rawValue: 10)
        public static let host = EndpointID(rawValue: 11)
        public static let card0 = EndpointID(rawValue: 12)
        public static let card1 = EndpointID(rawValue: 13)
        public static let card2 = EndpointID(rawValue: 14)
        public static let card3 = EndpointID(rawValue: 15)
    }

    public enum Refusal: Error, Hashable, Sendable, CustomStringConvertible {
        case badLength(Int)
        case badVersion(UInt8)

        public var description: String {
            switch self {
            case .badLength(let count): "\(count) bytes, 5 to \(headerLength + maximumPayload) are allowed"
            case .badVersion(let version): "header version \(version) instead of 1"
            }
        }
    }

    public var destination: EndpointID
    public var source: EndpointID
    public var isFirst: Bool
    public var isLast: Bool
    /// 0…3, counts packets of one message.
    public var sequence: UInt8
    /// True in a request: its sender chose the tag.
    public var isTagOwner: Bool
    /// 0…7.
    public var tag: UInt8
    public var payload: [UInt8]

    public init(
        destination: EndpointID, source: EndpointID, isFirst: Bool, isLast: Bool, sequence: UInt8, isTagOwner: Bool,
        tag: UInt8, payload: [UInt8]
    ) {
        self.destination = destination
        self.source = source
        self.isFirst = isFirst
        self.isLast = isLast
        self.sequence = sequence & 3
        self.isTagOwner = isTagOwner
        self.tag = tag & 7
        self.payload = payload
    }

    public init(decoding bytes: [UInt8]) throws(Refusal) {
        guard bytes.count > Self.headerLength, bytes.count <= Self.headerLength + Self.maximumPayload else {
            throw .badLength(bytes.count)
        }
        guard bytes[0] & 0x0F == 1 else { throw .badVersion(bytes[0] & 0x0F) }
        self.init(
            destination: EndpointID(rawValue: bytes[1]), source: EndpointID(rawValue: bytes[2]),
            isFirst: bytes[3] & 0x80 != 0, isLast: bytes[3] & 0x40 != 0, sequence: bytes[3] >> 4 & 3,
            isTagOwner: bytes[3] & 0x08 != 0, tag: bytes[3] & 7, payload: Array(bytes[4...]))
    }

    public var encoded: [UInt8] {
        let flags = (isFirst ? 0x80 : 0) | (isLast ? 0x40 : 0) | sequence << 4 | (isTagOwner ? 0x08 : 0) | tag
        return [0x01, destination.rawValue, source.rawValue, flags] + payload
    }
}

/// A whole MCTP message: what one or more packets carry.
public struct MCTPMessage: Hashable, Sendable {
    public var destination: MCTPPacket.EndpointID
    public var source: MCTPPacket.EndpointID
    public var isTagOwner: Bool
    public var tag: UInt8
    /// Message type (byte 0, without the integrity-check bit) and body.
    public var body: [UInt8]

    public init(
        destination: MCTPPacket.EndpointID, source: MCTPPacket.EndpointID, isTagOwner: Bool, tag: UInt8, body: [UInt8]
    ) {
        self.destination = destination
        self.source = source
        self.isTagOwner = isTagOwner
        self.tag = tag
        self.body = body
    }

    /// The message as packets of at most `unit` payload bytes. Spec: DSP0236 §8.3.
    public func packets(unit: Int = MCTPPacket.baselinePayload) -> [MCTPPacket] {
        precondition(unit > 0 && unit <= MCTPPacket.maximumPayload, "a transmission unit holds 1 to 1024 bytes")
        precondition(!body.isEmpty, "an MCTP message has at least its type")
        return stride(from: 0, to: body.count, by: unit).map { start in
            let end = min(start + unit, body.count)
            return MCTPPacket(
                destination: destination, source: source, isFirst: start == 0, isLast: end == body.count,
                sequence: UInt8(truncatingIfNeeded: start / unit), isTagOwner: isTagOwner, tag: tag,
                payload: Array(body[start..<end]))
        }
    }
}

/// Puts packets together to messages, as a pure value. Spec: DSP0236 §8.4 (message assembly).
public struct MCTPAssembler: Sendable {
    /// The longest message put together; a longer one is dropped, as out of resources.
    public static let maximumMessage = 4096

    private struct Key: Hashable {
        var source: UInt8
        var tag: UInt8
        var isTagOwner: Bool
    }
    private struct Partial {
        var body: [UInt8]
        var nextSequence: UInt8
    }

    private let address: MCTPPacket.EndpointID
    private var partials: [Key: Partial] = [:]
    /// Packets dropped: not for us, out of sequence, no start, too long.
    public private(set) var dropped = 0

    public init(address: MCTPPacket.EndpointID) { self.address = address }

    /// Takes a packet; returns the message it completes.
    public mutating func receive(_ packet: MCTPPacket) -> MCTPMessage? {
        guard packet.destination == address else { return drop() }
        // At most 8 tags × 2 × 256 sources: bounded by the header's fields.
        let key = Key(source: packet.source.rawValue, tag: packet.tag, isTagOwner: packet.isTagOwner)
        var partial: Partial
        if packet.isFirst {
            partial = Partial(body: [], nextSequence: packet.sequence)
        } else {
            guard let known = partials[key] else { return drop() }
            partial = known
        }
        partials[key] = nil
        guard packet.sequence == partial.nextSequence,
            partial.body.count + packet.payload.count <= Self.maximumMessage
        else { return drop() }
        partial.body += packet.payload
        partial.nextSequence = (packet.sequence + 1) & 3
        guard packet.isLast else {
            partials[key] = partial
            return nil
        }
        return MCTPMessage(
            destination: packet.destination, source: packet.source, isTagOwner: packet.isTagOwner, tag: packet.tag,
            body: partial.body)
    }

    private mutating func drop() -> MCTPMessage? {
        dropped += 1
        return nil
    }
}
