import Crypto
import Testing

@Suite struct HashTests {
    /// Spec: FIPS 180-4, the example messages of NIST's Cryptographic Standards page.
    @Test(arguments: [
        (HashAlgorithm.sha256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (.sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            .sha384, "",
            "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b"
        ),
        (
            .sha384, "abc",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        ),
    ])
    func `a known message has the published digest`(algorithm: HashAlgorithm, text: String, hex: String) throws {
        #expect(Hex.encode(try algorithm.digest(of: Array(text.utf8))) == hex)
    }

    @Test(arguments: HashAlgorithm.allCases)
    func `a streamed digest equals the one of the openssl program`(algorithm: HashAlgorithm) throws {
        let openssl = try OpenSSLCommand()
        defer { openssl.remove() }
        let message = try randomBytes(100_003)
        try openssl.write("message", message)
        var hash = try StreamingHash(algorithm)
        for start in stride(from: 0, to: message.count, by: 4099) {
            try hash.update(Array(message[start..<min(start + 4099, message.count)]))
        }
        let digest = try hash.finalize()
        let name = algorithm == .sha256 ? "-sha256" : "-sha384"
        #expect(try openssl("dgst", name, "-r", "message").hasPrefix(Hex.encode(digest) + " "))
    }

    @Test func `two draws of random bytes differ`() throws {
        #expect(try randomBytes(32) != randomBytes(32))
        #expect(try randomBytes(0).isEmpty)
    }

    @Test(arguments: ["0", "0g", "zz", "+1", "0x"])
    func `text that is not hexadecimal is refused`(text: String) {
        #expect(Hex.decode(text) == nil)
    }

    @Test func `hexadecimal text is read in either case and written in lower case`() {
        #expect(Hex.decode("00fFAb") == [0x00, 0xFF, 0xAB])
        #expect(Hex.encode([0x00, 0xFF, 0xAB]) == "00ffab")
    }
}
