import Adapter
import Sideband
import Testing
import Trust

struct VerificationSequenceTests {
    static let digest = [UInt8](repeating: 0xAB, count: 48)
    static let fuses = SecurityResponse.fuses(
        FuseValues(
            rootKeyDigest: digest, minimumSecurityVersion: 3, cancelledKeys: [2] + [UInt8](repeating: 0, count: 15),
            board: "baseboard,test"))
    static let verified = FirmwareVerdict.verified(
        FirmwareManifest(name: "image", boardCompatibility: "baseboard,server", securityVersion: 5, components: []),
        digest: digest)

    static func ok(_ request: SecurityRequest) -> VerificationSequence.Input {
        .response(.status(request, .success))
    }

    /// A sequence that is told `inputs` after its reset was released, and the actions of the last one.
    static func run(_ inputs: [VerificationSequence.Input]) -> (VerificationSequence, [VerificationSequence.Action]) {
        var sequence = VerificationSequence()
        var actions = sequence.handle(.reset(isReleased: true))
        for input in inputs { actions = sequence.handle(input) }
        return (sequence, actions)
    }

    static let untilVerify: [VerificationSequence.Input] = [
        ok(.setMode(.unprotected)), ok(.holdReset), .response(fuses), .response(.slot(0)),
    ]
    /// The one thing that the image's verdict measures: its manifest.
    static let measurement = SecurityRequest.extend(
        .init(register: 1, type: 0xA, digest: digest, text: "image, security version 5"))
    static let goodReport = SecurityRequest.reportVerification(
        SecurityRequest.Verification(isVerified: true, digest: digest, securityVersion: 5, reason: "image"))

    static func badReport(_ text: String) -> SecurityRequest {
        .reportVerification(
            SecurityRequest.Verification(
                isVerified: false, digest: Array(repeating: 0, count: 48), securityVersion: 0, reason: text))
    }

    @Test func `a good image goes the whole way`() {
        var sequence = VerificationSequence()
        #expect(sequence.phase == .held)
        #expect(sequence.handle(.reset(isReleased: true)) == [.emit(.verifying), .send(.setMode(.unprotected))])
        #expect(sequence.handle(Self.ok(.setMode(.unprotected))) == [.send(.holdReset)])
        #expect(sequence.handle(Self.ok(.holdReset)) == [.send(.readFuses)])
        #expect(sequence.handle(.response(Self.fuses)) == [.send(.nextSlot)])
        let fuses = Fuses(
            rootKeyDigest: Self.digest, minimumSecurityVersion: 3, boardCompatibility: "baseboard,test",
            cancelledKeys: [1])
        #expect(sequence.handle(.response(.slot(0))) == [.verify(fuses, .a)])
        #expect(sequence.handle(.verdict(Self.verified)) == [.send(Self.measurement)])
        #expect(
            sequence.handle(Self.ok(Self.measurement))
                == [.emit(.verified(slot: .a, image: "image", securityVersion: 5)), .send(Self.goodReport)])
        #expect(sequence.handle(Self.ok(Self.goodReport)) == [.send(.setMode(.protected))])
        #expect(sequence.handle(Self.ok(.setMode(.protected))) == [])
        #expect(sequence.phase == .finished)
        #expect(sequence.verdict == Self.verified)
    }

    @Test func `a bad slot is refused, reported, and the next one is verified`() {
        let verdict = FirmwareVerdict.refused(.invalidSignature, imageName: "evil")
        let (_, actions) = Self.run(Self.untilVerify + [.verdict(verdict)])
        let report = Self.badReport("evil\nsignature invalid")
        #expect(
            actions == [.emit(.slotRefused(slot: .a, image: "evil", reason: "signature invalid")), .send(report)])
        var (sequence, last) = Self.run(Self.untilVerify + [.verdict(verdict), Self.ok(report)])
        #expect(last == [.send(.nextSlot)])
        guard case .verify(_, .b) = sequence.handle(.response(.slot(1))).first else {
            Issue.record("slot B is not verified")
            return
        }
        #expect(sequence.slot == .b)
        #expect(sequence.handle(.verdict(Self.verified)) == [.send(Self.measurement)])
        guard case .send(.reportVerification(let second)) = sequence.handle(Self.ok(Self.measurement)).last else {
            Issue.record("no report")
            return
        }
        #expect(second.slot == 1 && second.isVerified)
    }

    @Test func `when no slot is left everything is refused, and the mode goes back to protected`() {
        let verdict = FirmwareVerdict.refused(.invalidSignature, imageName: "evil")
        let report = Self.badReport("evil\nsignature invalid")
        let (sequence, last) = Self.run(
            Self.untilVerify + [.verdict(verdict), Self.ok(report), .response(.status(.nextSlot, .notPermitted))])
        #expect(
            last == [.emit(.refused(image: "evil", reason: "slot A: signature invalid")), .send(.setMode(.protected))])
        #expect(sequence.verdict == verdict)
    }

    static let declined: [(before: [VerificationSequence.Input], answer: SecurityResponse, reason: String)] = [
        ([], .status(.setMode(.unprotected), .notPermitted), "SetMode unprotected with notPermitted"),
        ([], .status(.holdReset, .success), "SetMode unprotected with success"),
        ([], fuses, "SetMode unprotected with an answer to something else"),
        ([ok(.setMode(.unprotected))], .status(.holdReset, .invalidCommand), "HoldReset with invalidCommand"),
        (
            [ok(.setMode(.unprotected)), ok(.holdReset)], .status(.readFuses, .success),
            "ReadFuses with success"
        ),
        (
            [ok(.setMode(.unprotected)), ok(.holdReset)], .state(.held, slot: nil),
            "ReadFuses with an answer to something else"
        ),
        (
            [ok(.setMode(.unprotected)), ok(.holdReset), .response(fuses)], .status(.nextSlot, .notPermitted),
            "NextSlot with notPermitted"
        ),
        (
            [ok(.setMode(.unprotected)), ok(.holdReset), .response(fuses)], .slot(3),
            "NextSlot with an answer to something else"
        ),
    ]

    @Test(arguments: declined.indices)
    func `a logic that declines before there is a slot makes it a refusal`(index: Int) {
        let (before, answer, reason) = Self.declined[index]
        let (sequence, actions) = Self.run(before + [.response(answer)])
        let why = "the image cannot be read: the security logic answered \(reason)"
        #expect(
            actions == [
                .emit(.refused(image: "unnamed image", reason: why)), .send(.setMode(.protected)),
            ])
        #expect(sequence.phase == .protecting)
    }

    @Test func `a logic that does not take a measurement gets no report of it`() {
        let (_, actions) = Self.run(
            Self.untilVerify + [.verdict(Self.verified), .response(.status(Self.measurement, .notPermitted))])
        let reason = "the security logic answered Extend with notPermitted"
        #expect(actions == [.emit(.refused(image: "image", reason: reason)), .send(.setMode(.protected))])
    }

    @Test func `a verified image whose report is not taken is refused after all`() {
        let (sequence, actions) = Self.run(
            Self.untilVerify + [
                .verdict(Self.verified), Self.ok(Self.measurement), .response(.status(Self.goodReport, .invalidData)),
            ])
        let reason = "the security logic answered ReportVerification with invalidData"
        #expect(actions == [.emit(.refused(image: "image", reason: reason)), .send(.setMode(.protected))])
        #expect(sequence.verdict == .refused(.unreadable(reason), imageName: "image"))
    }

    static let steps = [
        [], [ok(.setMode(.unprotected))], [ok(.setMode(.unprotected)), ok(.holdReset)],
        [ok(.setMode(.unprotected)), ok(.holdReset), .response(fuses)], untilVerify,
    ]

    @Test(arguments: steps.indices)
    func `a logic that is gone before the verdict makes it a refusal that nobody hears`(index: Int) {
        let (sequence, actions) = Self.run(Self.steps[index] + [.failure("gone")])
        #expect(actions == [.emit(.refused(image: "unnamed image", reason: "the image cannot be read: gone"))])
        #expect(sequence.phase == .finished)
        #expect(!sequence.isAwaitingResponse)
    }

    @Test func `a logic that is gone after the verdict takes the verified image with it`() {
        let (_, reporting) = Self.run(
            Self.untilVerify + [.verdict(Self.verified), Self.ok(Self.measurement), .failure("gone")])
        #expect(reporting == [.emit(.refused(image: "image", reason: "gone"))])
        let (finished, after) = Self.run(
            Self.untilVerify + [
                .verdict(Self.verified), Self.ok(Self.measurement), Self.ok(Self.goodReport),
                Self.ok(.setMode(.protected)), .failure("gone"),
            ])
        #expect(after == [])
        #expect(finished.verdict == Self.verified)
    }

    @Test(arguments: steps.indices)
    func `a power cycle abandons the run and begins a new one`(index: Int) {
        var (sequence, _) = Self.run(Self.steps[index])
        #expect(sequence.handle(.reset(isReleased: false)) == [])
        #expect(sequence.phase == .held)
        // What still comes of the old run is nobody's.
        #expect(sequence.handle(.verdict(Self.verified)) == [])
        #expect(sequence.handle(Self.ok(.holdReset)) == [])
        #expect(sequence.handle(.failure("late")) == [])
        #expect(sequence.handle(.reset(isReleased: true)) == [.emit(.verifying), .send(.setMode(.unprotected))])
        #expect(sequence.handle(.reset(isReleased: true)) == [])
    }
}
