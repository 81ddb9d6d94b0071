public import Sideband
public import Trust

/// The power and reset sequence of a board, as a value: events in, actions out, no clock, no wire, no chip.
///
///     held ──▶ verifying ── a slot verified ──▶ released ── all up, or booted ───▶ locked
///      │        │  ▲  │ a slot refused: the next one                │                │
///      │        │  └──┘                                             ├────────────────┘
///      │        │ none left, the verifier is gone, time is up       │ flash changed; golden did not boot
///      └────────┴───────────────────────▶ failed ◀──────────────────┘
///
/// Slots are tried in the record's order: pending update or active, the other, golden. When only golden may run because
/// another was refused, slot A is written from it, and verified again. A slot that does not boot in time is remembered as
/// failed, and everything begins again with the next.
///
/// BMC, cards and host are in reset in `held`, `verifying` and `failed`. A verdict ends unprotected mode before anything
/// is released; then each is released when the one before it has power good or its time is over: the BMC, the cards, and
/// the host, which enumerates them. Out of `locked` and `failed` leads only a power cycle, which starts again at `held`.
public struct SecuritySequencer: Sendable {
    /// A timer that was started. One that no longer matters is ignored when it fires.
    public struct TimerToken: Sendable, Hashable {
        let number: UInt64
    }

    /// Work that was begun for the sequence. The answer to one that no longer matters is ignored.
    public struct Run: Sendable, Hashable {
        let number: UInt64
    }

    public enum Event: Sendable, Hashable {
        /// The first event, once.
        case powerOn
        /// Everything is held and verified again.
        case powerCycle
        case adapterDisconnected
        /// A command of the master adapter.
        case request(SecurityRequest)
        /// A component's POWER_GOOD signal has this level.
        case powerGood(HeldComponent, Bool)
        case timerFired(TimerToken)
        /// Host or BMC asked for a page of the chip, at this address, that is not what was verified.
        case flashChanged(UInt64)
        /// The logic's own verifier's answer to ``Action/verify(_:_:)``.
        case verdict(Run, SlotVerdict)
        /// The answer to ``Action/restore(_:_:)``; a text: why it failed.
        case restored(Run, failure: String?)
        /// The host says that it has booted.
        case bootComplete
        /// The fuses are these now.
        case fuses(Fuses)
        /// An authenticated update was written to the slot.
        case updated(FirmwareSlot)
        /// The answer to ``Action/stage(_:_:)``: whether the record that names the slot is kept.
        case staged(FirmwareSlot, isKept: Bool)
    }

    public enum Action: Sendable, Hashable {
        case setReset(HeldComponent, isAsserted: Bool)
        /// Assert and release the adapter's RESET#: it verifies whenever it sees it released.
        case pulseAdapterReset
        /// The answer to the request that is being handled, or to the one that was left waiting.
        case respond(SecurityResponse)
        case startTimer(TimerToken, Duration)
        case emit(SecurityEvent)
        /// What verifiers saw of the flash counts no more.
        case forgetVerified
        /// Have the logic's own verifier look at a slot.
        case verify(FirmwareSlot, Run)
        /// Write the slot from golden.
        case restore(FirmwareSlot, Run)
        /// Keep the record over power cuts.
        case store(BootRecord)
        /// Keep the record in which the updated slot waits for the next power cycle, and say whether it is kept: an update
        /// counts as staged only then.
        case stage(BootRecord, FirmwareSlot)
        /// Raise the fuses to the rollback floor of the slot's manifest with this digest, at most to golden's version.
        case raiseRollback(FirmwareSlot, digest: [UInt8])
    }

    public internal(set) var state = SecurityState.held
    public internal(set) var mode = SecurityRequest.Mode.protected
    /// The components whose reset is released.
    public internal(set) var released: Set<HeldComponent> = []
    /// The slot that runs; nil while none does.
    public internal(set) var runningSlot: FirmwareSlot?
    /// The name of the image of the last verdict.
    public internal(set) var imageName: String?
    /// Why the board failed.
    public internal(set) var failureReason: String?
    /// The slots that were refused since power came, in order.
    public internal(set) var refusals: [SlotRefusal] = []
    /// What was measured since power came.
    public internal(set) var log = MeasurementLog()
    public internal(set) var record: BootRecord
    /// Whether the slot that runs has said that it has booted, or is taken to have.
    public internal(set) var isBootConfirmed = false
    public internal(set) var fuses: Fuses
    public let settings: SecuritySettings

    /// Slots still to be tried; the first is being verified.
    var candidates: [FirmwareSlot] = []
    /// What the adapter measured of the slot that it verified, until the slot runs.
    var staged: [Measurement] = []
    /// The verdicts of the slot that is being verified; with `both`, each waits for the other.
    var adapterVerdict: SlotVerdict?
    var ownVerdict: SlotVerdict?
    /// The report whose answer waits for the logic's own verdict.
    var waitingReport: SecurityRequest?
    /// Where the writing of slot A from golden stands.
    enum Recovery: Hashable { case none, running, done }
    var recovery = Recovery.none
    /// The manifest of the slot that runs.
    var runningDigest: [UInt8] = []
    var powerIsGood: Set<HeldComponent> = []
    /// The component whose POWER_GOOD is waited for.
    var awaited: HeldComponent?
    var currentTimer: TimerToken?
    /// The timer of the host's boot.
    var watch: TimerToken?
    var timersStarted: UInt64 = 0
    var currentRun = Run(number: 0)

    public init(fuses: Fuses, settings: SecuritySettings = SecuritySettings(), record: BootRecord = BootRecord()) {
        self.fuses = fuses
        self.settings = settings
        self.record = record
    }

    /// The slot that is being verified; nil while none is.
    public var candidate: FirmwareSlot? {
        guard state == .verifying, !isRecovering else { return nil }
        return candidates.first
    }

    /// Whether slot A is being written from golden.
    public var isRecovering: Bool { recovery == .running }

    /// The slot that an update may write now: neither the one that runs nor golden. Nil while nothing runs.
    var updatableSlot: FirmwareSlot? {
        guard state == .released || state == .locked, let runningSlot else { return nil }
        return record.inactive == runningSlot ? record.active : record.inactive
    }

    /// Whether work that was begun for the sequence still matters to it.
    func isCurrent(_ run: Run) -> Bool { run == currentRun }

    /// Whether host and BMC may talk to each other.
    public var isBridged: Bool { state == .released && released.isSuperset(of: [.bmc, .host]) }

    /// What takes part, in order of release.
    private var components: [HeldComponent] { HeldComponent.allCases.filter(settings.components.contains) }

    /// Takes one event; returns what is to be done, in order.
    public mutating func handle(_ event: Event) -> [Action] {
        switch event {
        case .powerOn: return hold()
        case .powerCycle: return hold() + [.pulseAdapterReset]
        case .adapterDisconnected:
            guard state == .verifying, settings.verifier != .logic, !isRecovering else { return [] }
            return fail(image: nil, reason: "the verifying adapter disconnected before its verdict")
        case .request(let request): return answer(request)
        case .powerGood(let component, let isGood): return powerGood(component, isGood)
        case .timerFired(let token): return timerFired(token)
        case .flashChanged(let address): return flashChanged(address)
        case .verdict(let run, let verdict):
            guard run == currentRun, candidate != nil else { return [] }
            ownVerdict = verdict
            return decide()
        case .restored(let run, let failure):
            guard run == currentRun else { return [] }
            return restored(failure: failure)
        case .bootComplete: return bootComplete()
        case .fuses(let fuses):
            self.fuses = fuses
            return []
        case .updated(let slot):
            guard let staged = staging(slot) else { return [] }
            return [.stage(staged, slot)]
        case .staged(let slot, let isKept):
            guard isKept, let staged = staging(slot) else { return [] }
            record = staged
            return [.emit(.updateStaged(slot: slot))]
        }
    }

    /// The record with an updated slot that waits; nil for a slot that no update may write.
    private func staging(_ slot: FirmwareSlot) -> BootRecord? {
        guard slot != .golden, slot != runningSlot else { return nil }
        var staged = record
        staged.stage(slot)
        return staged
    }

    // MARK: Holding

    private mutating func hold() -> [Action] {
        forgetRun()
        state = .held
        mode = .protected
        imageName = nil
        failureReason = nil
        recovery = .none
        refusals = []
        candidates = record.candidates
        log = MeasurementLog()
        measure(MeasurementLog.Register.firstStage, settings.summary)
        for slot in [FirmwareSlot.a, .b] where record.failed.contains(slot) {
            measure(MeasurementLog.Register.decisions, "slot \(slot) passed over: it did not boot")
        }
        return assertResets() + [.forgetVerified, startTimer(settings.timing.verification)]
            + (settings.verifier == .logic ? beginVerifying() : [])
    }

    /// Nothing that was begun before matters any more.
    mutating func forgetRun() {
        awaited = nil
        watch = nil
        runningSlot = nil
        runningDigest = []
        isBootConfirmed = false
        currentRun = Run(number: currentRun.number &+ 1)
        forgetVerdicts()
    }

    mutating func forgetVerdicts() {
        staged = []
        adapterVerdict = nil
        ownVerdict = nil
        waitingReport = nil
    }

    mutating func assertResets() -> [Action] {
        released = []
        // What was good before is not good now, whether the component says so or hangs.
        powerIsGood = []
        return components.flatMap { component -> [Action] in
            [.setReset(component, isAsserted: true), .emit(.resetAsserted(component))]
        }
    }

    mutating func fail(image: String?, reason: String) -> [Action] {
        forgetRun()
        state = .failed
        mode = .protected
        currentTimer = nil
        recovery = .none
        let name = image ?? FirmwareVerdict.unnamedImage
        imageName = name
        failureReason = reason
        measure(MeasurementLog.Register.decisions, "failed: \(reason)")
        return [.emit(.boardFailed(image: name, reason: reason))]
    }

    /// What runs is no longer what was verified: nothing may run.
    private mutating func flashChanged(_ address: UInt64) -> [Action] {
        guard state == .released || state == .locked else { return [] }
        let image = imageName
        return assertResets()
            + fail(image: image, reason: "flash changed after verification at 0x\(String(address, radix: 16))")
    }

    /// A decision in words; a log that is full keeps what it has.
    mutating func measure(_ register: UInt8, _ text: String) {
        try? log.extend(register: register, action: String(text.prefix(200)))
    }

    // MARK: Releasing

    /// Releases what comes next, and when all are up, watches the boot or locks.
    mutating func releaseNext() -> [Action] {
        awaited = nil
        currentTimer = nil
        var actions: [Action] = []
        while let component = components.first(where: { !released.contains($0) }) {
            released.insert(component)
            actions += [.setReset(component, isAsserted: false), .emit(.resetReleased(component))]
            guard powerIsGood.contains(component) else {
                awaited = component
                return actions + [startTimer(settings.timing.powerGood)]
            }
        }
        if let limit = settings.bootTimeout, !isBootConfirmed {
            timersStarted += 1
            let token = TimerToken(number: timersStarted)
            watch = token
            actions.append(.startTimer(token, limit))
        }
        return actions + (settings.lockAt == .release || isBootConfirmed ? lock() : [])
    }

    private mutating func lock() -> [Action] {
        state = .locked
        // Nobody watches the boot: what could be locked counts as booted.
        let confirmation = settings.bootTimeout == nil && settings.lockAt == .release ? confirmBoot() : []
        return [.emit(.boardLocked)] + confirmation
    }

    private mutating func powerGood(_ component: HeldComponent, _ isGood: Bool) -> [Action] {
        if isGood { powerIsGood.insert(component) } else { powerIsGood.remove(component) }
        return isGood && awaited == component ? releaseNext() : []
    }

    // MARK: Booting

    private mutating func bootComplete() -> [Action] {
        guard state == .released || state == .locked, released.contains(.host) else { return [] }
        let confirmation = confirmBoot()
        guard settings.lockAt == .bootComplete, state == .released, awaited == nil else { return confirmation }
        return confirmation + lock()
    }

    private mutating func confirmBoot() -> [Action] {
        guard !isBootConfirmed, let slot = runningSlot else { return [] }
        isBootConfirmed = true
        watch = nil
        let before = record
        record.noteBooted(slot)
        return (record == before ? [] : [.store(record)]) + [.raiseRollback(slot, digest: runningDigest)]
    }

    private mutating func bootFailed() -> [Action] {
        guard let slot = runningSlot, let limit = settings.bootTimeout else { return [] }
        let reason = "no boot complete within \(limit)"
        let event = Action.emit(.bootFailed(slot: slot, reason: reason))
        guard slot != .golden else {
            let image = imageName
            return [event] + assertResets() + fail(image: image, reason: "golden did not boot: \(reason)")
        }
        record.noteBootFailure(slot)
        return [event, .store(record)] + hold() + [.pulseAdapterReset]
    }

    // MARK: Time

    mutating func startTimer(_ duration: Duration) -> Action {
        timersStarted += 1
        let token = TimerToken(number: timersStarted)
        currentTimer = token
        return .startTimer(token, duration)
    }

    private mutating func timerFired(_ token: TimerToken) -> [Action] {
        if token == watch {
            watch = nil
            return bootFailed()
        }
        guard token == currentTimer else { return [] }
        currentTimer = nil
        if awaited != nil { return releaseNext() }
        let limit = settings.timing.verification
        switch state {
        case .held: return fail(image: nil, reason: "no adapter began to verify within \(limit)")
        case .verifying where isRecovering:
            return restored(failure: "it was not written within \(settings.timing.restoration)")
        case .verifying: return fail(image: nil, reason: "no verdict came within \(limit)")
        case .released, .locked, .failed: return []
        }
    }
}
