import SecurityLogic
import Sideband
import TestKit
import Testing
import Trust

@Suite struct SecuritySequencerTests {
    static let fuses = Fuses(rootKeyDigest: [UInt8](repeating: 7, count: 48), minimumSecurityVersion: 5)
    static let digest = [UInt8](repeating: 9, count: 48)

    static func report(_ isVerified: Bool, version: UInt32 = 5, _ reason: String = "good image") -> SecurityRequest {
        .reportVerification(
            .init(isVerified: isVerified, digest: digest, securityVersion: version, reason: reason))
    }

    /// A sequencer in `state`, brought there by events alone.
    static func sequencer(_ state: SecurityState) -> SecuritySequencer {
        var sequencer = SecuritySequencer(fuses: fuses)
        _ = sequencer.handle(.powerOn)
        if state == .held { return sequencer }
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        switch state {
        case .held, .verifying: break
        case .released: _ = sequencer.handle(.request(report(true)))
        case .locked:
            _ = sequencer.handle(.request(report(true)))
            _ = sequencer.handle(.powerGood(.bmc, true))
            _ = sequencer.handle(.powerGood(.host, true))
        case .failed: _ = sequencer.handle(.request(report(false, "bad image\nsignature invalid")))
        }
        return sequencer
    }

    private static func timer(_ actions: [SecuritySequencer.Action]) -> (SecuritySequencer.TimerToken, Duration)? {
        for case .startTimer(let token, let duration) in actions { return (token, duration) }
        return nil
    }

    private static func withoutTimers(_ actions: [SecuritySequencer.Action]) -> [SecuritySequencer.Action] {
        actions.filter { if case .startTimer = $0 { false } else { true } }
    }

    static let states: [SecurityState] = [.held, .verifying, .released, .locked, .failed]

    @Test(arguments: states)
    func `events alone lead to every state`(state: SecurityState) {
        #expect(Self.sequencer(state).state == state)
    }

    @Test func `power-on holds both components and grants nothing`() {
        var sequencer = SecuritySequencer(fuses: Self.fuses)
        let actions = sequencer.handle(.powerOn)
        #expect(
            Self.withoutTimers(actions) == [
                .setReset(.bmc, isAsserted: true), .emit(.resetAsserted(.bmc)), .setReset(.host, isAsserted: true),
                .emit(.resetAsserted(.host)),
            ])
        #expect(sequencer.mode == .protected)
        #expect(sequencer.released.isEmpty)
    }

    @Test func `a verified image releases the BMC, then the host, then locks`() throws {
        var sequencer = Self.sequencer(.verifying)
        let verdict = sequencer.handle(.request(Self.report(true)))
        #expect(
            Self.withoutTimers(verdict) == [
                .respond(.status(Self.report(true), .success)),
                .emit(.firmwareVerified(image: "good image", securityVersion: 5, digest: Self.digest)),
                .setReset(.bmc, isAsserted: false), .emit(.resetReleased(.bmc)),
            ])
        #expect(sequencer.mode == .protected, "protected again before anything runs")
        #expect(sequencer.state == .released)
        #expect(sequencer.handle(.powerGood(.host, true)).isEmpty, "the host is not waited for yet")
        #expect(sequencer.handle(.powerGood(.host, false)).isEmpty)
        let second = sequencer.handle(.powerGood(.bmc, true))
        #expect(
            Self.withoutTimers(second) == [.setReset(.host, isAsserted: false), .emit(.resetReleased(.host))])
        #expect(sequencer.released == [.bmc, .host])
        #expect(sequencer.handle(.powerGood(.host, true)) == [.emit(.boardLocked)])
        #expect(sequencer.state == .locked)
    }

    @Test func `power that is good already is not waited for`() {
        var sequencer = Self.sequencer(.verifying)
        _ = sequencer.handle(.powerGood(.bmc, true))
        _ = sequencer.handle(.powerGood(.host, true))
        let actions = sequencer.handle(.request(Self.report(true)))
        #expect(Self.timer(actions) == nil)
        #expect(actions.last == .emit(.boardLocked))
        #expect(sequencer.state == .locked)
    }

    @Test func `a component without power good is passed over after its time`() throws {
        var timing = SecuritySequencer.Timing()
        timing.powerGood = .milliseconds(7)
        var sequencer = SecuritySequencer(fuses: Self.fuses, timing: timing)
        _ = sequencer.handle(.powerOn)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        let (first, duration) = try #require(Self.timer(sequencer.handle(.request(Self.report(true)))))
        #expect(duration == .milliseconds(7))
        let (second, _) = try #require(Self.timer(sequencer.handle(.timerFired(first))))
        #expect(sequencer.released == [.bmc, .host])
        #expect(sequencer.handle(.timerFired(first)).isEmpty, "an old timer means nothing")
        #expect(sequencer.handle(.timerFired(second)) == [.emit(.boardLocked)])
    }

    @Test func `a refused image fails the board with name and reason and releases nothing`() {
        var sequencer = Self.sequencer(.verifying)
        let request = Self.report(false, "bad image\nsignature invalid")
        #expect(
            sequencer.handle(.request(request)) == [
                .respond(.status(request, .success)),
                .emit(.firmwareRefused(image: "bad image", reason: "signature invalid")),
                .emit(.boardFailed(image: "bad image", reason: "signature invalid")),
            ])
        #expect(sequencer.state == .failed)
        #expect(sequencer.mode == .protected)
        #expect(sequencer.released.isEmpty)
        #expect(sequencer.imageName == "bad image")
        #expect(sequencer.failureReason == "signature invalid")
    }

    @Test func `a verdict against the fuses is not taken`() {
        var sequencer = Self.sequencer(.verifying)
        let actions = sequencer.handle(.request(Self.report(true, version: 4)))
        #expect(actions.first == .respond(.status(Self.report(true), .invalidData)))
        #expect(sequencer.state == .failed)
        #expect(sequencer.failureReason == "security version 4 is below the minimum 5")
        #expect(sequencer.released.isEmpty)
    }

    @Test(arguments: states)
    func `a verifier that goes fails the board while it verifies, and only then`(state: SecurityState) {
        var sequencer = Self.sequencer(state)
        let actions = sequencer.handle(.adapterDisconnected)
        if state == .verifying {
            #expect(sequencer.state == .failed)
            #expect(
                actions == [
                    .emit(
                        .boardFailed(
                            image: "unnamed image", reason: "the verifying adapter disconnected before its verdict"))
                ])
        } else {
            #expect(actions.isEmpty)
            #expect(sequencer.state == state)
        }
    }

    @Test func `a board that nobody verifies in time fails`() throws {
        for begins in [false, true] {
            var sequencer = SecuritySequencer(fuses: Self.fuses)
            let (token, duration) = try #require(Self.timer(sequencer.handle(.powerOn)))
            #expect(duration == .seconds(60))
            if begins { _ = sequencer.handle(.request(.setMode(.unprotected))) }
            _ = sequencer.handle(.timerFired(token))
            #expect(sequencer.state == .failed)
            #expect(sequencer.mode == .protected)
            #expect(sequencer.failureReason?.contains(begins ? "no verdict" : "no adapter") == true)
        }
    }

    @Test(arguments: states)
    func `a power cycle holds everything again, whatever the state`(state: SecurityState) {
        var sequencer = Self.sequencer(state)
        let actions = sequencer.handle(.powerCycle)
        #expect(sequencer.state == .held)
        #expect(sequencer.mode == .protected)
        #expect(sequencer.released.isEmpty)
        #expect(sequencer.failureReason == nil)
        #expect(actions.contains(.setReset(.bmc, isAsserted: true)))
        #expect(actions.contains(.setReset(.host, isAsserted: true)))
        #expect(actions.last == .pulseAdapterReset)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        #expect(sequencer.state == .verifying)
    }

    /// Every command in every state: the status of its answer, and the state after it.
    struct Permission: Sendable {
        let request: SecurityRequest
        let state: SecurityState
        let status: SecurityStatus
        let after: SecurityState
    }

    static let permissions: [Permission] = {
        let good = SecurityStatus.success
        let never = SecurityStatus.notPermitted
        let table: [(SecurityRequest, [(SecurityStatus, SecurityState)])] = [
            (
                .setMode(.protected),
                [(good, .held), (good, .verifying), (good, .released), (good, .locked), (good, .failed)]
            ),
            (
                .setMode(.unprotected),
                [(good, .verifying), (good, .verifying), (never, .released), (never, .locked), (never, .failed)]
            ),
            (.holdReset, [(good, .held), (good, .verifying), (never, .released), (never, .locked), (good, .failed)]),
            (
                report(true),
                [(never, .held), (good, .released), (never, .released), (never, .locked), (never, .failed)]
            ),
            (
                report(false, "x\ny"),
                [(never, .held), (good, .failed), (never, .released), (never, .locked), (never, .failed)]
            ),
        ]
        return table.flatMap { request, outcomes in
            zip(states, outcomes).map { state, outcome in
                Permission(request: request, state: state, status: outcome.0, after: outcome.1)
            }
        }
    }()

    @Test(arguments: permissions)
    func `a command is permitted or refused by the state`(permission: Permission) {
        var sequencer = Self.sequencer(permission.state)
        let released = sequencer.released
        let actions = sequencer.handle(.request(permission.request))
        #expect(actions.first == .respond(.status(permission.request, permission.status)))
        #expect(sequencer.state == permission.after)
        if permission.status != .success {
            #expect(actions.count == 1, "a refused command does nothing")
            #expect(sequencer.released == released)
            #expect(sequencer.mode == .protected)
        }
    }

    @Test(arguments: states)
    func `fuses and state can be asked for at any time`(state: SecurityState) {
        var sequencer = Self.sequencer(state)
        #expect(sequencer.handle(.request(.queryState)) == [.respond(.state(state))])
        #expect(
            sequencer.handle(.request(.readFuses)) == [
                .respond(.fuses(rootKeyDigest: Self.fuses.rootKeyDigest, minimumSecurityVersion: 5))
            ])
    }

    @Test func `no order of events releases a component that was not verified`() {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        for _ in 0..<300 {
            var sequencer = SecuritySequencer(fuses: Self.fuses)
            var tokens: [SecuritySequencer.TimerToken] = []
            var isVerified = false
            _ = sequencer.handle(.powerOn)
            for _ in 0..<40 {
                let before = sequencer.state
                let events: [SecuritySequencer.Event] = [
                    .powerCycle, .adapterDisconnected, .powerGood(.bmc, true), .powerGood(.host, true),
                    .powerGood(.bmc, false), .request(.setMode(.unprotected)), .request(.setMode(.protected)),
                    .request(.holdReset), .request(Self.report(true)), .request(Self.report(true, version: 1)),
                    .request(Self.report(false)), .request(.queryState),
                ]
                let event =
                    tokens.isEmpty || Bool.random(using: &generator)
                    ? events.randomElement(using: &generator)!
                    : .timerFired(tokens.randomElement(using: &generator)!)
                for case .startTimer(let token, _) in sequencer.handle(event) { tokens.append(token) }
                if event == .request(Self.report(true)), before == .verifying { isVerified = true }
                if event == .powerCycle { isVerified = false }
                if !sequencer.released.isEmpty {
                    #expect(isVerified, "seed \(seed)")
                    #expect(sequencer.mode == .protected, "seed \(seed)")
                }
                #expect(!sequencer.released.contains(.host) || sequencer.released.contains(.bmc), "seed \(seed)")
            }
        }
    }
}
