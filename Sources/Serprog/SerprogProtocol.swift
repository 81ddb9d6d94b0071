// The serial flasher protocol, version 1, as bytes. Spec: flashrom serprog-protocol.txt.
//
// A command is an opcode and its parameters, an answer is ACK or NAK and, after ACK, what the opcode returns.
// Integers are little-endian. Only what an SPI programmer needs is here; other opcodes are answered with NAK.

/// Opcodes. An unknown one is representable: a peer may be newer.
public struct SerprogCommand: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let nop = SerprogCommand(rawValue: 0x00)
    public static let queryInterface = SerprogCommand(rawValue: 0x01)
    public static let queryCommandMap = SerprogCommand(rawValue: 0x02)
    public static let queryProgrammerName = SerprogCommand(rawValue: 0x03)
    public static let querySerialBuffer = SerprogCommand(rawValue: 0x04)
    public static let queryBusTypes = SerprogCommand(rawValue: 0x05)
    public static let queryMaximumWrite = SerprogCommand(rawValue: 0x08)
    public static let syncNOP = SerprogCommand(rawValue: 0x10)
    public static let queryMaximumRead = SerprogCommand(rawValue: 0x11)
    public static let setBusType = SerprogCommand(rawValue: 0x12)
    public static let spiOperation = SerprogCommand(rawValue: 0x13)
    public static let setSPIFrequency = SerprogCommand(rawValue: 0x14)
    public static let setPinState = SerprogCommand(rawValue: 0x15)
    public static let setChipSelect = SerprogCommand(rawValue: 0x16)

    /// What our servers support, which is what their command map tells.
    public static let supported: [SerprogCommand] = [
        nop, queryInterface, queryCommandMap, queryProgrammerName, querySerialBuffer, queryBusTypes, queryMaximumWrite,
        syncNOP, queryMaximumRead, setBusType, spiOperation, setSPIFrequency, setPinState, setChipSelect,
    ]

    /// The specification's name, or the number.
    public var description: String {
        switch self {
        case .nop: "NOP"
        case .queryInterface: "Q_IFACE"
        case .queryCommandMap: "Q_CMDMAP"
        case .queryProgrammerName: "Q_PGMNAME"
        case .querySerialBuffer: "Q_SERBUF"
        case .queryBusTypes: "Q_BUSTYPE"
        case .queryMaximumWrite: "Q_WRNMAXLEN"
        case .syncNOP: "SYNCNOP"
        case .queryMaximumRead: "Q_RDNMAXLEN"
        case .setBusType: "S_BUSTYPE"
        case .spiOperation: "O_SPIOP"
        case .setSPIFrequency: "S_SPI_FREQ"
        case .setPinState: "S_PIN_STATE"
        case .setChipSelect: "S_SPI_CS"
        default: "0x" + String(rawValue, radix: 16)
        }
    }
}

/// Numbers of the protocol and of our servers.
public enum Serprog {
    public static let acknowledge: UInt8 = 0x06
    public static let refuse: UInt8 = 0x15
    public static let interfaceVersion: UInt16 = 1
    /// The bus type that is SPI.
    public static let busSPI: UInt8 = 0x08
    /// The most bytes that one 24-bit length can name.
    public static let lengthLimit = 1 << 24

    /// Q_SERBUF: sockets have flow control, for which the protocol wants "a big bogus value".
    public static let serialBuffer: UInt16 = 0xFFFF
    /// Q_WRNMAXLEN of our servers: far above a 256-byte page, and what a connection's buffer costs.
    public static let maximumWrite = 64 * 1024
    /// Q_RDNMAXLEN of our servers: 1 MiB halves nothing any more (measured), and bounds a connection's memory.
    public static let maximumRead = 1024 * 1024
    /// The fastest clock that our chips take, in hertz.
    public static let maximumFrequency: UInt32 = 133_000_000
}

/// One command with its parameters.
public enum SerprogRequest: Hashable, Sendable {
    /// A command without parameters.
    case plain(SerprogCommand)
    case setBusType(UInt8)
    /// Chip select low, `write` out, `readCount` bytes in, chip select high.
    case spiOperation(write: [UInt8], readCount: Int)
    /// In hertz.
    case setSPIFrequency(UInt32)
    case setPinState(isDriven: Bool)
    case setChipSelect(UInt8)

    /// The request's bytes. A length of 2^24 or more is a programmer's error.
    public var encoded: [UInt8] {
        switch self {
        case .plain(let command): return [command.rawValue]
        case .setBusType(let types): return [SerprogCommand.setBusType.rawValue, types]
        case .spiOperation(let write, let readCount):
            precondition(
                write.count < Serprog.lengthLimit && readCount < Serprog.lengthLimit, "lengths have 24 bits")
            var bytes: [UInt8] = []
            bytes.reserveCapacity(7 + write.count)
            bytes.append(SerprogCommand.spiOperation.rawValue)
            for length in [write.count, readCount] {
                bytes += [0, 8, 16].map { UInt8(truncatingIfNeeded: length >> $0) }
            }
            return bytes + write
        case .setSPIFrequency(let hertz):
            return [SerprogCommand.setSPIFrequency.rawValue]
                + [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: hertz >> $0) }
        case .setPinState(let isDriven): return [SerprogCommand.setPinState.rawValue, isDriven ? 1 : 0]
        case .setChipSelect(let number): return [SerprogCommand.setChipSelect.rawValue, number]
        }
    }

    /// What the front of a byte stream holds.
    public enum Decoded: Hashable, Sendable {
        /// A request of so many bytes. An opcode that we do not know takes one byte: its parameters are unknown too.
        case request(SerprogRequest, length: Int)
        /// The request's bytes are not all there.
        case incomplete
        /// An SPI operation that writes more than is supported: the stream goes on after `length` bytes, which may
        /// be more than are there.
        case oversized(length: Int)
    }

    /// Reads the request at the front of `bytes`.
    public static func decode(_ bytes: ArraySlice<UInt8>) -> Decoded {
        guard let opcode = bytes.first else { return .incomplete }
        let command = SerprogCommand(rawValue: opcode)
        let parameters = bytes.dropFirst()
        func number(_ start: Int, _ count: Int) -> Int {
            (0..<count).reduce(0) { $0 | Int(parameters[parameters.startIndex + start + $1]) << (8 * $1) }
        }
        switch command {
        case .setBusType, .setPinState, .setChipSelect:
            guard let value = parameters.first else { return .incomplete }
            let request: SerprogRequest =
                switch command {
                case .setBusType: .setBusType(value)
                case .setPinState: .setPinState(isDriven: value != 0)
                default: .setChipSelect(value)
                }
            return .request(request, length: 2)
        case .setSPIFrequency:
            guard parameters.count >= 4 else { return .incomplete }
            return .request(.setSPIFrequency(UInt32(number(0, 4))), length: 5)
        case .spiOperation:
            guard parameters.count >= 6 else { return .incomplete }
            let writeCount = number(0, 3)
            guard writeCount <= Serprog.maximumWrite else { return .oversized(length: 7 + writeCount) }
            guard parameters.count >= 6 + writeCount else { return .incomplete }
            let start = parameters.startIndex + 6
            return .request(
                .spiOperation(write: Array(parameters[start..<start + writeCount]), readCount: number(3, 3)),
                length: 7 + writeCount)
        default:
            return .request(.plain(command), length: 1)
        }
    }
}
