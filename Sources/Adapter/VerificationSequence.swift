// What the master adapter does before anything else of the board may run, as a pure state machine.
//
//   RESET# released → SetMode unprotected → HoldReset → ReadFuses → verify → ReportVerification → SetMode protected
//
// Whatever goes wrong on the way is a refusal with a reason; a refusal is reported to the logic whenever it still
// listens, and the mode always goes back to protected. RESET# of the adapter asserted (a power cycle) abandons
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
        case verifying
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
        case verify(Fuses)
        case emit(Event)
    }

    public enum Event: Hashable, Sendable {
        case verifying
        case verified(image: String, securityVersion: UInt32)
        case refused(image: String, reason: String)
    }

    public private(set) var phase = Phase.held
    /// The verdict of the current or last run; nil before it is known.
    public private(set) var verdict: FirmwareVerdict?
    private var awaited: SecurityRequest?

    public init() {}

    /// True while a response is due.
    public var isAwaitingResponse: Bool { awaited != nil }

    public mutating func handle(_ input: Input) -> [Action] {
        switch input {
        case .reset(isReleased: true):
            guard phase == .held else { return [] }
            verdict = nil
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
        if phase == .readingFuses, case .fuses(let digest, let version) = response {
            phase = .verifying
            return [.verify(Fuses(rootKeyDigest: digest, minimumSecurityVersion: version))]
        }
        guard phase != .readingFuses, response == .status(request, .success) else {
            return decline(response, to: request)
        }
        switch phase {
        case .unprotecting: return ask(.holdReset, .holding)
        case .holding: return ask(.readFuses, .readingFuses)
        case .reporting: return ask(.setMode(.protected), .protecting)
        case .protecting:
            phase = .finished
            return []
        case .held, .readingFuses, .verifying, .finished: return []
        }
    }

    /// The logic did not do what it was asked.
    private mutating func decline(_ response: SecurityResponse, to request: SecurityRequest) -> [Action] {
        let answer =
            if case .status(_, let status) = response { "\(status)" } else { "an answer to something else" }
        let reason = "the security logic answered \(request.name) with \(answer)"
        switch phase {
        case .reporting:
            // It does not take the report: a verified image that does not run is refused after all.
            return revoke(reason) + ask(.setMode(.protected), .protecting)
        case .protecting:
            phase = .finished
            return revoke(reason)
        default:
            return conclude(.refused(.unreadable(reason), imageName: nil))
        }
    }

    /// The verdict is known: it is told to everybody.
    private mutating func conclude(_ verdict: FirmwareVerdict) -> [Action] {
        self.verdict = verdict
        let event: Event
        let report: SecurityRequest.Verification
        switch verdict {
        case .verified(let manifest, let digest):
            event = .verified(image: manifest.name, securityVersion: manifest.securityVersion)
            report = SecurityRequest.Verification(
                isVerified: true, digest: digest, securityVersion: manifest.securityVersion,
                reason: verdict.reportText)
        case .refused(let refusal, let imageName):
            event = .refused(image: imageName ?? FirmwareVerdict.unnamedImage, reason: refusal.description)
            report = SecurityRequest.Verification(
                isVerified: false, digest: Array(repeating: 0, count: 48), securityVersion: 0,
                reason: verdict.reportText)
        }
        return [.emit(event)] + ask(.reportVerification(report), .reporting)
    }

    /// Nobody listens any more.
    private mutating func fail(_ reason: String) -> [Action] {
        defer { awaited = nil }
        switch phase {
        case .held, .finished:
            return []
        case .unprotecting, .holding, .readingFuses, .verifying:
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
        }
    }
}
