public import Trust

/// How a board's security logic is set up.
public struct SecuritySettings: Sendable, Hashable {
    /// Who verifies the firmware.
    public enum Verifier: String, CaseIterable, Sendable, Hashable {
        /// The master adapter alone.
        case adapter
        /// The logic alone; no adapter is needed.
        case logic
        /// Both, of the same slot, and they must find the same manifest.
        case both
    }

    /// When the board locks.
    public enum LockMoment: String, CaseIterable, Sendable, Hashable {
        /// Once everything is released.
        case release
        /// Once the host says that it has booted.
        case bootComplete = "boot-complete"
    }

    /// How long the sequence waits for others.
    public struct Timing: Sendable, Hashable {
        /// From power-on to a slot's verdict. A 32 MiB image is verified in a fraction of a second; a minute says that
        /// nobody will.
        public var verification: Duration = .seconds(60)
        /// From a component's release to its POWER_GOOD, which simulated rails give within milliseconds. A component
        /// without it is passed over, not failed: it may be absent.
        public var powerGood: Duration = .milliseconds(50)
        /// For writing a slot from golden: a chip of 128 MiB erases and programs a quarter of it in two minutes by its
        /// data sheet's typical times.
        public var restoration: Duration = .seconds(600)

        public init() {}
    }

    /// The components that are there. Others are neither waited for nor told of, and stay in reset.
    public var components: Set<HeldComponent> = [.bmc, .host]
    public var verifier = Verifier.adapter
    public var lockAt = LockMoment.release
    /// How long the host may take from its release until it says that it has booted; nil: it is not watched.
    public var bootTimeout: Duration?
    public var timing = Timing()

    public init() {}

    /// In words, as it is measured.
    var summary: String {
        let cards = components.subtracting([.bmc, .host]).map(\.rawValue).sorted()
        return "security logic: verifier \(verifier.rawValue), lock at \(lockAt.rawValue), "
            + (bootTimeout.map { "boot within \($0)" } ?? "boot not watched")
            + (cards.isEmpty ? "" : ", holds \(cards.joined(separator: " "))")
    }
}

/// What a verifier found in a slot.
public struct SlotVerdict: Sendable, Hashable {
    /// nil: verified.
    public var refusal: String?
    public var imageName: String
    /// SHA-384 of the manifest; empty when there was none.
    public var digest: [UInt8]
    public var securityVersion: UInt32
    /// What a verified image is measured as, in order.
    public var measurements: [Measurement]

    public init(
        refusal: String?, imageName: String, digest: [UInt8] = [], securityVersion: UInt32 = 0,
        measurements: [Measurement] = []
    ) {
        self.refusal = refusal
        self.imageName = imageName
        self.digest = digest
        self.securityVersion = securityVersion
        self.measurements = measurements
    }

    public init(_ verdict: FirmwareVerdict) {
        switch verdict {
        case .verified(let manifest, let digest):
            self.init(
                refusal: nil, imageName: manifest.name, digest: digest, securityVersion: manifest.securityVersion,
                measurements: verdict.measurements)
        case .refused(let refusal, let imageName):
            self.init(
                refusal: refusal.description, imageName: imageName ?? FirmwareVerdict.unnamedImage)
        }
    }
}
