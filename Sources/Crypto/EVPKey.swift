// OpenSSL's key object behind the two key values. Everything that touches EVP_PKEY is here.
import COpenSSL

/// An owned `EVP_PKEY` on P-384.
///
/// `@unchecked Sendable`: the object is never changed after it was made, and OpenSSL 3 allows concurrent use of a
/// key that nobody modifies (openssl-threads(7)).
@safe final class EVPKey: @unchecked Sendable {
    private static let group = "secp384r1"
    private let pointer: OpaquePointer

    /// Takes ownership of `pointer`; refuses a key that is not elliptic-curve P-384.
    private init(owning pointer: OpaquePointer, operation: String) throws(CryptoError) {
        // Safety: the caller passes an owned key; `deinit` frees it exactly once, also when this refuses.
        unsafe self.pointer = unsafe pointer
        var name = [CChar](repeating: 0, count: 64)
        var length = 0
        // Safety: OpenSSL writes at most the size given, with the NUL.
        let status = unsafe name.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_PKEY_get_group_name(pointer, buffer.baseAddress, buffer.count, &length)
        }
        ERR_clear_error()
        let curve = String(decoding: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard status == 1 else { throw CryptoError(operation: operation, reason: "not an elliptic-curve key") }
        guard curve == Self.group else {
            throw CryptoError(operation: operation, reason: "the key is on \(curve), must be on \(Self.group) (P-384)")
        }
    }

    deinit {
        // Safety: `pointer` is owned by this object and freed nowhere else.
        unsafe EVP_PKEY_free(pointer)
    }

    // MARK: Making

    static func generate() throws(CryptoError) -> EVPKey {
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

    convenience init(privatePEM: String) throws(CryptoError) {
        let operation = "read a private key in PEM"
        // Safety: a NULL or owned key; the callback refuses to give a passphrase, so no terminal is ever asked.
        let key = unsafe Self.withReader(privatePEM) { bio in
            unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let made = unsafe key else { throw .last(operation) }
        unsafe try self.init(owning: made, operation: operation)
    }

    convenience init(publicPEM: String) throws(CryptoError) {
        let operation = "read a public key in PEM"
        // Safety: as for private keys.
        let key = unsafe Self.withReader(publicPEM) { bio in
            unsafe PEM_read_bio_PUBKEY(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let made = unsafe key else { throw .last(operation) }
        unsafe try self.init(owning: made, operation: operation)
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

    func publicPEM() throws(CryptoError) -> String {
        // Safety: the bio is valid for the call, the key is borrowed.
        unsafe try Self.write("write a public key in PEM") { bio in unsafe PEM_write_bio_PUBKEY(bio, pointer) }
    }

    func privatePEM() throws(CryptoError) -> String {
        // Safety: the bio is valid for the call, the key is borrowed; no cipher, so no passphrase is asked for.
        unsafe try Self.write("write a private key in PEM") { bio in
            unsafe PEM_write_bio_PKCS8PrivateKey(bio, pointer, nil, nil, 0, nil, nil)
        }
    }

    // MARK: Signatures

    func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
        let operation = "sign with a P-384 key"
        // Safety: an owned context or NULL; freed by the defer.
        guard let context = unsafe EVP_MD_CTX_new() else { throw .last(operation) }
        defer { unsafe EVP_MD_CTX_free(context) }
        var length = 0
        // Safety: a NULL output asks for the longest length a signature can have.
        guard unsafe EVP_DigestSignInit(context, nil, EVP_sha384(), nil, pointer) == 1,
            unsafe EVP_DigestSign(context, nil, &length, message, message.count) == 1
        else { throw .last(operation) }
        var encoded = [UInt8](repeating: 0, count: length)
        // Safety: the array holds `length` bytes; OpenSSL sets `length` to what it wrote.
        let status = unsafe encoded.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_DigestSign(context, buffer.baseAddress, &length, message, message.count)
        }
        guard status == 1 else { throw .last(operation) }
        return try Self.rawSignature(encoded: Array(encoded.prefix(length)), operation: operation)
    }

    func verify(signature: [UInt8], message: [UInt8]) throws(CryptoError) -> Bool {
        let operation = "verify a P-384 signature"
        let encoded = try Self.encodedSignature(raw: signature, operation: operation)
        // Safety: an owned context or NULL; freed by the defer.
        guard let context = unsafe EVP_MD_CTX_new() else { throw .last(operation) }
        defer { unsafe EVP_MD_CTX_free(context) }
        // Safety: the key is borrowed; both arrays outlive the calls and their counts are passed.
        guard unsafe EVP_DigestVerifyInit(context, nil, EVP_sha384(), nil, pointer) == 1 else { throw .last(operation) }
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

    // MARK: PEM in memory

    private static func withReader(_ text: String, _ body: (OpaquePointer?) -> OpaquePointer?) -> OpaquePointer? {
        let bytes = Array(text.utf8)
        // Safety: the bio borrows the array's storage and is freed before the array.
        return unsafe bytes.withUnsafeBytes { buffer in
            guard buffer.count <= Int(Int32.max),
                let bio = unsafe BIO_new_mem_buf(buffer.baseAddress, Int32(buffer.count))
            else { return nil }
            defer { unsafe BIO_free(bio) }
            return unsafe body(bio)
        }
    }

    private static func write(_ operation: String, _ body: (OpaquePointer?) -> Int32) throws(CryptoError) -> String {
        // Safety: an owned memory bio or NULL; freed by the defer.
        guard let bio = unsafe BIO_new(BIO_s_mem()) else { throw .last(operation) }
        defer { unsafe BIO_free(bio) }
        guard unsafe body(bio) == 1 else { throw .last(operation) }
        var bytes = [UInt8](repeating: 0, count: unsafe BIO_ctrl_pending(bio))
        // Safety: BIO_read writes at most the count given.
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe BIO_read(bio, buffer.baseAddress, Int32(buffer.count))
        }
        guard Int(count) == bytes.count else { throw .last(operation) }
        return String(decoding: bytes, as: UTF8.self)
    }
}
