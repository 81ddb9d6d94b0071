/// What the master adapter says to the security logic: MCTP vendor-defined messages (type 0x7E, DSP0236 §13), PCI
/// vendor id 0x1B36 big-endian, then a command and its fields, integers little-endian. docs/wiring.md has the table.
public enum SecurityRequest: Hashable, Sendable {
    case readFuses
    case setMode(Mode)
    case holdReset
    case reportVerification(Verification)
    case queryState
    case nextSlot
    case extend(Extension)

    /// Whether the masters that the rules name may reach the flash (unprotected) or not (protected).
    public enum Mode: UInt8, Hashable, Sendable { case protected = 0, unprotected = 1 }

    /// What the verifier found.
    public struct Verification: Hashable, Sendable {
        /// The slot that was looked at: 0 A, 1 B, 2 golden.
        public var slot: UInt8
        public var isVerified: Bool
        /// SHA-384 of the manifest; zeroes when there was none.
        public var digest: [UInt8]
        public var securityVersion: UInt32
        /// At most 255 bytes of UTF-8: the image's name and, refused, why.
        public var reason: String

        public init(slot: UInt8 = 0, isVerified: Bool, digest: [UInt8], securityVersion: UInt32, reason: String) {
            precondition(digest.count == 48, "a SHA-384 digest has 48 bytes")
            self.slot = slot
            self.isVerified = isVerified
            self.digest = digest
            self.securityVersion = securityVersion
            self.reason = reason
        }
    }

    /// What the verifier measured.
    public struct Extension: Hashable, Sendable {
        public var register: UInt8
        /// The event's type, by the numbers of the TCG.
        public var type: UInt32
        /// SHA-384.
        public var digest: [UInt8]
        /// At most 255 bytes of UTF-8: what it was.
        public var text: String

        public init(register: UInt8, type: UInt32, digest: [UInt8], text: String) {
            precondition(digest.count == 48, "a SHA-384 digest has 48 bytes")
            self.register = register
            self.type = type
            self.digest = digest
            self.text = text
        }
    }

    var command: UInt8 {
        switch self {
        case .readFuses: 1
        case .setMode: 2
        case .holdReset: 3
        case .reportVerification: 4
        case .queryState: 5
        case .nextSlot: 6
        case .extend: 7
        }
    }

    /// The message body, type byte first.
    public var encoded: [UInt8] {
        var bytes = VendorHeader.bytes + [command]
        switch self {
        case .readFuses, .holdReset, .queryState, .nextSlot: break
        case .setMode(let mode): bytes.append(mode.rawValue)
        case .reportVerification(let report):
            bytes += [report.slot, report.isVerified ? 1 : 0]
            bytes += report.digest
            bytes += report.securityVersion.littleEndianBytes
            bytes += report.reason.counted
        case .extend(let measurement):
            bytes.append(measurement.register)
            bytes += measurement.type.littleEndianBytes
            bytes += measurement.digest
            bytes += measurement.text.counted
        }
        return bytes
    }

    /// The status that answers a body that is no request, as an error.
    public init(decoding body: [UInt8]) throws(SecurityStatus) {
        guard body.count >= 4, Array(body[..<3]) == VendorHeader.bytes else { throw .invalidCommand }
        let fields = Array(body[4...])
        switch body[3] {
        case 1, 3, 5, 6:
            guard fields.isEmpty else { throw .invalidLength }
            self = body[3] == 1 ? .readFuses : body[3] == 3 ? .holdReset : body[3] == 5 ? .queryState : .nextSlot
        case 2:
            guard fields.count == 1 else { throw .invalidLength }
            guard let mode = Mode(rawValue: fields[0]) else { throw .invalidData }
            self = .setMode(mode)
        case 4:
            guard fields.count >= 55, fields.count == 55 + Int(fields[54]) else { throw .invalidLength }
            guard fields[1] <= 1, let reason = String(validating: fields[55...], as: UTF8.self) else {
                throw .invalidData
            }
            self = .reportVerification(
                Verification(
                    slot: fields[0], isVerified: fields[1] == 1, digest: Array(fields[2..<50]),
                    securityVersion: UInt32(littleEndianBytes: fields[50..<54]), reason: reason))
        case 7:
            guard fields.count >= 54, fields.count == 54 + Int(fields[53]) else { throw .invalidLength }
            guard let text = String(validating: fields[54...], as: UTF8.self) else { throw .invalidData }
            self = .extend(
                Extension(
                    register: fields[0], type: UInt32(littleEndianBytes: fields[1..<5]),
                    digest: Array(fields[5..<53]), text: text))
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

/// What the fuses hold, as the verifier is told.
public struct FuseValues: Hashable, Sendable {
    /// SHA-384 of the root's COSE_Key.
    public var rootKeyDigest: [UInt8]
    public var minimumSecurityVersion: UInt32
    /// 128 bits, number n in bit n % 8 of byte n / 8: signers that may sign no more.
    public var cancelledKeys: [UInt8]
    /// The board that images must name; at most 255 bytes of UTF-8.
    public var board: String

    public init(rootKeyDigest: [UInt8], minimumSecurityVersion: UInt32, cancelledKeys: [UInt8], board: String) {
        precondition(rootKeyDigest.count == 48, "a SHA-384 digest has 48 bytes")
        precondition(cancelledKeys.count == 16, "there are 128 fuses for key numbers")
        self.rootKeyDigest = rootKeyDigest
        self.minimumSecurityVersion = minimumSecurityVersion
        self.cancelledKeys = cancelledKeys
        self.board = board
    }

    var encoded: [UInt8] { rootKeyDigest + minimumSecurityVersion.littleEndianBytes + cancelledKeys + board.counted }

    init?(decoding fields: [UInt8]) {
        guard fields.count >= 69, fields.count == 69 + Int(fields[68]),
            let board = String(validating: fields[69...], as: UTF8.self)
        else { return nil }
        self.init(
            rootKeyDigest: Array(fields[..<48]),
            minimumSecurityVersion: UInt32(littleEndianBytes: fields[48..<52]),
            cancelledKeys: Array(fields[52..<68]), board: board)
    }
}

/// The security logic's answer.
public enum SecurityResponse: Hashable, Sendable {
    case fuses(FuseValues)
    /// The slot that runs or is being verified; nil: none.
    case state(SecurityState, slot: UInt8?)
    /// The slot that is to be verified now.
    case slot(UInt8)
    /// Success of a command without result, or a refusal of any.
    case status(command: UInt8, SecurityStatus)

    /// The plain answer to `request`.
    public static func status(_ request: SecurityRequest, _ status: SecurityStatus) -> SecurityResponse {
        .status(command: request.command, status)
    }

    /// Stands for no slot.
    private static let noSlot: UInt8 = 0xFF

    public var encoded: [UInt8] {
        switch self {
        case .fuses(let values): VendorHeader.bytes + [1, 0] + values.encoded
        case .state(let state, let slot): VendorHeader.bytes + [5, 0, state.rawValue, slot ?? Self.noSlot]
        case .slot(let slot): VendorHeader.bytes + [6, 0, slot]
        case .status(let command, let status): VendorHeader.bytes + [command, status.rawValue]
        }
    }

    /// nil when the body is none of these.
    public init?(decoding body: [UInt8]) {
        guard body.count >= 5, Array(body[..<3]) == VendorHeader.bytes, let status = SecurityStatus(rawValue: body[4])
        else { return nil }
        let fields = Array(body[5...])
        switch (body[3], status, fields.count) {
        case (1, .success, _):
            guard let values = FuseValues(decoding: fields) else { return nil }
            self = .fuses(values)
        case (5, .success, 2):
            guard let state = SecurityState(rawValue: fields[0]) else { return nil }
            self = .state(state, slot: fields[1] == Self.noSlot ? nil : fields[1])
        case (6, .success, 1): self = .slot(fields[0])
        case (5, .success, _), (6, .success, _): return nil
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

extension String {
    /// At most 255 bytes of UTF-8 behind their number; what is longer is cut between characters.
    var counted: [UInt8] {
        var text = self
        while text.utf8.count > 255 { text.removeLast() }
        return [UInt8(text.utf8.count)] + text.utf8
    }
}
