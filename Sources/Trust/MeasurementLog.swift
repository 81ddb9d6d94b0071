public import Crypto

/// What an event of the log is, by the numbers of the TCG. Others are representable: a peer may be newer.
///
/// Spec: TCG PC Client Platform Firmware Profile 1.05 §10.4.1. The first stage is EV_POST_CODE and not EV_S_CRTM_CONTENTS,
/// whose data must be an address and a length: ours say in words what it is.
public struct MeasurementType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Firmware of the host; its data is words.
    public static let postCode = MeasurementType(rawValue: 0x1)
    /// Never extended: the log's own header.
    public static let noAction = MeasurementType(rawValue: 0x3)
    /// The end of one phase: what follows was measured by what came before.
    public static let separator = MeasurementType(rawValue: 0x4)
    /// Something that was done or decided, in words; its digest is that of the words.
    public static let action = MeasurementType(rawValue: 0x5)
    /// Settings that decide what the platform does.
    public static let platformConfigFlags = MeasurementType(rawValue: 0xA)
    /// Firmware that the host does not run.
    public static let nonhostCode = MeasurementType(rawValue: 0xF)
    /// Settings of what the host does not run.
    public static let nonhostConfig = MeasurementType(rawValue: 0x10)

    private static let names: [MeasurementType: String] = [
        .postCode: "EV_POST_CODE", .noAction: "EV_NO_ACTION", .separator: "EV_SEPARATOR", .action: "EV_ACTION",
        .platformConfigFlags: "EV_PLATFORM_CONFIG_FLAGS",
        .nonhostCode: "EV_NONHOST_CODE", .nonhostConfig: "EV_NONHOST_CONFIG",
    ]

    /// The TCG's name, or the number in hexadecimal.
    public var description: String { Self.names[self] ?? "0x\(String(rawValue, radix: 16))" }
}

/// One thing that was measured: what a register is extended by.
public struct Measurement: Hashable, Sendable {
    /// 0 to 7.
    public let register: UInt8
    public let type: MeasurementType
    /// SHA-384 of what was measured, 48 bytes.
    public let digest: [UInt8]
    /// Says what it was; not covered by the register unless the digest is its own. For our events UTF-8.
    public let data: [UInt8]

    public init(register: UInt8, type: MeasurementType, digest: [UInt8], data: [UInt8]) {
        self.register = register
        self.type = type
        self.digest = digest
        self.data = data
    }

    /// The data as text for people: unprintable bytes are replaced.
    public var text: String {
        String(decoding: data, as: UTF8.self).unicodeScalars.reduce(into: "") { text, scalar in
            text.unicodeScalars.append(scalar.properties.generalCategory == .control ? "\u{FFFD}" : scalar)
        }
    }
}

/// Why something cannot be measured, or is no log.
public enum MeasurementError: Error, Equatable, Sendable, CustomStringConvertible {
    case noSuchRegister(UInt8)
    case badDigestLength(Int)
    case dataTooLong(Int)
    /// EV_NO_ACTION is by definition not extended.
    case notExtendable
    case logFull
    /// The log says of a register what its own events do not give.
    case registerMismatch(UInt8)
    case malformed(String)
    case crypto(CryptoError)

    public var description: String {
        switch self {
        case .noSuchRegister(let register):
            "there is no measurement register \(register); there are 0 to \(MeasurementLog.registerCount - 1)"
        case .badDigestLength(let length): "a measurement's digest has \(length) bytes, must have 48"
        case .dataTooLong(let length):
            "a measurement's data has \(length) bytes, at most \(MeasurementLog.maximumDataLength) are kept"
        case .notExtendable: "an event of type EV_NO_ACTION cannot be extended"
        case .logFull: "the measurement log is full: it holds \(MeasurementLog.maximumEvents) events"
        case .registerMismatch(let register): "the log's events do not give the value of register \(register)"
        case .malformed(let what): "malformed measurement log: \(what)"
        case .crypto(let error): error.description
        }
    }
}

/// What was measured since the board's power came, in order, and the registers that hold all of it.
///
/// A register begins as zeros and becomes SHA-384(register || digest) with each event: nothing that was measured can be
/// taken back, left out or put in another order without the registers' telling. The log is a value; a power cycle is a new
/// one. Spec: TPM 2.0 Library Part 1 §17 (extend).
public struct MeasurementLog: Hashable, Sendable {
    public static let registerCount = 8
    /// A whole boot measures a score; beyond this somebody floods the log.
    public static let maximumEvents = 1024
    /// The sideband's longest description is 255 bytes.
    public static let maximumDataLength = 1024
    static let digestLength = 48

    /// The registers' values, 48 bytes each.
    public private(set) var registers = [[UInt8]](
        repeating: [UInt8](repeating: 0, count: digestLength), count: registerCount)
    /// In the order in which they were extended.
    public private(set) var events: [Measurement] = []

    public init() {}

    /// Extends a register. Nothing is changed when it throws.
    public mutating func extend(_ measurement: Measurement) throws(MeasurementError) {
        guard Int(measurement.register) < Self.registerCount else { throw .noSuchRegister(measurement.register) }
        guard measurement.digest.count == Self.digestLength else {
            throw .badDigestLength(measurement.digest.count)
        }
        guard measurement.data.count <= Self.maximumDataLength else { throw .dataTooLong(measurement.data.count) }
        guard measurement.type != .noAction else { throw .notExtendable }
        guard events.count < Self.maximumEvents else { throw .logFull }
        let register = Int(measurement.register)
        do throws(CryptoError) {
            registers[register] = try HashAlgorithm.sha384.digest(of: registers[register] + measurement.digest)
        } catch {
            throw .crypto(error)
        }
        events.append(measurement)
    }

    /// Extends register `register` by `digest`.
    public mutating func extend(
        register: UInt8, type: MeasurementType, digest: [UInt8], data: [UInt8]
    ) throws(MeasurementError) {
        try extend(Measurement(register: register, type: type, digest: digest, data: data))
    }

    /// Extends register `register` by the digest of `text`, which is also the event's data.
    public mutating func extend(register: UInt8, action text: String) throws(MeasurementError) {
        let data = Array(text.utf8)
        let digest: [UInt8]
        do throws(CryptoError) { digest = try HashAlgorithm.sha384.digest(of: data) } catch { throw .crypto(error) }
        try extend(register: register, type: .action, digest: digest, data: data)
    }
}

// MARK: Registers

extension MeasurementLog {
    /// What each register is for (docs/wiring.md, "Measurement log").
    public enum Register {
        /// The first stage with its directory, and the security logic's configuration.
        public static let firstStage: UInt8 = 0
        public static let manifest: UInt8 = 1
        public static let openSBI: UInt8 = 2
        public static let nextStage: UInt8 = 3
        public static let bmc: UInt8 = 4
        public static let cards: UInt8 = 5
        /// Which slot was chosen and why.
        public static let decisions: UInt8 = 6
    }
}

extension FirmwareManifest.Component {
    /// The component as it is measured.
    public var measurement: Measurement {
        let (register, type): (UInt8, MeasurementType) =
            switch target {
            case .host where offset == FlashLayout.firstStage.offset:
                (MeasurementLog.Register.firstStage, .postCode)
            case .host where offset == FlashLayout.directory.offset:
                (MeasurementLog.Register.firstStage, .platformConfigFlags)
            case .host where offset == FlashLayout.openSBI.offset: (MeasurementLog.Register.openSBI, .postCode)
            case .host: (MeasurementLog.Register.nextStage, .postCode)
            case .bmc: (MeasurementLog.Register.bmc, .nonhostCode)
            case .adapter, .offload: (MeasurementLog.Register.cards, .nonhostCode)
            }
        return Measurement(register: register, type: type, digest: digest, data: Array(name.utf8))
    }
}

extension FirmwareVerdict {
    /// What a verified image extends the log by, in this order: the manifest, then every component as the manifest lists
    /// them. A refused image measures nothing. Each `data` fits the sideband's 255 bytes.
    public var measurements: [Measurement] {
        guard case .verified(let manifest, let digest) = self else { return [] }
        let about = "\(manifest.name), security version \(manifest.securityVersion)"
        return [
            Measurement(
                register: MeasurementLog.Register.manifest, type: .platformConfigFlags, digest: digest,
                data: Array(about.utf8))
        ] + manifest.components.map(\.measurement)
    }
}
