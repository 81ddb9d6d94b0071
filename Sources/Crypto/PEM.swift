// Text forms by way of OpenSSL's memory bios.
import COpenSSL

/// Gives `body` a bio that reads `text`; nil when there is none or `body` made nothing.
func withPEMReader(_ text: String, _ body: (OpaquePointer?) -> OpaquePointer?) -> OpaquePointer? {
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

/// The text that `body` writes into a bio; it returns 1 when it could.
func withPEMWriter(_ operation: String, _ body: (OpaquePointer?) -> Int32) throws(CryptoError) -> String {
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
