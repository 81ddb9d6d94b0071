import CBOR
import Crypto
import TestKit
import Testing
import Trust

/// Parsers of bytes from outside, fed with damage: they may refuse, they may not trap, and what they take they must be
/// able to write again as they read it.
@Suite struct ParserFuzzTests {
    private static let rounds = 3000

    /// `bytes` after one to eight changes: a bit, a byte, a cut, a repeated or an inserted piece.
    private func damaged(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...8, using: &generator) {
            guard !bytes.isEmpty else { return bytes }
            let place = Int.random(in: 0..<bytes.count, using: &generator)
            switch Int.random(in: 0..<6, using: &generator) {
            case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            case 1: bytes[place] = UInt8.random(in: 0...255, using: &generator)
            case 2:
                bytes.removeSubrange(
                    place..<min(bytes.count, place + Int.random(in: 1...16, using: &generator)))
            case 3:
                bytes.insert(
                    contentsOf: generator.bytes(Int.random(in: 1...9, using: &generator)), at: place)
            case 4: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 32)], at: place)
            // Heads with the largest arguments, and indefinite lengths.
            default:
                bytes[place] =
                    [0x1B, 0x3B, 0x5B, 0x7B, 0x9B, 0xBB, 0xDB, 0x5F, 0x7F, 0x9F, 0xBF, 0xFF][place % 12]
            }
        }
        return bytes
    }

    /// `taken` says whether the parser took the bytes; it must sometimes, or the damage was too coarse to test anything.
    private func fuzz(
        _ seeds: [[UInt8]], mustTakeSome: Bool = true, _ parse: ([UInt8]) throws -> Void
    ) {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        var taken = 0
        for round in 0..<Self.rounds {
            let bytes = damaged(seeds[round % seeds.count], &generator)
            do {
                try parse(bytes)
                taken += 1
            } catch is Unfaithful {
                Issue.record("written otherwise than read: \(Hex.encode(bytes)), seed \(seed)")
            } catch {}
        }
        #expect(taken > 0 || !mustTakeSome, "seed \(seed)")
    }

    private struct Unfaithful: Error {}

    private func same(_ isSame: Bool) throws { if !isSame { throw Unfaithful() } }

    static let key = Result { try Ed25519PrivateKey.generate() }

    @Test func `CBOR by either rules`() throws {
        let seeds =
            CBORTests.examples.map { $0.0.encoded() } + [
                CBOR.array(CBORTests.examples.map(\.0)).encoded()
            ]
        fuzz(seeds) { bytes in
            let item = try CBOR.decode(bytes)
            try same(item.encoded() == bytes)
        }
        fuzz(seeds) { bytes in
            let item = try CBOR.decode(bytes, rules: .valid)
            // A map written by the lenient rules may be in another order; it must be the same item all the same.
            try same(CBOR.decode(item.encoded()).encoded() == item.encoded())
        }
    }

    @Test func `COSE messages and keys`() throws {
        let key = try Self.key.get()
        let message = try COSESign1(signing: [UInt8](0..<40), with: key)
        let foreign = try #require(Hex.decode(COSETests.foreignMessage))
        fuzz([message.encoded(), foreign]) { bytes in
            let read = try COSESign1(decoding: bytes)
            try same(COSESign1(decoding: read.encoded()).encoded() == read.encoded())
            // What still verifies has the same signed bytes.
            if try read.isValid(for: key.verifyingKey) {
                try same(read.payload == message.payload && read.protectedHeader == message.protectedHeader)
            }
        }
        let keys = [COSEKey(key.verifyingKey), COSEKey(try P384PrivateKey.generate().publicKey)]
        fuzz(keys.map { $0.cbor.encoded() }) { bytes in
            let read = try COSEKey(CBOR.decode(bytes, rules: .valid))
            try same(COSEKey(CBOR.decode(read.cbor.encoded())) == read)
        }
    }

    @Test func `manifests`() throws {
        fuzz([FirmwareManifestTests.manifest.encoded()]) { bytes in
            try same(FirmwareManifest(decoding: bytes).encoded() == bytes)
        }
    }

    @Test func `signers' certificates`() throws {
        let key = try Self.key.get()
        let certificate = try SignerCertificate(for: key.verifyingKey, number: 5, root: key)
        fuzz([certificate.encoded], mustTakeSome: false) { bytes in
            let read = try SignerCertificate(decoding: bytes)
            if try read.isSignatureValid(), read.rootKey == certificate.rootKey {
                try same(read.number == 5 && read.signerKey == certificate.signerKey)
            }
        }
    }

    @Test func `fuses`() throws {
        let fuses = Fuses(
            rootKeyDigest: [UInt8](repeating: 0xAB, count: 48), minimumSecurityVersion: 3,
            cancelledKeys: [1, 64],
            uniqueDeviceSecret: [UInt8](0..<32))
        fuzz([Array(fuses.json.utf8)]) { bytes in
            let read = try Fuses(json: bytes, path: "f")
            try same(Fuses(json: Array(read.json.utf8), path: "f") == read)
        }
    }

    @Test func `measurement logs`() throws {
        var log = MeasurementLog()
        try log.extend(register: 6, action: "slot A")
        try log.extend(
            register: 0, type: .postCode, digest: [UInt8](repeating: 1, count: 48), data: [1, 2, 3])
        fuzz([log.cbor()], mustTakeSome: false) { bytes in
            let read = try MeasurementLog(cbor: bytes)
            try same(read.cbor() == bytes)
        }
    }

    @Test func `directories`() throws {
        let directory = FirmwareDirectory(entries: [
            .init(offset: 1, size: 2, loadAddress: 3, kind: .openSBI),
            .init(offset: 4, size: 5, loadAddress: 6, kind: .nextStage),
        ])
        fuzz([directory.encoded()]) { bytes in
            struct Refused: Error {}
            guard let read = FirmwareDirectory(decoding: bytes) else { throw Refused() }
            try same(bytes.starts(with: read.encoded()))
        }
    }
}
