// The slow loop around the interpreter: requests, clocks, interrupts and the budget.
import CSystem

extension HartState {
    /// Instructions between two looks at the clock: 16384 are some 40 µs, during which a timer may be late, and make
    /// the look (25 ns) free.
    private static let slice = 16384

    /// See `Hart.run(budget:)`.
    mutating func run(budget: Int) -> Hart.ExitReason {
        var left = budget
        /// Instructions until the next look at the clock.
        var untilLook = 0
        while true {
            if attention.isRaised {
                attention.take()
                let requests = signals.takeRequests()
                refreshInterrupts()
                untilLook = Self.slice
                if requests.contains(.stop) {
                    // A stop stays until it is taken back: look again next time.
                    signals.raiseAttention()
                    return .stopRequested
                }
                if requests.contains(.reset) { return .resetRequested }
                if requests.contains(.kick) { return .kicked }
            } else if untilLook <= 0 || isWaiting {
                refreshInterrupts()
                untilLook = Self.slice
            }
            if isWaiting {
                // WFI ends for a pending interrupt that mie enables, whatever mstatus says (§3.3.3).
                if mip & mie == 0 { return .waitForInterrupt }
                isWaiting = false
            }
            if let number = interruptToTake { takeInterrupt(number) }
            if left <= 0 { return .budget }
            // At least one: a trap at the first instruction of a handler retires nothing and must still end.
            let used = max(execute(min(left, untilLook)), 1)
            left -= used
            untilLook -= used
            if isHalted {
                isHalted = false
                return .breakpoint
            }
        }
    }

    /// FENCE. On this host only a store that must be seen before a later load needs an instruction.
    @inline(__always)
    mutating func fence(_ word: UInt32) {
        #if arch(x86_64)
            // Predecessors O, W and successors I, R; PAUSE has no successors.
            if word >> 24 & 5 != 0 && word >> 20 & 10 != 0 { cs_fence() }
        #else
            cs_fence()
        #endif
    }
}
