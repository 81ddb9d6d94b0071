import SecurityLogic
import Sideband
import TestKit
import Testing
import Trust

/// Which slot runs: refusals, recovery, boots that do not end, and what is remembered of them.
@Suite struct SlotSequenceTests {
    private func report(_ sequencer: inout SecuritySequencer, _ request: SecurityRequest) -> [SecuritySequencer.Action]
    {
        sequencer.handle(.request(request))
    }

    @Test func `a bad slot A gives way to slot B, which is remembered`() {
        var sequencer = Sequences.sequencer(.verifying)
        #expect(
            Sequences.withoutTimers(report(&sequencer, Sequences.refused(.a))) == [
                .respond(.status(Sequences.refused(.a), .success)),
                .emit(.slotRefused(slot: .a, image: "bad image", reason: "no manifest")),
            ])
        #expect(sequencer.state == .verifying)
        #expect(sequencer.candidate == .b)
        let actions = report(&sequencer, Sequences.report(true, slot: .b))
        #expect(
            Sequences.events(actions).first
                == .firmwareVerified(slot: .b, image: "good image", securityVersion: 5, digest: Sequences.digest))
        _ = sequencer.handle(.powerGood(.bmc, true))
        let locked = sequencer.handle(.powerGood(.host, true))
        #expect(sequencer.record.active == .b)
        #expect(locked.contains(.store(sequencer.record)))
        #expect(locked.contains(.raiseRollback(.b, digest: Sequences.digest)))
        _ = sequencer.handle(.powerCycle)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        #expect(sequencer.candidate == .b, "what booted last is tried first")
    }

    @Test func `when all three are bad the board fails with the reason of each`() {
        var sequencer = Sequences.sequencer(.verifying)
        _ = report(&sequencer, Sequences.report(false, slot: .a, "one\nsignature invalid"))
        _ = report(&sequencer, Sequences.report(false, slot: .b, "two\nno manifest"))
        let actions = report(&sequencer, Sequences.report(false, slot: .golden, "three\nwrong board"))
        let reason = "slot A: signature invalid; slot B: no manifest; slot golden: wrong board"
        #expect(
            Sequences.events(actions) == [
                .slotRefused(slot: .golden, image: "three", reason: "wrong board"),
                .firmwareRefused(image: "one", reason: reason), .boardFailed(image: "one", reason: reason),
            ])
        #expect(sequencer.failureReason == reason)
        #expect(sequencer.released.isEmpty)
    }

    @Test func `the same fault of every slot is said once`() {
        let sequencer = Sequences.sequencer(.failed)
        #expect(sequencer.failureReason == "every slot: no manifest")
    }

    /// Slots A and B refused, golden verified: slot A is being written.
    private func recovering(_ settings: SecuritySettings = SecuritySettings()) throws -> (
        SecuritySequencer, SecuritySequencer.Run, [SecuritySequencer.Action]
    ) {
        var sequencer = Sequences.sequencer(.verifying, settings)
        _ = report(&sequencer, Sequences.refused(.a))
        _ = report(&sequencer, Sequences.refused(.b))
        let actions = report(&sequencer, Sequences.report(true, slot: .golden))
        return (sequencer, try #require(Sequences.work(actions).first?.run), actions)
    }

    @Test func `when only golden verifies slot A is written from it, verified again and run`() throws {
        var (sequencer, run, actions) = try recovering()
        #expect(
            Sequences.withoutTimers(actions) == [
                .respond(.status(Sequences.report(true, slot: .golden), .success)),
                .emit(.recoveryStarted(slot: .a)), .restore(.a, run),
            ])
        #expect(sequencer.state == .verifying && sequencer.isRecovering)
        #expect(sequencer.mode == .protected)
        // Meanwhile nobody verifies, reports or opens the flash.
        #expect(report(&sequencer, .nextSlot) == [.respond(.status(.nextSlot, .notPermitted))])
        #expect(
            report(&sequencer, .setMode(.unprotected)) == [.respond(.status(.setMode(.unprotected), .notPermitted))])
        #expect(
            report(&sequencer, Sequences.report(true)).first == .respond(.status(Sequences.report(true), .notPermitted))
        )
        #expect(sequencer.handle(.adapterDisconnected).isEmpty)

        let restored = sequencer.handle(.restored(run, failure: nil))
        #expect(
            Sequences.withoutTimers(restored) == [
                .emit(.recoveryComplete(slot: .a, failure: nil)), .store(sequencer.record), .forgetVerified,
                .pulseAdapterReset,
            ])
        #expect(sequencer.state == .held)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        #expect(sequencer.candidate == .a)
        _ = report(&sequencer, Sequences.report(true))
        #expect(sequencer.runningSlot == .a)
        #expect(sequencer.handle(.restored(run, failure: "late")).isEmpty)
    }

    @Test func `a slot that cannot be written leaves golden to be verified again and run in place`() throws {
        var (sequencer, run, _) = try recovering()
        let actions = sequencer.handle(.restored(run, failure: "the chip is worn out"))
        #expect(
            Sequences.withoutTimers(actions) == [
                .emit(.recoveryComplete(slot: .a, failure: "the chip is worn out")), .forgetVerified,
                .pulseAdapterReset,
            ])
        #expect(sequencer.state == .held && sequencer.runningSlot == nil)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        #expect(sequencer.candidate == .golden)
        _ = report(&sequencer, Sequences.report(true, slot: .golden))
        #expect(sequencer.runningSlot == .golden)
        _ = sequencer.handle(.powerGood(.bmc, true))
        _ = sequencer.handle(.powerGood(.host, true))
        #expect(sequencer.record.active == .a, "golden leaves the record as it is")
    }

    @Test func `a chip that is gone after it was written leaves the board held, with every slot's reason`() throws {
        var (sequencer, run, _) = try recovering()
        _ = sequencer.handle(.restored(run, failure: "the chip does not answer"))
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        _ = report(&sequencer, Sequences.report(false, slot: .golden, "?\nno manifest"))
        #expect(sequencer.state == .failed && sequencer.released.isEmpty)
        #expect(sequencer.refusals.map(\.slot) == [.a, .b, .golden])
    }

    @Test func `a slot that is bad again after it was written is not written once more`() throws {
        var (sequencer, run, _) = try recovering()
        _ = sequencer.handle(.restored(run, failure: nil))
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        _ = report(&sequencer, Sequences.refused(.a))
        #expect(sequencer.candidate == .golden)
        let actions = report(&sequencer, Sequences.report(true, slot: .golden))
        #expect(Sequences.work(actions).isEmpty)
        #expect(sequencer.runningSlot == .golden)
    }

    @Test func `writing that has no end leaves golden to be verified again`() throws {
        var (sequencer, run, actions) = try recovering()
        let timer = try #require(Sequences.timers(actions).last)
        #expect(timer.duration == .seconds(600))
        _ = sequencer.handle(.timerFired(timer.token))
        #expect(!sequencer.isRecovering && sequencer.state == .held)
        #expect(sequencer.handle(.restored(run, failure: nil)).isEmpty, "too late")
    }

    // MARK: Who verifies

    private static let own = SlotVerdict(
        refusal: nil, imageName: "own image", digest: Sequences.digest, securityVersion: 6,
        measurements: [Measurement(register: 2, type: .postCode, digest: Sequences.digest, data: [0x41])])

    @Test func `the logic alone verifies slot after slot without an adapter`() throws {
        let settings = Sequences.settings { $0.verifier = .logic }
        var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: settings)
        let first = sequencer.handle(.powerOn)
        #expect(Sequences.events(first).last == .firmwareVerifying)
        let a = try #require(Sequences.work(first).first)
        #expect(a.slot == .a)
        for request in [SecurityRequest.setMode(.unprotected), .nextSlot, Sequences.report(true)] {
            #expect(report(&sequencer, request) == [.respond(.status(request, .notPermitted))])
        }
        let second = sequencer.handle(.verdict(a.run, SlotVerdict(refusal: "no manifest", imageName: "x")))
        let b = try #require(Sequences.work(second).first)
        #expect(b.slot == .b)
        #expect(sequencer.handle(.verdict(a.run, Self.own)).isEmpty, "the verdict of another slot")
        let actions = sequencer.handle(.verdict(b.run, Self.own))
        #expect(
            Sequences.events(actions).first
                == .firmwareVerified(slot: .b, image: "own image", securityVersion: 6, digest: Sequences.digest))
        #expect(sequencer.log.events.contains { $0.data == [0x41] }, "measured in this mode too")
    }

    @Test(arguments: [true, false])
    func `both must verify the same slot, in either order`(adapterFirst: Bool) throws {
        let settings = Sequences.settings { $0.verifier = .both }
        var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: settings)
        _ = sequencer.handle(.powerOn)
        let run = try #require(Sequences.work(sequencer.handle(.request(.setMode(.unprotected)))).first?.run)
        let verdict = SecuritySequencer.Event.verdict(run, Self.own)
        let report = SecuritySequencer.Event.request(Sequences.report(true))
        #expect(sequencer.handle(adapterFirst ? report : verdict).isEmpty, "one alone decides nothing")
        #expect(sequencer.released.isEmpty)
        let actions = sequencer.handle(adapterFirst ? verdict : report)
        #expect(actions.first == .respond(.status(Sequences.report(true), .success)))
        #expect(sequencer.runningSlot == .a)
    }

    static let disagreements: [(SlotVerdict, SecurityRequest, String)] = [
        (
            SlotVerdict(refusal: "no manifest", imageName: "x"), Sequences.report(true),
            "the security logic: no manifest"
        ),
        (own, Sequences.refused(.a), "the adapter: no manifest"),
        (
            SlotVerdict(refusal: nil, imageName: "x", digest: [UInt8](repeating: 1, count: 48), securityVersion: 5),
            Sequences.report(true), "adapter and security logic verified different manifests"
        ),
    ]

    @Test(arguments: disagreements.indices)
    func `a slot that the two do not agree about is refused`(index: Int) throws {
        let (verdict, request, reason) = Self.disagreements[index]
        var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: Sequences.settings { $0.verifier = .both })
        _ = sequencer.handle(.powerOn)
        let run = try #require(Sequences.work(sequencer.handle(.request(.setMode(.unprotected)))).first?.run)
        _ = sequencer.handle(.request(request))
        _ = sequencer.handle(.verdict(run, verdict))
        #expect(sequencer.refusals.map(\.reason) == [reason])
        #expect(sequencer.released.isEmpty)
        #expect(sequencer.candidate == .b)
    }

    // MARK: Boot watch

    private static let watched = Sequences.settings { $0.bootTimeout = .seconds(30) }

    /// The token of the boot's timer of a board that runs.
    private func watch(_ sequencer: inout SecuritySequencer) throws -> SecuritySequencer.TimerToken {
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        let slot = try #require(sequencer.candidate)
        // Power may be good already.
        let actions =
            report(&sequencer, Sequences.report(true, slot: slot)) + sequencer.handle(.powerGood(.bmc, true))
            + sequencer.handle(.powerGood(.host, true))
        let timer = Sequences.timers(actions).first { $0.duration == .seconds(30) }
        return try #require(timer).token
    }

    /// A watched board whose slots do not boot, one after the other.
    @Test func `a slot that does not boot is remembered, and the next is tried, golden last`() throws {
        var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: Self.watched)
        _ = sequencer.handle(.powerOn)
        for slot in [FirmwareSlot.a, .b] {
            let token = try watch(&sequencer)
            #expect(sequencer.runningSlot == slot)
            #expect(!sequencer.isBootConfirmed)
            let actions = sequencer.handle(.timerFired(token))
            #expect(
                Sequences.events(actions).first
                    == .bootFailed(slot: slot, reason: "no boot complete within 30.0 seconds"))
            #expect(actions.contains(.store(sequencer.record)))
            #expect(actions.last == .pulseAdapterReset)
            #expect(sequencer.state == .held)
            #expect(sequencer.record.failed.contains(slot))
            for component in HeldComponent.allCases { _ = sequencer.handle(.powerGood(component, false)) }
        }
        let token = try watch(&sequencer)
        #expect(sequencer.runningSlot == .golden)
        let actions = sequencer.handle(.timerFired(token))
        #expect(sequencer.state == .failed)
        #expect(sequencer.failureReason == "golden did not boot: no boot complete within 30.0 seconds")
        #expect(sequencer.released.isEmpty)
        #expect(actions.contains(.setReset(.host, isAsserted: true)))
    }

    @Test func `a boot that ends in time is confirmed once, and the watch ends`() throws {
        var record = BootRecord()
        record.stage(.b)
        var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: Self.watched, record: record)
        _ = sequencer.handle(.powerOn)
        let token = try watch(&sequencer)
        #expect(sequencer.runningSlot == .b, "the pending update is tried first")
        #expect(sequencer.record.pending == .b, "and stays pending until it has booted")
        let actions = sequencer.handle(.bootComplete)
        #expect(actions == [.store(sequencer.record), .raiseRollback(.b, digest: Sequences.digest)])
        #expect(sequencer.record.active == .b)
        #expect(sequencer.record.pending == nil)
        #expect(sequencer.handle(.timerFired(token)).isEmpty)
        #expect(sequencer.handle(.bootComplete).isEmpty)
        #expect(sequencer.state == .locked)
    }

    @Test func `an update that is refused or does not boot is pending no more`() throws {
        var record = BootRecord()
        record.stage(.b)
        var refused = SecuritySequencer(fuses: Sequences.fuses, settings: Self.watched, record: record)
        _ = refused.handle(.powerOn)
        _ = refused.handle(.request(.setMode(.unprotected)))
        let actions = report(&refused, Sequences.refused(.b))
        #expect(actions.contains(.store(BootRecord())))
        #expect(refused.candidate == .a)

        var dead = SecuritySequencer(fuses: Sequences.fuses, settings: Self.watched, record: record)
        _ = dead.handle(.powerOn)
        _ = dead.handle(.timerFired(try watch(&dead)))
        #expect(dead.record.pending == nil)
        #expect(dead.record.failed == [.b])
        _ = dead.handle(.request(.setMode(.unprotected)))
        #expect(dead.candidate == .a)
    }

    @Test func `golden after boots that failed runs in place`() throws {
        var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: Self.watched)
        _ = sequencer.handle(.powerOn)
        for _ in 0..<2 { _ = sequencer.handle(.timerFired(try watch(&sequencer))) }
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        let actions = report(&sequencer, Sequences.report(true, slot: .golden))
        #expect(Sequences.work(actions).isEmpty, "slots that verify are not written over")
        #expect(sequencer.runningSlot == .golden)
    }

    @Test func `with lock at boot complete the board stays open until then`() {
        let settings = Sequences.settings { $0.lockAt = .bootComplete }
        var sequencer = Sequences.sequencer(.released, settings)
        #expect(sequencer.released == [.bmc, .host])
        #expect(sequencer.isBridged)
        let actions = sequencer.handle(.bootComplete)
        #expect(Sequences.events(actions) == [.boardLocked])
        #expect(actions.contains(.raiseRollback(.a, digest: Sequences.digest)))
        #expect(sequencer.state == .locked)
        #expect(!sequencer.isBridged)
    }

    // MARK: Updates and measurements

    @Test func `an update is tried at the next power cycle, and never that of the slot that runs`() {
        var sequencer = Sequences.sequencer(.locked)
        #expect(sequencer.handle(.updated(.a)).isEmpty)
        #expect(sequencer.handle(.updated(.golden)).isEmpty)
        let before = sequencer.record
        var staged = before
        staged.stage(.b)
        #expect(sequencer.handle(.updated(.b)) == [.stage(staged, .b)])
        #expect(sequencer.record == before, "nothing is staged before the record is kept")
        #expect(sequencer.handle(.staged(.b, isKept: false)).isEmpty)
        #expect(sequencer.record == before, "nor when it cannot be")
        #expect(sequencer.handle(.staged(.a, isKept: true)).isEmpty, "the slot that runs")
        #expect(sequencer.handle(.staged(.b, isKept: true)) == [.emit(.updateStaged(slot: .b))])
        #expect(sequencer.record == staged)
        #expect(sequencer.record.pending == .b)
        #expect(sequencer.runningSlot == .a)
        _ = sequencer.handle(.powerCycle)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        #expect(sequencer.candidate == .b)
    }

    @Test func `what the adapter measured counts when its slot runs, and not before`() throws {
        var sequencer = Sequences.sequencer(.verifying)
        let first = sequencer.log.events.count
        let measurement = SecurityRequest.Extension(register: 3, type: 1, digest: Sequences.digest, text: "next stage")
        #expect(report(&sequencer, .extend(measurement)) == [.respond(.status(.extend(measurement), .success))])
        #expect(sequencer.log.events.count == first)
        _ = report(&sequencer, Sequences.refused(.a))
        #expect(!sequencer.log.events.contains { $0.register == 3 }, "a refused slot's measurements are dropped")
        #expect(report(&sequencer, .extend(measurement)).first == .respond(.status(.extend(measurement), .success)))
        _ = report(&sequencer, Sequences.report(true, slot: .b))
        let events = sequencer.log.events
        #expect(events.first?.register == 0, "the logic's own configuration comes first")
        #expect(events.first?.text.contains("verifier adapter") == true)
        #expect(events.contains { $0.register == 3 && $0.text == "next stage" && $0.digest == Sequences.digest })
        #expect(events.contains { $0.register == 6 && $0.text == "slot A refused: no manifest" })
        #expect(events.last?.text == "slot B runs")
        let register = sequencer.log.registers[3]
        _ = sequencer.handle(.powerCycle)
        #expect(sequencer.log.registers[3] != register)
        #expect(sequencer.log.events.count == 1, "a power cycle begins a new log")
    }

    @Test(arguments: [
        SecurityRequest.Extension(register: 8, type: 1, digest: Sequences.digest, text: ""),
        .init(register: 0, type: 3, digest: Sequences.digest, text: ""),
    ])
    func `a measurement of no register or of no event is refused`(measurement: SecurityRequest.Extension) {
        var sequencer = Sequences.sequencer(.verifying)
        #expect(report(&sequencer, .extend(measurement)) == [.respond(.status(.extend(measurement), .invalidData))])
    }

    @Test func `measurements without end are refused`() {
        var sequencer = Sequences.sequencer(.verifying)
        let measurement = SecurityRequest.extend(.init(register: 1, type: 1, digest: Sequences.digest, text: "x"))
        var taken = 0
        while report(&sequencer, measurement) == [.respond(.status(measurement, .success))], taken < 1000 { taken += 1 }
        #expect(taken == 65)
    }
}
