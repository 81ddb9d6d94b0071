// Signatures without regard to their kind: what COSE messages and certificates ask of a key.

/// A kind of signature and of the keys that make it.
public enum SignatureAlgorithm: String, Sendable, Hashable, CaseIterable {
    /// ECDSA on P-384 with SHA-384 (Spec: RFC 9053 §2.1).
    case es384
    /// EdDSA on Curve25519 (Spec: RFC 9053 §2.2, RFC 8032).
    case ed25519

    /// The key's name in messages.
    var keyName: String {
        switch self {
        case .es384: "P-384"
        case .ed25519: "Ed25519"
        }
    }

    /// A new random key of this kind.
    public func generateKey() throws(CryptoError) -> any SigningKey {
        switch self {
        case .es384: try P384PrivateKey.generate()
        case .ed25519: try Ed25519PrivateKey.generate()
        }
    }
}

/// A private key of any kind. Immutable, may cross threads.
public protocol SigningKey: Sendable {
    /// The public key that verifies this one's signatures.
    var verifyingKey: PublicKey { get }

    /// A signature over `message` in the form that COSE carries: r || s, 96 bytes, or Ed25519's 64.
    func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8]

    /// The key as PEM `PRIVATE KEY` (PKCS #8), not encrypted: keep it in a file of mode 0600.
    func pem() throws(CryptoError) -> String
}

/// Reads a private key of any kind that boards use from PEM that is not encrypted.
public func signingKey(pem: String) throws(CryptoError) -> any SigningKey {
    let key = try EVPKey(privatePEM: pem, required: nil)
    switch key.algorithm {
    case .es384: return try P384PrivateKey(key: key)
    case .ed25519: return try Ed25519PrivateKey(key: key)
    }
}

/// A public key of any kind. A plain value.
public enum PublicKey: Hashable, Sendable {
    case p384(P384PublicKey)
    case ed25519(Ed25519PublicKey)

    /// A key from a PEM `PUBLIC KEY` (SubjectPublicKeyInfo).
    public init(pem: String) throws(CryptoError) {
        let key = try EVPKey(publicPEM: pem, required: nil)
        switch key.algorithm {
        case .es384: self = .p384(try P384PublicKey(key: key))
        case .ed25519: self = .ed25519(try Ed25519PublicKey(key: key))
        }
    }

    public var algorithm: SignatureAlgorithm {
        switch self {
        case .p384: .es384
        case .ed25519: .ed25519
        }
    }

    /// Whether `signature` is this key's over `message`; a signature of wrong length or range is a `false`.
    public func isValidSignature(_ signature: [UInt8], over message: [UInt8]) throws(CryptoError) -> Bool {
        switch self {
        case .p384(let key): try key.isValidSignature(signature, over: message)
        case .ed25519(let key): try key.isValidSignature(signature, over: message)
        }
    }

    /// The key as PEM `PUBLIC KEY`.
    public func pem() throws(CryptoError) -> String {
        try evpKey().publicPEM()
    }

    func evpKey() throws(CryptoError) -> EVPKey {
        switch self {
        case .p384(let key): try EVPKey(uncompressedPoint: key.uncompressedPoint)
        case .ed25519(let key): try EVPKey(ed25519PublicKey: key.bytes)
        }
    }
}
