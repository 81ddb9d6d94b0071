// What the master adapter does before anything else of the board may run, as a pure state machine.
//
//   RESET# released → SetMode unprotected → HoldReset → ReadFuses → NextSlot → verify → Extend … → ReportVerification
//                                                                    ▲                             │ refused
//                                                                    └─────────────────────────────┘
//   → SetMode protected
//
// The logic says which slot is next, until one is verified or none is left. Whatever goes wrong on the way is a refusal
// with a reason; a refusal is reported to the logic whenever it still listens, and the mode always goes back to
// protected. RESET# of the adapter asserted (a power cycle) abandons
// everything; released, it all begins again.

public import Sideband
public import Trust

/// The master's verification of the board's firmware.
public struct VerificationSequence: Sendable {
    /// Where the sequence stands.
    public enum Phase: String, Hashable, Sendable {
        /// The adapter's RESET# is asserted, or the logic has not been heard.
        case held
        case unprotecting
        case holding
        case readingFuses = "reading-fuses"
        case choosing
        case verifying
        case measuring
        case reporting
        case protecting
        case finished
    }

    public enum Input: Sendable {
        /// RESET# of the adapter itself.
        case reset(isReleased: Bool)
        case response(SecurityResponse)
        /// The verifier's answer to ``Action/verify(_:)``.
        case verdict(FirmwareVerdict)
        /// The logic answered nothing, nonsense, or is gone.
        case failure(String)
    }

    public enum Action: Hashable, Sendable {
        case send(SecurityRequest)
        case verify(Fuses, FirmwareSlot)
        case emit(Event)
    }

    public enum Event: Hashable, Sendable {
        case verifying
        case verified(slot: FirmwareSlot, image: String, securityVersion: UInt32)
        /// One slot was refused; the logic may have another.
        case slotRefused(slot: FirmwareSlot, image: String, reason: String)
        /// Nothing may run.
        case refused(image: String, reason: String)
    }

    public private(set) var phase = Phase.held
    /// The verdict of the current or last run; nil before it is known.
    public private(set) var verdict: FirmwareVerdict?
    /// The slot of the verdict.
    public private(set) var slot: FirmwareSlot?
    private var awaited: SecurityRequest?
    private var fuses: Fuses?
    /// What is still to be told to the logic before the report.
    private var measurements: ArraySlice<Measurement> = []
    /// The slots that were refused since RESET# was released.
    private var refusals: [SlotRefusal] = []

    public init() {}

    /// True while a response is due.
    public var isAwaitingResponse: Bool { awaited != nil }

    public mutating func handle(_ input: Input) -> [Action] {
        switch input {
        case .reset(isReleased: true):
            guard phase == .held else { return [] }
            verdict = nil
            slot = nil
            refusals = []
            return [.emit(.verifying)] + ask(.setMode(.unprotected), .unprotecting)
        case .reset(isReleased: false):
            phase = .held
            awaited = nil
            return []
        case .response(let response):
            guard let request = awaited else { return [] }
            awaited = nil
            return take(response, to: request)
        case .verdict(let verdict):
            guard phase == .verifying else { return [] }
            return conclude(verdict)
        case .failure(let reason):
            return fail(reason)
        }
    }

    private mutating func ask(_ request: SecurityRequest, _ next: Phase) -> [Action] {
        phase = next
        awaited = request
        return [.send(request)]
    }

    private mutating func take(_ response: SecurityResponse, to request: SecurityRequest) -> [Action] {
        switch (phase, response) {
        case (.readingFuses, .fuses(let values)):
            guard let cancelledKeys = CancelledKeys(bytes: values.cancelledKeys) else {
                return decline(response, to: request)
            }
            fuses = Fuses(
                rootKeyDigest: values.rootKeyDigest, minimumSecurityVersion: values.minimumSecurityVersion,
                boardCompatibility: values.board, cancelledKeys: cancelledKeys)
            return ask(.nextSlot, .choosing)
        case (.choosing, .slot(let number)):
            guard let fuses, let next = FirmwareSlot(rawValue: number) else { return decline(response, to: request) }
            slot = next
            verdict = nil
            phase = .verifying
            return [.verify(fuses, next)]
        case (.choosing, .status) where verdict != nil && response == .status(request, .notPermitted):
            // Every slot was refused; the logic says so too.
            return giveUp() + ask(.setMode(.protected), .protecting)
        case (.readingFuses, _), (.choosing, _): return decline(response, to: request)
        default: break
        }
        guard response == .status(request, .success) else { return decline(response, to: request) }
        switch phase {
        case .unprotecting: return ask(.holdReset, .holding)
        case .holding: return ask(.readFuses, .readingFuses)
        case .measuring: return reportNext()
        case .reporting:
            if case .refused = verdict, slot != nil { return ask(.nextSlot, .choosing) }
            return ask(.setMode(.protected), .protecting)
        case .protecting:
            phase = .finished
            return []
        case .held, .readingFuses, .choosing, .verifying, .finished: return []
        }
    }

    /// The logic did not do what it was asked.
    private mutating func decline(_ response: SecurityResponse, to request: SecurityRequest) -> [Action] {
        let answer =
            if case .status(_, let status) = response { "\(status)" } else { "an answer to something else" }
        let reason = "the security logic answered \(request.name) with \(answer)"
        switch phase {
        case .reporting, .measuring:
            // It does not take the report: a verified image that does not run is refused after all.
            return revoke(reason) + ask(.setMode(.protected), .protecting)
        case .protecting:
            phase = .finished
            return revoke(reason)
        default:
            // Without a slot there is nothing to report about.
            verdict = .refused(.unreadable(reason), imageName: nil)
            return giveUp() + ask(.setMode(.protected), .protecting)
        }
    }

    /// What is said when no slot may run: why each may not.
    private func giveUp() -> [Action] {
        guard case .refused(let refusal, let imageName) = verdict else { return [] }
        guard refusals.isEmpty else { return [.emit(.refused(image: refusals.image, reason: refusals.summary))] }
        return [.emit(.refused(image: imageName ?? FirmwareVerdict.unnamedImage, reason: refusal.description))]
    }

    /// The verdict about a slot is known: what was measured is told, then the verdict.
    private mutating func conclude(_ verdict: FirmwareVerdict) -> [Action] {
        self.verdict = verdict
        measurements = verdict.measurements[...]
        var event: [Action] = []
        if case .refused(let refusal, let imageName) = verdict, let slot {
            let image = imageName ?? FirmwareVerdict.unnamedImage
            refusals.append(SlotRefusal(slot: slot, image: image, reason: refusal.description))
            event = [.emit(.slotRefused(slot: slot, image: image, reason: refusal.description))]
        }
        return event + reportNext()
    }

    private mutating func reportNext() -> [Action] {
        if let measurement = measurements.popFirst() {
            return ask(
                .extend(
                    .init(
                        register: measurement.register, type: measurement.type.rawValue, digest: measurement.digest,
                        text: measurement.text)), .measuring)
        }
        guard let verdict, let slot else { return [] }
        switch verdict {
        case .verified(let manifest, let digest):
            let report = SecurityRequest.Verification(
                slot: slot.rawValue, isVerified: true, digest: digest, securityVersion: manifest.securityVersion,
                reason: verdict.reportText)
            return [
                .emit(.verified(slot: slot, image: manifest.name, securityVersion: manifest.securityVersion))
            ] + ask(.reportVerification(report), .reporting)
        case .refused:
            let report = SecurityRequest.Verification(
                slot: slot.rawValue, isVerified: false, digest: Array(repeating: 0, count: 48), securityVersion: 0,
                reason: verdict.reportText)
            return ask(.reportVerification(report), .reporting)
        }
    }

    /// Nobody listens any more.
    private mutating func fail(_ reason: String) -> [Action] {
        defer { awaited = nil }
        switch phase {
        case .held, .finished:
            return []
        case .unprotecting, .holding, .readingFuses, .choosing, .verifying, .measuring:
            phase = .finished
            let verdict = FirmwareVerdict.refused(.unreadable(reason), imageName: nil)
            self.verdict = verdict
            return [
                .emit(
                    .refused(
                        image: FirmwareVerdict.unnamedImage, reason: FirmwareRefusal.unreadable(reason).description))
            ]
        case .reporting, .protecting:
            phase = .finished
            return revoke(reason)
        }
    }

    /// Takes a verdict of "verified" back; a refusal stays what it was.
    private mutating func revoke(_ reason: String) -> [Action] {
        guard case .verified(let manifest, _) = verdict else { return [] }
        verdict = .refused(.unreadable(reason), imageName: manifest.name)
        return [.emit(.refused(image: manifest.name, reason: reason))]
    }
}

extension SecurityRequest {
    /// The command as docs/wiring.md names it.
    var name: String {
        switch self {
        case .readFuses: "ReadFuses"
        case .setMode(.unprotected): "SetMode unprotected"
        case .setMode(.protected): "SetMode protected"
        case .holdReset: "HoldReset"
        case .reportVerification: "ReportVerification"
        case .queryState: "QueryState"
        case .nextSlot: "NextSlot"
        case .extend: "Extend"
        }
    }
}
