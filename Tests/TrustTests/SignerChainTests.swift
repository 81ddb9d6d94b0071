import CBOR
import Crypto
import Testing
import Trust

/// Root → signer → image, with each algorithm at each place.
@Suite struct SignerChainTests {
    static let algorithms: [(SignatureAlgorithm, SignatureAlgorithm)] = SignatureAlgorithm.allCases.flatMap { root in
        SignatureAlgorithm.allCases.map { (root, $0) }
    }

    /// A root, a signer, and the image that the signer signed.
    struct Chain {
        let root: any SigningKey
        let signer: any SigningKey
        let certificate: SignerCertificate
        let fuses: Fuses

        init(
            root: SignatureAlgorithm = .es384, signer: SignatureAlgorithm = .es384, number: UInt8 = 3,
            board: String = FlashLayout.boardCompatibility, minimum: UInt32 = 0
        ) throws {
            self.root = try root.generateKey()
            self.signer = try signer.generateKey()
            certificate = try SignerCertificate(
                for: self.signer.verifyingKey, number: number, boardCompatibility: board,
                minimumSecurityVersion: minimum, root: self.root)
            fuses = try Fuses(root: self.root.verifyingKey, minimumSecurityVersion: 1)
        }

        func image(version: UInt32 = 2, name: String = "chained") throws -> [UInt8] {
            var image = try FirmwareImage.unsigned(
                FirmwareParts(firstStage: [1], opensbi: [2, 2], nextStage: [3, 3, 3]), name: name,
                securityVersion: version)
            try resign(&image)
            return image
        }

        /// Signs without the builder's own checks, as an attacker would.
        func resign(_ image: inout [UInt8], certificate: SignerCertificate? = nil, key: (any SigningKey)? = nil) throws
        {
            let bytes = ImageFixture.message(in: image)
            let payload = bytes[0] >> 5 == 5 ? bytes : try COSESign1(decoding: bytes).payload
            let message = try COSESign1(
                signing: payload, with: key ?? signer, certificate: certificate ?? self.certificate)
            image = try ImageFixture().replacing(image, message: message.encoded())
        }
    }

    func refusal(_ image: [UInt8], _ fuses: Fuses) -> FirmwareRefusal? {
        var reader = ByteArrayReader(image)
        if case .refused(let refusal, _) = FirmwareVerifier.verify(&reader, fuses: fuses) { return refusal }
        return nil
    }

    @Test(arguments: algorithms)
    func `an image by a certified signer is verified`(root: SignatureAlgorithm, signer: SignatureAlgorithm) throws {
        let chain = try Chain(root: root, signer: signer)
        let image = try chain.image()
        #expect(refusal(image, chain.fuses) == nil)
        var reader = ByteArrayReader(image)
        let signature = try #require(try FirmwareVerifier.inspect(&reader).signature)
        #expect(signature.isValid && signature.certificateIsValid == true)
        #expect(signature.algorithm == signer && signature.certificate?.algorithm == root)
        #expect(signature.certificate == chain.certificate)
        #expect(try SignerCertificate(decoding: chain.certificate.encoded) == chain.certificate)
    }

    @Test(arguments: SignatureAlgorithm.allCases)
    func `the root may sign itself`(root: SignatureAlgorithm) throws {
        let chain = try Chain(root: root)
        var image = try chain.image()
        try FirmwareImage.sign(&image, key: chain.root)
        #expect(refusal(image, chain.fuses) == nil)
        // A signer without its certificate is nobody.
        try FirmwareImage.sign(&image, key: chain.signer)
        #expect(refusal(image, chain.fuses) == .keyMismatch(found: try COSEKey(chain.signer.verifyingKey).digest()))
    }

    @Test func `an image by a cancelled key is refused by its number`() throws {
        let chain = try Chain(number: 127)
        let image = try chain.image()
        let fuses = Fuses(
            rootKeyDigest: chain.fuses.rootKeyDigest, minimumSecurityVersion: 1, cancelledKeys: [0, 127])
        let found = refusal(image, fuses)
        #expect(found == .cancelledKey(number: 127))
        #expect(found?.description == "signed by key number 127, which the fuses cancel")
        let others = Fuses(rootKeyDigest: fuses.rootKeyDigest, minimumSecurityVersion: 1, cancelledKeys: [0, 126])
        #expect(refusal(image, others) == nil)
    }

    @Test func `a certificate by another root is refused by its digest`() throws {
        let (chain, other) = (try Chain(), try Chain())
        #expect(refusal(try other.image(), chain.fuses) == .foreignRoot(found: other.fuses.rootKeyDigest))
    }

    @Test func `a certificate that names the root but is not by it is refused`() throws {
        let (chain, other) = (try Chain(), try Chain())
        // The other's certificate with our root's key and identifier beside it.
        let forged = try COSESign1(decoding: other.certificate.encoded)
        let ours = try COSESign1(decoding: chain.certificate.encoded)
        let bytes = CBOR.tagged(
            18,
            .array([
                .bytes(forged.protectedHeader), ours.unprotectedHeader, .bytes(forged.payload),
                .bytes(forged.signature),
            ])
        ).encoded()
        var image = try chain.image()
        try other.resign(&image, certificate: SignerCertificate(decoding: bytes))
        #expect(refusal(image, chain.fuses) == .invalidCertificateSignature)
    }

    @Test func `a certificate for another board is refused`() throws {
        let chain = try Chain(board: "baseboard,desktop")
        #expect(
            refusal(try chain.image(), chain.fuses)
                == .certificateForAnotherBoard(found: "baseboard,desktop", expected: "baseboard,server"))
    }

    @Test func `a signer signs no images older than its certificate says`() throws {
        let chain = try Chain(minimum: 4)
        #expect(refusal(try chain.image(version: 3), chain.fuses) == .securityVersionNotGranted(found: 3, minimum: 4))
        #expect(refusal(try chain.image(version: 4), chain.fuses) == nil)
    }

    @Test(arguments: algorithms)
    func `a signature by another key than the certified one is refused`(
        root: SignatureAlgorithm, signer: SignatureAlgorithm
    ) throws {
        let chain = try Chain(root: root, signer: signer)
        var image = try chain.image()
        let thief = try signer.generateKey()
        try chain.resign(&image, key: thief)
        // Its identifier is that of the thief's key.
        #expect(
            refusal(image, chain.fuses) == .malformed("the key identifier is not the digest of the signer's key"))
        let genuine = try COSESign1(decoding: ImageFixture.message(in: chain.image()))
        let forged = try COSESign1(decoding: ImageFixture.message(in: image))
        image = try ImageFixture().replacing(
            image,
            message: CBOR.array([
                .bytes(forged.protectedHeader), genuine.unprotectedHeader, .bytes(forged.payload),
                .bytes(forged.signature),
            ]).encoded())
        #expect(refusal(image, chain.fuses) == .invalidSignature)
    }

    @Test func `an algorithm that is not the key's is refused as such`() throws {
        let chain = try Chain(signer: .ed25519)
        let image = try chain.image()
        let message = try COSESign1(decoding: ImageFixture.message(in: image))
        let header = CBOR.map([.init(.unsigned(1), .integer(-35))]).encoded()
        let changed = try ImageFixture().replacing(
            image,
            message: CBOR.array([
                .bytes(header), message.unprotectedHeader, .bytes(message.payload), .bytes(message.signature),
            ]).encoded())
        #expect(refusal(changed, chain.fuses) == .algorithmMismatch)
    }

    @Test func `a header that names the signer twice, in no way or strangely is refused`() throws {
        let chain = try Chain()
        let image = try chain.image()
        let message = try COSESign1(decoding: ImageFixture.message(in: image))
        let digest = try COSEKey(chain.signer.verifyingKey).digest()
        let key = CBOR.Entry(.integer(-65537), COSEKey(chain.signer.verifyingKey).cbor)
        let certificate = CBOR.Entry(.integer(-65538), .bytes(chain.certificate.encoded))
        let identifier = CBOR.Entry(.integer(4), .bytes(digest))
        let cases: [([CBOR.Entry], FirmwareRefusal)] = [
            ([identifier], .noSigner),
            ([identifier, key, certificate], .malformed("both the signer's key and a certificate")),
            ([certificate], .malformed("the key identifier is not the digest of the signer's key")),
            ([identifier, .init(.integer(-65538), .null)], .badCertificate("it is not a byte string")),
            (
                [identifier, .init(.integer(-65538), .bytes([]))],
                .badCertificate("the CBOR item at byte 0 is truncated")
            ),
        ]
        for (entries, expected) in cases {
            let bytes = CBOR.array([
                .bytes(message.protectedHeader), .map(entries), .bytes(message.payload), .bytes(message.signature),
            ]).encoded()
            #expect(refusal(try ImageFixture().replacing(image, message: bytes), chain.fuses) == expected)
        }
    }

    /// A field of a certificate's payload and what stands there instead; nil: nothing.
    static let certificateChanges: [(label: Int64, value: CBOR?, reason: String)] = [
        (1, .null, "the COSE_Key is not a map"), (2, .unsigned(128), "key number"), (2, .text("1"), "key number"),
        (2, .integer(-1), "key number"), (3, .text(""), "board compatibility"), (3, .bytes([1]), "board"),
        (4, .unsigned(1 << 32), "least security version"), (4, nil, "4 fields"), (5, .unsigned(1), "4 fields"),
    ]

    @Test(arguments: certificateChanges.indices)
    func `a certificate with a field missing, wrong or unknown is refused though the root signed it`(index: Int) throws
    {
        let change = Self.certificateChanges[index]
        let chain = try Chain()
        guard case .map(let entries) = try CBOR.decode(COSESign1(decoding: chain.certificate.encoded).payload) else {
            Issue.record("no map")
            return
        }
        let kept = entries.filter { $0.key != .integer(change.label) }
        let payload = CBOR.map(kept + (change.value.map { [.init(.integer(change.label), $0)] } ?? []))
        let bytes = try COSESign1(signing: payload.encoded(), with: chain.root).encoded()
        let error = #expect(throws: COSEError.self) { try SignerCertificate(decoding: bytes) }
        #expect(error?.description.contains(change.reason) == true, "\(String(describing: error))")
    }

    @Test func `a certificate longer than any is not parsed`() throws {
        let long = [UInt8](repeating: 0, count: 4097)
        #expect(throws: COSEError.cbor(.tooLong(count: 4097, limit: 4096))) { try SignerCertificate(decoding: long) }
    }

    @Test func `an image that nobody signed is refused as such, and can be signed`() throws {
        let chain = try Chain()
        var image = try FirmwareImage.unsigned(
            FirmwareParts(firstStage: [1], opensbi: [2], nextStage: [3], bmc: [4], adapter: [5], offload: [6]),
            name: "bare", securityVersion: 1)
        #expect(refusal(image, chain.fuses) == .notSigned)
        try FirmwareImage.sign(&image, key: chain.signer, certificate: chain.certificate)
        var reader = ByteArrayReader(image)
        guard case .verified(let manifest, _) = FirmwareVerifier.verify(&reader, fuses: chain.fuses) else {
            Issue.record("refused")
            return
        }
        #expect(manifest.components.map(\.target) == [.host, .host, .host, .host, .bmc, .adapter, .offload])
        #expect(image.count == 0x38_0001)
    }

    @Test func `the builder signs nothing that a board would refuse`() throws {
        let chain = try Chain(board: "baseboard,desktop", minimum: 9)
        var image = try chain.image()
        #expect(throws: FirmwareImageError.certificateOfAnotherKey) {
            try FirmwareImage.sign(&image, key: chain.root, certificate: chain.certificate)
        }
        #expect(
            throws: FirmwareImageError.certificateForAnotherBoard(found: "baseboard,desktop", image: "baseboard,server")
        ) {
            try FirmwareImage.sign(&image, key: chain.signer, certificate: chain.certificate)
        }
        let newer = try Chain(minimum: 9)
        #expect(throws: FirmwareImageError.certificateForNewerImages(minimum: 9, image: 2)) {
            try FirmwareImage.sign(&image, key: newer.signer, certificate: newer.certificate)
        }
        #expect(throws: FirmwareImageError.badRollbackFloor(2, securityVersion: 1)) {
            try FirmwareImage.unsigned(
                FirmwareParts(firstStage: [1], opensbi: [2], nextStage: [3]), name: "n", securityVersion: 1,
                rollbackFloor: 2)
        }
        var nothing = [UInt8](repeating: 0xFF, count: 0x2_0000)
        #expect(throws: FirmwareImageError.noManifest("no manifest")) {
            try FirmwareImage.sign(&nothing, key: chain.root)
        }
    }
}
