// OpenSSL's key object behind the key values.
import COpenSSL

/// An owned `EVP_PKEY` of one of the kinds that boards use.
///
/// `@unchecked Sendable`: the object is never changed after it was made, and OpenSSL 3 allows concurrent use of a
/// key that nobody modifies (openssl-threads(7)).
@safe final class EVPKey: @unchecked Sendable {
    private static let group = "secp384r1"
    let algorithm: SignatureAlgorithm
    let pointer: OpaquePointer

    /// Takes ownership of `pointer`; refuses a key of another kind than `required`, or of none that is known.
    private init(
        owning pointer: OpaquePointer, operation: String, required: SignatureAlgorithm? = .es384
    ) throws(CryptoError) {
        // Safety: the caller passes an owned key; `deinit` frees it exactly once, also when this refuses.
        unsafe self.pointer = unsafe pointer
        // Safety: the key is valid and the name a NUL-terminated string for the duration of the call.
        if required != .es384, unsafe EVP_PKEY_is_a(pointer, "ED25519") == 1 {
            algorithm = .ed25519
            return
        }
        algorithm = .es384
        guard required != .ed25519 else { throw CryptoError(operation: operation, reason: "not an Ed25519 key") }
        var name = [CChar](repeating: 0, count: 64)
        var length = 0
        // Safety: OpenSSL writes at most the size given, with the NUL.
        let status = unsafe name.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_PKEY_get_group_name(pointer, buffer.baseAddress, buffer.count, &length)
        }
        ERR_clear_error()
        let curve = String(decoding: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard status == 1 else {
            let kinds = required == nil ? "neither an elliptic-curve nor an Ed25519 key" : "not an elliptic-curve key"
            throw CryptoError(operation: operation, reason: kinds)
        }
        guard curve == Self.group else {
            throw CryptoError(operation: operation, reason: "the key is on \(curve), must be on \(Self.group) (P-384)")
        }
    }

    deinit {
        // Safety: `pointer` is owned by this object and freed nowhere else.
        unsafe EVP_PKEY_free(pointer)
    }

    // MARK: Making

    static func generateP384() throws(CryptoError) -> EVPKey {
        let operation = "generate a P-384 key"
        // Safety: an owned context or NULL; freed by the defer.
        guard let context = unsafe EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { throw .last(operation) }
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        // Safety: the context is valid; the group name is a NUL-terminated string for the duration of the call;
        // the key out-pointer receives an owned key.
        guard unsafe EVP_PKEY_keygen_init(context) == 1,
            unsafe EVP_PKEY_CTX_set_group_name(context, group) == 1,
            unsafe EVP_PKEY_generate(context, &key) == 1,
            let made = unsafe key
        else { throw .last(operation) }
        return unsafe try EVPKey(owning: made, operation: operation)
    }

    /// Everything of a P-384 SubjectPublicKeyInfo (Spec: RFC 5480 §2) before the 97 bytes of its point.
    private static let publicKeyInfoHead: [UInt8] = [
        0x30, 0x76, 0x30, 0x10,  // SEQUENCE, SEQUENCE
        0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01,  // OID id-ecPublicKey
        0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22,  // OID secp384r1
        0x03, 0x62, 0x00,  // BIT STRING, no unused bits
    ]

    /// `point` is 97 bytes, `04 || x || y`; OpenSSL refuses a point that is not on the curve.
    convenience init(uncompressedPoint point: [UInt8]) throws(CryptoError) {
        let operation = "use a P-384 public key"
        let encoded = Self.publicKeyInfoHead + point
        // Safety: the array outlives the call; the result is owned or NULL.
        let key = unsafe encoded.withUnsafeBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return unsafe d2i_PUBKEY(nil, &cursor, buffer.count)
        }
        guard let made = unsafe key else { throw .last(operation) }
        unsafe try self.init(owning: made, operation: operation)
    }

    /// - Parameter required: the only kind that is accepted; nil: any that is known.
    convenience init(privatePEM: String, required: SignatureAlgorithm?) throws(CryptoError) {
        let operation = "read a private key in PEM"
        // Safety: a NULL or owned key; the callback refuses to give a passphrase, so no terminal is ever asked.
        let key = unsafe withPEMReader(privatePEM) { bio in
            unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let made = unsafe key else { throw .last(operation) }
        unsafe try self.init(owning: made, operation: operation, required: required)
    }

    /// - Parameter required: the only kind that is accepted; nil: any that is known.
    convenience init(publicPEM: String, required: SignatureAlgorithm?) throws(CryptoError) {
        let operation = "read a public key in PEM"
        // Safety: as for private keys.
        let key = unsafe withPEMReader(publicPEM) { bio in
            unsafe PEM_read_bio_PUBKEY(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let made = unsafe key else { throw .last(operation) }
        unsafe try self.init(owning: made, operation: operation, required: required)
    }

    /// The private key of 32 bytes (Spec: RFC 8032 §5.1.5).
    convenience init(ed25519Seed seed: [UInt8]) throws(CryptoError) {
        let operation = "use an Ed25519 private key"
        // Safety: OpenSSL reads as many bytes as the array has; the result is owned or NULL.
        guard let made = unsafe EVP_PKEY_new_raw_private_key_ex(nil, "ED25519", nil, seed, seed.count) else {
            throw .last(operation)
        }
        unsafe try self.init(owning: made, operation: operation, required: .ed25519)
    }

    /// The public key of 32 bytes (Spec: RFC 8032 §5.1.2).
    convenience init(ed25519PublicKey bytes: [UInt8]) throws(CryptoError) {
        let operation = "use an Ed25519 public key"
        // Safety: OpenSSL reads as many bytes as the array has; the result is owned or NULL.
        guard let made = unsafe EVP_PKEY_new_raw_public_key_ex(nil, "ED25519", nil, bytes, bytes.count) else {
            throw .last(operation)
        }
        unsafe try self.init(owning: made, operation: operation, required: .ed25519)
    }

    // MARK: Reading out

    func coordinates() throws(CryptoError) -> (x: [UInt8], y: [UInt8]) {
        (try coordinate(OSSL_PKEY_PARAM_EC_PUB_X), try coordinate(OSSL_PKEY_PARAM_EC_PUB_Y))
    }

    private func coordinate(_ name: String) throws(CryptoError) -> [UInt8] {
        let operation = "read a coordinate of a P-384 key"
        var number: OpaquePointer?
        // Safety: the out-pointer receives an owned number, freed by the defer.
        guard unsafe EVP_PKEY_get_bn_param(pointer, name, &number) == 1, let value = unsafe number else {
            throw .last(operation)
        }
        defer { unsafe BN_free(value) }
        return unsafe try Self.scalar(value, operation: operation)
    }

    /// The public key of an Ed25519 key, 32 bytes.
    func rawPublicKey() throws(CryptoError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Ed25519PublicKey.length)
        var length = bytes.count
        // Safety: OpenSSL writes at most `length` bytes and sets it to what it wrote.
        let status = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_PKEY_get_raw_public_key(pointer, buffer.baseAddress, &length)
        }
        guard status == 1, length == bytes.count else { throw .last("read an Ed25519 public key") }
        return bytes
    }

    func publicPEM() throws(CryptoError) -> String {
        // Safety: the bio is valid for the call, the key is borrowed.
        unsafe try withPEMWriter("write a public key in PEM") { bio in unsafe PEM_write_bio_PUBKEY(bio, pointer) }
    }

    func privatePEM() throws(CryptoError) -> String {
        // Safety: the bio is valid for the call, the key is borrowed; no cipher, so no passphrase is asked for.
        unsafe try withPEMWriter("write a private key in PEM") { bio in
            unsafe PEM_write_bio_PKCS8PrivateKey(bio, pointer, nil, nil, 0, nil, nil)
        }
    }

    // MARK: Signatures

    /// What is hashed first: Ed25519 takes the message itself (Spec: RFC 8032 §5.1.6).
    private var digest: OpaquePointer? {
        // Safety: EVP_sha384 returns a static method table.
        algorithm == .es384 ? unsafe EVP_sha384() : nil
    }

    /// The signature as COSE carries it (Spec: RFC 9053 §2).
    func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
        let operation = "sign with a \(algorithm.keyName) key"
        // Safety: an owned context or NULL; freed by the defer.
        guard let context = unsafe EVP_MD_CTX_new() else { throw .last(operation) }
        defer { unsafe EVP_MD_CTX_free(context) }
        var length = 0
        // Safety: a NULL output asks for the longest length a signature can have.
        guard unsafe EVP_DigestSignInit(context, nil, digest, nil, pointer) == 1,
            unsafe EVP_DigestSign(context, nil, &length, message, message.count) == 1
        else { throw .last(operation) }
        var encoded = [UInt8](repeating: 0, count: length)
        // Safety: the array holds `length` bytes; OpenSSL sets `length` to what it wrote.
        let status = unsafe encoded.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_DigestSign(context, buffer.baseAddress, &length, message, message.count)
        }
        guard status == 1 else { throw .last(operation) }
        encoded.removeLast(encoded.count - length)
        return algorithm == .es384 ? try Self.rawSignature(encoded: encoded, operation: operation) : encoded
    }

    /// The caller has checked the signature's length.
    func verify(signature: [UInt8], message: [UInt8]) throws(CryptoError) -> Bool {
        let operation = "verify a \(algorithm.keyName) signature"
        let encoded =
            algorithm == .es384 ? try Self.encodedSignature(raw: signature, operation: operation) : signature
        // Safety: an owned context or NULL; freed by the defer.
        guard let context = unsafe EVP_MD_CTX_new() else { throw .last(operation) }
        defer { unsafe EVP_MD_CTX_free(context) }
        // Safety: the key is borrowed; both arrays outlive the calls and their counts are passed.
        guard unsafe EVP_DigestVerifyInit(context, nil, digest, nil, pointer) == 1 else { throw .last(operation) }
        let status = unsafe EVP_DigestVerify(context, encoded, encoded.count, message, message.count)
        ERR_clear_error()
        return status == 1
    }

    /// r || s from the DER form that OpenSSL makes.
    private static func rawSignature(encoded: [UInt8], operation: String) throws(CryptoError) -> [UInt8] {
        // Safety: the array outlives the call; the result is owned or NULL; r and s are borrowed from it.
        let parsed = unsafe encoded.withUnsafeBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return unsafe d2i_ECDSA_SIG(nil, &cursor, buffer.count)
        }
        guard let pair = unsafe parsed else { throw .last(operation) }
        defer { unsafe ECDSA_SIG_free(pair) }
        guard let r = unsafe ECDSA_SIG_get0_r(pair), let s = unsafe ECDSA_SIG_get0_s(pair) else {
            throw .last(operation)
        }
        return unsafe try scalar(r, operation: operation) + scalar(s, operation: operation)
    }

    /// The DER form that OpenSSL verifies, from r || s of 96 bytes.
    private static func encodedSignature(raw: [UInt8], operation: String) throws(CryptoError) -> [UInt8] {
        precondition(raw.count == P384PublicKey.signatureLength, "the caller checks the signature's length")
        let half = P384PublicKey.coordinateLength
        // Safety: BN_bin2bn reads `half` bytes of each array; the results are owned or NULL.
        guard let pair = unsafe ECDSA_SIG_new() else { throw .last(operation) }
        defer { unsafe ECDSA_SIG_free(pair) }
        let r = unsafe BN_bin2bn(Array(raw[0..<half]), Int32(half), nil)
        let s = unsafe BN_bin2bn(Array(raw[half...]), Int32(half), nil)
        // Safety: on success the pair owns r and s; on failure they are freed here.
        guard unsafe ECDSA_SIG_set0(pair, r, s) == 1 else {
            unsafe BN_free(r)
            unsafe BN_free(s)
            throw .last(operation)
        }
        let length = unsafe i2d_ECDSA_SIG(pair, nil)
        guard length > 0 else { throw .last(operation) }
        var encoded = [UInt8](repeating: 0, count: Int(length))
        // Safety: the array holds the `length` bytes that the first call announced.
        let written = unsafe encoded.withUnsafeMutableBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return unsafe i2d_ECDSA_SIG(pair, &cursor)
        }
        guard written == length else { throw .last(operation) }
        return encoded
    }

    /// `number` as 48 bytes, big-endian.
    private static func scalar(_ number: OpaquePointer, operation: String) throws(CryptoError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: P384PublicKey.coordinateLength)
        // Safety: BN_bn2binpad writes exactly the length given or fails.
        let written = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
            unsafe BN_bn2binpad(number, buffer.baseAddress, Int32(buffer.count))
        }
        guard written == Int32(bytes.count) else { throw .last(operation) }
        return bytes
    }
}
