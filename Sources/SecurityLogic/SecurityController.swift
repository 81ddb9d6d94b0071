internal import Serprog
internal import Sideband
internal import Synchronization
public import Trust
public import Wire

/// The shell around the sequencer: sideband wires, timers, the gate, the chip, fuses and record. Everything happens on
/// the event loop's thread, except what the gate's ports do and the work on slots.
public final class SecurityController: Sendable {
    /// What the controller tells its owner, on the loop's thread.
    public struct Observer: Sendable {
        public var event: @Sendable (SecurityEvent) -> Void
        public var warning: @Sendable (String) -> Void
        /// The sequence took a step; before the step's events.
        public var changed: @Sendable (Snapshot) -> Void
        /// Host and BMC may talk to each other, or no longer: for what carries the lpc wire. Before anything else of the
        /// step.
        public var bridged: @Sendable (Bool) -> Void

        public init(
            event: @escaping @Sendable (SecurityEvent) -> Void, warning: @escaping @Sendable (String) -> Void,
            changed: @escaping @Sendable (Snapshot) -> Void, bridged: @escaping @Sendable (Bool) -> Void = { _ in }
        ) {
            self.event = event
            self.warning = warning
            self.changed = changed
            self.bridged = bridged
        }
    }

    /// What survives without power.
    public struct Storage: Sendable {
        /// Keeps the record; throws text for the log.
        public var store: @Sendable (BootRecord) throws(FileError) -> Void
        /// Raises the minimum security version; the fuses as they are then.
        public var burn: @Sendable (UInt32) throws(FuseStoreError) -> Fuses

        public init(
            store: @escaping @Sendable (BootRecord) throws(FileError) -> Void,
            burn: @escaping @Sendable (UInt32) throws(FuseStoreError) -> Fuses
        ) {
            self.store = store
            self.burn = burn
        }
    }

    struct State {
        var sequencer: SecuritySequencer
        var connections: [Peer: Connection] = [:]
        /// Why the slot that is being staged cannot be.
        var stagingFailure: String?
        /// The answer to a request that waits for the logic's own verdict.
        var waiting: (@Sendable (SecurityResponse) -> Void)?
        var bridge = Bridge()
    }

    /// What passed between host and BMC on the sideband.
    struct Bridge: Sendable {
        var forwarded: UInt64 = 0
        var dropped: UInt64 = 0
    }

    let loop: EventLoop
    let gate: FlashGate
    let observer: Observer
    private let storage: Storage
    let state: Mutex<State>
    let updates: UpdateService

    public init(loop: EventLoop, gate: FlashGate, sequencer: SecuritySequencer, storage: Storage, observer: Observer) {
        self.loop = loop
        self.gate = gate
        self.observer = observer
        self.storage = storage
        state = Mutex(State(sequencer: sequencer))
        updates = UpdateService(gate.chip)
        gate.whenChanged { [weak self] address in
            guard let self else { return }
            loop.perform { self.handle(.flashChanged(address)) }
        }
    }

    public var snapshot: Snapshot {
        state.withLock { Snapshot($0.sequencer, chipSize: gate.chip.knownSize, $0.bridge) }
    }

    /// Begins the sequence; on the loop's thread or before it runs.
    public func powerOn() { handle(.powerOn) }

    /// Holds everything and has the firmware verified again; any thread.
    public func powerCycle() { loop.perform { [self] in handle(.powerCycle) } }

    /// The host says that it has booted; any thread.
    public func bootComplete() { loop.perform { [self] in handle(.bootComplete) } }

    // MARK: Events and actions

    func handle(_ event: SecuritySequencer.Event, reply: (@Sendable (SecurityResponse) -> Void)? = nil) {
        let (actions, after) = state.withLock { state in
            let actions = state.sequencer.handle(event)
            let isAnswered = actions.contains { if case .respond = $0 { true } else { false } }
            if let reply, !isAnswered { state.waiting = reply }
            return (actions, Snapshot(state.sequencer, chipSize: gate.chip.knownSize, state.bridge))
        }
        // The gate closes before anybody hears of it, and opens for a component before its reset is released.
        if actions.contains(.forgetVerified) {
            gate.forgetVerified()
            updates.abandon()
        }
        observer.bridged(after.isBridged)
        gate.setState(FlashGateState(phase: after.flashPhase, released: after.released, slot: after.slotRange))
        if !actions.isEmpty { observer.changed(after) }
        for action in actions { perform(action, reply) }
    }

    /// - Parameter reply: answers the request that is being handled; without one, an answer is for the one that waits.
    private func perform(_ action: SecuritySequencer.Action, _ reply: (@Sendable (SecurityResponse) -> Void)?) {
        switch action {
        case .setReset(let component, let isAsserted):
            send(.signal(.reset, level: !isAsserted), to: .component(component))
        case .pulseAdapterReset:
            send(.signal(.reset, level: false), to: .adapter)
            send(.signal(.reset, level: true), to: .adapter)
        case .respond(let response):
            let waiting = state.withLock { state in
                defer { if reply == nil { state.waiting = nil } }
                return reply ?? state.waiting
            }
            waiting?(response)
        case .startTimer(let token, let duration):
            loop.schedule(at: .after(duration)) { [self] in handle(.timerFired(token)) }
        case .emit(let event): observer.event(event)
        case .forgetVerified: break
        case .store(let record):
            do throws(FileError) { try storage.store(record) } catch {
                observer.warning("the boot record is not kept: \(error)")
            }
        case .stage(let record, let slot):
            var failure: String?
            do throws(FileError) { try storage.store(record) } catch {
                failure = "the boot record cannot be stored: \(error)"
            }
            state.withLock { $0.stagingFailure = failure }
            handle(.staged(slot, isKept: failure == nil))
        case .verify(let slot, let run): verify(slot, run)
        case .restore(let slot, let run): restore(slot, run)
        case .raiseRollback(let slot, let digest): raiseRollback(slot, digest)
        }
    }

    /// Has the next power cycle try the slot, which an update has written; why it cannot, or nil. Loop thread.
    func stage(_ slot: FirmwareSlot) -> String? {
        state.withLock { $0.stagingFailure = nil }
        handle(.updated(slot))
        let failure = state.withLock { $0.stagingFailure.take() }
        if let failure { observer.warning("slot \(slot) is not staged: \(failure)") }
        return failure
    }

    // MARK: Work on slots

    private var fuses: Fuses { state.withLock { $0.sequencer.fuses } }

    private func verify(_ slot: FirmwareSlot, _ run: SecuritySequencer.Run) {
        let fuses = fuses
        WorkerThread("verifier") { [self] in
            let verdict = SlotVerdict(SlotWork.verify(slot, gate.chip, fuses))
            loop.perform { [self] in handle(.verdict(run, verdict)) }
        }
    }

    private func restore(_ slot: FirmwareSlot, _ run: SecuritySequencer.Run) {
        WorkerThread("restorer") { [self] in
            let failure = SlotWork.restore(slot, gate.chip) { state.withLock { $0.sequencer.isCurrent(run) } }
            loop.perform { [self] in handle(.restored(run, failure: failure)) }
        }
    }

    private func raiseRollback(_ slot: FirmwareSlot, _ digest: [UInt8]) {
        let fuses = fuses
        WorkerThread("rollback") { [self] in
            switch SlotWork.rollback(slot, digest: digest, gate.chip, fuses) {
            case .keep(let why):
                if !why.isEmpty { loop.perform { [self] in observer.warning(why) } }
            case .raise(let version):
                do throws(FuseStoreError) {
                    let burnt = try storage.burn(version)
                    loop.perform { [self] in
                        observer.warning("the fuses now ask for security version \(version) at least")
                        handle(.fuses(burnt))
                    }
                } catch {
                    loop.perform { [self] in observer.warning("the fuses are not raised to \(version): \(error)") }
                }
            }
        }
    }
}
