import Crypto
import Testing

@Suite struct P384Tests {
    let message = Array("the board's firmware".utf8)

    /// The raw form of a signature as DER, written here on its own so that the openssl program can read it.
    private func der(_ raw: [UInt8]) -> [UInt8] {
        func integer(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
            var digits = Array(bytes.drop { $0 == 0 })
            if digits.isEmpty || digits[0] >= 0x80 { digits.insert(0, at: 0) }
            return [0x02, UInt8(digits.count)] + digits
        }
        let body = integer(raw[0..<48]) + integer(raw[48..<96])
        return [0x30, UInt8(body.count)] + body
    }

    @Test func `the openssl program accepts our signature and our keys`() throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let key = try P384PrivateKey.generate()
        try openssl.write("public.pem", key.publicKey.pem().utf8)
        try openssl.write("private.pem", key.pem().utf8)
        try openssl.write("message", message)
        for _ in 0..<8 {
            let signature = try key.sign(message)
            #expect(signature.count == P384PublicKey.signatureLength)
            try openssl.write("signature", der(signature))
            #expect(
                try openssl("dgst", "-sha384", "-verify", "public.pem", "-signature", "signature", "message")
                    == "Verified OK\n")
        }
        #expect(try openssl("pkey", "-in", "private.pem", "-check", "-noout").contains("Key is valid"))
        #expect(try openssl("pkey", "-in", "private.pem", "-pubout") == key.publicKey.pem())
    }

    @Test(arguments: [true, false])
    func `a key made by the openssl program signs and verifies here`(sec1: Bool) throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        if sec1 {
            try openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem")
        } else {
            try openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "key.pem")
        }
        let key = try P384PrivateKey(pem: String(decoding: openssl.read("key.pem"), as: UTF8.self))
        let publicKey = try P384PublicKey(pem: openssl("pkey", "-in", "key.pem", "-pubout"))
        #expect(publicKey == key.publicKey)
        #expect(try publicKey.isValidSignature(key.sign(message), over: message))
        let text = try openssl("pkey", "-in", "key.pem", "-pubout", "-ec_conv_form", "compressed")
        #expect(try P384PublicKey(pem: text) == publicKey, "a compressed point names the same key")
    }

    @Test func `a stored key is the key that was stored`() throws {
        let key = try P384PrivateKey.generate()
        let again = try P384PrivateKey(pem: key.pem())
        #expect(again.publicKey == key.publicKey)
        #expect(try key.publicKey.isValidSignature(again.sign(message), over: message))
        #expect(try P384PublicKey(uncompressedPoint: key.publicKey.uncompressedPoint) == key.publicKey)
    }

    @Test func `every changed byte of a signature makes it invalid`() throws {
        let key = try P384PrivateKey.generate()
        let signature = try key.sign(message)
        #expect(try key.publicKey.isValidSignature(signature, over: message))
        for index in signature.indices {
            var changed = signature
            changed[index] ^= 0x01
            #expect(try !key.publicKey.isValidSignature(changed, over: message), "byte \(index)")
        }
    }

    @Test(arguments: [
        [UInt8](), [UInt8](repeating: 0, count: 96), [UInt8](repeating: 0xFF, count: 96),
        [UInt8](repeating: 1, count: 95), [UInt8](repeating: 1, count: 97),
    ])
    func `a signature of wrong length or range is invalid`(signature: [UInt8]) throws {
        let key = try P384PrivateKey.generate()
        #expect(try !key.publicKey.isValidSignature(signature, over: message))
    }

    @Test func `another message or another key does not verify`() throws {
        let key = try P384PrivateKey.generate()
        let signature = try key.sign(message)
        #expect(try !key.publicKey.isValidSignature(signature, over: message + [0]))
        #expect(try !P384PrivateKey.generate().publicKey.isValidSignature(signature, over: message))
    }

    @Test func `a point off the curve is refused with OpenSSL's reason`() throws {
        var point = try P384PrivateKey.generate().publicKey.uncompressedPoint
        point[96] ^= 1
        let error = #expect(throws: CryptoError.self) { try P384PublicKey(uncompressedPoint: point) }
        #expect(error?.operation == "use a P-384 public key")
        #expect(error?.reason != "OpenSSL gave no reason")
    }

    @Test(arguments: [0, 1, 48, 96, 98])
    func `a point of another length is refused`(length: Int) {
        #expect(throws: CryptoError.self) {
            try P384PublicKey(uncompressedPoint: [UInt8](repeating: 4, count: length))
        }
    }

    @Test func `a key on another curve is refused by its name`() throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let pem = try openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        let error = #expect(throws: CryptoError.self) { try P384PrivateKey(pem: pem) }
        #expect(error?.reason == "the key is on prime256v1, must be on secp384r1 (P-384)")
    }

    @Test func `a key of another kind is refused`() throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let pem = try openssl("genpkey", "-algorithm", "ED25519")
        let error = #expect(throws: CryptoError.self) { try P384PrivateKey(pem: pem) }
        #expect(error?.reason == "not an elliptic-curve key")
    }

    @Test func `an encrypted key is refused without asking for a passphrase`() throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let pem = try openssl(
            "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-aes256", "-pass", "pass:x")
        #expect(throws: CryptoError.self) { try P384PrivateKey(pem: pem) }
    }

    @Test(arguments: ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
    func `text that is no key is refused`(pem: String) {
        let error = #expect(throws: CryptoError.self) { try P384PrivateKey(pem: pem) }
        #expect(error?.description.hasPrefix("cannot read a private key in PEM: ") == true)
        #expect(throws: CryptoError.self) { try P384PublicKey(pem: pem) }
    }
}
