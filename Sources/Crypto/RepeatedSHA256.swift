import COpenSSL

/// A SHA-256 digest as four words: compared and kept without allocation.
public struct SHA256Digest: Hashable, Sendable {
    let words: (UInt64, UInt64, UInt64, UInt64)

    public static func == (left: SHA256Digest, right: SHA256Digest) -> Bool {
        left.words.0 == right.words.0 && left.words.1 == right.words.1 && left.words.2 == right.words.2
            && left.words.3 == right.words.3
    }

    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}

/// SHA-256 of many pieces one after another, by one context of OpenSSL: for pieces of a few KiB, where making a context
/// each time costs as much as digesting. One thread at a time.
@safe public struct RepeatedSHA256: ~Copyable {
    private let context: OpaquePointer
    private var hasFailed = false

    public init() throws(CryptoError) {
        // Safety: EVP_MD_CTX_new returns an owned context or NULL; `deinit` frees it exactly once.
        guard let context = unsafe EVP_MD_CTX_new() else { throw .last("make a digest context") }
        // Safety: EVP_sha256 returns a static method table; a NULL engine means the default provider.
        guard unsafe EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            // Safety: not yet owned by a value, so it is freed here.
            unsafe EVP_MD_CTX_free(context)
            throw .last("start a digest")
        }
        unsafe self.context = unsafe context
    }

    deinit {
        // Safety: `context` is owned by this value and freed nowhere else.
        unsafe EVP_MD_CTX_free(context)
    }

    /// Adds `bytes` to the current piece.
    public mutating func update(_ bytes: RawSpan) {
        // Safety: OpenSSL reads exactly `count` bytes during the call.
        let status = unsafe bytes.withUnsafeBytes { buffer in
            unsafe EVP_DigestUpdate(context, buffer.baseAddress, buffer.count)
        }
        if status != 1 { hasFailed = true }
    }

    /// Ends the current piece and begins the next; nil when OpenSSL failed.
    public mutating func next() -> SHA256Digest? {
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        // Safety: the method writes 32 bytes, as many as four words have. Without a method it starts the same again.
        let status = unsafe withUnsafeMutableBytes(of: &words) { buffer in
            unsafe EVP_DigestFinal_ex(context, buffer.bindMemory(to: UInt8.self).baseAddress, nil) == 1
                && EVP_DigestInit_ex(context, nil, nil) == 1
        }
        defer { hasFailed = false }
        return status && !hasFailed ? SHA256Digest(words: words) : nil
    }

    /// Drops the current piece.
    public mutating func reset() {
        // Safety: the context is this value's; without a method it starts the same again.
        hasFailed = unsafe EVP_DigestInit_ex(context, nil, nil) != 1
    }
}
