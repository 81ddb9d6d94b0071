// The instruction clock from the hart's side: where it is, when it has to look, and how WFI passes the time.
//
// What the guest can see of time is read at three places, and at each of them the count of retired instructions is
// exact: between two runs of `execute`, in a CSR instruction, and in an access to a device. The last needs help, because
// neither the interpreter nor translated code keeps the count while a block runs: the access is given up, the block left
// before it, and the instruction executed again alone.

//
// What surprised us: the guest sees when a page table is walked, because a walk sets A in an entry whose A the kernel has
// cleared without a fence. Loads and stores walk as the guest's accesses say. Fetches did not: which pages the caches
// still know depends on where blocks begin, which depends on where runs were interrupted. So by this clock a page that
// was walked to is known until the guest itself makes the hart forget it.

/// A page in a fetch context.
struct WalkedPage: Hashable {
    var virtualPage: UInt64
    var context: UInt32
}

extension HartState {
    /// Pages remembered at most; then all are forgotten, at the same walk in every run. 64 Ki hold 256 MiB of code.
    private static let walkedPageLimit = 65536

    /// The page of `pc`, if it was walked to before.
    mutating func walkedPage(_ pc: UInt64) -> FetchCache.Page? {
        countsInstructions ? walkedPages[WalkedPage(virtualPage: pc & ~0xFFF, context: fetchContext)] : nil
    }

    mutating func noteWalk(_ page: FetchCache.Page) {
        guard countsInstructions else { return }
        if walkedPages.count >= Self.walkedPageLimit { walkedPages.removeAll(keepingCapacity: true) }
        walkedPages[WalkedPage(virtualPage: page.virtualPage, context: page.context)] = page
    }

    /// Instructions between two looks at the clock: 16384 are some 40 µs, during which a timer may be late, and make
    /// the look (25 ns) free.
    static let slice = 16384

    /// Guest time in instructions.
    var clockPosition: UInt64 { mutating get { retired &+ clockOffset } }

    /// Tells the time source where the hart is.
    mutating func publishTime() {
        if countsInstructions { time.advance(to: clockPosition) }
    }

    /// Instructions until the next look at the clock; by the instruction clock never one too many.
    var instructionsUntilLook: Int {
        mutating get {
            guard countsInstructions else { return Self.slice }
            let now = clockPosition
            var next = time.alarmPosition
            for ticks in [signals.machineTimerDeadline, supervisorTimerDeadline] where ticks != .max {
                let position = time.position(ofTicks: ticks)
                if position > now { next = min(next, position) }
            }
            return next > now ? Int(min(next - now, UInt64(Self.slice))) : Self.slice
        }
    }

    /// A timer is due at another time: by the instruction clock the slice ends with this instruction, to be made anew.
    mutating func noteTimerChange() {
        if countsInstructions { signals.raiseAttention() }
    }

    /// `stimecmp` where Sstc is on; `.max`: never.
    var supervisorTimerDeadline: UInt64 {
        mutating get { menvcfg & EnvironmentBits.stce != 0 ? stimecmp : .max }
    }

    /// Whether a device may be accessed now, with the time of this very instruction. If not, it is executed again.
    mutating func isTimeExact() -> Bool {
        guard countsInstructions else { return true }
        guard isExact else {
            wantsExact = true
            return false
        }
        time.advance(to: clockPosition)
        return true
    }

    /// When a timer that can end this hart's WFI is due, in instructions; `.max`: never.
    var wakingPosition: UInt64 {
        mutating get {
            let now = clockPosition
            var next = time.alarmPosition
            let timers = [
                (signals.machineTimerDeadline, InterruptBits.mti), (supervisorTimerDeadline, InterruptBits.sti),
            ]
            for (ticks, bit) in timers where ticks != .max && mie & bit != 0 {
                let position = time.position(ofTicks: ticks)
                if position > now { next = min(next, position) }
            }
            return next
        }
    }

    /// A hart that waits has slept until `now`, CLOCK_MONOTONIC nanoseconds: lets guest time pass as far as it may.
    ///
    /// To the next timer if its time has come. If something from outside ended the wait, by what it took. Otherwise,
    /// whoever woke the hart, not at all.
    mutating func passIdleTime(until now: UInt64) {
        let position = clockPosition
        let due = wakingPosition
        if now >= idleDeadline(due) {
            clockOffset &+= due &- position
            return
        }
        refreshInterrupts()
        guard mip & mie != 0 else { return }
        let waited = now &- idleSince.time
        clockOffset &+= min(waited / TimeSource.nanosecondsPerInstruction, due &- position)
    }

    /// Until when, CLOCK_MONOTONIC, a hart that waits sleeps for a timer due at a position; `.max`: for ever. A wait that
    /// is interrupted and goes on at the same instruction is one wait.
    mutating func idleDeadline(_ due: UInt64) -> UInt64 {
        let position = clockPosition
        if idleSince.time == 0 || idleSince.position != position {
            idleSince = (position, TimeSource.monotonicNanoseconds())
        }
        guard due != .max else { return .max }
        // At most a day, so that nothing wraps.
        let ahead = min(due &- position, 24 * 3600 * 1_000_000_000 / TimeSource.nanosecondsPerInstruction)
        return idleSince.time &+ ahead &* TimeSource.nanosecondsPerInstruction
    }
}
