import COpenSSL

/// A private key on NIST P-384 with its public key. Immutable, may cross threads.
public struct P384PrivateKey: SigningKey {
    public let publicKey: P384PublicKey
    let key: EVPKey

    public var verifyingKey: PublicKey { .p384(publicKey) }

    init(key: EVPKey) throws(CryptoError) {
        publicKey = try P384PublicKey(key: key)
        self.key = key
    }

    /// A new random key.
    public static func generate() throws(CryptoError) -> P384PrivateKey {
        try P384PrivateKey(key: EVPKey.generateP384())
    }

    /// A key from PEM: PKCS #8 `PRIVATE KEY` or SEC 1 `EC PRIVATE KEY`, not encrypted (nobody is asked for a passphrase).
    public init(pem: String) throws(CryptoError) {
        try self.init(key: EVPKey(privatePEM: pem, required: .es384))
    }

    /// The key as PEM `PRIVATE KEY` (PKCS #8), not encrypted: keep it in a file of mode 0600.
    public func pem() throws(CryptoError) -> String {
        try key.privatePEM()
    }

    /// An ECDSA signature over the SHA-384 digest of `message`: r || s, 96 bytes (Spec: RFC 9053 §2.1, ES384).
    public func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
        try key.sign(message)
    }
}
