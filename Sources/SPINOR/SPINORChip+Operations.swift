// What changes the chip. A program or an erase is under way from its last byte until its time is over (WIP); the memory
// holds a torn state meanwhile, so that a loss of power, be it a fault or the end of the process, finds what it would
// find in hardware.

internal import Serprog
public import Wire

extension SPINORChip {
    /// A program, an erase or a write of the registers that is under way.
    struct Operation: Sendable {
        enum Kind: Sendable {
            /// The page's first address, and its new bits: 0xFF where nothing changes.
            case program(page: Int, data: [UInt8])
            case erase(Range<Int>)
            case registers(NonvolatileRegisters, configuration: UInt8)
        }

        var kind: Kind
        var end: MonotonicTime
    }

    /// When the operation under way ends; nil when there is none.
    public var busyUntil: MonotonicTime? { operation?.end }

    /// Ends the operation whose time is over.
    public mutating func settle(_ now: MonotonicTime) {
        guard let current = operation, current.end <= now else { return }
        operation = nil
        finish(current.kind)
    }

    mutating func execute(_ opcode: UInt8, _ write: [UInt8], wasResetEnabled: Bool, now: MonotonicTime) {
        switch opcode {
        case SPIFlash.writeEnable where write.count == 1: status |= SPINORModel.Status.writeEnableLatch
        case SPIFlash.writeDisable where write.count == 1: status &= ~SPINORModel.Status.writeEnableLatch
        case SPIFlash.enter4ByteMode where write.count == 1:
            configuration |= SPINORModel.Configuration.fourByte
        case SPIFlash.exit4ByteMode where write.count == 1:
            configuration &= ~SPINORModel.Configuration.fourByte
        case SPIFlash.resetEnable where write.count == 1: isResetEnabled = true
        case SPIFlash.resetMemory where write.count == 1: if wasResetEnabled { reset() }
        case SPIFlash.deepPowerDown where write.count == 1: isPoweredDown = true
        case SPIFlash.noOperation: break
        case SPIFlash.writeExtendedAddress where write.count == 2:
            guard isWriteEnabled() else { return }
            // Segments of 16 MiB: the other bits do not exist.
            extendedAddress = write[1] & UInt8(model.size / 0x100_0000 - 1)
            status &= ~SPINORModel.Status.writeEnableLatch
        case SPIFlash.writeStatus where write.count == 2 || write.count == 3: writeStatus(write, now)
        case SPIFlash.pageProgram: program(write, addressLength: isIn4ByteMode ? 4 : 3, now)
        case SPIFlash.pageProgram4Byte: program(write, addressLength: 4, now)
        case SPIFlash.sectorErase: erase(write, SPINORModel.sectorSize, wide: false, now)
        case SPIFlash.sectorErase4Byte: erase(write, SPINORModel.sectorSize, wide: true, now)
        case SPIFlash.blockErase32K: erase(write, SPINORModel.smallBlockSize, wide: false, now)
        case SPIFlash.blockErase32K4Byte: erase(write, SPINORModel.smallBlockSize, wide: true, now)
        case SPIFlash.blockErase64K: erase(write, SPINORModel.blockSize, wide: false, now)
        case SPIFlash.blockErase64K4Byte: erase(write, SPINORModel.blockSize, wide: true, now)
        case SPIFlash.chipErase where write.count == 1,
            SPIFlash.chipEraseAlternative where write.count == 1:
            erase(0..<content.count, now)
        default: counters.unknownOpcodes &+= 1
        }
    }

    /// Back to power-on, except what is non-volatile: BP, SRWD, QE and TB; an operation under way is cut off.
    /// Spec: data sheet, "Software Reset".
    mutating func reset() {
        operation = nil
        status &= ~SPINORModel.Status.writeEnableLatch
        configuration = Self.powerOnConfiguration(configuration)
        security = 0
        extendedAddress = 0
        isResetEnabled = false
        isPoweredDown = false
    }

    private mutating func isWriteEnabled() -> Bool {
        if status & SPINORModel.Status.writeEnableLatch != 0 { return true }
        counters.refusedWrites &+= 1
        return false
    }

    // MARK: Beginning

    private mutating func writeStatus(_ write: [UInt8], _ now: MonotonicTime) {
        guard isWriteEnabled() else { return }
        var new = configuration
        if write.count == 3 {
            new = configuration & ~SPINORModel.Configuration.writable | write[2] & SPINORModel.Configuration.writable
            new |= write[2] & SPINORModel.Configuration.protectFromBottom
        }
        let registers = NonvolatileRegisters(status: write[1] & SPINORModel.Status.writable, configuration: new)
        begin(.registers(registers, configuration: new), timing.writeStatus, now)
    }

    /// The addresses that BP3…BP0 and TB keep from change. Spec: data sheet, table "Protected Area Sizes".
    private var protectedRange: Range<Int> {
        let level = Int(status & SPINORModel.Status.blockProtect) >> 2
        guard level > 0 else { return 0..<0 }
        let length = min(SPINORModel.blockSize << (level - 1), content.count)
        let isBottom = configuration & SPINORModel.Configuration.protectFromBottom != 0
        return isBottom ? 0..<length : content.count - length..<content.count
    }

    private mutating func program(_ write: [UInt8], addressLength: Int, _ now: MonotonicTime) {
        guard let address = address(write, length: addressLength), write.count > 1 + addressLength,
            isWriteEnabled()
        else { return }
        let page = address & ~(SPINORModel.pageSize - 1)
        guard !protectedRange.contains(page) else { return refuse(SPINORModel.Security.programFailed) }
        counters.programs &+= 1
        // Of more than a page, the last page's worth counts; the address wraps within the page.
        let sent = write[(1 + addressLength)...]
        let surplus = max(sent.count - SPINORModel.pageSize, 0)
        var place = ((address - page) + surplus) % SPINORModel.pageSize
        var data = [UInt8](repeating: 0xFF, count: SPINORModel.pageSize)
        for byte in sent.suffix(SPINORModel.pageSize) {
            data[place] = byte
            place = (place + 1) % SPINORModel.pageSize
        }
        begin(.program(page: page, data: data), timing.program(bytes: sent.count), now)
    }

    private mutating func erase(_ write: [UInt8], _ size: Int, wide: Bool, _ now: MonotonicTime) {
        let addressLength = wide || isIn4ByteMode ? 4 : 3
        guard write.count == 1 + addressLength, let address = address(write, length: addressLength) else { return }
        let start = address & ~(size - 1)
        erase(start..<start + size, now)
    }

    private mutating func erase(_ range: Range<Int>, _ now: MonotonicTime) {
        guard isWriteEnabled() else { return }
        guard !protectedRange.overlaps(range) else { return refuse(SPINORModel.Security.eraseFailed) }
        counters.erases &+= 1
        begin(.erase(range), timing.erase(range.count, of: model), now)
    }

    /// A protected place: the latch falls, the security register tells. Spec: data sheet, "Security Register".
    private mutating func refuse(_ flag: UInt8) {
        counters.refusedWrites &+= 1
        security |= flag
        status &= ~SPINORModel.Status.writeEnableLatch
    }

    private mutating func begin(_ kind: Operation.Kind, _ duration: Duration, _ now: MonotonicTime) {
        let cut = faults.countWrite()
        let isInstant = duration == .zero && !cut
        guard !isInstant else { return finish(kind) }
        tear(kind)
        guard !cut else { return losePower() }
        operation = Operation(kind: kind, end: now + duration)
    }

    // MARK: Ending

    private mutating func finish(_ kind: Operation.Kind) {
        status &= ~SPINORModel.Status.writeEnableLatch
        switch kind {
        case .program(let page, let data):
            for (offset, byte) in data.enumerated() where byte != 0xFF { content.program(page + offset, byte) }
            report(SPINORModel.Security.programFailed, page..<page + data.count)
        case .erase(let range):
            content.erase(range)
            report(SPINORModel.Security.eraseFailed, range)
        case .registers(let registers, let new):
            status = registers.status
            configuration = new
        }
    }

    /// The chip verifies what it did: a stuck bit that should be another is a failure.
    private mutating func report(_ flag: UInt8, _ range: Range<Int>) {
        let failed = faults.stuck(in: range).contains { bits in
            let byte = content[bits.address]
            return bits.apply(to: byte) != byte
        }
        if failed { security |= flag } else { security &= ~flag }
    }

    /// What an operation that does not come to its end leaves: of the bits that should change, any may have.
    private mutating func tear(_ kind: Operation.Kind) {
        switch kind {
        case .program(let page, let data):
            for (offset, byte) in data.enumerated() where byte != 0xFF {
                content.program(page + offset, byte | tearing.byte())
            }
        case .erase(let range):
            content.set(range) { tearing.word() }
        case .registers: break
        }
    }

    // MARK: Power

    /// The supply falls: what is under way stays torn, and the chip answers nothing until ``powerOn()``.
    public mutating func losePower() {
        reset()
        faults.isPowered = false
    }

    /// The supply comes back.
    public mutating func powerOn() {
        reset()
        faults.isPowered = true
    }

    /// Whether the chip has a supply.
    public var isPowered: Bool { faults.isPowered }
}

/// Bits that repeat from their seed (SplitMix64).
struct TearingPattern: Sendable {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func word() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: word()) }
}
