import COpenSSL

/// Key derivation by HMAC (Spec: RFC 5869).
public enum HKDF {
    /// `count` bytes derived from `key`, at most 255 digests.
    ///
    /// - Parameters:
    ///   - salt: binds the result to something that need not be secret; empty for none.
    ///   - info: tells one derivation from every other of the same key.
    public static func derive(
        _ algorithm: HashAlgorithm, key: [UInt8], salt: [UInt8] = [], info: [UInt8], count: Int
    ) throws(CryptoError) -> [UInt8] {
        precondition(count > 0 && count <= 255 * algorithm.digestLength, "HKDF gives 1 byte to 255 digests")
        // Spec: RFC 5869 §2.2: no salt is a digest's length of zeros, which HMAC's padding makes of an empty one.
        let secret = try HMAC.authenticate(algorithm, key: salt, message: key)
        var derived: [UInt8] = []
        var block: [UInt8] = []
        var counter: UInt8 = 1
        while derived.count < count {
            block = try HMAC.authenticate(algorithm, key: secret, message: block + info + [counter])
            derived += block
            counter &+= 1
        }
        return Array(derived.prefix(count))
    }
}

/// Message authentication (Spec: FIPS 198-1).
public enum HMAC {
    /// The authentication code, a digest long.
    public static func authenticate(
        _ algorithm: HashAlgorithm, key: [UInt8], message: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        let operation = "authenticate \(message.count) bytes"
        guard let keyLength = Int32(exactly: key.count) else {
            throw CryptoError(operation: operation, reason: "a key of \(key.count) bytes")
        }
        var code = [UInt8](repeating: 0, count: algorithm.digestLength)
        var length: UInt32 = 0
        // An empty array may have no address, and no address would mean the last key again.
        let keyBytes = key.isEmpty ? [0] : key
        // Safety: the arrays outlive the call, their counts are passed, and `code` holds a digest of the algorithm.
        let made = unsafe code.withUnsafeMutableBufferPointer { buffer in
            let method = unsafe algorithm == .sha256 ? EVP_sha256() : EVP_sha384()
            return unsafe COpenSSL.HMAC(
                method, keyBytes, keyLength, message, message.count, buffer.baseAddress, &length) != nil
        }
        guard made, Int(length) == code.count else { throw .last(operation) }
        return code
    }
}
