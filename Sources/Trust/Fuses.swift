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

/// What is burnt into the security logic: whose firmware the board accepts.
public struct Fuses: Hashable, Sendable {
    /// SHA-384 of the root's COSE_Key (`COSEKey.digest()`), 48 bytes.
    public let rootKeyDigest: [UInt8]
    /// The least security version that may run.
    public let minimumSecurityVersion: UInt32
    /// The board that images must name.
    public let boardCompatibility: String

    static let fields = ["rootKeyDigest", "minimumSecurityVersion", "boardCompatibility"]
    /// A fuses file has three short fields; more is a mistake.
    private static let maximumFileSize = 64 * 1024

    public init(
        rootKeyDigest: [UInt8], minimumSecurityVersion: UInt32,
        boardCompatibility: String = FlashLayout.boardCompatibility
    ) {
        precondition(rootKeyDigest.count == FirmwareManifest.digestLength, "a root key digest has 48 bytes")
        self.rootKeyDigest = rootKeyDigest
        self.minimumSecurityVersion = minimumSecurityVersion
        self.boardCompatibility = boardCompatibility
    }

    /// Fuses that accept images signed by `key`.
    public init(root key: P384PublicKey, minimumSecurityVersion: UInt32) throws(CryptoError) {
        self.init(rootKeyDigest: try COSEKey(key).digest(), minimumSecurityVersion: minimumSecurityVersion)
    }

    /// Fuses as JSON text, as `init(json:path:)` reads it.
    public var json: String {
        """
        {
          "rootKeyDigest": "\(Hex.encode(rootKeyDigest))",
          "minimumSecurityVersion": \(minimumSecurityVersion),
          "boardCompatibility": "\(boardCompatibility)"
        }

        """
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
            board.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != 0x22 && $0 != 0x5C })
        else {
            throw .badField(path: path, field: "boardCompatibility", expected: "a text like \"baseboard,server\"")
        }
        self.init(rootKeyDigest: digest, minimumSecurityVersion: minimum, boardCompatibility: board)
    }
}
