import COpenSSL

/// A public key of Ed25519 (Spec: RFC 8032 §5.1). A plain value, may cross threads.
public struct Ed25519PublicKey: Hashable, Sendable {
    /// Length of a key, public or private, in bytes.
    public static let length = 32
    /// Length of a signature in bytes.
    public static let signatureLength = 64

    /// The encoded point, 32 bytes.
    public let bytes: [UInt8]

    /// Refuses another length than 32 bytes. Whether the bytes are a point shows when a signature is verified.
    public init(bytes: [UInt8]) throws(CryptoError) {
        guard bytes.count == Self.length else {
            throw CryptoError(
                operation: "use an Ed25519 public key", reason: "it has \(bytes.count) bytes, must have \(Self.length)")
        }
        self.bytes = bytes
        _ = try EVPKey(ed25519PublicKey: bytes)
    }

    init(key: EVPKey) throws(CryptoError) {
        bytes = try key.rawPublicKey()
    }

    /// Whether `signature` (64 bytes) is this key's over `message`; a wrong length is a `false`, not an error.
    public func isValidSignature(_ signature: [UInt8], over message: [UInt8]) throws(CryptoError) -> Bool {
        guard signature.count == Self.signatureLength else { return false }
        return try EVPKey(ed25519PublicKey: bytes).verify(signature: signature, message: message)
    }
}

/// A private key of Ed25519 with its public key. Immutable, may cross threads.
public struct Ed25519PrivateKey: SigningKey {
    public let publicKey: Ed25519PublicKey
    let key: EVPKey

    public var verifyingKey: PublicKey { .ed25519(publicKey) }

    init(key: EVPKey) throws(CryptoError) {
        publicKey = try Ed25519PublicKey(key: key)
        self.key = key
    }

    /// The key whose private form is `seed`, 32 bytes.
    public init(seed: [UInt8]) throws(CryptoError) {
        guard seed.count == Ed25519PublicKey.length else {
            throw CryptoError(
                operation: "use an Ed25519 private key",
                reason: "it has \(seed.count) bytes, must have \(Ed25519PublicKey.length)")
        }
        try self.init(key: EVPKey(ed25519Seed: seed))
    }

    /// A new random key.
    public static func generate() throws(CryptoError) -> Ed25519PrivateKey {
        try Ed25519PrivateKey(seed: randomBytes(Ed25519PublicKey.length))
    }

    public func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
        try key.sign(message)
    }

    public func pem() throws(CryptoError) -> String {
        try key.privatePEM()
    }
}
