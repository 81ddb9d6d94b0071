internal import Serprog

/// What an SPI instruction may do to a chip: the kinds of permission that rules give.
public struct FlashOperations: OptionSet, Sendable, Hashable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Reading content, identification and registers.
    public static let read = FlashOperations(rawValue: 1)
    public static let program = FlashOperations(rawValue: 2)
    public static let erase = FlashOperations(rawValue: 4)
    /// Writing the status and configuration registers: block protection.
    public static let registers = FlashOperations(rawValue: 8)

    /// All that changes something in the chip.
    public static let writes: FlashOperations = [.program, .erase, .registers]
    /// Names as a rules file has them.
    public static let names: [(String, FlashOperations)] = [
        ("read", .read), ("program", .program), ("erase", .erase), ("registers", .registers),
    ]
}

/// One SPI transaction as the gate understands it: what it does, and to which bytes of the chip.
///
/// Instructions that change how the chip understands later ones (address mode, extended address, reset, power-down)
/// are not among them, so an address means one thing: with three bytes the first 16 MiB, with four the whole chip.
/// What the gate lets pass goes to the chip with four address bytes, whatever mode the chip was left in by others.
/// Spec: JESD216 §6.4; Macronix MX25L25635F data sheet, table 5.
public struct FlashInstruction: Sendable, Hashable {
    public enum Effect: Sendable, Hashable {
        /// Answers with what does not depend on the content: identification, parameters, registers.
        case query
        /// Answers with the status register.
        case status
        /// Answers `count` bytes of content from `address`, after `undriven` bytes that nobody drives.
        case read(address: UInt64, count: Int, undriven: Int)
        /// Sets or clears the write enable latch.
        case latch
        /// Programs `bytes` bytes from `address`, within one page.
        case program(address: UInt64, count: Int)
        case erase(address: UInt64, count: UInt64)
        case eraseChip
        case writeRegister
    }

    /// Why a transaction is no instruction that a gate lets pass, whoever asks.
    public enum Refusal: Error, Sendable, Hashable {
        /// Unknown, or one that changes the chip's modes.
        case opcode
        /// The address is not all there, or there are more or fewer bytes than the instruction has.
        case length
    }

    public let opcode: UInt8
    public let effect: Effect

    /// A page program wraps within a page of so many bytes; one that would is refused.
    public static let pageSize = 256

    /// Opcodes that any rule may name: those that change no mode of the chip.
    public static let opcodes: Set<UInt8> = reading.union(writing)
    /// Opcodes that change nothing, neither content nor a register nor a mode.
    public static let reading: Set<UInt8> = [
        SPIFlash.readIdentification, SPIFlash.readManufacturerAndDevice, SPIFlash.readSFDP, SPIFlash.read,
        SPIFlash.fastRead, SPIFlash.read4Byte, SPIFlash.fastRead4Byte, SPIFlash.readStatus,
        SPIFlash.readConfiguration, SPIFlash.readSecurity, SPIFlash.readExtendedAddress, SPIFlash.noOperation,
    ]
    public static let writing: Set<UInt8> = [
        SPIFlash.writeEnable, SPIFlash.writeDisable, SPIFlash.writeStatus, SPIFlash.pageProgram,
        SPIFlash.pageProgram4Byte, SPIFlash.sectorErase, SPIFlash.sectorErase4Byte, SPIFlash.blockErase32K,
        SPIFlash.blockErase32K4Byte, SPIFlash.blockErase64K, SPIFlash.blockErase64K4Byte, SPIFlash.chipErase,
        SPIFlash.chipEraseAlternative,
    ]

    /// Understands a transaction of `write` bytes out and `readCount` bytes in.
    public init(_ write: [UInt8], readCount: Int) throws(Refusal) {
        guard let opcode = write.first else { throw .length }
        self.opcode = opcode
        switch opcode {
        case SPIFlash.readIdentification, SPIFlash.readManufacturerAndDevice, SPIFlash.readSFDP,
            SPIFlash.readConfiguration, SPIFlash.readSecurity, SPIFlash.readExtendedAddress, SPIFlash.noOperation:
            effect = .query
        case SPIFlash.readStatus: effect = .status
        case SPIFlash.read: effect = try Self.read(write, addressLength: 3, dummies: 0, readCount)
        case SPIFlash.fastRead: effect = try Self.read(write, addressLength: 3, dummies: 1, readCount)
        case SPIFlash.read4Byte: effect = try Self.read(write, addressLength: 4, dummies: 0, readCount)
        case SPIFlash.fastRead4Byte: effect = try Self.read(write, addressLength: 4, dummies: 1, readCount)
        case SPIFlash.writeEnable, SPIFlash.writeDisable:
            guard write.count == 1, readCount == 0 else { throw .length }
            effect = .latch
        case SPIFlash.writeStatus:
            guard write.count == 2 || write.count == 3, readCount == 0 else { throw .length }
            effect = .writeRegister
        case SPIFlash.pageProgram: effect = try Self.program(write, addressLength: 3, readCount)
        case SPIFlash.pageProgram4Byte: effect = try Self.program(write, addressLength: 4, readCount)
        case SPIFlash.sectorErase: effect = try Self.erase(write, 3, 4 << 10, readCount)
        case SPIFlash.sectorErase4Byte: effect = try Self.erase(write, 4, 4 << 10, readCount)
        case SPIFlash.blockErase32K: effect = try Self.erase(write, 3, 32 << 10, readCount)
        case SPIFlash.blockErase32K4Byte: effect = try Self.erase(write, 4, 32 << 10, readCount)
        case SPIFlash.blockErase64K: effect = try Self.erase(write, 3, 64 << 10, readCount)
        case SPIFlash.blockErase64K4Byte: effect = try Self.erase(write, 4, 64 << 10, readCount)
        case SPIFlash.chipErase, SPIFlash.chipEraseAlternative:
            guard write.count == 1, readCount == 0 else { throw .length }
            effect = .eraseChip
        default: throw .opcode
        }
    }

    /// What must be allowed for it to pass; the latch goes with any writing.
    public var operation: FlashOperations {
        switch effect {
        case .query, .status, .read: .read
        case .latch: .writes
        case .program: .program
        case .erase, .eraseChip: .erase
        case .writeRegister: .registers
        }
    }

    /// `write` with the four-byte opcode and address of the same instruction.
    func withWideAddress(_ write: [UInt8]) -> [UInt8] {
        let wide: UInt8? =
            switch opcode {
            case SPIFlash.pageProgram: SPIFlash.pageProgram4Byte
            case SPIFlash.sectorErase: SPIFlash.sectorErase4Byte
            case SPIFlash.blockErase32K: SPIFlash.blockErase32K4Byte
            case SPIFlash.blockErase64K: SPIFlash.blockErase64K4Byte
            default: nil
            }
        guard let wide, write.count >= 4 else { return write }
        return [wide, 0] + write[1...]
    }

    // MARK: Fields

    private static func address(_ write: [UInt8], _ length: Int) throws(Refusal) -> UInt64 {
        guard write.count > length else { throw .length }
        return write[1...length].reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The master may clock dummy or data bytes as part of either phase.
    private static func read(
        _ write: [UInt8], addressLength: Int, dummies: Int, _ readCount: Int
    ) throws(Refusal) -> Effect {
        let address = try address(write, addressLength)
        let head = 1 + addressLength + dummies
        let undriven = min(max(head - write.count, 0), readCount)
        let skipped = UInt64(max(write.count - head, 0))
        return .read(address: address + skipped, count: readCount - undriven, undriven: undriven)
    }

    private static func program(_ write: [UInt8], addressLength: Int, _ readCount: Int) throws(Refusal) -> Effect {
        let address = try address(write, addressLength)
        let count = write.count - 1 - addressLength
        guard count > 0, readCount == 0, Int(address % UInt64(pageSize)) + count <= pageSize else { throw .length }
        return .program(address: address, count: count)
    }

    private static func erase(
        _ write: [UInt8], _ addressLength: Int, _ size: UInt64, _ readCount: Int
    ) throws(Refusal) -> Effect {
        guard write.count == 1 + addressLength, readCount == 0 else { throw .length }
        return .erase(address: try address(write, addressLength) & ~(size - 1), count: size)
    }
}
