// One datagram of the lpc wire: a cycle, its SYNC, or a level of the serialised interrupts.
//
// The host begins every cycle and waits for its SYNC before it begins the next one. The tag tells an answer that comes
// too late from the one that is waited for; serial interrupts go the other way at any time.
//
// ```
// 00 tag address(16, big-endian)         I/O read               host → peripheral
// 02 tag address(16, big-endian) data    I/O write              host → peripheral
// 10 tag sync data                       SYNC, and what was read  peripheral → host
// 20 interrupt level                     SERIRQ                 peripheral → host
// ```
// The kinds of cycles are the specification's CYCTYPE and DIR bits, the values of `sync` its SYNC field.
// Spec: Intel LPC 1.1 §4.2.1.2, §4.2.1.8; Serialized IRQ Support for PCI Systems 6.0

/// A datagram of the lpc wire.
public enum LPCMessage: Hashable, Sendable {
    case read(tag: UInt8, port: UInt16)
    case write(tag: UInt8, port: UInt16, data: UInt8)
    /// Ends a cycle. `data` is 0xFF in the answer to a write and wherever nobody drives the bus.
    case sync(tag: UInt8, Sync, data: UInt8)
    /// An edge of an interrupt of the ISA bus, 0…15; low at the start of a connection.
    case interrupt(UInt8, level: Bool)

    /// How a cycle ended. Wait states are the time until this message.
    public enum Sync: UInt8, Sendable, CaseIterable {
        case ready = 0b0000
        case error = 0b1010
        /// No peripheral drives the bus: it floats high, and the host aborts the cycle.
        case none = 0b1111
    }

    /// Why a datagram was refused.
    public enum Refusal: Error, Hashable, Sendable, CustomStringConvertible {
        case unknownKind(UInt8)
        case badLength(kind: UInt8, count: Int)
        case badSync(UInt8)
        case badInterrupt(UInt8)
        case badLevel(UInt8)

        public var description: String {
            switch self {
            case .unknownKind(let kind): "lpc datagram of unknown kind 0x\(String(kind, radix: 16))"
            case .badLength(let kind, let count):
                "lpc datagram of kind 0x\(String(kind, radix: 16)) with \(count) bytes"
            case .badSync(let sync): "lpc SYNC of unknown value \(sync)"
            case .badInterrupt(let number): "lpc interrupt \(number) beyond 15"
            case .badLevel(let level): "lpc interrupt level \(level) is neither 0 nor 1"
            }
        }
    }

    private enum Kind {
        static let read: UInt8 = 0x00
        static let write: UInt8 = 0x02
        static let sync: UInt8 = 0x10
        static let interrupt: UInt8 = 0x20
    }

    /// Bytes of the longest datagram.
    public static let maximumLength = 5

    public init(decoding bytes: [UInt8]) throws(Refusal) {
        let kind = bytes.first ?? 0
        let length =
            switch kind {
            case Kind.read, Kind.sync: 4
            case Kind.write: 5
            case Kind.interrupt: 3
            default: 0
            }
        guard length != 0 else { throw .unknownKind(kind) }
        guard bytes.count == length else { throw .badLength(kind: kind, count: bytes.count) }
        switch kind {
        case Kind.read: self = .read(tag: bytes[1], port: UInt16(bytes[2]) << 8 | UInt16(bytes[3]))
        case Kind.write: self = .write(tag: bytes[1], port: UInt16(bytes[2]) << 8 | UInt16(bytes[3]), data: bytes[4])
        case Kind.sync:
            guard let sync = Sync(rawValue: bytes[2]) else { throw .badSync(bytes[2]) }
            self = .sync(tag: bytes[1], sync, data: bytes[3])
        default:
            guard bytes[1] <= 15 else { throw .badInterrupt(bytes[1]) }
            guard bytes[2] <= 1 else { throw .badLevel(bytes[2]) }
            self = .interrupt(bytes[1], level: bytes[2] == 1)
        }
    }

    public var encoded: [UInt8] {
        switch self {
        case .read(let tag, let port): [Kind.read, tag, UInt8(port >> 8), UInt8(port & 0xFF)]
        case .write(let tag, let port, let data): [Kind.write, tag, UInt8(port >> 8), UInt8(port & 0xFF), data]
        case .sync(let tag, let sync, let data): [Kind.sync, tag, sync.rawValue, data]
        case .interrupt(let number, let level): [Kind.interrupt, number, level ? 1 : 0]
        }
    }
}

/// I/O ports that the board gives a meaning, and the interrupt that goes with one.
public enum LPCPort {
    /// Where firmware writes how far it has come. Ends in the security logic.
    public static let postCode: UInt16 = 0x80
    /// The BMC's KCS interface: Data_In and Data_Out. Spec: IPMI 2.0 §9.4 (the default of systems software).
    public static let kcsData: UInt16 = 0xCA2
    /// The BMC's KCS interface: Command and Status.
    public static let kcsCommand: UInt16 = 0xCA3
    public static let kcs: ClosedRange<UInt16> = kcsData...kcsCommand
    /// SERIRQ of the KCS interface.
    public static let kcsInterrupt: UInt8 = 11
    /// POST code: the host has booted.
    public static let bootComplete: UInt8 = 0xAA
}
