// What the harts of a machine know of each other's atomic writes, so that a store-conditional fails when another hart
// wrote its line by AMO or SC, even if memory holds the reserved value again (the ABA problem).
//
// Model: one word for every line of memory (hashed, 64 bytes). LR keeps the word; SC needs it unchanged.
//
//     63                    32 31      30                   0
//    ┌────────────────────────┬────────┬─────────────────────┐
//    │ atomic writes so far   │ SC now │ AMOs under way      │
//    └────────────────────────┴────────┴─────────────────────┘
//
// An AMO counts itself under way, does its work, then counts it as done; SC succeeds only from a word without AMOs under
// way, and holds those that come up while it looks and stores. Plain stores do not touch the table: that would cost every
// store what an AMO costs. Measured without contention: an AMO takes some 17 ns instead of 12, a pair of LR and SC 2 ns
// more; a machine of one hart pays nothing.
import CSystem
import Synchronization

/// The table of one machine, made with its address space.
@safe final class ReservationTable: @unchecked Sendable {
    /// Lines that differ below this share no word; more harts than a machine has rarely meet in one.
    private static let count = 1024
    /// A word has a cache line of the host to itself.
    private static let stride = 64

    private let words: UnsafeMutableRawPointer
    private let harts = Atomic<Int>(0)

    init() {
        // Safety: freed in deinit; harts hold the table as long as they use lines of it.
        unsafe words = .allocate(byteCount: Self.count * Self.stride, alignment: Self.stride)
        unsafe words.initializeMemory(as: UInt8.self, repeating: 0, count: Self.count * Self.stride)
    }

    deinit { unsafe words.deallocate() }  // Safety: see init.

    /// Another hart uses the table. Before any of them runs.
    func join() { harts.add(1, ordering: .relaxed) }

    /// Whether there is anybody to watch.
    var isShared: Bool { harts.load(ordering: .relaxed) > 1 }

    /// The word for a place in memory.
    func line(_ host: UnsafeMutableRawPointer) -> ReservationLine {
        let index = Int(bitPattern: host) >> 6 & (Self.count - 1)
        // Safety: the index is below the count.
        return unsafe ReservationLine(word: words + index * Self.stride)
    }
}

/// The word of a line.
@safe struct ReservationLine {
    let word: UnsafeMutableRawPointer

    private static let oneDone: UInt64 = 1 << 32
    private static let exclusive: UInt64 = 1 << 31
    private static let busy: UInt64 = oneDone - 1

    // Safety (all): an aligned doubleword of the table, only ever accessed atomically.

    /// What LR keeps.
    var state: UInt64 { unsafe cs_load_acquire64(word) }

    /// Before an AMO writes. Waits for an SC that is about to write, which takes some ten instructions.
    func beginWrite() {
        if unsafe cs_add64(word, 1) & Self.exclusive == 0 { return }
        while unsafe cs_load_acquire64(word) & Self.exclusive != 0 { cs_pause() }
    }

    /// After it.
    func endWrite() { unsafe _ = cs_add64(word, Self.oneDone &- 1) }

    /// Before an SC writes: false where the line was written since LR kept `state`, or is being written.
    func beginExclusive(_ state: UInt64) -> Bool {
        guard state & Self.busy == 0 else { return false }
        var expected = state
        return unsafe cs_compare_exchange64(word, &expected, state | Self.exclusive)
    }

    /// After it; a write that did not happen is counted as well, which costs another hart a retry.
    func endExclusive() { unsafe _ = cs_add64(word, Self.oneDone &- Self.exclusive) }
}
