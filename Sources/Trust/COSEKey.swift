public import Crypto

/// What is wrong with a COSE structure.
public enum COSEError: Error, Equatable, Sendable, CustomStringConvertible {
    case cbor(CBORError)
    /// The item is not of the form that the structure has.
    case malformed(String)
    /// An `alg` that we do not verify; nil when there is none.
    case unsupportedAlgorithm(Int64?)
    /// A `crit` header names a parameter that we do not understand.
    case criticalHeader
    /// A key that is not EC2 on P-384, or not on the curve.
    case unsupportedKey(String)

    public var description: String {
        switch self {
        case .cbor(let error): error.description
        case .malformed(let what): what
        case .unsupportedAlgorithm(let algorithm?): "unknown algorithm \(algorithm), must be -35 (ES384)"
        case .unsupportedAlgorithm(nil): "no algorithm is named, must be -35 (ES384)"
        case .criticalHeader: "a critical header parameter that is not understood"
        case .unsupportedKey(let what): what
        }
    }
}

/// A public key as COSE carries it: EC2 on P-384 (Spec: RFC 9052 §7, RFC 9053 §7.1.1).
public struct COSEKey: Hashable, Sendable {
    private enum Label {
        static let keyType: Int64 = 1
        static let curve: Int64 = -1
        static let x: Int64 = -2
        static let y: Int64 = -3
    }

    private static let keyTypeEC2: Int64 = 2
    private static let curveP384: Int64 = 2

    public let publicKey: P384PublicKey

    public init(_ publicKey: P384PublicKey) {
        self.publicKey = publicKey
    }

    /// The key with its required members only, which is also what its digest is taken over.
    public var cbor: CBOR {
        .map([
            .init(.integer(Label.keyType), .integer(Self.keyTypeEC2)),
            .init(.integer(Label.curve), .integer(Self.curveP384)),
            .init(.integer(Label.x), .bytes(publicKey.x)),
            .init(.integer(Label.y), .bytes(publicKey.y)),
        ])
    }

    /// The SHA-384 thumbprint of the key: what fuses and `kid` hold (Spec: RFC 9679 §3).
    public func digest() throws(CryptoError) -> [UInt8] {
        try HashAlgorithm.sha384.digest(of: cbor.encoded())
    }

    /// Members beyond the required ones are ignored, as COSE asks; a compressed y is refused.
    public init(_ item: CBOR) throws(COSEError) {
        guard case .map = item else { throw .unsupportedKey("the COSE_Key is not a map") }
        guard item[Label.keyType]?.integerValue == Self.keyTypeEC2,
            item[Label.curve]?.integerValue == Self.curveP384
        else { throw .unsupportedKey("the COSE_Key is not an EC2 key on P-384") }
        guard let x = item[Label.x]?.bytesValue, let y = item[Label.y]?.bytesValue else {
            throw .unsupportedKey("the COSE_Key has no x and y as byte strings")
        }
        do throws(CryptoError) {
            publicKey = try P384PublicKey(x: x, y: y)
        } catch {
            throw .unsupportedKey("the COSE_Key's point is refused: \(error.reason)")
        }
    }
}
