public import Crypto
import QMP
import Wire

/// Why a fuses file cannot be used.
public enum FusesError: Error, Equatable, Sendable, CustomStringConvertible {
    case unreadable(path: String, reason: String)
    case notJSON(path: String)
    case badField(path: String, field: String, expected: String)
    case unknownField(path: String, field: String)

    public var description: String {
        switch self {
        case .unreadable(let path, let reason):
            "\(path): cannot read the fuses: \(reason); `baseboard provision` makes them"
        case .notJSON(let path): "\(path): not a JSON object"
        case .badField(let path, let field, let expected): "\(path): \(field) must be \(expected)"
        case .unknownField(let path, let field):
            "\(path): unknown field \(field); known are \(Fuses.fields.joined(separator: ", "))"
        }
    }
}

/// The numbers of signers that may sign no more: one fuse a number, 0 to 127.
public struct CancelledKeys: Hashable, Sendable {
    /// Bit n is number n.
    public private(set) var bitmap: UInt128

    public init(bitmap: UInt128 = 0) { self.bitmap = bitmap }

    /// The numbers given; each must be one of 0 to 127.
    public init(_ numbers: some Sequence<UInt8>) {
        bitmap = 0
        for number in numbers { insert(number) }
    }

    /// The 16 bytes of the wire, little-endian; nil for another count.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        bitmap = bytes.reversed().reduce(0) { $0 << 8 | UInt128($1) }
    }

    /// 16 bytes, little-endian: number n is bit n % 8 of byte n / 8.
    public var bytes: [UInt8] { (0..<16).map { UInt8(truncatingIfNeeded: bitmap >> (8 * $0)) } }

    /// In ascending order.
    public var numbers: [UInt8] { SignerCertificate.keyNumbers.filter(contains) }

    /// False for every number that has no fuse.
    public func contains(_ number: UInt8) -> Bool { number < 128 && bitmap >> UInt128(number) & 1 == 1 }

    /// `number` must be one of 0 to 127.
    public mutating func insert(_ number: UInt8) {
        precondition(SignerCertificate.keyNumbers.contains(number), "a signer's number is one of 0 to 127")
        bitmap |= 1 << UInt128(number)
    }

    public mutating func formUnion(_ other: CancelledKeys) { bitmap |= other.bitmap }
}

/// A value that is printed somewhere, as by a log or a failed test, does not tell its secret.
extension Fuses: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String {
        "fuses of root \(Hex.encode(rootKeyDigest.prefix(8)))…, \(boardCompatibility), security version"
            + " \(minimumSecurityVersion), cancelled \(cancelledKeys.numbers),"
            + " \(uniqueDeviceSecret == nil ? "no" : "a") device secret"
    }

    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

extension CancelledKeys: ExpressibleByArrayLiteral {
    public init(arrayLiteral numbers: UInt8...) { self.init(numbers) }
}

/// What is burnt into the security logic: whose firmware the board accepts.
public struct Fuses: Hashable, Sendable {
    /// SHA-384 of the root's COSE_Key (`COSEKey.digest()`), 48 bytes.
    public let rootKeyDigest: [UInt8]
    /// The least security version that may run.
    public internal(set) var minimumSecurityVersion: UInt32
    /// The board that images must name.
    public let boardCompatibility: String
    /// Signers whose images may not run any more.
    public internal(set) var cancelledKeys: CancelledKeys
    /// 32 bytes that nobody else knows, from which the board's identity comes (`DeviceIdentity`); nil: it has none.
    public internal(set) var uniqueDeviceSecret: [UInt8]?

    static let fields = [
        "rootKeyDigest", "minimumSecurityVersion", "boardCompatibility", "cancelledKeys", "uniqueDeviceSecret",
    ]
    /// Bytes of a unique device secret.
    public static let secretLength = 32
    /// A fuses file has a few short fields; more is a mistake.
    private static let maximumFileSize = 64 * 1024

    /// - Parameters:
    ///   - rootKeyDigest: 48 bytes.
    ///   - uniqueDeviceSecret: 32 bytes.
    public init(
        rootKeyDigest: [UInt8], minimumSecurityVersion: UInt32,
        boardCompatibility: String = FlashLayout.boardCompatibility, cancelledKeys: CancelledKeys = [],
        uniqueDeviceSecret: [UInt8]? = nil
    ) {
        precondition(rootKeyDigest.count == FirmwareManifest.digestLength, "a root key digest has 48 bytes")
        precondition(
            uniqueDeviceSecret.map { $0.count == Self.secretLength } ?? true, "a unique device secret has 32 bytes")
        self.rootKeyDigest = rootKeyDigest
        self.minimumSecurityVersion = minimumSecurityVersion
        self.boardCompatibility = boardCompatibility
        self.cancelledKeys = cancelledKeys
        self.uniqueDeviceSecret = uniqueDeviceSecret
    }

    /// Fuses that accept images signed by `key` or by a signer that it certifies.
    public init(
        root key: PublicKey, minimumSecurityVersion: UInt32,
        boardCompatibility: String = FlashLayout.boardCompatibility, cancelledKeys: CancelledKeys = [],
        uniqueDeviceSecret: [UInt8]? = nil
    ) throws(CryptoError) {
        self.init(
            rootKeyDigest: try COSEKey(key).digest(), minimumSecurityVersion: minimumSecurityVersion,
            boardCompatibility: boardCompatibility, cancelledKeys: cancelledKeys,
            uniqueDeviceSecret: uniqueDeviceSecret)
    }

    /// Fuses that accept images signed by `key` or by a signer that it certifies.
    public init(root key: P384PublicKey, minimumSecurityVersion: UInt32) throws(CryptoError) {
        try self.init(root: .p384(key), minimumSecurityVersion: minimumSecurityVersion)
    }

    /// Fuses as JSON text, as `init(json:path:)` reads it. With a secret the text is secret too.
    public var json: String {
        var fields = [
            "\"rootKeyDigest\": \"\(Hex.encode(rootKeyDigest))\"",
            "\"minimumSecurityVersion\": \(minimumSecurityVersion)",
            "\"boardCompatibility\": \"\(boardCompatibility)\"",
            "\"cancelledKeys\": [\(cancelledKeys.numbers.map(String.init).joined(separator: ", "))]",
        ]
        if let uniqueDeviceSecret { fields.append("\"uniqueDeviceSecret\": \"\(Hex.encode(uniqueDeviceSecret))\"") }
        return "{\n  " + fields.joined(separator: ",\n  ") + "\n}\n"
    }

    /// Loads the file at `path`.
    public init(path: String) throws(FusesError) {
        var bytes: [UInt8] = []
        do throws(WireError) {
            let file = try Descriptor.open(path, flags: 0)
            while let piece = try file.readSome(limit: 4096, subject: path), !piece.isEmpty {
                bytes += piece
                guard bytes.count <= Self.maximumFileSize else {
                    throw WireError.badLength(length: bytes.count, minimum: 0, maximum: Self.maximumFileSize)
                }
            }
        } catch {
            throw .unreadable(path: path, reason: error.description)
        }
        try self.init(json: bytes, path: path)
    }

    /// Reads JSON; `path` names it in errors.
    public init(json bytes: [UInt8], path: String) throws(FusesError) {
        guard let object = JSONValue(parsing: bytes)?.objectValue else { throw .notJSON(path: path) }
        if let field = object.keys.sorted().first(where: { !Self.fields.contains($0) }) {
            throw .unknownField(path: path, field: field)
        }
        guard let text = object["rootKeyDigest"]?.stringValue, let digest = Hex.decode(text),
            digest.count == FirmwareManifest.digestLength
        else { throw .badField(path: path, field: "rootKeyDigest", expected: "96 hexadecimal digits") }
        guard let number = object["minimumSecurityVersion"]?.integerValue, let minimum = UInt32(exactly: number) else {
            throw .badField(path: path, field: "minimumSecurityVersion", expected: "a number of 32 bits")
        }
        // Printable, without what JSON would escape.
        guard let board = object["boardCompatibility"]?.stringValue, !board.isEmpty,
            board.utf8.count <= FirmwareManifest.maximumNameLength,
            board.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != 0x22 && $0 != 0x5C })
        else {
            throw .badField(path: path, field: "boardCompatibility", expected: "a text like \"baseboard,server\"")
        }
        var cancelled: CancelledKeys = []
        if let field = object["cancelledKeys"] {
            for item in field.arrayValue ?? [.null] {
                guard let number = item.integerValue, let narrow = UInt8(exactly: number),
                    SignerCertificate.keyNumbers.contains(narrow)
                else {
                    throw .badField(path: path, field: "cancelledKeys", expected: "a list of numbers from 0 to 127")
                }
                cancelled.insert(narrow)
            }
        }
        var secret: [UInt8]?
        if let field = object["uniqueDeviceSecret"] {
            guard let text = field.stringValue, let bytes = Hex.decode(text), bytes.count == Self.secretLength else {
                throw .badField(path: path, field: "uniqueDeviceSecret", expected: "64 hexadecimal digits")
            }
            secret = bytes
        }
        self.init(
            rootKeyDigest: digest, minimumSecurityVersion: minimum, boardCompatibility: board,
            cancelledKeys: cancelled, uniqueDeviceSecret: secret)
    }
}
