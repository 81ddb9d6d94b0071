import Crypto
import Testing

@Suite struct Ed25519Tests {
    /// Spec: RFC 8032 §7.1, tests 1 and 3: secret key, public key, message, signature.
    @Test(arguments: [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                + "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                + "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ])
    func `a message of RFC 8032 has the signature printed there`(
        seed: String, publicKey: String, message: String, signature: String
    ) throws {
        let key = try Ed25519PrivateKey(seed: #require(Hex.decode(seed)))
        #expect(Hex.encode(key.publicKey.bytes) == publicKey)
        let bytes = try #require(Hex.decode(message))
        #expect(Hex.encode(try key.sign(bytes)) == signature)
        #expect(try key.publicKey.isValidSignature(#require(Hex.decode(signature)), over: bytes))
    }

    @Test func `the openssl program and we accept each other's keys and signatures`() throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let key = try Ed25519PrivateKey.generate()
        try openssl.write("message", Array("firmware".utf8))
        try openssl.write("public.pem", key.verifyingKey.pem().utf8)
        try openssl.write("signature", key.sign(Array("firmware".utf8)))
        #expect(
            try openssl(
                "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message", "-sigfile",
                "signature"
            ).contains("Signature Verified Successfully"))
        let pem = try openssl("genpkey", "-algorithm", "ED25519")
        let theirs = try signingKey(pem: pem)
        try openssl.write("their.pem", pem.utf8)
        #expect(try PublicKey(pem: openssl("pkey", "-in", "their.pem", "-pubout")) == theirs.verifyingKey)
        #expect(try signingKey(pem: theirs.pem()).verifyingKey == theirs.verifyingKey)
    }

    @Test func `a changed, short or foreign signature is invalid`() throws {
        let key = try Ed25519PrivateKey.generate()
        let signature = try key.sign([1, 2, 3])
        for index in signature.indices {
            var changed = signature
            changed[index] ^= 1
            #expect(try !key.publicKey.isValidSignature(changed, over: [1, 2, 3]), "byte \(index)")
        }
        #expect(try !key.publicKey.isValidSignature(Array(signature.dropLast()), over: [1, 2, 3]))
        #expect(try !key.publicKey.isValidSignature([], over: [1, 2, 3]))
        #expect(try !Ed25519PrivateKey.generate().publicKey.isValidSignature(signature, over: [1, 2, 3]))
    }

    @Test(arguments: [0, 31, 33])
    func `a key of another length is refused`(length: Int) {
        #expect(throws: CryptoError.self) { try Ed25519PublicKey(bytes: [UInt8](repeating: 1, count: length)) }
        #expect(throws: CryptoError.self) { try Ed25519PrivateKey(seed: [UInt8](repeating: 1, count: length)) }
    }

    @Test func `a key is read in the kind that it has, and kinds beyond ours are refused`() throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        for algorithm in SignatureAlgorithm.allCases {
            let key = try algorithm.generateKey()
            #expect(try signingKey(pem: key.pem()).verifyingKey == key.verifyingKey)
            #expect(key.verifyingKey.algorithm == algorithm)
        }
        let rsa = try openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024")
        let error = #expect(throws: CryptoError.self) { try signingKey(pem: rsa) }
        #expect(error?.reason == "neither an elliptic-curve nor an Ed25519 key")
    }
}

@Suite struct HKDFTests {
    /// Spec: RFC 5869 appendix A.1 to A.3 (SHA-256).
    @Test(arguments: [
        (
            String(repeating: "0b", count: 22), "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        ),
        (
            String(repeating: "0b", count: 22), "", "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        ),
    ])
    func `a case of RFC 5869 derives what is printed there`(key: String, salt: String, info: String, result: String)
        throws
    {
        let derived = try HKDF.derive(
            .sha256, key: #require(Hex.decode(key)), salt: #require(Hex.decode(salt)), info: #require(Hex.decode(info)),
            count: 42)
        #expect(Hex.encode(derived) == result)
    }

    @Test(arguments: [1, 47, 48, 49, 100])
    func `the openssl program derives the same with SHA-384`(count: Int) throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let (key, salt) = (try randomBytes(32), try randomBytes(48))
        let derived = try HKDF.derive(.sha384, key: key, salt: salt, info: [1, 2], count: count)
        let text = try openssl(
            "kdf", "-keylen", "\(count)", "-kdfopt", "digest:SHA384", "-kdfopt", "hexkey:\(Hex.encode(key))", "-kdfopt",
            "hexsalt:\(Hex.encode(salt))", "-kdfopt", "hexinfo:0102", "HKDF")
        let digits = text.filter(\.isHexDigit).lowercased()
        #expect(digits == Hex.encode(derived))
    }
}
