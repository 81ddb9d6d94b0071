import COpenSSL

/// An X.509 certificate (Spec: RFC 5280). Immutable; holds its DER form.
public struct X509Certificate: Hashable, Sendable {
    /// The certificate's bytes.
    public let der: [UInt8]

    /// What a certificate says beside its key. Names are common names.
    public struct Subject: Sendable {
        public var name: String
        public var issuer: String
        public var key: PublicKey
        /// 1 to 20 bytes, big-endian; the highest bit is cleared.
        public var serial: [UInt8]
        /// Whether the key may issue certificates, and how many authorities may follow it.
        public var authority: PathLength?
        /// Further extensions, not critical: dotted object identifier and DER value.
        public var extensions: [(identifier: String, value: [UInt8])] = []

        public init(name: String, issuer: String, key: PublicKey, serial: [UInt8], authority: PathLength? = nil) {
            self.name = name
            self.issuer = issuer
            self.key = key
            self.serial = serial
            self.authority = authority
        }
    }

    /// How many certificate authorities may follow one (Spec: RFC 5280 §4.2.1.9).
    public struct PathLength: Sendable {
        public let count: UInt8
        public init(_ count: UInt8) { self.count = count }
    }

    /// A device's certificates do not end (Spec: RFC 5280 §4.1.2.5), and begin before any clock of a board.
    private static let notBefore = "20240101000000Z"
    private static let notAfter = "99991231235959Z"

    /// Issues a certificate, signed with `key`.
    public init(_ subject: Subject, issuerKey key: any SigningKey) throws(CryptoError) {
        let operation = "issue a certificate for \(subject.name)"
        precondition(!subject.serial.isEmpty && subject.serial.count <= 20, "a serial number has 1 to 20 bytes")
        let issuer = try EVPKey(privatePEM: try key.pem(), required: nil)
        let subjectKey = try subject.key.evpKey()
        // Safety: an owned certificate or NULL; freed by the defer.
        guard let certificate = unsafe X509_new() else { throw .last(operation) }
        defer { unsafe X509_free(certificate) }
        // Version 2 is written for X.509v3.
        // Safety: both keys outlive the calls; the getters give parts that the certificate owns.
        guard unsafe X509_set_version(certificate, 2) == 1,
            unsafe X509_set_pubkey(certificate, subjectKey.pointer) == 1,
            unsafe Self.set(X509_get_subject_name(certificate), subject.name),
            unsafe Self.set(X509_get_issuer_name(certificate), subject.issuer),
            unsafe ASN1_TIME_set_string_X509(X509_getm_notBefore(certificate), Self.notBefore) == 1,
            unsafe ASN1_TIME_set_string_X509(X509_getm_notAfter(certificate), Self.notAfter) == 1,
            unsafe Self.setSerial(certificate, subject.serial)
        else { throw .last(operation) }
        let usage = subject.authority == nil ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign"
        let constraints = subject.authority.map { "critical,CA:TRUE,pathlen:\($0.count)" } ?? "critical,CA:FALSE"
        for (kind, value) in [
            (NID_basic_constraints, constraints), (NID_key_usage, usage), (NID_subject_key_identifier, "hash"),
        ] {
            guard unsafe Self.add(certificate, kind, value) else { throw .last(operation) }
        }
        guard unsafe Self.add(certificate, "2.5.29.35", try Self.authorityKeyIdentifier(key.verifyingKey)) else {
            throw .last(operation)
        }
        for (identifier, value) in subject.extensions {
            guard unsafe Self.add(certificate, identifier, value) else { throw .last(operation) }
        }
        // Safety: EVP_sha384 returns a static table; Ed25519 takes none.
        let method: OpaquePointer? = issuer.algorithm == .es384 ? unsafe EVP_sha384() : nil
        guard unsafe X509_sign(certificate, issuer.pointer, method) > 0 else { throw .last(operation) }
        der = unsafe try Self.encoded(certificate, operation)
    }

    /// Reads a PEM `CERTIFICATE`.
    public init(pem: String) throws(CryptoError) {
        let operation = "read a certificate in PEM"
        // Safety: a NULL or owned certificate, freed below.
        let read = unsafe withPEMReader(pem) { bio in
            unsafe PEM_read_bio_X509(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let certificate = unsafe read else { throw .last(operation) }
        defer { unsafe X509_free(certificate) }
        der = unsafe try Self.encoded(certificate, operation)
    }

    /// The certificate as PEM `CERTIFICATE`.
    public func pem() throws(CryptoError) -> String {
        let operation = "write a certificate in PEM"
        let certificate = unsafe try parsed(operation)
        defer { unsafe X509_free(certificate) }
        // Safety: bio and certificate are valid for the call.
        return unsafe try withPEMWriter(operation) { bio in unsafe PEM_write_bio_X509(bio, certificate) }
    }

    /// The key that the certificate is for.
    public func publicKey() throws(CryptoError) -> PublicKey {
        let operation = "read a certificate's key"
        let certificate = unsafe try parsed(operation)
        defer { unsafe X509_free(certificate) }
        // Safety: the key is borrowed from the certificate, which outlives the call.
        let text = unsafe try withPEMWriter(operation) { bio in
            unsafe PEM_write_bio_PUBKEY(bio, X509_get0_pubkey(certificate))
        }
        return try PublicKey(pem: text)
    }

    private static func encoded(_ certificate: OpaquePointer, _ operation: String) throws(CryptoError) -> [UInt8] {
        // Safety: the caller's certificate is valid for the calls; without a buffer only the length is told.
        let length = unsafe i2d_X509(certificate, nil)
        guard length > 0 else { throw .last(operation) }
        var bytes = [UInt8](repeating: 0, count: Int(length))
        // Safety: the array holds the `length` bytes that the first call announced.
        let written = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return unsafe i2d_X509(certificate, &cursor)
        }
        guard written == length else { throw .last(operation) }
        return bytes
    }

    /// The object of `der`; the caller frees it.
    private func parsed(_ operation: String) throws(CryptoError) -> OpaquePointer {
        // Safety: the array outlives the call; the result is owned or NULL.
        let parsed = unsafe der.withUnsafeBufferPointer { buffer in
            var cursor = buffer.baseAddress
            return unsafe d2i_X509(nil, &cursor, buffer.count)
        }
        guard let certificate = unsafe parsed else { throw .last(operation) }
        return unsafe certificate
    }

    /// AuthorityKeyIdentifier with `keyIdentifier [0]`: SHA-1 of the issuer's key, as its own subject key identifier is
    /// (Spec: RFC 5280 §4.2.1.1, §4.2.1.2 method 1).
    private static func authorityKeyIdentifier(_ key: PublicKey) throws(CryptoError) -> [UInt8] {
        let bits =
            switch key {
            case .p384(let key): key.uncompressedPoint
            case .ed25519(let key): key.bytes
            }
        var digest = [UInt8](repeating: 0, count: 20)
        // Safety: the arrays outlive the call, and SHA-1 writes 20 bytes.
        let status = unsafe digest.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_Digest(bits, bits.count, buffer.baseAddress, nil, EVP_sha1(), nil)
        }
        guard status == 1 else { throw .last("identify an issuer's key") }
        return [0x30, 22, 0x80, 20] + digest
    }

    private static func set(_ name: OpaquePointer?, _ commonName: String) -> Bool {
        let bytes = Array(commonName.utf8)
        // Safety: the name is the certificate's own; OpenSSL copies as many bytes as the count says.
        return unsafe X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, bytes, Int32(bytes.count), -1, 0) == 1
    }

    private static func setSerial(_ certificate: OpaquePointer, _ serial: [UInt8]) -> Bool {
        var serial = serial
        serial[0] &= 0x7F
        // Safety: BN_bin2bn reads the array's bytes; the number is freed by the defer, the serial is the certificate's.
        guard let number = unsafe BN_bin2bn(serial, Int32(serial.count), nil) else { return false }
        defer { unsafe BN_free(number) }
        return unsafe BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nil
    }

    private static func add(_ certificate: OpaquePointer, _ kind: Int32, _ value: String) -> Bool {
        var context = unsafe X509V3_CTX()
        // Safety: the context names the certificate for the duration of the call; the extension is freed by the defer.
        unsafe X509V3_set_ctx(&context, nil, certificate, nil, nil, 0)
        guard let made = unsafe X509V3_EXT_conf_nid(nil, &context, kind, value) else { return false }
        defer { unsafe X509_EXTENSION_free(made) }
        return unsafe X509_add_ext(certificate, made, -1) == 1
    }

    private static func add(_ certificate: OpaquePointer, _ identifier: String, _ value: [UInt8]) -> Bool {
        // Safety: three objects, owned or NULL, each freed by a defer; the certificate gets a copy.
        guard let object = unsafe OBJ_txt2obj(identifier, 1) else { return false }
        defer { unsafe ASN1_OBJECT_free(object) }
        guard let octets = unsafe ASN1_OCTET_STRING_new() else { return false }
        defer { unsafe ASN1_OCTET_STRING_free(octets) }
        guard unsafe ASN1_OCTET_STRING_set(octets, value, Int32(value.count)) == 1,
            let made = unsafe X509_EXTENSION_create_by_OBJ(nil, object, 0, octets)
        else { return false }
        defer { unsafe X509_EXTENSION_free(made) }
        return unsafe X509_add_ext(certificate, made, -1) == 1
    }
}
