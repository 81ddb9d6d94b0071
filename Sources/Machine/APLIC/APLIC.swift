// The advanced platform-level interrupt controller: a machine-level root domain and its supervisor-level child.
//
// Model: one lock holds both domains, because a source belongs to the one or the other by the root's delegation. In MSI
// mode an enabled pending source turns into a message at once and is no longer pending; messages are sent after the
// lock is released. The surprise: a level source that stays high after its message is silent until software writes its
// number to `setipnum` again, which is what a driver does at the end of its handler.
public import RISCV
import Synchronization

/// An APLIC with 96 sources, for up to 16384 harts. Words only.
///
/// Spec: RISC-V Advanced Interrupt Architecture 1.0 §4
public final class APLIC: PlatformInterruptController {
    /// A message to send: a 32-bit write.
    struct Message: Equatable {
        var address: UInt64
        var data: UInt32
    }

    /// Which of the two domains.
    public enum Level: Sendable { case machine, supervisor }

    struct State {
        var wires: UInt128 = 0
        var delegated: UInt128 = 0
        var machine: APLICDomain
        var supervisor: APLICDomain
        var mmsiaddrcfg: UInt32 = 0
        var mmsiaddrcfgh: UInt32 = 0
        var smsiaddrcfg: UInt32 = 0
        var smsiaddrcfgh: UInt32 = 0

        init(hartCount: Int) {
            machine = APLICDomain(hartCount: hartCount)
            supervisor = APLICDomain(hartCount: hartCount)
        }

        func wire(_ source: Int) -> Bool { wires >> UInt128(source) & 1 != 0 }

        func isDelegated(_ source: Int) -> Bool { delegated >> UInt128(source) & 1 != 0 }

        subscript(level: Level) -> APLICDomain {
            get { level == .machine ? machine : supervisor }
            _modify {
                if level == .machine { yield &machine } else { yield &supervisor }
            }
        }
    }

    private let harts: [HartSignals]
    private let send: @Sendable (_ address: UInt64, _ data: UInt32) -> Void
    private let state: Mutex<State>

    /// `send` takes messages on whichever thread caused them; it must not come back to the APLIC.
    public init(harts: [HartSignals], send: @escaping @Sendable (_ address: UInt64, _ data: UInt32) -> Void) {
        self.harts = harts
        self.send = send
        state = Mutex(State(hartCount: harts.count))
    }

    /// The control region of a domain.
    public func domain(_ level: Level) -> any MachineDevice { ControlRegion(aplic: self, level: level) }

    public func set(source: Int, asserted: Bool) {
        precondition(1...InterruptSource.count ~= source, "the APLIC has sources 1…96")
        change { state in
            let old = state.wire(source)
            guard old != asserted else { return }
            state.wires ^= 1 << UInt128(source)
            let level: Level = state.isDelegated(source) ? .supervisor : .machine
            state[level].wireChanged(source, from: old, to: asserted)
        }
    }

    func reset() {
        change { state in
            let wires = state.wires
            state = State(hartCount: harts.count)
            state.wires = wires
        }
    }

    /// Reads without side effects on what is delivered.
    func withState<Result: Sendable>(_ body: (inout sending State) -> sending Result) -> Result {
        state.withLock { body(&$0) }
    }

    /// Changes the state, then brings lines and messages up to date.
    @discardableResult
    func change<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        var messages: [Message] = []
        let result = state.withLock { state in
            let result = body(&state)
            forward(&state, .machine, &messages)
            forward(&state, .supervisor, &messages)
            for (hart, signals) in harts.enumerated() {
                signals.set(.machineExternal, state.machine.drivesLine(hart: hart))
                signals.set(.supervisorExternal, state.supervisor.drivesLine(hart: hart))
            }
            return result
        }
        for message in messages { send(message.address, message.data) }
        return result
    }

    /// Turns every enabled pending source of a domain in MSI mode into a message.
    private func forward(_ state: inout State, _ level: Level, _ messages: inout [Message]) {
        guard state[level].isEnabled, state[level].sendsMessages else { return }
        var ready = state[level].pending & state[level].enabled
        state[level].pending &= ~ready
        while ready != 0 {
            let target = state[level].targets[ready.trailingZeroBitCount]
            ready &= ready - 1
            messages.append(
                Message(
                    address: Self.messageAddress(state, level, hart: target.hart), data: target.identity))
        }
    }

    /// Queues the message that a write to `genmsi` asks for.
    func generate(_ level: Level, hart: UInt32, identity: UInt32) {
        let address = withState { state in
            Self.messageAddress(state, level, hart: hart)
        }
        send(address, identity)
    }

    /// Where the messages for a hart go.
    ///
    /// Spec: AIA 1.0 §4.9.1 (the same hart index fields for both levels, the supervisor's own base and LHXS).
    static func messageAddress(_ state: borrowing State, _ level: Level, hart: UInt32) -> UInt64 {
        let high = state.mmsiaddrcfgh
        let lowWidth = UInt64(high >> 12 & 0xF)
        let highWidth = UInt64(high >> 16 & 0x7)
        let highShift = UInt64(high >> 24 & 0x1F) + 12
        let lowHart = UInt64(hart) & ((1 << lowWidth) - 1)
        let highHart = UInt64(hart) >> lowWidth & ((1 << highWidth) - 1)
        let base: UInt64
        let lowShift: UInt64
        if level == .machine {
            base = UInt64(high & 0xFFF) << 32 | UInt64(state.mmsiaddrcfg)
            lowShift = UInt64(high >> 20 & 0x7)
        } else {
            base = UInt64(state.smsiaddrcfgh & 0xFFF) << 32 | UInt64(state.smsiaddrcfg)
            lowShift = UInt64(state.smsiaddrcfgh >> 20 & 0x7)
        }
        return (base | highHart &<< highShift | lowHart &<< lowShift) &<< 12
    }
}
