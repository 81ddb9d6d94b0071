// The wires into a hart: interrupt lines, the machine timer's deadline, and requests of whoever owns the hart's thread.
//
// Model: any thread changes a line and raises `attention`, one relaxed word that the interpreter looks at once a block.
// The hart then takes the word and evaluates everything again. A sleeping hart (WFI) blocks on the word's futex, which
// is woken only while it sleeps, so a signal to a running hart costs two atomic operations and no system call.
import CSystem
import Synchronization

/// Interrupt lines and requests into one hart; every method may be called from any thread.
@safe public final class HartSignals: @unchecked Sendable {
    /// A level-sensitive line, numbered as its bit in `mip`.
    public enum Line: UInt32, Sendable, CaseIterable {
        /// MSIP: CLINT software interrupt.
        case machineSoftware = 3
        /// MTIP, for a timer that drives a line itself; `machineTimerDeadline` is the usual way.
        case machineTimer = 7
        /// SEIP: PLIC or APLIC in direct mode.
        case supervisorExternal = 9
        /// MEIP: PLIC or APLIC in direct mode.
        case machineExternal = 11
    }

    /// What the owner of the hart's thread was asked to do; `Hart.run` returns for each.
    struct Requests: OptionSet {
        let rawValue: UInt32
        static let stop = Requests(rawValue: 1)
        static let reset = Requests(rawValue: 2)
        static let kick = Requests(rawValue: 4)
    }

    /// Not zero: something below changed. Heap words, because the interpreter keeps raw pointers to them.
    private let words: UnsafeMutablePointer<Words>

    private struct Words: ~Copyable {
        let attention = Atomic<UInt32>(0)
        let sleeping = Atomic<UInt32>(0)
        let lines = Atomic<UInt32>(0)
        let requests = Atomic<UInt32>(0)
        let deadline = Atomic<UInt64>(.max)
        let stalled = Atomic<UInt32>(0)
    }

    public init() {
        // Safety: allocated and initialised here, freed in deinit; every access in between is atomic.
        unsafe words = .allocate(capacity: 1)
        unsafe words.initialize(to: Words())
    }

    deinit {
        // Safety: made in init; nobody else can reach the words any more.
        unsafe words.deinitialize(count: 1)
        unsafe words.deallocate()
    }

    /// Drives an interrupt line.
    public func set(_ line: Line, _ asserted: Bool) {
        let bit = UInt32(1) << line.rawValue
        // Safety: see `words`.
        let old =
            asserted
            ? unsafe words.pointee.lines.bitwiseOr(bit, ordering: .acquiringAndReleasing).oldValue
            : unsafe words.pointee.lines.bitwiseAnd(~bit, ordering: .acquiringAndReleasing).oldValue
        if (old & bit != 0) != asserted { raiseAttention() }
    }

    /// The level of an interrupt line.
    public func level(of line: Line) -> Bool {
        lines & (UInt32(1) << line.rawValue) != 0
    }

    /// `mtimecmp`: MTIP is pending while `mtime` is at or above it. `UInt64.max` after reset: never.
    public var machineTimerDeadline: UInt64 {
        // Safety: see `words`.
        get { unsafe words.pointee.deadline.load(ordering: .acquiring) }
        set {
            unsafe words.pointee.deadline.store(newValue, ordering: .releasing)
            raiseAttention()
        }
    }

    /// Makes `Hart.run` return `.kicked` soon; wakes a sleeping hart.
    public func kick() { request(.kick) }
    /// Makes `Hart.run` return `.stopRequested`, now and until `clearStop()`.
    public func requestStop() { request(.stop) }
    /// Makes `Hart.run` return `.resetRequested` once.
    public func requestReset() { request(.reset) }

    /// Takes back a stop, before the hart's thread is started again.
    public func clearStop() {
        // Safety: see `words`.
        _ = unsafe words.pointee.requests.bitwiseAnd(
            ~Requests.stop.rawValue, ordering: .acquiringAndReleasing)
    }

    /// Holds the hart where it is, between two instructions and without guest time passing, until it is let go: for a
    /// device whose consumer is behind. Requests still reach it.
    public func setStalled(_ isStalled: Bool) {
        // Safety: see `words`.
        unsafe words.pointee.stalled.store(isStalled ? 1 : 0, ordering: .sequentiallyConsistent)
        raiseAttention()
    }

    /// The hart's side of `setStalled`: returns when it is let go or something was requested.
    func holdWhileStalled() {
        // Safety: see `words`.
        while unsafe words.pointee.stalled.load(ordering: .sequentiallyConsistent) != 0,
            unsafe words.pointee.requests.load(ordering: .sequentiallyConsistent) == 0
        {
            sleep(until: 0)
            attention.take()
        }
    }

    private func request(_ request: Requests) {
        // Safety: see `words`.
        _ = unsafe words.pointee.requests.bitwiseOr(request.rawValue, ordering: .acquiringAndReleasing)
        raiseAttention()
    }

    /// Tells the hart to look at everything again, and wakes it.
    func raiseAttention() {
        // Safety: see `words`. Sequential consistency orders this store before the load of `sleeping`, as the sleeper
        // orders its store of `sleeping` before the load of `attention`: one of the two sees the other.
        unsafe words.pointee.attention.store(1, ordering: .sequentiallyConsistent)
        if unsafe words.pointee.sleeping.load(ordering: .sequentiallyConsistent) != 0 {
            _ = unsafe cs_futex_wake(words)
        }
    }

    // MARK: the hart's side

    /// Lines as `mip` bits.
    var lines: UInt32 {
        // Safety: see `words`.
        unsafe words.pointee.lines.load(ordering: .acquiring)
    }

    /// The word that the interpreter looks at once a block.
    var attention: AttentionWord {
        // Safety: `attention` is the first field of the allocation; the hart holds `self` as long as the word.
        unsafe AttentionWord(word: UnsafeMutableRawPointer(words).assumingMemoryBound(to: Atomic<UInt32>.self))
    }

    /// Takes the pending requests; a stop stays pending.
    func takeRequests() -> Requests {
        // Safety: see `words`.
        let old = unsafe words.pointee.requests.bitwiseAnd(
            Requests.stop.rawValue, ordering: .acquiringAndReleasing
        ).oldValue
        return Requests(rawValue: old)
    }

    /// Sleeps until attention is raised or CLOCK_MONOTONIC reaches `deadline` in nanoseconds (0: no limit). Returns at
    /// once if it is raised; may return early.
    func sleep(until deadline: UInt64) {
        // Safety: see `words`; `attention` is the first field, so the allocation's address is the futex's.
        unsafe words.pointee.sleeping.store(1, ordering: .sequentiallyConsistent)
        if unsafe words.pointee.attention.load(ordering: .sequentiallyConsistent) == 0 {
            _ = unsafe cs_futex_wait(words, 0, deadline)
        }
        unsafe words.pointee.sleeping.store(0, ordering: .sequentiallyConsistent)
    }
}

/// The hart's view of `HartSignals`' attention word.
@safe struct AttentionWord {
    let word: UnsafeMutablePointer<Atomic<UInt32>>

    /// Whether anything changed.
    @inline(__always) var isRaised: Bool {
        // Safety: the word lives as long as the HartSignals that the hart holds.
        unsafe word.pointee.load(ordering: .relaxed) != 0
    }

    /// Lowers the word; what changed before is visible afterwards.
    func take() {
        // Safety: as above.
        _ = unsafe word.pointee.exchange(0, ordering: .sequentiallyConsistent)
    }
}
