// Framing of the GDB remote serial protocol: `$payload#checksum`, acknowledgements, and the interrupt byte.
//
// Spec: Debugging with GDB, appendix "GDB Remote Serial Protocol", Overview, Packet Acknowledgment, Interrupts.
// Model: one byte in, at most one item out, no look-ahead, so a peer may cut its stream anywhere. The surprise: the
// checksum covers the bytes as they are on the wire, before `}` escapes are undone.

/// Finds packets in a peer's bytes. Holds at most one packet of `Packet.limit` bytes.
public struct PacketDecoder: Sendable {
    /// What the bytes so far were.
    public enum Item: Sendable, Equatable {
        /// A packet whose checksum is right, escapes undone.
        case packet([UInt8])
        /// A packet whose checksum is wrong or no number.
        case corrupt
        /// A packet longer than `Packet.limit`; its content was dropped.
        case oversize
        /// `+`
        case acknowledgment
        /// `-`: send the last packet again.
        case retransmission
        /// 0x03 outside a packet: stop the program.
        case interrupt
    }

    private enum State {
        case outside
        case inside
        case escaped
        case firstDigit
        case secondDigit(UInt8)
    }

    private var state = State.outside
    private var payload: [UInt8] = []
    private var sum: UInt8 = 0
    private var isTooLong = false

    public init() {}

    /// Takes the next byte.
    public mutating func receive(_ byte: UInt8) -> Item? {
        switch state {
        case .outside: return receiveOutside(byte)
        case .inside, .escaped: receiveInside(byte)
        case .firstDigit:
            guard byte != UInt8(ascii: "$") else {
                begin()
                return .corrupt
            }
            guard let digit = Hex.digit(byte) else { return finish(.corrupt) }
            state = .secondDigit(digit)
        case .secondDigit(let high):
            guard byte != UInt8(ascii: "$") else {
                begin()
                return .corrupt
            }
            guard let low = Hex.digit(byte), high << 4 | low == sum else { return finish(.corrupt) }
            return finish(isTooLong ? .oversize : .packet(payload))
        }
        return nil
    }

    private mutating func receiveOutside(_ byte: UInt8) -> Item? {
        switch byte {
        case UInt8(ascii: "$"): begin()
        case UInt8(ascii: "+"): return .acknowledgment
        case UInt8(ascii: "-"): return .retransmission
        case 0x03: return .interrupt
        default: break  // Line noise between packets is to be ignored.
        }
        return nil
    }

    private mutating func receiveInside(_ byte: UInt8) {
        // A new start: the end of the packet before was lost.
        if byte == UInt8(ascii: "$") { return begin() }
        if byte == UInt8(ascii: "#") {
            // An escape of nothing cannot be right; the sum then fails too, unless the peer meant it.
            if case .escaped = state { isTooLong = true }
            state = .firstDigit
            return
        }
        sum &+= byte
        if case .escaped = state {
            append(byte ^ 0x20)
            state = .inside
        } else if byte == UInt8(ascii: "}") {
            state = .escaped
        } else {
            append(byte)
        }
    }

    private mutating func append(_ byte: UInt8) {
        guard payload.count < Packet.limit else { return isTooLong = true }
        payload.append(byte)
    }

    private mutating func begin() {
        state = .inside
        payload.removeAll(keepingCapacity: true)
        sum = 0
        isTooLong = false
    }

    private mutating func finish(_ item: Item) -> Item {
        state = .outside
        payload.removeAll(keepingCapacity: true)
        return item
    }
}

/// Packets as they leave.
public enum Packet {
    /// Bytes of a payload at most, told as PacketSize: a page of memory in hexadecimal fits, with room.
    public static let limit = 0x4000

    /// `payload` framed: escaped, with its checksum.
    public static func frame(_ payload: some Sequence<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = [UInt8(ascii: "$")]
        var sum: UInt8 = 0
        func put(_ byte: UInt8) {
            bytes.append(byte)
            sum &+= byte
        }
        for byte in payload {
            switch byte {
            case UInt8(ascii: "$"), UInt8(ascii: "#"), UInt8(ascii: "}"), UInt8(ascii: "*"):
                put(UInt8(ascii: "}"))
                put(byte ^ 0x20)
            default: put(byte)
            }
        }
        bytes.append(UInt8(ascii: "#"))
        bytes += Hex.bytes([sum])
        return bytes
    }
}

/// Hexadecimal as the protocol writes it: lower case out, either case in.
public enum Hex {
    /// The value of a digit.
    public static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// Two digits a byte.
    public static func bytes(_ values: some Sequence<UInt8>) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        return values.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    }

    /// The bytes that pairs of digits say; `nil` for an odd count or another character.
    public static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 2 == 0 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 2)
        var high: UInt8?
        for character in text {
            guard let digit = digit(character) else { return nil }
            if let first = high {
                bytes.append(first << 4 | digit)
                high = nil
            } else {
                high = digit
            }
        }
        return bytes
    }

    /// A number's digits, without leading zeros.
    public static func number(_ value: UInt64) -> [UInt8] { Array(String(value, radix: 16).utf8) }

    /// A register's eight bytes, lowest first, as 16 digits.
    public static func littleEndian(_ value: UInt64) -> [UInt8] {
        bytes((0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) })
    }

    /// The value of eight bytes at most, lowest first.
    public static func value(littleEndian bytes: some Collection<UInt8>) -> UInt64? {
        guard bytes.count <= 8 else { return nil }
        var value: UInt64 = 0
        for (index, byte) in bytes.enumerated() { value |= UInt64(byte) << (8 * UInt64(index)) }
        return value
    }
}
