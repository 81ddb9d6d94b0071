import CBOR
import Crypto
import TestKit
import Testing
import Trust

/// What somebody with write access to the flash, but without keys, may try.
@Suite struct AttackTests {
    typealias Chain = SignerChainTests.Chain

    private func verdict(_ image: [UInt8], _ fuses: Fuses) -> FirmwareVerdict {
        var reader = ByteArrayReader(image)
        return FirmwareVerifier.verify(&reader, fuses: fuses)
    }

    private func refusal(_ image: [UInt8], _ fuses: Fuses) -> FirmwareRefusal? {
        if case .refused(let refusal, _) = verdict(image, fuses) { refusal } else { nil }
    }

    @Test
    func `an old image is replayed in vain once the fuses were raised to the newer one's floor`()
        throws
    {
        let folder = TemporaryFolder()
        let chain = try Chain()
        try WholeFile.write(folder.file("fuses"), Array(chain.fuses.json.utf8))
        let store = try FuseStore(path: folder.file("fuses"))
        let old = try chain.image(version: 2)
        #expect(refusal(old, store.fuses) == nil)
        var new = try FirmwareImage.unsigned(
            FirmwareParts(firstStage: [1], opensbi: [2], nextStage: [4]), name: "new", securityVersion: 5,
            rollbackFloor: 5)
        try FirmwareImage.sign(&new, key: chain.signer, certificate: chain.certificate)
        guard case .verified(let manifest, _) = verdict(new, store.fuses) else {
            Issue.record("the new image was refused")
            return
        }
        try store.burn(minimumSecurityVersion: manifest.rollbackFloor)
        #expect(refusal(old, store.fuses) == .securityVersionTooLow(found: 2, minimum: 5))
        #expect(refusal(new, try Fuses(path: folder.file("fuses"))) == nil)
    }

    @Test func `the manifest of one image does not cover another's components`() throws {
        let chain = try Chain()
        func image(_ byte: UInt8) throws -> [UInt8] {
            var image = try FirmwareImage.unsigned(
                FirmwareParts(firstStage: [byte], opensbi: [byte], nextStage: [byte]), name: "\(byte)",
                securityVersion: 2)
            try FirmwareImage.sign(&image, key: chain.signer, certificate: chain.certificate)
            return image
        }
        let (first, second) = (try image(1), try image(2))
        var swapped = first
        swapped.replaceSubrange(0x1_0000..<0x1_F000, with: second[0x1_0000..<0x1_F000])
        #expect(refusal(swapped, chain.fuses) == .digestMismatch("first stage"))
    }

    @Test func `a certificate of one signer is no use to another that was cancelled`() throws {
        let chain = try Chain(number: 1)
        let other = try P384PrivateKey.generate()
        let certificate = try SignerCertificate(for: other.verifyingKey, number: 2, root: chain.root)
        let fuses = Fuses(
            rootKeyDigest: chain.fuses.rootKeyDigest, minimumSecurityVersion: 1, cancelledKeys: [1])
        var image = try chain.image()
        // The cancelled key signs beside the certificate of the key that is not.
        let payload = try COSESign1(decoding: ImageFixture.message(in: image)).payload
        let signed = try COSESign1(signing: payload, with: chain.signer)
        let header = CBOR.map([
            .init(.integer(4), .bytes(try COSEKey(other.publicKey).digest())),
            .init(.integer(-65538), .bytes(certificate.encoded)),
        ])
        image = try ImageFixture().replacing(
            image,
            message: CBOR.array([
                .bytes(signed.protectedHeader), header, .bytes(signed.payload), .bytes(signed.signature),
            ]).encoded())
        #expect(refusal(image, fuses) == .invalidSignature)
    }

    @Test func `a certificate that was edited to another number is invalid`() throws {
        let chain = try Chain(number: 1)
        let message = try COSESign1(decoding: chain.certificate.encoded)
        guard case .map(let entries) = try CBOR.decode(message.payload) else { return }
        let payload = CBOR.map(
            entries.map { $0.key == .unsigned(2) ? CBOR.Entry($0.key, .unsigned(2)) : $0 }
        ).encoded()
        let edited = CBOR.tagged(
            18,
            .array([
                .bytes(message.protectedHeader), message.unprotectedHeader, .bytes(payload),
                .bytes(message.signature),
            ])
        ).encoded()
        var image = try chain.image()
        try chain.resign(&image, certificate: SignerCertificate(decoding: edited))
        let fuses = Fuses(
            rootKeyDigest: chain.fuses.rootKeyDigest, minimumSecurityVersion: 1, cancelledKeys: [1])
        #expect(refusal(image, fuses) == .invalidCertificateSignature)
    }

    /// Lengths as an attacker would write them, at every place where the message has one.
    @Test func `a length that is too large anywhere is refused without a trap`() throws {
        let chain = try Chain(root: .ed25519, signer: .ed25519)
        var image = try chain.image()
        let message = ImageFixture.message(in: image)
        let heads: [[UInt8]] = [
            [0x5B] + [UInt8](repeating: 0xFF, count: 8), [0x5A, 0xFF, 0xFF, 0xFF, 0xFF],
            [0x9B] + [UInt8](repeating: 0xFF, count: 8),
            [0xBB, 0x7F] + [UInt8](repeating: 0xFF, count: 7),
            [0x7B, 0x80, 0, 0, 0, 0, 0, 0, 0], [0xBA, 0x80, 0, 0, 0],
            [0xDB] + [UInt8](repeating: 0xFF, count: 8),
        ]
        // In place: a copy of the image for each change would take most of the test's time.
        let place = 0x1_0004
        for start in message.indices {
            for head in heads {
                let range = place + start..<place + min(start + head.count, message.count)
                image.replaceSubrange(range, with: head.prefix(range.count))
                #expect(refusal(image, chain.fuses) != nil, "\(Hex.encode(head)) at byte \(start)")
                image.replaceSubrange(range, with: message[range.lowerBound - place..<range.upperBound - place])
            }
        }
        #expect(refusal(image, chain.fuses) == nil)
    }

    @Test func `a message that ends early is refused wherever it ends`() throws {
        let chain = try Chain(root: .ed25519, signer: .ed25519)
        let image = try chain.image()
        let message = ImageFixture.message(in: image)
        let fixture = try ImageFixture()
        for count in 1..<message.count {
            let cut = fixture.replacing(image, message: Array(message[..<count]))
            #expect(refusal(cut, chain.fuses) != nil, "cut to \(count) bytes")
        }
    }

    /// Every byte that a verdict rests on: length, message, components. Whatever is written there, the image is refused.
    /// P-384 is slow to verify: there one byte of seven is tried.
    @Test(arguments: [(SignatureAlgorithm.ed25519, 1), (.es384, 7)])
    func `each byte of manifest and components matters`(algorithm: SignatureAlgorithm, step: Int)
        throws
    {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        let chain = try Chain(root: algorithm, signer: algorithm)
        var image = try FirmwareImage.unsigned(
            FirmwareParts(
                firstStage: generator.bytes(300), opensbi: generator.bytes(400),
                nextStage: generator.bytes(200),
                bmc: generator.bytes(64), adapter: generator.bytes(64), offload: generator.bytes(64)),
            name: "whole",
            securityVersion: 2)
        try FirmwareImage.sign(&image, key: chain.signer, certificate: chain.certificate)
        guard case .verified(let manifest, _) = verdict(image, chain.fuses) else {
            Issue.record("refused before anything changed")
            return
        }
        let manifestEnd = 0x1_0004 + ImageFixture.message(in: image).count
        let ranges =
            [0x1_0000..<manifestEnd]
            + manifest.components.map { Int($0.offset)..<Int($0.offset + $0.size) }
        let places = Array(ranges.joined())
        for place in stride(
            from: Int.random(in: 0..<step, using: &generator), to: places.count, by: step
        ).map({ places[$0] }) {
            let old = image[place]
            // A byte that differs in one bit, and one that differs anyhow.
            let bit = UInt8(1) << UInt8.random(in: 0..<8, using: &generator)
            for new in [old ^ bit, old ^ UInt8.random(in: 1...255, using: &generator)] {
                image[place] = new
                #expect(refusal(image, chain.fuses) != nil, "byte \(place) \(old) as \(new), seed \(seed)")
            }
            image[place] = old
        }
        #expect(refusal(image, chain.fuses) == nil)
    }
}
