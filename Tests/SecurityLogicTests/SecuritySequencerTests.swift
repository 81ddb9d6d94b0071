import SecurityLogic
import Sideband
import TestKit
import Testing
import Trust

/// Sequencers in every state, brought there by events alone.
enum Sequences {
    static let fuses = Fuses(rootKeyDigest: [UInt8](repeating: 7, count: 48), minimumSecurityVersion: 5)
    static let digest = [UInt8](repeating: 9, count: 48)
    static let states: [SecurityState] = [.held, .verifying, .released, .locked, .failed]

    static func report(
        _ isVerified: Bool, slot: FirmwareSlot = .a, version: UInt32 = 5, _ reason: String = "good image"
    ) -> SecurityRequest {
        .reportVerification(
            .init(
                slot: slot.rawValue, isVerified: isVerified, digest: digest, securityVersion: version, reason: reason))
    }

    static func refused(_ slot: FirmwareSlot) -> SecurityRequest { report(false, slot: slot, "bad image\nno manifest") }

    static func settings(_ change: (inout SecuritySettings) -> Void) -> SecuritySettings {
        var settings = SecuritySettings()
        change(&settings)
        return settings
    }

    static func sequencer(
        _ state: SecurityState, _ settings: SecuritySettings = SecuritySettings(), record: BootRecord = BootRecord()
    ) -> SecuritySequencer {
        var sequencer = SecuritySequencer(fuses: fuses, settings: settings, record: record)
        _ = sequencer.handle(.powerOn)
        if state == .held { return sequencer }
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        switch state {
        case .held, .verifying: break
        case .released:
            _ = sequencer.handle(.request(report(true, slot: sequencer.candidate ?? .a)))
            if settings.lockAt == .bootComplete {
                _ = sequencer.handle(.powerGood(.bmc, true))
                _ = sequencer.handle(.powerGood(.host, true))
            }
        case .locked:
            _ = sequencer.handle(.request(report(true, slot: sequencer.candidate ?? .a)))
            _ = sequencer.handle(.powerGood(.bmc, true))
            _ = sequencer.handle(.powerGood(.host, true))
            if settings.lockAt == .bootComplete { _ = sequencer.handle(.bootComplete) }
        case .failed:
            for slot in FirmwareSlot.allCases { _ = sequencer.handle(.request(refused(slot))) }
        }
        return sequencer
    }

    static func timers(
        _ actions: [SecuritySequencer.Action]
    ) -> [(token: SecuritySequencer.TimerToken, duration: Duration)] {
        actions.compactMap { if case .startTimer(let token, let duration) = $0 { (token, duration) } else { nil } }
    }

    static func withoutTimers(_ actions: [SecuritySequencer.Action]) -> [SecuritySequencer.Action] {
        actions.filter { if case .startTimer = $0 { false } else { true } }
    }

    static func events(_ actions: [SecuritySequencer.Action]) -> [SecurityEvent] {
        actions.compactMap { if case .emit(let event) = $0 { event } else { nil } }
    }

    static func work(_ actions: [SecuritySequencer.Action]) -> [(slot: FirmwareSlot, run: SecuritySequencer.Run)] {
        actions.compactMap {
            switch $0 {
            case .verify(let slot, let run), .restore(let slot, let run): (slot, run)
            default: nil
            }
        }
    }
}

@Suite struct SecuritySequencerTests {
    static let digest = Sequences.digest

    @Test(arguments: Sequences.states)
    func `events alone lead to every state`(state: SecurityState) {
        #expect(Sequences.sequencer(state).state == state)
    }

    @Test func `power-on holds both components and grants nothing`() {
        var sequencer = SecuritySequencer(fuses: Sequences.fuses)
        let actions = sequencer.handle(.powerOn)
        #expect(
            Sequences.withoutTimers(actions) == [
                .setReset(.bmc, isAsserted: true), .emit(.resetAsserted(.bmc)), .setReset(.host, isAsserted: true),
                .emit(.resetAsserted(.host)), .forgetVerified,
            ])
        #expect(sequencer.mode == .protected)
        #expect(sequencer.released.isEmpty)
        #expect(!sequencer.isBridged)
    }

    @Test func `a verified image releases the BMC, then the host, then locks`() throws {
        var sequencer = Sequences.sequencer(.verifying)
        let report = Sequences.report(true)
        let verdict = sequencer.handle(.request(report))
        #expect(
            Sequences.withoutTimers(verdict) == [
                .respond(.status(report, .success)),
                .emit(
                    .firmwareVerified(slot: .a, image: "good image", securityVersion: 5, digest: Sequences.digest)),
                .setReset(.bmc, isAsserted: false), .emit(.resetReleased(.bmc)),
            ])
        #expect(sequencer.mode == .protected, "protected again before anything runs")
        #expect(sequencer.state == .released)
        #expect(sequencer.runningSlot == .a)
        #expect(sequencer.handle(.powerGood(.host, true)).isEmpty, "the host is not waited for yet")
        #expect(sequencer.handle(.powerGood(.host, false)).isEmpty)
        #expect(!sequencer.isBridged)
        let second = sequencer.handle(.powerGood(.bmc, true))
        #expect(
            Sequences.withoutTimers(second) == [.setReset(.host, isAsserted: false), .emit(.resetReleased(.host))])
        #expect(sequencer.released == [.bmc, .host])
        #expect(sequencer.isBridged, "both run, and the board is not locked yet")
        // Nobody watches the boot: what could be locked has booted.
        #expect(
            sequencer.handle(.powerGood(.host, true)) == [
                .emit(.boardLocked), .raiseRollback(.a, digest: Sequences.digest),
            ])
        #expect(sequencer.state == .locked)
        #expect(!sequencer.isBridged)
    }

    @Test func `power that is good already is not waited for`() {
        var sequencer = Sequences.sequencer(.verifying)
        _ = sequencer.handle(.powerGood(.bmc, true))
        _ = sequencer.handle(.powerGood(.host, true))
        let actions = sequencer.handle(.request(Sequences.report(true)))
        #expect(Sequences.timers(actions).isEmpty)
        #expect(Sequences.events(actions).last == .boardLocked)
        #expect(sequencer.state == .locked)
    }

    @Test func `a component without power good is passed over after its time`() throws {
        let settings = Sequences.settings { $0.timing.powerGood = .milliseconds(7) }
        var sequencer = Sequences.sequencer(.verifying, settings)
        let first = try #require(Sequences.timers(sequencer.handle(.request(Sequences.report(true)))).first)
        #expect(first.duration == .milliseconds(7))
        let second = try #require(Sequences.timers(sequencer.handle(.timerFired(first.token))).first)
        #expect(sequencer.released == [.bmc, .host])
        #expect(sequencer.handle(.timerFired(first.token)).isEmpty, "an old timer means nothing")
        #expect(Sequences.events(sequencer.handle(.timerFired(second.token))) == [.boardLocked])
    }

    @Test func `a verdict against the fuses is not taken`() {
        var sequencer = Sequences.sequencer(.verifying)
        let report = Sequences.report(true, version: 4)
        let actions = sequencer.handle(.request(report))
        #expect(actions.first == .respond(.status(report, .invalidData)))
        #expect(sequencer.state == .failed)
        #expect(sequencer.failureReason?.hasPrefix("security version 4 is below the minimum 5 ") == true)
        #expect(sequencer.released.isEmpty)
    }

    @Test(arguments: Sequences.states)
    func `a verifier that goes fails the board while it verifies, and only then`(state: SecurityState) {
        var sequencer = Sequences.sequencer(state)
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
            var sequencer = SecuritySequencer(fuses: Sequences.fuses)
            let timer = try #require(Sequences.timers(sequencer.handle(.powerOn)).first)
            #expect(timer.duration == .seconds(60))
            if begins { _ = sequencer.handle(.request(.setMode(.unprotected))) }
            _ = sequencer.handle(.timerFired(timer.token))
            #expect(sequencer.state == .failed)
            #expect(sequencer.mode == .protected)
            #expect(sequencer.failureReason?.contains(begins ? "no verdict" : "no adapter") == true)
        }
    }

    @Test(arguments: Sequences.states)
    func `a power cycle holds everything again, whatever the state`(state: SecurityState) {
        var sequencer = Sequences.sequencer(state)
        let actions = sequencer.handle(.powerCycle)
        #expect(sequencer.state == .held)
        #expect(sequencer.mode == .protected)
        #expect(sequencer.released.isEmpty)
        #expect(sequencer.failureReason == nil)
        #expect(sequencer.refusals.isEmpty)
        #expect(sequencer.runningSlot == nil)
        #expect(actions.contains(.setReset(.bmc, isAsserted: true)))
        #expect(actions.contains(.setReset(.host, isAsserted: true)))
        #expect(actions.contains(.forgetVerified), "what was verified before counts no more")
        #expect(actions.last == .pulseAdapterReset)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        #expect(sequencer.state == .verifying)
        #expect(sequencer.candidate == .a)
    }

    @Test(arguments: Sequences.states)
    func `a flash that changed fails a board that runs, and holds host and BMC`(state: SecurityState) {
        var sequencer = Sequences.sequencer(state)
        let actions = sequencer.handle(.flashChanged(0x80_1000))
        guard state == .released || state == .locked else {
            #expect(actions.isEmpty)
            #expect(sequencer.state == state)
            return
        }
        #expect(
            actions == [
                .setReset(.bmc, isAsserted: true), .emit(.resetAsserted(.bmc)), .setReset(.host, isAsserted: true),
                .emit(.resetAsserted(.host)),
                .emit(
                    .boardFailed(image: "good image", reason: "flash changed after verification at 0x801000")),
            ])
        #expect(sequencer.state == .failed)
        #expect(sequencer.released.isEmpty)
        #expect(sequencer.handle(.bootComplete).isEmpty, "what failed does not boot")
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
        let extension_ = SecurityRequest.extend(.init(register: 1, type: 5, digest: digest, text: "x"))
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
                Sequences.report(true),
                [(never, .held), (good, .released), (never, .released), (never, .locked), (never, .failed)]
            ),
            (
                Sequences.refused(.a),
                [(never, .held), (good, .verifying), (never, .released), (never, .locked), (never, .failed)]
            ),
            (
                Sequences.report(true, slot: .b),
                [
                    (never, .held), (.invalidData, .verifying), (never, .released), (never, .locked),
                    (never, .failed),
                ]
            ),
            (extension_, [(never, .held), (good, .verifying), (never, .released), (never, .locked), (never, .failed)]),
        ]
        return table.flatMap { request, outcomes in
            zip(Sequences.states, outcomes).map { state, outcome in
                Permission(request: request, state: state, status: outcome.0, after: outcome.1)
            }
        }
    }()

    @Test(arguments: permissions)
    func `a command is permitted or refused by the state`(permission: Permission) {
        var sequencer = Sequences.sequencer(permission.state)
        let released = sequencer.released
        let actions = sequencer.handle(.request(permission.request))
        #expect(actions.first == .respond(.status(permission.request, permission.status)))
        #expect(sequencer.state == permission.after)
        if permission.status == .notPermitted {
            #expect(actions.count == 1, "a refused command does nothing")
            #expect(sequencer.released == released)
            #expect(sequencer.mode == .protected)
        }
    }

    @Test(arguments: Sequences.states)
    func `fuses, state and slot can be asked for at any time`(state: SecurityState) {
        var sequencer = Sequences.sequencer(state)
        let slot: UInt8? = state == .held || state == .failed ? nil : 0
        #expect(sequencer.handle(.request(.queryState)) == [.respond(.state(state, slot: slot))])
        #expect(
            sequencer.handle(.request(.readFuses)) == [
                .respond(
                    .fuses(
                        FuseValues(
                            rootKeyDigest: Sequences.fuses.rootKeyDigest, minimumSecurityVersion: 5,
                            cancelledKeys: [UInt8](repeating: 0, count: 16), board: "baseboard,server")))
            ])
        #expect(
            sequencer.handle(.request(.nextSlot)) == [
                .respond(state == .verifying ? .slot(0) : .status(.nextSlot, .notPermitted))
            ])
    }

    @Test(arguments: SecuritySettings.Verifier.allCases, SecuritySettings.LockMoment.allCases)
    func `no order of events releases a component that was not verified`(
        verifier: SecuritySettings.Verifier, lockAt: SecuritySettings.LockMoment
    ) {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        let settings = Sequences.settings {
            $0.verifier = verifier
            $0.lockAt = lockAt
            $0.bootTimeout = .seconds(30)
        }
        let good = SlotVerdict(
            refusal: nil, imageName: "own", digest: Sequences.digest, securityVersion: 5, measurements: [])
        let bad = SlotVerdict(refusal: "no", imageName: "own")
        for _ in 0..<150 {
            var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: settings)
            var tokens: [SecuritySequencer.TimerToken] = []
            var runs: [(slot: FirmwareSlot, run: SecuritySequencer.Run)] = []
            /// Slots that adapter and logic found good since they were held.
            var byAdapter: Set<FirmwareSlot> = []
            var byLogic: Set<FirmwareSlot> = []
            func note(_ actions: [SecuritySequencer.Action]) {
                tokens += Sequences.timers(actions).map(\.token)
                runs += Sequences.work(actions)
            }
            note(sequencer.handle(.powerOn))
            for _ in 0..<60 {
                let candidate = sequencer.candidate
                let run = runs.randomElement(using: &generator)
                var events: [SecuritySequencer.Event] = [
                    .powerCycle, .adapterDisconnected, .powerGood(.bmc, true), .powerGood(.host, true),
                    .powerGood(.bmc, false), .request(.setMode(.unprotected)), .request(.setMode(.unprotected)),
                    .request(.setMode(.protected)), .request(.holdReset), .request(.queryState), .request(.nextSlot),
                    .bootComplete, .flashChanged(4096),
                ]
                for slot in FirmwareSlot.allCases {
                    events += [
                        .request(Sequences.report(true, slot: slot)), .request(Sequences.refused(slot)),
                        .request(Sequences.report(true, slot: slot, version: 1)),
                    ]
                }
                if let run {
                    events += [
                        .verdict(run.run, good), .verdict(run.run, bad), .verdict(run.run, good),
                        .restored(run.run, failure: nil), .restored(run.run, failure: "no"),
                    ]
                }
                if let token = tokens.randomElement(using: &generator) { events.append(.timerFired(token)) }
                let event = events.randomElement(using: &generator)!
                let golden = sequencer.isRecovering
                let actions = sequencer.handle(event)
                note(actions)
                if actions.contains(.forgetVerified) {
                    byAdapter = []
                    byLogic = []
                }
                if let candidate {
                    if event == .request(Sequences.report(true, slot: candidate)) { byAdapter.insert(candidate) }
                    if case .verdict(let answered, good) = event, answered == run?.run, run?.slot == candidate {
                        byLogic.insert(candidate)
                    }
                }
                guard !sequencer.released.isEmpty, let slot = sequencer.runningSlot else {
                    #expect(sequencer.released.isEmpty, "seed \(seed)")
                    continue
                }
                let isVerified =
                    switch verifier {
                    case .adapter: byAdapter.contains(slot)
                    case .logic: byLogic.contains(slot)
                    case .both: byAdapter.contains(slot) && byLogic.contains(slot)
                    }
                #expect(isVerified, "seed \(seed), \(slot), \(event), \(golden)")
                #expect(sequencer.mode == .protected, "seed \(seed)")
                #expect(!sequencer.released.contains(.host) || sequencer.released.contains(.bmc), "seed \(seed)")
                #expect(!sequencer.isBridged || sequencer.state == .released, "seed \(seed)")
            }
        }
    }
}
