// The platform-level interrupt controller: level-triggered sources, a context for each hart and privilege level.
//
// Model: a source's gateway forwards one request at a time. It is `pending` until claimed, `inService` until completed,
// and asks again after completion when its wire is still high. Sets of sources are 128-bit masks, bit n is source n.
public import RISCV
import Synchronization

/// A PLIC with 96 sources and priorities 0…7. Words only.
///
/// Spec: RISC-V PLIC 1.0.0
public final class PLIC: MachineDevice, PlatformInterruptController {
    private struct Context {
        var enabled: UInt128 = 0
        var threshold: UInt32 = 0
    }

    private struct State {
        var priorities = [UInt32](repeating: 0, count: InterruptSource.count + 1)
        var wires: UInt128 = 0
        var pending: UInt128 = 0
        var inService: UInt128 = 0
        var contexts: [Context]

        /// The best pending source of a context that its threshold lets through, or 0.
        func best(_ context: Int) -> Int {
            var best = (source: 0, priority: contexts[context].threshold)
            var candidates = pending & contexts[context].enabled
            while candidates != 0 {
                let source = candidates.trailingZeroBitCount
                candidates &= candidates - 1
                if priorities[source] > best.priority { best = (source, priorities[source]) }
            }
            return best.source
        }
    }

    private let harts: [HartSignals]
    private let state: Mutex<State>

    public init(harts: [HartSignals]) {
        self.harts = harts
        state = Mutex(State(contexts: Array(repeating: Context(), count: harts.count * 2)))
    }

    public func reset() {
        state.withLock { state in
            let wires = state.wires
            state = State(contexts: Array(repeating: Context(), count: harts.count * 2))
            state.wires = wires
            state.pending = wires
            update(state)
        }
    }

    public func set(source: Int, asserted: Bool) {
        precondition(1...InterruptSource.count ~= source, "the PLIC has sources 1…96")
        let bit: UInt128 = 1 << UInt128(source)
        state.withLock { state in
            if asserted {
                state.wires |= bit
                state.pending |= bit & ~state.inService
            } else {
                // A request that the gateway has forwarded stays (§5).
                state.wires &= ~bit
            }
            update(state)
        }
    }

    /// Drives every hart's external interrupt lines.
    private func update(_ state: borrowing State) {
        for (hart, signals) in harts.enumerated() {
            signals.set(.machineExternal, state.best(hart * 2) != 0)
            signals.set(.supervisorExternal, state.best(hart * 2 + 1) != 0)
        }
    }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width == .word else { return nil }
        return state.withLock { state in
            switch Register(offset: offset) {
            case .priority(let source):
                return source <= InterruptSource.count ? UInt64(state.priorities[source]) : 0
            case .pending(let word):
                return word < 4 ? UInt64(UInt32(truncatingIfNeeded: state.pending >> UInt128(word * 32))) : 0
            case .enable(let context, let word):
                guard context < state.contexts.count, word < 4 else { return 0 }
                return UInt64(UInt32(truncatingIfNeeded: state.contexts[context].enabled >> UInt128(word * 32)))
            case .threshold(let context):
                return context < state.contexts.count ? UInt64(state.contexts[context].threshold) : 0
            case .claim(let context):
                guard context < state.contexts.count else { return 0 }
                let source = state.best(context)
                if source != 0 {
                    state.pending &= ~(1 << UInt128(source))
                    state.inService |= 1 << UInt128(source)
                    update(state)
                }
                return UInt64(source)
            case .reserved:
                return 0
            }
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .word else { return false }
        let word = UInt32(truncatingIfNeeded: value)
        state.withLock { state in
            switch Register(offset: offset) {
            case .priority(let source):
                if 1...InterruptSource.count ~= source { state.priorities[source] = word & 7 }
            case .enable(let context, let index):
                guard context < state.contexts.count, index < 4 else { return }
                let mask = UInt128(UInt32.max) << UInt128(index * 32)
                let bits = UInt128(word) << UInt128(index * 32)
                state.contexts[context].enabled =
                    (state.contexts[context].enabled & ~mask | bits) & APLIC.allSources
            case .threshold(let context):
                if context < state.contexts.count { state.contexts[context].threshold = word & 7 }
            case .claim(let context):
                guard context < state.contexts.count, 1...UInt32(InterruptSource.count) ~= word else { return }
                let bit: UInt128 = 1 << UInt128(word)
                // Completing a source that is not enabled for the context is ignored (§9).
                guard state.contexts[context].enabled & bit != 0 else { return }
                state.inService &= ~bit
                state.pending |= state.wires & bit
            case .pending, .reserved:
                return
            }
            update(state)
        }
        return true
    }
}
