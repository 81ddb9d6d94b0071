internal import CSystem
package import Synchronization

/// A lock for the way of a message: one atomic word, inlined, free of calls while nobody else wants it.
///
/// Who finds it taken sleeps on the word's futex. Not recursive, not fair.
@safe package struct ShortLock: ~Copyable, @unchecked Sendable {
    // Safety: made in init, freed in deinit; every access in between is atomic. 0 free, 1 held, 2 held and perhaps
    // wanted. Behind a pointer because the kernel needs an address that stays.
    @usableFromInline package let word: UnsafeMutablePointer<Atomic<UInt32>>

    package init() {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: Atomic(0))
    }

    deinit {
        // Safety: nobody else can reach the word any more.
        unsafe word.deinitialize(count: 1)
        unsafe word.deallocate()
    }

    @inlinable @inline(__always)
    package borrowing func lock() {
        if unsafe !word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
            lockSlowly()
        }
    }

    @inlinable @inline(__always)
    package borrowing func unlock() {
        if unsafe word.pointee.exchange(0, ordering: .releasing) == 2 { wake() }
    }

    @inline(never) @usableFromInline
    package borrowing func lockSlowly() {
        // Safety: see `word`.
        while unsafe word.pointee.exchange(2, ordering: .acquiring) != 0 { unsafe _ = cs_futex_wait(word, 2, 0) }
    }

    // Wakes all who wait: at most a few threads, and each finds the lock taken or takes it.
    @inline(never) @usableFromInline
    package borrowing func wake() { unsafe _ = cs_futex_wake(word) }
}
