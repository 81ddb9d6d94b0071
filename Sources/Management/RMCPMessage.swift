import Ethernet

/// The Remote Management Control Protocol: how a tool finds a management controller. Spec: DSP0136 (ASF 2.0) §3.2.2.
///
/// ```
/// 0        1         2         3
/// |version |reserved |sequence |ack, class | class data …
/// | 6      | 0       |0xFF: no |            |
/// ```
struct RMCPMessage: Hashable {
    static let port: UInt16 = 623
    static let headerLength = 4
    static let version: UInt8 = 6
    /// The sender wants no acknowledge.
    static let noAcknowledge: UInt8 = 0xFF
    static let acknowledgeBit: UInt8 = 0x80
    static let asfClass: UInt8 = 6

    var sequence: UInt8
    /// Bits 4…0 of the last header byte.
    var messageClass: UInt8

    /// Reads a datagram's data.
    init(_ bytes: Span<UInt8>) throws(PacketRefusal) {
        guard bytes.count >= Self.headerLength, bytes[0] == Self.version else { throw .malformedRMCP }
        // We never ask for an acknowledge, so none is awaited.
        guard bytes[3] & Self.acknowledgeBit == 0 else { throw .unknownRMCP }
        sequence = bytes[2]
        messageClass = bytes[3] & 0x1F
    }

    /// The acknowledge to this message; nil when none is wanted. Spec: DSP0136 §3.2.2.2.
    var acknowledge: [UInt8]? {
        sequence == Self.noAcknowledge
            ? nil : [Self.version, 0, sequence, messageClass | Self.acknowledgeBit]
    }
}

/// The two ASF messages of discovery. Spec: DSP0136 §3.2.4.2 (presence ping) and §3.2.4.3 (presence pong).
///
/// ```
/// 4                8     9    10        11           12
/// |IANA number     |type |tag |reserved |data length | data …
/// | 4542 (ASF)     |     |    |         |            |
/// ```
enum ASFMessage {
    static let enterpriseNumber: UInt32 = 4542
    static let presencePing: UInt8 = 0x80
    static let presencePong: UInt8 = 0x40
    /// A message that is no part of a request and response.
    static let unidirectionalTag: UInt8 = 0xFF
    private static let headerLength = RMCPMessage.headerLength + 8

    /// The tag of a presence ping.
    static func presencePingTag(_ bytes: Span<UInt8>) throws(PacketRefusal) -> UInt8 {
        guard bytes.count >= headerLength, bytes.count - headerLength >= Int(bytes[11]) else { throw .malformedRMCP }
        guard bytes.networkUInt32(at: 4) == enterpriseNumber, bytes[8] == presencePing,
            bytes[9] != unidirectionalTag
        else { throw .unknownRMCP }
        return bytes[9]
    }

    /// The pong. It claims ASF 1.0 and nothing more: no IPMI sessions, no security extensions.
    static func pong(tag: UInt8) -> [UInt8] {
        let iana = (0..<4).map { UInt8(truncatingIfNeeded: enterpriseNumber >> UInt32(24 - 8 * $0)) }
        return [RMCPMessage.version, 0, RMCPMessage.noAcknowledge, RMCPMessage.asfClass]
            + iana + [presencePong, tag, 0, 16]
            + iana + [0, 0, 0, 0]  // no OEM capabilities
            + [0x01, 0x00, 0, 0, 0, 0, 0, 0]  // supported entities, supported interactions, reserved
    }
}
