// The window through which harts execute out of the flash chip.
//
// Model: read-only memory whose pages are made when a hart first touches them, out of a flash that answers slowly over a
// wire. One wire transaction brings a chunk of pages, because firmware copies itself from front to back. A store into
// the window is an access fault, as the memory attributes of a read-only region say; what the chip holds is changed over
// its own wire only. The surprise: what was read stays until `forget`, even when the chip changes behind it, so
// a running machine never sees firmware change under it; reset looks again.
import RISCV
import Synchronization
public import Wire

/// Reads the chip behind the window. Called on a hart thread, one call at a time; may block for a wire transaction.
public protocol FlashReader: AnyObject, Sendable {
    /// Fills `buffer` with what the chip holds from `offset`.
    func read(offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws
}

/// A read-only, demand-filled memory region in front of a `FlashReader`.
public final class FlashWindow: Sendable {
    /// Bytes a wire transaction: 16 pages, some 100 µs of a serprog link's time for each saves 15 round trips.
    static let chunkSize = 65_536

    private struct State {
        /// The chunk in `staging`, or nil.
        var chunk: Int?
        var lastError: String?
    }

    private let memory: SharedMemory
    private let staging: SharedMemory
    private let reader: any FlashReader
    private let onFailure: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// `onFailure` hears of every new reason why the flash cannot be read; the hart takes an access fault.
    public init(reader: any FlashReader, onFailure: @escaping @Sendable (String) -> Void) throws(WireError) {
        memory = try SharedMemory(create: "flash-window", size: Int(MemoryMap.flash.size))
        staging = try SharedMemory(create: "flash-chunk", size: Self.chunkSize)
        self.reader = reader
        self.onFailure = onFailure
    }

    /// Adds the window to the map; `self` must live as long as the harts.
    func map(into space: PhysicalAddressSpace) {
        // Safety: the mapping has the region's size and lives as long as `self`.
        unsafe space.addMemory(
            base: MemoryMap.flash.base, size: MemoryMap.flash.size, host: memory.mapping.baseAddress,
            permissions: .readOnly
        ) { [unowned self] page in self.fill(page: page) }
    }

    /// Drops the chunk that was read ahead. `PhysicalAddressSpace.invalidateFilledPages` drops the pages.
    func forget() {
        state.withLock { $0 = State() }
    }

    private func fill(page: Int) -> Bool {
        let start = page * Int(PhysicalAddressSpace.pageSize)
        guard start >= 0, start < memory.size else { return false }
        let chunk = start / Self.chunkSize
        let failure: String? = state.withLock { state in
            if state.chunk != chunk {
                state.chunk = nil
                do {
                    unsafe try reader.read(offset: UInt64(chunk * Self.chunkSize), into: staging.mapping.bytes)
                } catch {
                    let text = "\(error)"
                    defer { state.lastError = text }
                    return text == state.lastError ? "" : text
                }
                state.chunk = chunk
                state.lastError = nil
            }
            // Safety: `start` lies in the window and the chunk holds its whole page.
            unsafe (memory.mapping.baseAddress + start).copyMemory(
                from: staging.mapping.baseAddress + start % Self.chunkSize,
                byteCount: Int(PhysicalAddressSpace.pageSize))
            return nil
        }
        guard let failure else { return true }
        if !failure.isEmpty { onFailure(failure) }
        return false
    }
}
