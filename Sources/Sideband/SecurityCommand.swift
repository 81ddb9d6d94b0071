/// What the master adapter says to the security logic: MCTP vendor-defined messages (type 0x7E, DSP0236 §13), PCI
/// vendor id 0x1B36 big-endian, then a command and its fields, integers little-endian. docs/wiring.md has the table.
public enum SecurityRequest: Hashable, Sendable {
    case readFuses
    case setMode(Mode)
    case holdReset
    case reportVerification(Verification)
    case queryState

    /// Whether the masters that the rules name may reach the flash (unprotected) or not (protected).
    public enum Mode: UInt8, Hashable, Sendable { case protected = 0, unprotected = 1 }

    /// What the verifier found.
    public struct Verification: Hashable, Sendable {
        public var isVerified: Bool
        /// SHA-384 of the manifest; zeroes when there was none.
        public var digest: [UInt8]
        public var securityVersion: UInt32
        /// At most 255 bytes of UTF-8: the image's name and, refused, why.
        public var reason: String

        public init(isVerified: Bool, digest: [UInt8], securityVersion: UInt32, reason: String) {
            precondition(digest.count == 48, "a SHA-384 digest has 48 bytes")
            self.isVerified = isVerified
            self.digest = digest
            self.securityVersion = securityVersion
            self.reason = reason
        }
    }

    var command: UInt8 {
        switch self {
        case .readFuses: 1
        case .setMode: 2
        case .holdReset: 3
        case .reportVerification: 4
        case .queryState: 5
        }
    }

    /// The message body, type byte first.
    public var encoded: [UInt8] {
        var bytes = VendorHeader.bytes + [command]
        switch self {
        case .readFuses, .holdReset, .queryState: break
        case .setMode(let mode): bytes.append(mode.rawValue)
        case .reportVerification(let report):
            bytes.append(report.isVerified ? 1 : 0)
            bytes += report.digest
            bytes += report.securityVersion.littleEndianBytes
            let reason = Array(report.reason.utf8.prefix(255))
            bytes.append(UInt8(reason.count))
            bytes += reason
        }
        return bytes
    }

    /// The status that answers a body that is no request, as an error.
    public init(decoding body: [UInt8]) throws(SecurityStatus) {
        guard body.count >= 4, Array(body[..<3]) == VendorHeader.bytes else { throw .invalidCommand }
        let fields = Array(body[4...])
        switch body[3] {
        case 1, 3, 5:
            guard fields.isEmpty else { throw .invalidLength }
            self = body[3] == 1 ? .readFuses : body[3] == 3 ? .holdReset : .queryState
        case 2:
            guard fields.count == 1 else { throw .invalidLength }
            guard let mode = Mode(rawValue: fields[0]) else { throw .invalidData }
            self = .setMode(mode)
        case 4:
            guard fields.count >= 54, fields.count == 54 + Int(fields[53]) else { throw .invalidLength }
            guard fields[0] <= 1, let reason = String(validating: fields[54...], as: UTF8.self) else {
                throw .invalidData
            }
            self = .reportVerification(
                Verification(
                    isVerified: fields[0] == 1, digest: Array(fields[1..<49]),
                    securityVersion: UInt32(littleEndianBytes: fields[49..<53]), reason: reason))
        default: throw .invalidCommand
        }
    }
}

/// How a request went.
public enum SecurityStatus: UInt8, Error, Hashable, Sendable {
    case success = 0
    case invalidCommand = 1
    case invalidLength = 2
    case invalidData = 3
    case notPermitted = 4
    /// The firmware image is not accepted; a reason follows.
    case refused = 5
}

/// Where the security logic's sequence stands.
public enum SecurityState: UInt8, Hashable, Sendable {
    case held = 0
    case verifying = 1
    case released = 2
    case locked = 3
    case failed = 4
}

/// The security logic's answer.
public enum SecurityResponse: Hashable, Sendable {
    case fuses(rootKeyDigest: [UInt8], minimumSecurityVersion: UInt32)
    case state(SecurityState)
    /// Success of a command without result, or a refusal of any.
    case status(command: UInt8, SecurityStatus)

    /// The plain answer to `request`.
    public static func status(_ request: SecurityRequest, _ status: SecurityStatus) -> SecurityResponse {
        .status(command: request.command, status)
    }

    public var encoded: [UInt8] {
        switch self {
        case .fuses(let digest, let version): VendorHeader.bytes + [1, 0] + digest + version.littleEndianBytes
        case .state(let state): VendorHeader.bytes + [5, 0, state.rawValue]
        case .status(let command, let status): VendorHeader.bytes + [command, status.rawValue]
        }
    }

    /// nil when the body is none of these.
    public init?(decoding body: [UInt8]) {
        guard body.count >= 5, Array(body[..<3]) == VendorHeader.bytes, let status = SecurityStatus(rawValue: body[4])
        else { return nil }
        let fields = Array(body[5...])
        switch (body[3], status, fields.count) {
        case (1, .success, 52):
            self = .fuses(
                rootKeyDigest: Array(fields[..<48]),
                minimumSecurityVersion: UInt32(littleEndianBytes: fields[48..<52]))
        case (5, .success, 1):
            guard let state = SecurityState(rawValue: fields[0]) else { return nil }
            self = .state(state)
        case (1, .success, _), (5, .success, _): return nil
        case (_, _, 0): self = .status(command: body[3], status)
        default: return nil
        }
    }
}

/// Message type 0x7E and the vendor id, big-endian. Spec: DSP0236 §13.1.
enum VendorHeader {
    static let bytes: [UInt8] = [0x7E, 0x1B, 0x36]
}

extension UInt32 {
    var littleEndianBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: self >> ($0 * 8)) } }

    init(littleEndianBytes bytes: ArraySlice<UInt8>) {
        self = bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}
