// The slow loop around the interpreter: requests, clocks, interrupts and the budget.

extension HartState {
    /// See `Hart.run(budget:)`.
    static func run(_ state: UnsafeMutablePointer<HartState>, budget: Int) -> Hart.ExitReason {
        // Safety: the caller's pointer; no access outlives its expression.
        var left = budget
        /// Instructions until the next look at the clock.
        var untilLook = 0
        while true {
            if unsafe state.pointee.attention.isRaised {
                unsafe state.pointee.attention.take()
                unsafe state.pointee.signals.holdWhileStalled()
                let requests = unsafe state.pointee.signals.takeRequests()
                unsafe state.pointee.publishTime()
                unsafe state.pointee.refreshInterrupts()
                untilLook = unsafe state.pointee.instructionsUntilLook
                if requests.contains(.stop) {
                    // A stop stays until it is taken back: look again next time.
                    unsafe state.pointee.signals.raiseAttention()
                    return .stopRequested
                }
                if requests.contains(.reset) { return .resetRequested }
                if requests.contains(.kick) { return .kicked }
            } else if unsafe untilLook <= 0 || state.pointee.isWaiting {
                unsafe state.pointee.publishTime()
                unsafe state.pointee.refreshInterrupts()
                untilLook = unsafe state.pointee.instructionsUntilLook
            }
            if unsafe state.pointee.isWaiting {
                // WFI ends for a pending interrupt that mie enables, whatever mstatus says (§3.3.3).
                if unsafe state.pointee.mip & state.pointee.mie == 0 { return .waitForInterrupt }
                unsafe state.pointee.isWaiting = false
            }
            if unsafe !state.pointee.masksInterrupts, let number = unsafe state.pointee.interruptToTake {
                unsafe state.pointee.takeInterrupt(number)
                left -= 1
            }
            if left <= 0 { return .budget }
            // At least one: a trap at the first instruction of a handler retires nothing and must still end.
            var used = unsafe execute(state, state.pointee.isExact ? 1 : min(left, untilLook))
            unsafe state.pointee.isExact = state.pointee.wantsExact
            unsafe state.pointee.wantsExact = false
            if unsafe !state.pointee.isExact { used = max(used, 1) }
            left -= used
            untilLook -= used
            if unsafe state.pointee.isHalted {
                unsafe state.pointee.isHalted = false
                return .breakpoint
            }
        }
    }

    /// Whether a FENCE needs an instruction of the host. On x86-64 only a store that must be seen before a later load
    /// does: predecessors O, W and successors I, R; PAUSE has no successors.
    @inline(__always)
    static func needsHostFence(_ word: UInt32) -> Bool {
        #if arch(x86_64)
            word >> 24 & 5 != 0 && word >> 20 & 10 != 0
        #else
            true
        #endif
    }
}
