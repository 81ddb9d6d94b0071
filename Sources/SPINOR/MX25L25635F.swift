// The Macronix MX25L25635F: a 32 MiB serial NOR flash, in single-lane SPI.
// Spec: Macronix MX25L25635F data sheet; JESD216B for its parameter tables.
// Deviates: programs and erases complete at once (WIP is never seen set), the dual and quad lanes and the secured
// OTP area do not exist, and the WP# pin is high.

internal import Serprog

/// The numbers of the chip.
public enum MX25L25635F {
    /// 32 MiB.
    public static let size = 32 * 1024 * 1024
    /// A page program wraps within this many bytes.
    public static let pageSize = 256
    /// Manufacturer, memory type, density. Spec: data sheet, "ID definitions".
    public static let identification: [UInt8] = [0xC2, 0x20, 0x19]
    static let manufacturer: UInt8 = 0xC2
    static let electronicSignature: UInt8 = 0x18

    /// Status register: SRWD 7, QE 6, BP3…BP0 5…2, WEL 1, WIP 0.
    enum Status {
        static let writeEnableLatch: UInt8 = 0x02
        static let blockProtect: UInt8 = 0x3C
        /// What WRSR may change.
        static let writable: UInt8 = 0xFC
    }

    /// Configuration register: DC1…DC0 7…6, 4BYTE 5, PBE 4, TB 3 (one-time programmable), ODS2…ODS0 2…0.
    enum Configuration {
        static let fourByte: UInt8 = 0x20
        static let protectFromBottom: UInt8 = 0x08
        /// What WRSR may change; TB can only be set.
        static let writable: UInt8 = 0xD7
        /// As shipped: output driver strength 111.
        static let initial: UInt8 = 0x07
    }
}

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

    public private(set) var counters = Counters()
    private let content: FlashContent
    private var status: UInt8 = 0
    private var configuration = MX25L25635F.Configuration.initial
    private var extendedAddress: UInt8 = 0
    private var isResetEnabled = false
    private var isPoweredDown = false

    public init(content: FlashContent) {
        precondition(content.count == MX25L25635F.size, "the content has the chip's size")
        self.content = content
    }

    /// Whether addresses of the common opcodes have four bytes.
    public var isIn4ByteMode: Bool { configuration & MX25L25635F.Configuration.fourByte != 0 }

    /// One transaction: `write` in, `readCount` bytes out to the front of `response`, which has room for them. What
    /// the chip does not drive reads as 0xFF.
    public mutating func transact(_ write: [UInt8], readCount: Int, into response: inout [UInt8]) {
        precondition(readCount >= 0 && readCount <= response.count, "the response has room for what is read")
        guard let opcode = write.first else { return fill(&response, readCount) }
        let wasResetEnabled = isResetEnabled
        isResetEnabled = false
        if isPoweredDown, opcode != SPIFlash.readElectronicSignature { return fill(&response, readCount) }
        if respond(opcode, write, readCount, &response) { return }
        fill(&response, readCount)
        // A command that changes something is taken when chip select rises right behind its last byte only.
        guard readCount == 0 else { return }
        execute(opcode, write, wasResetEnabled: wasResetEnabled)
    }

    private func fill(_ response: inout [UInt8], _ count: Int) {
        for index in 0..<count { response[index] = 0xFF }
    }

    // MARK: Opcodes that answer

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
            stream(MX25L25635F.identification, after: 1, write, readCount, &response)
        case SPIFlash.readElectronicSignature:
            isPoweredDown = false
            stream([MX25L25635F.electronicSignature], after: 4, write, readCount, &response)
        case SPIFlash.readManufacturerAndDevice:
            let both = [MX25L25635F.manufacturer, MX25L25635F.electronicSignature]
            let isSwapped = write.count > 3 && write[3] & 1 != 0
            stream(isSwapped ? both.reversed() : both, after: 4, write, readCount, &response)
        case SPIFlash.readStatus: stream([status], after: 1, write, readCount, &response)
        case SPIFlash.readConfiguration: stream([configuration], after: 1, write, readCount, &response)
        case SPIFlash.readSecurity: stream([0], after: 1, write, readCount, &response)
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
        content.read(
            (address + skipped) % content.count, readCount - undriven, into: &response, at: undriven)
    }

    private func readSFDP(_ write: [UInt8], _ readCount: Int, _ response: inout [UInt8]) {
        let head = 5
        guard write.count >= 4 else { return fill(&response, readCount) }
        let address = Int(write[1]) << 16 | Int(write[2]) << 8 | Int(write[3])
        for index in 0..<readCount {
            let position = write.count + index - head
            let place = address + position
            response[index] =
                position >= 0 && place < SFDPTable.bytes.count ? SFDPTable.bytes[place] : 0xFF
        }
    }

    /// The address behind the opcode, within the chip; nil when it is not all there.
    private func address(_ write: [UInt8], length: Int) -> Int? {
        guard write.count > length else { return nil }
        var address = write[1...length].reduce(0) { $0 << 8 | Int($1) }
        if length == 3 { address |= Int(extendedAddress) << 24 }
        return address % content.count
    }

    // MARK: Opcodes that change something

    private mutating func execute(_ opcode: UInt8, _ write: [UInt8], wasResetEnabled: Bool) {
        switch opcode {
        case SPIFlash.writeEnable where write.count == 1: status |= MX25L25635F.Status.writeEnableLatch
        case SPIFlash.writeDisable where write.count == 1: status &= ~MX25L25635F.Status.writeEnableLatch
        case SPIFlash.enter4ByteMode where write.count == 1:
            configuration |= MX25L25635F.Configuration.fourByte
        case SPIFlash.exit4ByteMode where write.count == 1:
            configuration &= ~MX25L25635F.Configuration.fourByte
        case SPIFlash.resetEnable where write.count == 1: isResetEnabled = true
        case SPIFlash.resetMemory where write.count == 1: if wasResetEnabled { reset() }
        case SPIFlash.deepPowerDown where write.count == 1: isPoweredDown = true
        case SPIFlash.noOperation: break
        case SPIFlash.writeExtendedAddress where write.count == 2:
            // Two segments of 16 MiB: the other bits do not exist.
            whenEnabled { $0.extendedAddress = write[1] & 0x01 }
        case SPIFlash.writeStatus where write.count == 2 || write.count == 3: writeStatus(write)
        case SPIFlash.pageProgram: program(write, addressLength: isIn4ByteMode ? 4 : 3)
        case SPIFlash.pageProgram4Byte: program(write, addressLength: 4)
        case SPIFlash.sectorErase: erase(write, 4 * 1024, wide: false)
        case SPIFlash.sectorErase4Byte: erase(write, 4 * 1024, wide: true)
        case SPIFlash.blockErase32K: erase(write, 32 * 1024, wide: false)
        case SPIFlash.blockErase32K4Byte: erase(write, 32 * 1024, wide: true)
        case SPIFlash.blockErase64K: erase(write, 64 * 1024, wide: false)
        case SPIFlash.blockErase64K4Byte: erase(write, 64 * 1024, wide: true)
        case SPIFlash.chipErase where write.count == 1,
            SPIFlash.chipEraseAlternative where write.count == 1:
            eraseAll()
        default: counters.unknownOpcodes &+= 1
        }
    }

    /// Back to power-on, except what is non-volatile: BP, SRWD, QE and TB. Spec: data sheet, "Software Reset".
    private mutating func reset() {
        status &= ~MX25L25635F.Status.writeEnableLatch
        configuration =
            MX25L25635F.Configuration.initial | configuration & MX25L25635F.Configuration.protectFromBottom
        extendedAddress = 0
    }

    /// Runs `body` when the write enable latch is set, and clears the latch.
    private mutating func whenEnabled(_ body: (inout SPINORChip) -> Void) {
        guard status & MX25L25635F.Status.writeEnableLatch != 0 else {
            counters.refusedWrites &+= 1
            return
        }
        body(&self)
        status &= ~MX25L25635F.Status.writeEnableLatch
    }

    private mutating func writeStatus(_ write: [UInt8]) {
        whenEnabled { chip in
            chip.status = write[1] & MX25L25635F.Status.writable
            guard write.count == 3 else { return }
            let kept = chip.configuration & ~MX25L25635F.Configuration.writable
            chip.configuration =
                kept | write[2] & MX25L25635F.Configuration.writable
                | write[2] & MX25L25635F.Configuration.protectFromBottom
        }
    }

    /// The addresses that BP3…BP0 and TB keep from change. Spec: data sheet, table "Protected Area Sizes".
    private var protectedRange: Range<Int> {
        let level = Int(status & MX25L25635F.Status.blockProtect) >> 2
        guard level > 0 else { return 0..<0 }
        let length = min((64 * 1024) << (level - 1), content.count)
        let isBottom = configuration & MX25L25635F.Configuration.protectFromBottom != 0
        return isBottom ? 0..<length : content.count - length..<content.count
    }

    private mutating func program(_ write: [UInt8], addressLength: Int) {
        guard let address = address(write, length: addressLength), write.count > 1 + addressLength else { return }
        whenEnabled { chip in
            let page = address & ~(MX25L25635F.pageSize - 1)
            guard !chip.protectedRange.contains(page) else {
                chip.counters.refusedWrites &+= 1
                return
            }
            chip.counters.programs &+= 1
            // Of more than a page, the last page's worth counts; the address wraps within the page.
            var place = address & (MX25L25635F.pageSize - 1)
            let data = write[(1 + addressLength)...]
            place = (place + max(data.count - MX25L25635F.pageSize, 0)) % MX25L25635F.pageSize
            for byte in data.suffix(MX25L25635F.pageSize) {
                chip.content.program(page + place, byte)
                place = (place + 1) % MX25L25635F.pageSize
            }
        }
    }

    private mutating func erase(_ write: [UInt8], _ size: Int, wide: Bool) {
        let addressLength = wide || isIn4ByteMode ? 4 : 3
        guard write.count == 1 + addressLength, let address = address(write, length: addressLength) else { return }
        whenEnabled { chip in
            let start = address & ~(size - 1)
            guard !chip.protectedRange.overlaps(start..<start + size) else {
                chip.counters.refusedWrites &+= 1
                return
            }
            chip.counters.erases &+= 1
            chip.content.erase(start..<start + size)
        }
    }

    private mutating func eraseAll() {
        whenEnabled { chip in
            guard chip.protectedRange.isEmpty else {
                chip.counters.refusedWrites &+= 1
                return
            }
            chip.counters.erases &+= 1
            chip.content.erase(0..<chip.content.count)
        }
    }
}
