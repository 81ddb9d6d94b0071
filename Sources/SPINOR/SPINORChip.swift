// A serial NOR flash in single-lane SPI: what it answers. What changes it is in SPINORChip+Operations.swift.
// Spec: Macronix MX25L25635F data sheet; JESD216B for its parameter tables.
// Deviates: the dual and quad lanes and the secured OTP area do not exist, and the WP# pin is high.

internal import Serprog
public import Wire

/// The chip's logic: one transaction in, one answer out. A value; who owns it serialises transactions.
public struct SPINORChip: Sendable {
    /// What the chip did since power-on.
    public struct Counters: Sendable, Hashable {
        public var reads: UInt64 = 0
        public var bytesRead: UInt64 = 0
        public var programs: UInt64 = 0
        public var erases: UInt64 = 0
        /// Programs and erases that a latch or a protection bit stopped.
        public var refusedWrites: UInt64 = 0
        public var unknownOpcodes: UInt64 = 0

        public init() {}
    }

    public internal(set) var counters = Counters()
    public let model: SPINORModel
    public let timing: SPINORTiming
    let content: FlashContent
    var status: UInt8
    var configuration: UInt8
    var security: UInt8 = 0
    var extendedAddress: UInt8 = 0
    var isResetEnabled = false
    var isPoweredDown = false
    /// What the chip is busy with.
    var operation: Operation?
    var faults = FlashFaults()
    /// Of what an operation leaves behind that did not come to its end.
    var tearing: TearingPattern

    /// - Parameters:
    ///   - registers: what the chip kept without power.
    ///   - seed: of the bits of interrupted operations.
    public init(
        content: FlashContent, model: SPINORModel = .mx25l25635f, timing: SPINORTiming = .none,
        registers: NonvolatileRegisters = NonvolatileRegisters(), seed: UInt64 = 0
    ) {
        precondition(content.count == model.size, "the content has the chip's size")
        self.content = content
        self.model = model
        self.timing = timing
        tearing = TearingPattern(seed: seed)
        status = registers.status & SPINORModel.Status.writable
        configuration = Self.powerOnConfiguration(registers.configuration)
    }

    /// What stays without power. Spec: data sheet, tables "Status Register" and "Configuration Register".
    public struct NonvolatileRegisters: Sendable, Hashable {
        /// SRWD, QE, BP3…BP0.
        public var status: UInt8
        /// TB.
        public var configuration: UInt8

        public init(status: UInt8 = 0, configuration: UInt8 = 0) {
            self.status = status
            self.configuration = configuration
        }
    }

    public var registers: NonvolatileRegisters {
        NonvolatileRegisters(
            status: status & SPINORModel.Status.writable,
            configuration: configuration & SPINORModel.Configuration.protectFromBottom)
    }

    static func powerOnConfiguration(_ kept: UInt8) -> UInt8 {
        SPINORModel.Configuration.initial | kept & SPINORModel.Configuration.protectFromBottom
    }

    /// Whether addresses of the common opcodes have four bytes.
    public var isIn4ByteMode: Bool { configuration & SPINORModel.Configuration.fourByte != 0 }

    /// One transaction at the moment `now`: `write` in, `readCount` bytes out to the front of `response`, which has
    /// room for them. What the chip does not drive reads as 0xFF.
    public mutating func transact(
        _ write: [UInt8], readCount: Int, into response: inout [UInt8], now: MonotonicTime = .now
    ) {
        precondition(readCount >= 0 && readCount <= response.count, "the response has room for what is read")
        settle(now)
        guard let opcode = write.first, !faults.isSilent else { return fill(&response, readCount) }
        let wasResetEnabled = isResetEnabled
        isResetEnabled = false
        guard operation == nil || Self.opcodesWhileBusy.contains(opcode) else { return fill(&response, readCount) }
        if isPoweredDown, opcode != SPIFlash.readElectronicSignature { return fill(&response, readCount) }
        if respond(opcode, write, readCount, &response) { return }
        fill(&response, readCount)
        // A command that changes something is taken when chip select rises right behind its last byte only.
        guard readCount == 0 else { return }
        execute(opcode, write, wasResetEnabled: wasResetEnabled, now: now)
    }

    /// All that a busy chip takes. Spec: data sheet, "Read Status Register", "Software Reset".
    private static let opcodesWhileBusy: Set<UInt8> = [
        SPIFlash.readStatus, SPIFlash.readConfiguration, SPIFlash.readSecurity, SPIFlash.resetEnable,
        SPIFlash.resetMemory,
    ]

    private func fill(_ response: inout [UInt8], _ count: Int) {
        for index in 0..<count { response[index] = 0xFF }
    }

    // MARK: Opcodes that answer

    private var statusNow: UInt8 { operation == nil ? status : status | SPINORModel.Status.writeInProgress }

    /// True when `opcode` is one that drives the output.
    private mutating func respond(
        _ opcode: UInt8, _ write: [UInt8], _ readCount: Int, _ response: inout [UInt8]
    ) -> Bool {
        switch opcode {
        case SPIFlash.read: read(write, dummies: 0, wide: false, readCount, &response)
        case SPIFlash.fastRead: read(write, dummies: 1, wide: false, readCount, &response)
        case SPIFlash.read4Byte: read(write, dummies: 0, wide: true, readCount, &response)
        case SPIFlash.fastRead4Byte: read(write, dummies: 1, wide: true, readCount, &response)
        case SPIFlash.readIdentification:
            stream(model.identification, after: 1, write, readCount, &response)
        case SPIFlash.readElectronicSignature:
            isPoweredDown = false
            stream([model.electronicSignature], after: 4, write, readCount, &response)
        case SPIFlash.readManufacturerAndDevice:
            let both = [model.identification[0], model.electronicSignature]
            let isSwapped = write.count > 3 && write[3] & 1 != 0
            stream(isSwapped ? both.reversed() : both, after: 4, write, readCount, &response)
        case SPIFlash.readStatus: stream([statusNow], after: 1, write, readCount, &response)
        case SPIFlash.readConfiguration: stream([configuration], after: 1, write, readCount, &response)
        case SPIFlash.readSecurity: stream([security], after: 1, write, readCount, &response)
        case SPIFlash.readExtendedAddress: stream([extendedAddress], after: 1, write, readCount, &response)
        case SPIFlash.readSFDP: readSFDP(write, readCount, &response)
        default: return false
        }
        return true
    }

    /// Repeats `bytes` from the `head`th clocked byte on; bytes before that, and those clocked in while the master
    /// still sends, are lost to it.
    private func stream(
        _ bytes: [UInt8], after head: Int, _ write: [UInt8], _ readCount: Int, _ response: inout [UInt8]
    ) {
        for index in 0..<readCount {
            let position = write.count + index - head
            response[index] = position < 0 ? 0xFF : bytes[position % bytes.count]
        }
    }

    private mutating func read(
        _ write: [UInt8], dummies: Int, wide: Bool, _ readCount: Int, _ response: inout [UInt8]
    ) {
        let addressLength = wide || isIn4ByteMode ? 4 : 3
        let head = 1 + addressLength + dummies
        guard let address = address(write, length: addressLength) else { return fill(&response, readCount) }
        counters.reads &+= 1
        counters.bytesRead &+= UInt64(readCount)
        // The master may clock dummy or data bytes as part of either phase.
        let undriven = min(max(head - write.count, 0), readCount)
        let skipped = max(write.count - head, 0)
        fill(&response, undriven)
        let start = (address + skipped) % content.count
        content.read(start, readCount - undriven, into: &response, at: undriven)
        faults.apply(to: &response, at: undriven, count: readCount - undriven, from: start, of: content.count)
    }

    private func readSFDP(_ write: [UInt8], _ readCount: Int, _ response: inout [UInt8]) {
        let head = 5
        let table = SFDPTable.bytes(of: model)
        guard write.count >= 4 else { return fill(&response, readCount) }
        let address = Int(write[1]) << 16 | Int(write[2]) << 8 | Int(write[3])
        for index in 0..<readCount {
            let position = write.count + index - head
            let place = address + position
            response[index] =
                position >= 0 && place < table.count ? table[place] : 0xFF
        }
    }

    /// The address behind the opcode, within the chip; nil when it is not all there.
    func address(_ write: [UInt8], length: Int) -> Int? {
        guard write.count > length else { return nil }
        var address = write[1...length].reduce(0) { $0 << 8 | Int($1) }
        if length == 3 { address |= Int(extendedAddress) << 24 }
        return address % content.count
    }
}
