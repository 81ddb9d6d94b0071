internal import Synchronization
internal import VFIOUser

/// A root port and the functions of the card in its slot: a shell around `RootPortRegisters` that does what they say.
///
/// Lock order: routes (root complex), `state`, a function's state, `pins`. Messages go out with no lock held.
final class RootPort: Sendable {
    struct State {
        var registers: RootPortRegisters
        /// By function number.
        var functions: [AttachedFunction?] = Array(repeating: nil, count: 8)
        /// Those that are in reset, by function number: at one place there is one or the other.
        var dormant: [DormantFunction?] = Array(repeating: nil, count: 8)
        /// Functions that leave when software switches the slot's power off.
        var isLeaving = false

        /// Whether the card has more functions than its first.
        var isMultiple: Bool {
            functions.dropFirst().contains { $0 != nil } || dormant.dropFirst().contains { $0 != nil }
        }
    }

    /// What a port does for the root complex.
    struct Outputs: Sendable {
        var deliverMessage: @Sendable (UInt64, UInt32) -> Void
        var setINTx: @Sendable (_ device: Int, _ pin: Int, _ level: Bool) -> Void
        /// What is reachable through a port changed.
        var routesChanged: @Sendable () -> Void
        /// Software switched the power of a slot off whose card is to leave.
        var cardReleased: @Sendable (_ port: Int) -> Void
    }

    let number: Int
    let outputs: Outputs
    let state: Mutex<State>
    /// Who asserts each of the four wires: bit 0…7 the functions, bit 8 the port itself.
    private let pins = Mutex<[UInt16]>([0, 0, 0, 0])

    init(_ number: Int, outputs: Outputs) {
        self.number = number
        self.outputs = outputs
        state = Mutex(State(registers: RootPortRegisters(number: number)))
    }

    /// The port's device number on bus 0.
    var device: Int { number + 1 }

    /// The port's own identity as a requester.
    var identifier: RequesterID { RequesterID(bus: 0, device: UInt8(device)) }

    /// The identity of a function behind the port; before buses are numbered, of where it will probably be.
    func identifier(of function: Int) -> RequesterID {
        let bus = state.withLock { $0.registers.secondaryBus }
        return RequesterID(bus: bus ?? UInt8(truncatingIfNeeded: device), device: 0, function: UInt8(function & 7))
    }

    var functions: [AttachedFunction] { state.withLock { $0.functions.compactMap { $0 } } }
    func function(_ number: Int) -> AttachedFunction? {
        state.withLock { $0.functions.indices.contains(number) ? $0.functions[number] : nil }
    }

    func dormant(_ number: Int) -> DormantFunction? {
        state.withLock { $0.dormant.indices.contains(number) ? $0.dormant[number] : nil }
    }

    /// The device at a place, whether it answers or not.
    func client(_ number: Int) -> VFIOUserClient? { function(number)?.client ?? dormant(number)?.client }

    // MARK: Configuration space

    func read(_ register: Int, width: Int) -> UInt64 {
        state.withLock { $0.registers.read(register, width: width) }
    }

    func write(_ register: Int, width: Int, value: UInt64) {
        apply { $0.registers.write(register, width: width, value: value) }
    }

    /// The function that answers a configuration access on the bus behind the port, and whether its device has more.
    func target(_ function: Int) -> (function: AttachedFunction, isMultiple: Bool)? {
        state.withLock { state in
            guard state.registers.isLinkActive, let found = state.functions[function & 7] else { return nil }
            return (found, state.isMultiple)
        }
    }

    /// The function at a place that may be out of reset by now: a packet would get to it if it were.
    func sleeper(_ function: Int) -> DormantFunction? {
        state.withLock { state in
            guard let found = state.dormant[function & 7], state.registers.isLinkAllowed else { return nil }
            return found
        }
    }

    // MARK: Events

    /// Makes a change of the registers and does what follows from it.
    @discardableResult
    func apply(_ change: (inout State) -> RootPortRegisters.Effects) -> RootPortRegisters.Effects {
        let (effects, functions, isMaster, leaves) = state.withLock { state in
            let effects = change(&state)
            setPin(0, by: 8, state.registers.intx)
            let leaves = effects.powersOff && state.isLeaving
            return (effects, state.functions.compactMap { $0 }, state.registers.isMaster, leaves)
        }
        if effects.resetsBus { for function in functions { function.reset() } }
        for function in functions { function.setUpstreamMaster(isMaster) }
        if effects.changesRoutes { outputs.routesChanged() }
        for message in effects.messages { outputs.deliverMessage(message.address, message.data) }
        if leaves { outputs.cardReleased(number) }
        return effects
    }

    /// Sets the level of a pin (0 is INTA) by one of those who share it. A pin of function 0…7 of device 0 on the bus
    /// behind a port is the same pin at the port. Spec: PCI Express Base §2.2.8.1 (INTx mapping across bridges).
    func setPin(_ pin: Int, by who: Int, _ level: Bool) {
        pins.withLock { pins in
            guard pins.indices.contains(pin) else { return }
            let was = pins[pin] != 0
            if level { pins[pin] |= 1 << UInt16(who) } else { pins[pin] &= ~(1 << UInt16(who)) }
            if (pins[pin] != 0) != was { outputs.setINTx(device, pin, !was) }
        }
    }

    /// Everything back to the state after the machine's reset.
    func reset() {
        let functions = state.withLock { state in
            state.registers.reset()
            state.isLeaving = false
            setPin(0, by: 8, false)
            return state.functions.compactMap { $0 }
        }
        for function in functions {
            function.setUpstreamMaster(false)
            function.reset()
        }
    }

    // MARK: Cards

    /// What is put into a slot: a function, or one that is in reset.
    enum Guest {
        case function(AttachedFunction)
        case dormant(DormantFunction)
    }

    /// Puts a function in; function 0 is the card, whose presence the slot shows. False where one is.
    func insert(_ guest: Guest, at number: Int, isStart: Bool) -> Bool {
        var isFree = false
        apply { state in
            isFree = state.functions[number] == nil && state.dormant[number] == nil
            guard isFree else { return RootPortRegisters.Effects() }
            switch guest {
            case .function(let function): state.functions[number] = function
            case .dormant(let dormant): state.dormant[number] = dormant
            }
            guard number == 0 else { return RootPortRegisters.Effects(changesRoutes: true) }
            state.isLeaving = false
            let answers = state.functions[0] != nil
            if !isStart { return state.registers.setPresent(true, answers: answers) }
            state.registers.setPresentAtStart(answers: answers)
            return RootPortRegisters.Effects(changesRoutes: true)
        }
        return isFree
    }

    /// A function left reset: it takes the place of the dormant one. False where that is not there any more.
    func wake(_ dormant: DormantFunction, _ function: AttachedFunction, at number: Int) -> Bool {
        var isThere = false
        apply { state in
            isThere = state.dormant[number] === dormant
            guard isThere else { return RootPortRegisters.Effects() }
            state.dormant[number] = nil
            state.functions[number] = function
            if number == 0 { return state.registers.setAnswering(true) }
            return RootPortRegisters.Effects(changesRoutes: true)
        }
        return isThere
    }

    /// A function is in reset: it is detached, and a dormant one takes its place. False where it is not there any more.
    func fall(_ function: AttachedFunction, _ dormant: DormantFunction, at number: Int) -> Bool {
        // Before anybody can wake the device: what the function knows of it is not the next one's.
        function.detach()
        function.mapWindows()
        var isThere = false
        apply { state in
            isThere = state.functions[number] === function
            guard isThere else { return RootPortRegisters.Effects() }
            state.functions[number] = nil
            state.dormant[number] = dormant
            if number == 0 { return state.registers.setAnswering(false) }
            return RootPortRegisters.Effects(changesRoutes: true)
        }
        return isThere
    }

    /// Takes a function out, at once; its device. The function is detached when this returns.
    func remove(_ number: Int, only client: VFIOUserClient? = nil) -> VFIOUserClient? {
        var removed: AttachedFunction?
        var sleeper: DormantFunction?
        apply { state in
            let found = state.functions[number]?.client ?? state.dormant[number]?.client
            guard let found, client == nil || found === client else { return RootPortRegisters.Effects() }
            removed = state.functions[number]
            sleeper = state.dormant[number]
            state.functions[number] = nil
            state.dormant[number] = nil
            if number == 0 { return state.registers.setPresent(false) }
            return RootPortRegisters.Effects(changesRoutes: true)
        }
        removed?.detach()
        sleeper?.end()
        return removed?.client ?? sleeper?.client
    }

    /// Asks software to let the card go: the attention button, and when the power goes off the card leaves.
    func requestRemoval() {
        apply { state in
            state.isLeaving = true
            return state.registers.pressAttentionButton()
        }
    }
}
