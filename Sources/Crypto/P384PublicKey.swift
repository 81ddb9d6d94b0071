import COpenSSL

/// A public key on NIST P-384: a point that is on the curve (Spec: FIPS 186-5; SEC 1 §2.3.3).
///
/// A plain value: it holds the coordinates, not OpenSSL's object, and may cross threads.
public struct P384PublicKey: Hashable, Sendable {
    /// Length of a coordinate and of a scalar, in bytes.
    public static let coordinateLength = 48
    /// Length of a signature as COSE carries it: r, then s, each 48 bytes big-endian (Spec: RFC 9053 §2.1).
    public static let signatureLength = 96

    /// The affine coordinates, 48 bytes each, big-endian.
    public let x: [UInt8]
    public let y: [UInt8]

    /// The point as `04 || x || y`, 97 bytes.
    public var uncompressedPoint: [UInt8] { [0x04] + x + y }

    /// Refuses a coordinate of another length than 48 bytes and a point that is not on the curve.
    public init(x: [UInt8], y: [UInt8]) throws(CryptoError) {
        guard x.count == Self.coordinateLength, y.count == Self.coordinateLength else {
            throw CryptoError(
                operation: "use a P-384 public key",
                reason: "coordinates have \(x.count) and \(y.count) bytes, must have \(Self.coordinateLength) each")
        }
        self.x = x
        self.y = y
        _ = try EVPKey(uncompressedPoint: [0x04] + x + y)
    }

    /// Refuses anything but `04 || x || y` of a point on the curve.
    public init(uncompressedPoint point: [UInt8]) throws(CryptoError) {
        guard point.count == 1 + 2 * Self.coordinateLength, point[0] == 0x04 else {
            throw CryptoError(
                operation: "use a P-384 public key", reason: "not an uncompressed point of 97 bytes that begins with 04"
            )
        }
        try self.init(x: Array(point[1..<49]), y: Array(point[49..<97]))
    }

    /// A key from a PEM `PUBLIC KEY` (SubjectPublicKeyInfo).
    public init(pem: String) throws(CryptoError) {
        try self.init(key: EVPKey(publicPEM: pem, required: .es384))
    }

    init(key: EVPKey) throws(CryptoError) {
        let coordinates = try key.coordinates()
        x = coordinates.x
        y = coordinates.y
    }

    /// The key as PEM `PUBLIC KEY`.
    public func pem() throws(CryptoError) -> String {
        try EVPKey(uncompressedPoint: uncompressedPoint).publicPEM()
    }

    /// Whether `signature` (r || s, 96 bytes) is this key's ECDSA signature over the SHA-384 digest of `message`.
    ///
    /// Anything wrong with the signature itself (length, r or s out of range) is a `false`, not an error.
    public func isValidSignature(_ signature: [UInt8], over message: [UInt8]) throws(CryptoError) -> Bool {
        guard signature.count == Self.signatureLength else { return false }
        return try EVPKey(uncompressedPoint: uncompressedPoint).verify(signature: signature, message: message)
    }
}
