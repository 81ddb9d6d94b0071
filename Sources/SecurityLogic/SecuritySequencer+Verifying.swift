internal import Sideband
internal import Trust

/// The commands of the adapter, verdicts, and what follows from them.
extension SecuritySequencer {
    mutating func answer(_ request: SecurityRequest) -> [Action] {
        switch request {
        case .readFuses:
            return [
                .respond(
                    .fuses(
                        FuseValues(
                            rootKeyDigest: fuses.rootKeyDigest, minimumSecurityVersion: fuses.minimumSecurityVersion,
                            cancelledKeys: fuses.cancelledKeys.bytes, board: fuses.boardCompatibility)))
            ]
        case .queryState: return [.respond(.state(state, slot: (runningSlot ?? candidate)?.rawValue))]
        case .setMode(let mode): return setMode(mode, request)
        case .holdReset: return holdReset(request)
        case .nextSlot:
            guard settings.verifier != .logic, let candidate else { return [.respond(.status(request, .notPermitted))] }
            return [.respond(.slot(candidate.rawValue))]
        case .extend(let measurement): return [.respond(.status(request, stage(measurement)))]
        case .reportVerification(let report): return take(report, request)
        }
    }

    private mutating func setMode(_ mode: SecurityRequest.Mode, _ request: SecurityRequest) -> [Action] {
        switch (mode, state) {
        case (.protected, _):
            self.mode = .protected
            return [.respond(.status(request, .success))]
        case (.unprotected, .held) where settings.verifier != .logic:
            self.mode = .unprotected
            return [.respond(.status(request, .success))] + beginVerifying()
        case (.unprotected, .verifying) where settings.verifier != .logic && !isRecovering:
            self.mode = .unprotected
            return [.respond(.status(request, .success))]
        case (.unprotected, _):
            return [.respond(.status(request, .notPermitted))]
        }
    }

    mutating func beginVerifying() -> [Action] {
        state = .verifying
        return [.emit(.firmwareVerifying)] + verifyCandidate()
    }

    /// Has the logic's own verifier look at the candidate, where it has a say.
    private mutating func verifyCandidate() -> [Action] {
        forgetVerdicts()
        guard settings.verifier != .adapter, let candidate else { return [] }
        currentRun = Run(number: currentRun.number &+ 1)
        return [.verify(candidate, currentRun)]
    }

    /// All are held already wherever this is permitted: the command makes sure, it does not reset a running board.
    private func holdReset(_ request: SecurityRequest) -> [Action] {
        switch state {
        case .held, .verifying, .failed: [.respond(.status(request, .success))]
        case .released, .locked: [.respond(.status(request, .notPermitted))]
        }
    }

    /// Measurements count once the slot runs; those of the logic's own verifier count before the adapter's.
    private mutating func stage(_ measurement: SecurityRequest.Extension) -> SecurityStatus {
        guard candidate != nil, settings.verifier != .logic, adapterVerdict == nil else { return .notPermitted }
        let type = MeasurementType(rawValue: measurement.type)
        guard measurement.register < MeasurementLog.registerCount, type != .noAction else { return .invalidData }
        guard staged.count < FirmwareManifest.maximumComponents + 1 else { return .notPermitted }
        staged.append(
            Measurement(
                register: measurement.register, type: type, digest: measurement.digest,
                data: Array(measurement.text.utf8)))
        return .success
    }

    private mutating func take(_ report: SecurityRequest.Verification, _ request: SecurityRequest) -> [Action] {
        guard settings.verifier != .logic, let candidate, adapterVerdict == nil else {
            return [.respond(.status(request, .notPermitted))]
        }
        guard report.slot == candidate.rawValue else { return [.respond(.status(request, .invalidData))] }
        if report.isVerified {
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
            adapterVerdict = SlotVerdict(
                refusal: nil, imageName: report.reason, digest: report.digest,
                securityVersion: report.securityVersion, measurements: staged)
        } else {
            let (image, reason) = FirmwareVerdict.parse(reportText: report.reason)
            adapterVerdict = SlotVerdict(refusal: reason, imageName: image)
        }
        waitingReport = request
        return decide()
    }

    /// What follows from the verdicts that are there.
    mutating func decide() -> [Action] {
        guard let slot = candidate, let verdict = agreement() else { return [] }
        let answer = waitingReport.map { [Action.respond(.status($0, .success))] } ?? []
        forgetVerdicts()
        guard let refusal = verdict.refusal else { return answer + accept(slot, verdict) }
        return answer + refuse(slot, verdict.imageName, refusal)
    }

    /// The verdict that counts; nil while one is still to come.
    private func agreement() -> SlotVerdict? {
        switch settings.verifier {
        case .adapter: return adapterVerdict
        case .logic: return ownVerdict
        case .both:
            guard let own = ownVerdict, let adapter = adapterVerdict else { return nil }
            if let refusal = own.refusal {
                return SlotVerdict(refusal: "the security logic: \(refusal)", imageName: own.imageName)
            }
            if let refusal = adapter.refusal {
                return SlotVerdict(refusal: "the adapter: \(refusal)", imageName: own.imageName)
            }
            guard own.digest == adapter.digest else {
                return SlotVerdict(
                    refusal: "adapter and security logic verified different manifests", imageName: own.imageName)
            }
            return own
        }
    }

    // MARK: Verdicts

    private mutating func refuse(_ slot: FirmwareSlot, _ image: String, _ reason: String) -> [Action] {
        refusals.append(SlotRefusal(slot: slot, image: image, reason: reason))
        measure(MeasurementLog.Register.decisions, "slot \(slot) refused: \(reason)")
        var actions: [Action] = [.emit(.slotRefused(slot: slot, image: image, reason: reason))]
        let before = record
        record.noteRefused(slot)
        if record != before { actions.append(.store(record)) }
        candidates.removeFirst()
        guard candidates.isEmpty else {
            return actions + verifyCandidate() + [startTimer(settings.timing.verification)]
        }
        // A slot that is passed over has its reason too.
        let passed = [FirmwareSlot.a, .b].filter { slot in
            record.failed.contains(slot) && !refusals.contains { $0.slot == slot }
        }
        let all =
            passed.map { SlotRefusal(slot: $0, image: FirmwareVerdict.unnamedImage, reason: "it did not boot") }
            + refusals
        return actions + [.emit(.firmwareRefused(image: all.image, reason: all.summary))]
            + fail(image: all.image, reason: all.summary)
    }

    private mutating func accept(_ slot: FirmwareSlot, _ verdict: SlotVerdict) -> [Action] {
        mode = .protected
        let isRefused = refusals.contains { $0.slot == .a }
        if slot == .golden, isRefused, recovery == .none {
            recovery = .running
            currentRun = Run(number: currentRun.number &+ 1)
            measure(MeasurementLog.Register.decisions, "slot A is restored from golden")
            return [
                .emit(.recoveryStarted(slot: .a)), .restore(.a, currentRun), startTimer(settings.timing.restoration),
            ]
        }
        return run(slot, verdict)
    }

    /// Golden was written to slot A, or not. Either way what runs is verified once more: a chip that does not keep what is
    /// written may not hold what was read any more, or be gone.
    mutating func restored(failure: String?) -> [Action] {
        guard isRecovering else { return [] }
        recovery = .done
        currentRun = Run(number: currentRun.number &+ 1)
        var actions = [Action.emit(.recoveryComplete(slot: .a, failure: failure))]
        if let failure {
            measure(MeasurementLog.Register.decisions, "slot A could not be restored: \(failure)")
            candidates = [.golden]
        } else {
            record.noteRestored(.a)
            candidates = [.a, .golden]
            refusals = []
            actions.append(.store(record))
        }
        forgetVerdicts()
        state = .held
        return actions + [.forgetVerified, startTimer(settings.timing.verification)]
            + (settings.verifier == .logic ? beginVerifying() : [.pulseAdapterReset])
    }

    private mutating func run(_ slot: FirmwareSlot, _ verdict: SlotVerdict) -> [Action] {
        for measurement in verdict.measurements { try? log.extend(measurement) }
        measure(MeasurementLog.Register.decisions, "slot \(slot) runs")
        state = .released
        runningSlot = slot
        runningDigest = verdict.digest
        imageName = verdict.imageName
        return [
            .emit(
                .firmwareVerified(
                    slot: slot, image: verdict.imageName, securityVersion: verdict.securityVersion,
                    digest: verdict.digest))
        ] + releaseNext()
    }
}
