import COpenSSL

/// The digest algorithms that firmware images and evidence use.
public enum HashAlgorithm: Sendable, Hashable, CaseIterable {
    case sha256
    case sha384

    /// Length of a digest, in bytes.
    public var digestLength: Int {
        switch self {
        case .sha256: 32
        case .sha384: 48
        }
    }
}

/// A digest that is still taking input (Spec: FIPS 180-4).
///
/// Not copyable: it owns OpenSSL's context. One thread at a time.
@safe public struct StreamingHash: ~Copyable {
    public let algorithm: HashAlgorithm
    private let context: OpaquePointer

    public init(_ algorithm: HashAlgorithm) throws(CryptoError) {
        // Safety: EVP_MD_CTX_new returns an owned context or NULL; `deinit` frees it exactly once.
        guard let context = unsafe EVP_MD_CTX_new() else { throw .last("make a digest context") }
        // Safety: EVP_sha256 and EVP_sha384 return static method tables.
        let method = unsafe algorithm == .sha256 ? EVP_sha256() : EVP_sha384()
        // Safety: both pointers are valid; a NULL engine means the default provider.
        guard unsafe EVP_DigestInit_ex(context, method, nil) == 1 else {
            // Safety: not yet owned by a value, so it is freed here.
            unsafe EVP_MD_CTX_free(context)
            throw .last("start a digest")
        }
        unsafe self.context = unsafe context
        self.algorithm = algorithm
    }

    deinit {
        // Safety: `context` is owned by this value and freed nowhere else.
        unsafe EVP_MD_CTX_free(context)
    }

    /// Adds `bytes` to what is digested.
    public mutating func update(_ bytes: RawSpan) throws(CryptoError) {
        // Safety: OpenSSL reads exactly `count` bytes during the call.
        let status = unsafe bytes.withUnsafeBytes { buffer in
            unsafe EVP_DigestUpdate(context, buffer.baseAddress, buffer.count)
        }
        guard status == 1 else { throw .last("digest \(bytes.byteCount) bytes") }
    }

    /// Adds `bytes` to what is digested.
    public mutating func update(_ bytes: [UInt8]) throws(CryptoError) {
        // Safety: every byte of an array is initialised.
        unsafe try update(bytes.span.bytes)
    }

    /// The digest of all input, `algorithm.digestLength` bytes.
    public consuming func finalize() throws(CryptoError) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: algorithm.digestLength)
        var length: UInt32 = 0
        // Safety: the array holds as many bytes as this method writes.
        let status = unsafe digest.withUnsafeMutableBufferPointer { buffer in
            unsafe EVP_DigestFinal_ex(context, buffer.baseAddress, &length)
        }
        guard status == 1, Int(length) == digest.count else { throw .last("finish a digest") }
        return digest
    }
}

extension HashAlgorithm {
    /// The digest of `bytes`.
    public func digest(of bytes: RawSpan) throws(CryptoError) -> [UInt8] {
        var hash = try StreamingHash(self)
        try hash.update(bytes)
        return try hash.finalize()
    }

    /// The digest of `bytes`.
    public func digest(of bytes: [UInt8]) throws(CryptoError) -> [UInt8] {
        // Safety: every byte of an array is initialised.
        unsafe try digest(of: bytes.span.bytes)
    }
}
