public import Sideband
public import Trust

/// The power and reset sequence of a board, as a value: events in, actions out, no clock, no wire.
///
///     held ── SetMode(unprotected) ──▶ verifying ── verified ──▶ released ── both components up ──▶ locked
///       ╲                                  │
///        ╲── nobody verified in time ──────┴── refused, or the verifier is gone, or time is up ──▶ failed
///
/// Host and BMC are in reset in `held`, `verifying` and `failed`. A verdict ends unprotected mode before anything is
/// released. Out of `locked` and `failed` leads only a power cycle, which starts again at `held`.
public struct SecuritySequencer: Sendable {
    /// How long the sequence waits for others.
    public struct Timing: Sendable {
        /// From power-on to the verdict. A 32 MiB image is verified in a fraction of a second; a minute says that
        /// nobody will.
        public var verification: Duration = .seconds(60)
        /// From a component's release to its POWER_GOOD, which simulated rails give within milliseconds. A component
        /// without it is passed over, not failed: it may be absent.
        public var powerGood: Duration = .milliseconds(50)

        public init() {}
    }

    /// A timer that was started. One that no longer matters is ignored when it fires.
    public struct TimerToken: Sendable, Hashable {
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
    }

    public enum Action: Sendable, Hashable {
        case setReset(HeldComponent, isAsserted: Bool)
        /// Assert and release the adapter's RESET#: it verifies whenever it sees it released.
        case pulseAdapterReset
        /// The answer to the request that is being handled.
        case respond(SecurityResponse)
        case startTimer(TimerToken, Duration)
        case emit(SecurityEvent)
    }

    public private(set) var state = SecurityState.held
    public private(set) var mode = SecurityRequest.Mode.protected
    /// The components whose reset is released.
    public private(set) var released: Set<HeldComponent> = []
    /// The name of the image of the last verdict.
    public private(set) var imageName: String?
    /// Why the board failed.
    public private(set) var failureReason: String?

    private let fuses: Fuses
    private let timing: Timing
    private var powerIsGood: Set<HeldComponent> = []
    /// The component whose POWER_GOOD is waited for.
    private var awaited: HeldComponent?
    private var currentTimer: TimerToken?
    private var timersStarted: UInt64 = 0

    public init(fuses: Fuses, timing: Timing = Timing()) {
        self.fuses = fuses
        self.timing = timing
    }

    /// Takes one event; returns what is to be done, in order.
    public mutating func handle(_ event: Event) -> [Action] {
        switch event {
        case .powerOn: hold()
        case .powerCycle: hold() + [.pulseAdapterReset]
        case .adapterDisconnected:
            state == .verifying
                ? fail(image: nil, reason: "the verifying adapter disconnected before its verdict") : []
        case .request(let request): answer(request)
        case .powerGood(let component, let isGood): powerGood(component, isGood)
        case .timerFired(let token): timerFired(token)
        case .flashChanged(let address): flashChanged(address)
        }
    }

    /// What runs is no longer what was verified: nothing may run.
    private mutating func flashChanged(_ address: UInt64) -> [Action] {
        guard state == .released || state == .locked else { return [] }
        awaited = nil
        let image = imageName
        return assertResets()
            + fail(
                image: image, reason: "flash changed after verification at 0x\(String(address, radix: 16))")
    }

    // MARK: Holding

    private mutating func hold() -> [Action] {
        state = .held
        mode = .protected
        imageName = nil
        failureReason = nil
        awaited = nil
        return assertResets() + [startTimer(timing.verification)]
    }

    private mutating func assertResets() -> [Action] {
        released = []
        return HeldComponent.allCases.flatMap { component -> [Action] in
            [.setReset(component, isAsserted: true), .emit(.resetAsserted(component))]
        }
    }

    private mutating func fail(image: String?, reason: String) -> [Action] {
        state = .failed
        mode = .protected
        currentTimer = nil
        let name = image ?? FirmwareVerdict.unnamedImage
        imageName = name
        failureReason = reason
        return [.emit(.boardFailed(image: name, reason: reason))]
    }

    // MARK: Commands

    private mutating func answer(_ request: SecurityRequest) -> [Action] {
        switch request {
        case .readFuses:
            [
                .respond(
                    .fuses(
                        rootKeyDigest: fuses.rootKeyDigest, minimumSecurityVersion: fuses.minimumSecurityVersion))
            ]
        case .queryState: [.respond(.state(state))]
        case .setMode(let mode): setMode(mode, request)
        case .holdReset: holdReset(request)
        case .reportVerification(let report): take(report, request)
        }
    }

    private mutating func setMode(_ mode: SecurityRequest.Mode, _ request: SecurityRequest) -> [Action] {
        switch (mode, state) {
        case (.protected, _):
            self.mode = .protected
            return [.respond(.status(request, .success))]
        case (.unprotected, .held):
            self.mode = .unprotected
            state = .verifying
            return [.respond(.status(request, .success)), .emit(.firmwareVerifying)]
        case (.unprotected, .verifying):
            self.mode = .unprotected
            return [.respond(.status(request, .success))]
        case (.unprotected, .released), (.unprotected, .locked), (.unprotected, .failed):
            return [.respond(.status(request, .notPermitted))]
        }
    }

    /// Both are held already wherever this is permitted: the command makes sure, it does not reset a running board.
    private func holdReset(_ request: SecurityRequest) -> [Action] {
        switch state {
        case .held, .verifying, .failed: [.respond(.status(request, .success))]
        case .released, .locked: [.respond(.status(request, .notPermitted))]
        }
    }

    private mutating func take(_ report: SecurityRequest.Verification, _ request: SecurityRequest) -> [Action] {
        guard state == .verifying else { return [.respond(.status(request, .notPermitted))] }
        guard report.isVerified else {
            let (image, reason) = FirmwareVerdict.parse(reportText: report.reason)
            return [.respond(.status(request, .success)), .emit(.firmwareRefused(image: image, reason: reason))]
                + fail(image: image, reason: reason)
        }
        // The fuses are the logic's own: it does not take the adapter's word against them.
        guard report.securityVersion >= fuses.minimumSecurityVersion else {
            let reason = FirmwareRefusal.securityVersionTooLow(
                found: report.securityVersion, minimum: fuses.minimumSecurityVersion
            ).description
            return [
                .respond(.status(request, .invalidData)),
                .emit(.firmwareRefused(image: report.reason, reason: reason)),
            ] + fail(image: report.reason, reason: reason)
        }
        mode = .protected
        state = .released
        imageName = report.reason
        return [
            .respond(.status(request, .success)),
            .emit(
                .firmwareVerified(
                    image: report.reason, securityVersion: report.securityVersion, digest: report.digest)),
        ] + release(.bmc)
    }

    // MARK: Releasing

    private mutating func release(_ component: HeldComponent) -> [Action] {
        released.insert(component)
        let actions: [Action] = [
            .setReset(component, isAsserted: false), .emit(.resetReleased(component)),
        ]
        guard !powerIsGood.contains(component) else { return actions + follow(component) }
        awaited = component
        return actions + [startTimer(timing.powerGood)]
    }

    /// What comes after `component` is up.
    private mutating func follow(_ component: HeldComponent) -> [Action] {
        awaited = nil
        currentTimer = nil
        switch component {
        case .bmc: return release(.host)
        case .host:
            state = .locked
            return [.emit(.boardLocked)]
        }
    }

    private mutating func powerGood(_ component: HeldComponent, _ isGood: Bool) -> [Action] {
        if isGood { powerIsGood.insert(component) } else { powerIsGood.remove(component) }
        return isGood && awaited == component ? follow(component) : []
    }

    // MARK: Time

    private mutating func startTimer(_ duration: Duration) -> Action {
        timersStarted += 1
        let token = TimerToken(number: timersStarted)
        currentTimer = token
        return .startTimer(token, duration)
    }

    private mutating func timerFired(_ token: TimerToken) -> [Action] {
        guard token == currentTimer else { return [] }
        currentTimer = nil
        if let awaited { return follow(awaited) }
        switch state {
        case .held: return fail(image: nil, reason: "no adapter began to verify within \(timing.verification)")
        case .verifying: return fail(image: nil, reason: "no verdict came within \(timing.verification)")
        case .released, .locked, .failed: return []
        }
    }
}
