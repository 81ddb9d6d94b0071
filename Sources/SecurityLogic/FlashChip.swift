internal import Glibc
public import Serprog
internal import Synchronization
internal import Wire

/// The chip as the logic itself uses it: its size, reading, erasing and programming with status polling, and the order
/// between those who write and those who read.
///
/// A chip that is busy drives nothing sensible: a read waits until what was written before it is done. Calls wait for
/// the chip; from any thread but the control path's.
public final class FlashChip: Sendable {
    /// The longest that a chip may be busy: the whole-chip erase of a 32 MiB part, 300 s at the most in its data sheet.
    static let busyLimit = Duration.seconds(300)

    private struct State {
        /// Something was written, and the chip has not been seen ready since.
        var mayBeBusy = false
    }

    private let own: FlashLink
    private let digests: PageDigests
    private let knownBytes = Mutex<UInt64?>(nil)
    /// Held by those who write, and by those who read in pieces.
    private let order = Mutex(State())

    init(_ connect: @escaping @Sendable () throws(WireError) -> Socket, _ digests: PageDigests) {
        own = FlashLink(connect)
        self.digests = digests
    }

    // MARK: Size

    var knownSize: UInt64? { knownBytes.withLock { $0 } }

    /// Its capacity in bytes, as it says itself.
    ///
    /// Spec: JEDEC JEP106 (manufacturer) and the capacity byte that all large SPI NOR makers use: its power of two.
    public func size() throws(SPITargetError) -> UInt64 {
        if let known = knownSize { return known }
        let identification = try own.transact([SPIFlash.readIdentification], 3)
        // 64 KiB to 2 GiB, as everywhere on the board.
        guard identification.count == 3, (16...31).contains(identification[2]) else {
            throw SPITargetError("the flash chip does not say how large it is")
        }
        let size = UInt64(1) << UInt64(identification[2])
        knownBytes.withLock { $0 = size }
        return size
    }

    // MARK: Order

    /// FAST READ with a four-byte address.
    static func reading(_ address: UInt64) -> [UInt8] {
        [SPIFlash.fastRead4Byte] + SPIFlash.addressBytes(UInt32(truncatingIfNeeded: address)) + [0]
    }

    /// Runs `body`, which reads by `link`, while nobody writes.
    func reading(_ link: FlashLink, _ body: () throws(SPITargetError) -> Void) throws(SPITargetError) {
        try order.withLock { (state) throws(SPITargetError) in
            try Self.waitUntilReady(&state, link)
            try body()
        }
    }

    /// Waits until what was written before is done; for a reader at a time when nobody writes.
    func waitUntilReady(_ link: FlashLink) throws(SPITargetError) {
        try order.withLock { (state) throws(SPITargetError) in try Self.waitUntilReady(&state, link) }
    }

    /// Passes a master's instruction that may change something; its master polls the status itself.
    func writing(_ link: FlashLink, _ write: [UInt8]) throws(SPITargetError) {
        try order.withLock { (state) throws(SPITargetError) in
            state.mayBeBusy = true
            _ = try link.transact(write)
        }
    }

    private static func waitUntilReady(_ state: inout State, _ link: FlashLink) throws(SPITargetError) {
        guard state.mayBeBusy else { return }
        let deadline = MonotonicTime.after(busyLimit)
        var pause: UInt32 = 0
        while true {
            let status = try link.transact([SPIFlash.readStatus], 1).first ?? 0xFF
            guard status != 0xFF else { throw SPITargetError("no flash chip answers") }
            if status & SPIFlash.statusBusy == 0 { break }
            guard MonotonicTime.now < deadline else { throw SPITargetError("the flash chip is busy without end") }
            // The interval of polling: none for a page program, up to a millisecond for an erase.
            if pause > 0 { usleep(pause) }
            pause = min(pause + 20, 1000)
        }
        state.mayBeBusy = false
    }

    // MARK: The logic's own use

    /// Reads `count` bytes from `address`, in pieces, and digests the whole pages that pass when `recording`.
    public func read(
        _ address: UInt64, _ count: UInt64, recording: Bool = false, _ body: (RawSpan) -> Void
    ) throws(SPITargetError) {
        let size = try size()
        guard address <= size, count <= size - address else {
            throw SPITargetError("bytes \(address) to \(address &+ count) of a flash chip of \(size)")
        }
        let recorder = recording ? try? PageRecorder(digests) : nil
        if recording, recorder == nil { throw SPITargetError("no page can be digested: OpenSSL failed") }
        try waitUntilReady(own)
        recorder?.begin(address)
        try own.readFlash(UInt32(truncatingIfNeeded: address), Int(count)) { piece in
            recorder?.take(piece)
            body(piece)
        }
    }

    /// Erases the block of 4 KiB or 64 KiB at `address`, and waits until it is done.
    public func erase(_ address: UInt64, count: UInt64) throws(SPITargetError) {
        let isBlock = count == 64 << 10
        precondition(isBlock || count == 4 << 10, "a chip erases 4 KiB or 64 KiB")
        precondition(address % count == 0, "an erase begins at a multiple of its size")
        try change(
            [isBlock ? SPIFlash.blockErase64K4Byte : SPIFlash.sectorErase4Byte]
                + SPIFlash.addressBytes(UInt32(truncatingIfNeeded: address)), at: address)
    }

    /// Programs at most a page's bytes from `address`, within one page, and waits until it is done.
    public func program(_ address: UInt64, _ bytes: ArraySlice<UInt8>) throws(SPITargetError) {
        precondition(
            !bytes.isEmpty
                && Int(address % UInt64(FlashInstruction.pageSize)) + bytes.count
                    <= FlashInstruction.pageSize,
            "a program stays within its page")
        try change(
            [SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(UInt32(truncatingIfNeeded: address)) + bytes,
            at: address)
    }

    private func change(_ instruction: [UInt8], at address: UInt64) throws(SPITargetError) {
        let size = try size()
        guard address < size else { throw SPITargetError("address \(address) of a flash chip of \(size) bytes") }
        try order.withLock { (state) throws(SPITargetError) in
            try Self.waitUntilReady(&state, own)
            _ = try own.transact([SPIFlash.writeEnable])
            state.mayBeBusy = true
            _ = try own.transact(instruction)
            try Self.waitUntilReady(&state, own)
        }
    }
}
