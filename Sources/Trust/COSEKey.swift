public import CBOR
public import Crypto

/// What is wrong with a COSE structure.
public enum COSEError: Error, Equatable, Sendable, CustomStringConvertible {
    case cbor(CBORError)
    /// The item is not of the form that the structure has.
    case malformed(String)
    /// An `alg` that we do not verify; nil when there is none.
    case unsupportedAlgorithm(Int64?)
    /// The message names another algorithm than the one of the key that is to verify it.
    case algorithmMismatch
    /// A `crit` header names a parameter that we do not understand.
    case criticalHeader
    /// A key that is neither EC2 on P-384 nor OKP on Ed25519, or not on the curve.
    case unsupportedKey(String)

    public var description: String {
        switch self {
        case .cbor(let error): error.description
        case .malformed(let what): what
        case .unsupportedAlgorithm(let algorithm?):
            "unknown algorithm \(algorithm), must be -35 (ES384) or -8 (EdDSA)"
        case .unsupportedAlgorithm(nil): "no algorithm is named, must be -35 (ES384) or -8 (EdDSA)"
        case .algorithmMismatch: "the algorithm is not that of the signer's key"
        case .criticalHeader: "a critical header parameter that is not understood"
        case .unsupportedKey(let what): what
        }
    }
}

/// A public key as COSE carries it: EC2 on P-384 (Spec: RFC 9052 §7, RFC 9053 §7.1.1) or OKP on Ed25519 (§7.2).
public struct COSEKey: Hashable, Sendable {
    private enum Label {
        static let keyType: Int64 = 1
        static let curve: Int64 = -1
        static let x: Int64 = -2
        static let y: Int64 = -3
    }

    private static let keyTypeOKP: Int64 = 1
    private static let keyTypeEC2: Int64 = 2
    private static let curveP384: Int64 = 2
    private static let curveEd25519: Int64 = 6

    public let publicKey: PublicKey

    public init(_ publicKey: PublicKey) {
        self.publicKey = publicKey
    }

    public init(_ publicKey: P384PublicKey) {
        self.publicKey = .p384(publicKey)
    }

    /// The key with its required members only, which is also what its digest is taken over.
    public var cbor: CBOR {
        switch publicKey {
        case .p384(let key):
            .map([
                .init(.integer(Label.keyType), .integer(Self.keyTypeEC2)),
                .init(.integer(Label.curve), .integer(Self.curveP384)),
                .init(.integer(Label.x), .bytes(key.x)),
                .init(.integer(Label.y), .bytes(key.y)),
            ])
        case .ed25519(let key):
            .map([
                .init(.integer(Label.keyType), .integer(Self.keyTypeOKP)),
                .init(.integer(Label.curve), .integer(Self.curveEd25519)),
                .init(.integer(Label.x), .bytes(key.bytes)),
            ])
        }
    }

    /// The SHA-384 thumbprint of the key: what fuses and `kid` hold (Spec: RFC 9679 §3).
    public func digest() throws(CryptoError) -> [UInt8] {
        try HashAlgorithm.sha384.digest(of: cbor.encoded())
    }

    /// Members beyond the required ones are ignored, as COSE asks; a compressed y is refused.
    public init(_ item: CBOR) throws(COSEError) {
        guard case .map = item else { throw .unsupportedKey("the COSE_Key is not a map") }
        switch (item[Label.keyType]?.integerValue, item[Label.curve]?.integerValue) {
        case (Self.keyTypeEC2, Self.curveP384):
            guard let x = item[Label.x]?.bytesValue, let y = item[Label.y]?.bytesValue else {
                throw .unsupportedKey("the COSE_Key has no x and y as byte strings")
            }
            publicKey = .p384(try Self.point { () throws(CryptoError) in try P384PublicKey(x: x, y: y) })
        case (Self.keyTypeOKP, Self.curveEd25519):
            guard let x = item[Label.x]?.bytesValue else {
                throw .unsupportedKey("the COSE_Key has no x as a byte string")
            }
            publicKey = .ed25519(try Self.point { () throws(CryptoError) in try Ed25519PublicKey(bytes: x) })
        default:
            throw .unsupportedKey("the COSE_Key is neither an EC2 key on P-384 nor an OKP key on Ed25519")
        }
    }

    private static func point<Key>(_ body: () throws(CryptoError) -> Key) throws(COSEError) -> Key {
        do throws(CryptoError) {
            return try body()
        } catch {
            throw .unsupportedKey("the COSE_Key's point is refused: \(error.reason)")
        }
    }
}
