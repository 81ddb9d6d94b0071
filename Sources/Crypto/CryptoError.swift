import COpenSSL

/// A failed operation of libcrypto: what was attempted and OpenSSL's own reason.
///
/// A signature that does not verify is not an error but a `false`; see `P384PublicKey.isValidSignature(_:over:)`.
public struct CryptoError: Error, Equatable, CustomStringConvertible {
    /// What was attempted, as a phrase that reads well after "cannot".
    public let operation: String
    /// OpenSSL's reason text, or ours where the refusal is ours.
    public let reason: String

    public init(operation: String, reason: String) {
        self.operation = operation
        self.reason = reason
    }

    public var description: String { "cannot \(operation): \(reason)" }

    /// An error made of the oldest entry (the cause) of this thread's OpenSSL error queue, which is emptied.
    static func last(_ operation: String) -> CryptoError {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return CryptoError(operation: operation, reason: "OpenSSL gave no reason") }
        // Safety: OpenSSL returns a static, NUL-terminated string or NULL.
        if let text = unsafe ERR_reason_error_string(code) {
            return CryptoError(operation: operation, reason: unsafe String(cString: text))
        }
        return CryptoError(operation: operation, reason: "OpenSSL error 0x\(String(code, radix: 16))")
    }
}
