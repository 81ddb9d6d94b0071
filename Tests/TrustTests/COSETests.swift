import CBOR
import Crypto
import Testing
import Trust

@Suite struct COSETests {
    /// A message that PyPI's pycose 1.1.0 signed with ES384 (payload "This is the content.", kid "11"), and its key.
    static let foreignMessage = """
        d28444a1013822a10442313154546869732069732074686520636f6e74656e742e5860439926a90c8db94f18a164b2b515ea0a3bdd3a84\
        055e1e4bcbbb73333f3e0df42ae5a00af9776a7f8f909fbbc746d569f2c3fb9211ee38379fdc998674bbc13d7d0f0cb042d0bc19e854d9\
        43a8efcc1e83585c57accaa0e4cc2cd43019740f3a
        """
    static let foreignX =
        "8c049024a930c0b1df72bc08b1c5afb0db9baed4bf34ca7b872ac59dc215f714a065eb133f58fdbfeb29efb1a6a30d39"
    static let foreignY =
        "ac2800fa32a7f01eda68e94f2b58b7efdab7a7e027a5a684a29bfd723c562c13002983b0af8a66bf19a8f2d540578dcf"
    /// SHA-384 of cbor2's canonical encoding of {1: 2, -1: 2, -2: x, -3: y}.
    static let foreignThumbprint =
        "8fc3ac38dbb03389758a886aaf6e56a0ed081a4807f61ac3fe4d8246e29267fc7630a66c06893bb8fb7b011f94a98f5d"

    private func foreignKey() throws -> P384PublicKey {
        try P384PublicKey(x: #require(Hex.decode(Self.foreignX)), y: #require(Hex.decode(Self.foreignY)))
    }

    @Test func `a message that pycose signed verifies`() throws {
        let message = try COSESign1(decoding: #require(Hex.decode(Self.foreignMessage)))
        #expect(message.payload == Array("This is the content.".utf8))
        #expect(message.unprotectedHeader[COSESign1.Header.keyIdentifier] == .bytes(Array("11".utf8)))
        #expect(try message.isValid(for: foreignKey()))
        #expect(try !message.isValid(for: P384PrivateKey.generate().publicKey))
        #expect(Hex.encode(message.encoded()) == Self.foreignMessage)
    }

    @Test func `the digest of a key is its RFC 9679 thumbprint`() throws {
        #expect(Hex.encode(try COSEKey(foreignKey()).digest()) == Self.foreignThumbprint)
    }

    /// Spec: RFC 9052 appendix C.2.1: the bytes to be signed of that example.
    @Test func `the structure that is signed is the one of RFC 9052`() {
        let structure = COSESign1.signatureStructure(
            protectedHeader: [0xA1, 0x01, 0x26], payload: Array("This is the content.".utf8))
        #expect(
            Hex.encode(structure)
                == "846a5369676e61747572653143a101264054546869732069732074686520636f6e74656e742e")
    }

    @Test func `a message signed here is read and verified here, tagged or not`() throws {
        let key = try P384PrivateKey.generate()
        let message = try COSESign1(signing: [1, 2, 3], with: key)
        let encoded = message.encoded()
        #expect(encoded[0] == 0xD2)
        for bytes in [encoded, Array(encoded.dropFirst())] {
            let again = try COSESign1(decoding: bytes)
            #expect(again == message)
            #expect(try again.isValid(for: key.publicKey))
        }
        let item = try #require(message.unprotectedHeader[COSESign1.Header.signerKey])
        #expect(try COSEKey(item).publicKey == .p384(key.publicKey))
    }

    @Test func `any changed byte of the signed parts makes the message invalid or unreadable`() throws {
        let key = try P384PrivateKey.generate()
        let message = try COSESign1(signing: [UInt8](0..<20), with: key)
        let encoded = message.encoded()
        let signature = encoded.count - 96
        let unprotected = try #require(message.unprotectedHeader.encoded().count as Int?)
        // tag, array, protected header (1 + 4); then the unprotected header, which is not signed.
        let signed = Array(0..<7) + Array((7 + unprotected)..<encoded.count)
        for index in signed {
            var changed = encoded
            changed[index] ^= 0x10
            let isValid = try (try? COSESign1(decoding: changed))?.isValid(for: key.publicKey) ?? false
            #expect(!isValid, "byte \(index), signature begins at \(signature)")
        }
    }

    static let signature = CBOR.bytes([UInt8](repeating: 1, count: 96))
    static let protected = CBOR.bytes([0xA1, 0x01, 0x38, 0x22])

    @Test(arguments: [
        (CBOR.unsigned(1), COSEError.malformed("COSE_Sign1 is not an array of four")),
        (.array([protected, .map([]), .bytes([])]), .malformed("COSE_Sign1 is not an array of four")),
        (.tagged(98, .array([])), .malformed("CBOR tag 98 is not COSE_Sign1 (18)")),
        (
            .array([.map([]), .map([]), .bytes([]), signature]),
            .malformed("the protected header is not a byte string")
        ),
        (
            .array([protected, .bytes([]), .bytes([]), signature]),
            .malformed("the unprotected header is not a map")
        ),
        (.array([protected, .map([]), .null, signature]), .malformed("the payload is detached")),
        (.array([protected, .map([]), .text("x"), signature]), .malformed("the payload is not a byte string")),
        (.array([protected, .map([]), .bytes([]), .null]), .malformed("the signature is not a byte string")),
        (.array([.bytes([0x01]), .map([]), .bytes([]), signature]), .malformed("the protected header is not a map")),
        (.array([.bytes([0xA1]), .map([]), .bytes([]), signature]), .cbor(.truncated(offset: 0))),
        (.array([.bytes([]), .map([]), .bytes([]), signature]), .unsupportedAlgorithm(nil)),
        (.array([.bytes([0xA1, 1, 0x26]), .map([]), .bytes([]), signature]), .unsupportedAlgorithm(-7)),
        (
            .array([
                .bytes(CBOR.map([.init(.unsigned(1), .integer(-35)), .init(.unsigned(2), .array([]))]).encoded()),
                .map([]), .bytes([]), signature,
            ]), .criticalHeader
        ),
        (
            .array([protected, .map([.init(.unsigned(1), .integer(-35))]), .bytes([]), signature]),
            .malformed("a header parameter is both protected and unprotected")
        ),
    ])
    func `another structure is refused precisely`(item: CBOR, error: COSEError) {
        #expect(throws: error) { try COSESign1(decoding: item.encoded()) }
    }

    @Test func `an algorithm in the unprotected header alone does not count`() {
        let item = CBOR.array([
            .bytes([]), .map([.init(.unsigned(1), .integer(-35))]), .bytes([]), Self.signature,
        ])
        #expect(throws: COSEError.unsupportedAlgorithm(nil)) { try COSESign1(decoding: item.encoded()) }
    }

    @Test(arguments: [
        CBOR.null, .map([]), .map([.init(.unsigned(1), .unsigned(2)), .init(.integer(-1), .unsigned(1))]),
        .map([.init(.unsigned(1), .unsigned(2)), .init(.integer(-1), .unsigned(2))]),
        .map([
            .init(.unsigned(1), .unsigned(2)), .init(.integer(-1), .unsigned(2)),
            .init(.integer(-2), .bytes([UInt8](repeating: 1, count: 48))),
            .init(.integer(-3), .bytes([UInt8](repeating: 1, count: 48))),
        ]),
        .map([
            .init(.unsigned(1), .unsigned(2)), .init(.integer(-1), .unsigned(2)),
            .init(.integer(-2), .bytes([1])), .init(.integer(-3), .true),
        ]),
    ])
    func `a key of another kind or off the curve is refused`(item: CBOR) {
        #expect(throws: COSEError.self) { try COSEKey(item) }
    }
}
