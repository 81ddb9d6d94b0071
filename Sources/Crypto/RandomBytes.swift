import COpenSSL

/// `count` bytes from OpenSSL's private random generator, fit for keys and nonces.
public func randomBytes(_ count: Int) throws(CryptoError) -> [UInt8] {
    precondition(count >= 0 && count <= Int(Int32.max), "a count of random bytes must fit a C int")
    var bytes = [UInt8](repeating: 0, count: count)
    // Safety: OpenSSL writes exactly `count` bytes into the array's storage during the call.
    let status = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
        unsafe RAND_priv_bytes(buffer.baseAddress, Int32(buffer.count))
    }
    guard status == 1 else { throw .last("make \(count) random bytes") }
    return bytes
}
