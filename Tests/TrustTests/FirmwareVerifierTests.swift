import CBOR
import Crypto
import TestKit
import Testing
import Trust

@Suite struct FirmwareVerifierTests {
    let fixture: ImageFixture
    let image: [UInt8]
    /// Made once.
    private static let shared = Result { () throws -> (ImageFixture, [UInt8]) in
        let fixture = try ImageFixture()
        return (fixture, try fixture.image())
    }

    init() throws {
        (fixture, image) = try Self.shared.get()
    }

    /// A component like those that images have, with whatever is wrong with it.
    private func component(
        _ name: String = "first stage", offset: UInt64 = 0, size: UInt64 = 16
    ) -> FirmwareManifest.Component {
        .init(name: name, offset: offset, size: size, digest: [UInt8](repeating: 0, count: 48), loadAddress: 0)
    }

    private func signed(_ components: [FirmwareManifest.Component]) throws -> [UInt8] {
        let manifest = FirmwareManifest(
            name: "test image", boardCompatibility: FlashLayout.boardCompatibility, securityVersion: 3,
            components: components)
        return try fixture.resigned(image, payload: manifest.encoded())
    }

    @Test func `a built image verifies and its parts lie where the layout says`() throws {
        guard case .verified(let manifest, let digest) = fixture.verdict(image) else {
            Issue.record("\(fixture.verdict(image))")
            return
        }
        #expect(manifest.name == "test image")
        #expect(manifest.securityVersion == 3)
        #expect(manifest.components.map(\.name) == ["first stage", "directory", "OpenSBI", "next stage"])
        #expect(digest == (try HashAlgorithm.sha384.digest(of: manifest.encoded())))
        #expect(image.count == 0x10_0000 + fixture.nextStage.count)
        #expect(Array(image[0..<4000]) == fixture.firstStage)
        #expect(image[4000] == 0xFF)
        #expect(Array(image[0x2_0000..<0x2_0000 + fixture.opensbi.count]) == fixture.opensbi)
        #expect(Array(image[0x10_0000..<0x10_0000 + fixture.nextStage.count]) == fixture.nextStage)
        #expect(manifest.components.allSatisfy { $0.target == .host })
        let directory = try #require(FirmwareDirectory(decoding: Array(image[0x1_F000..<0x2_0000])))
        #expect(
            directory.entries == [
                .init(
                    offset: 0x2_0000, size: UInt64(fixture.opensbi.count), loadAddress: 0x8000_0000, kind: .openSBI),
                .init(
                    offset: 0x10_0000, size: UInt64(fixture.nextStage.count), loadAddress: 0x8020_0000,
                    kind: .nextStage),
            ])
        #expect(Array(image[0x1_F000..<0x1_F004]) == Array("BIRD".utf8))
    }

    @Test(arguments: [
        (0x10, "first stage"), (0x1_F009, "directory"), (0x2_0000, "OpenSBI"), (0x2_0000 + 269_999, "OpenSBI"),
        (0x10_0000 + 120_000, "next stage"),
    ])
    func `a flipped bit in a component names the component`(offset: Int, name: String) {
        var changed = image
        changed[offset] ^= 0x01
        #expect(fixture.refusal(changed) == .digestMismatch(name))
        #expect(fixture.refusal(changed)?.description == "component \(name): digest mismatch")
    }

    @Test func `who takes a component's bytes gets those that were hashed, read once`() throws {
        /// Says something else each time that it is asked for the same bytes.
        struct Fickle: ImageReader {
            var content: [UInt8]
            var reads: [UInt64: Int] = [:]
            var byteCount: UInt64 { UInt64(content.count) }

            mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
                reads[offset, default: 0] += 1
                // Two pieces, as a wire may cut them.
                let (start, middle, end) = (Int(offset), Int(offset + count / 2), Int(offset + count))
                body(content.span.bytes.extracting(start..<middle))
                body(content.span.bytes.extracting(middle..<end))
                for index in start..<end { content[index] ^= 0xFF }
            }
        }
        var reader = Fickle(content: image)
        var taken: [String: [UInt8]] = [:]
        let verdict = FirmwareVerifier.verify(
            &reader, fuses: fixture.fuses,
            taking: { component, piece in
                piece.withUnsafeBytes { taken[component.name, default: []].append(contentsOf: $0) }
            })
        guard case .verified(let manifest, _) = verdict else {
            Issue.record("\(verdict)")
            return
        }
        for component in manifest.components {
            let (start, end) = (Int(component.offset), Int(component.offset + component.size))
            #expect(taken[component.name] == Array(image[start..<end]))
            #expect(reader.reads[component.offset] == 1)
        }
        #expect(taken.count == manifest.components.count)
    }

    @Test func `erased bytes outside every component do not matter`() {
        var changed = image
        changed[0xF_0000] = 0
        guard case .verified = fixture.verdict(changed) else {
            Issue.record("refused")
            return
        }
    }

    @Test func `an image signed by another key is refused by its digest`() throws {
        let other = try ImageFixture()
        #expect(fixture.refusal(try other.image()) == .keyMismatch(found: other.fuses.rootKeyDigest))
    }

    @Test func `another key's signature under the right key's name is invalid`() throws {
        let other = try P384PrivateKey.generate()
        let message = try COSESign1(decoding: ImageFixture.message(in: image))
        let forged = try COSESign1(signing: message.payload, with: other)
        let parts: [CBOR] = [
            .bytes(message.protectedHeader), message.unprotectedHeader, .bytes(message.payload),
            .bytes(forged.signature),
        ]
        let changed = fixture.replacing(image, message: CBOR.tagged(18, .array(parts)).encoded())
        #expect(fixture.refusal(changed) == .invalidSignature)
    }

    @Test func `a changed manifest is an invalid signature`() throws {
        let message = try COSESign1(decoding: ImageFixture.message(in: image))
        var payload = message.payload
        payload[payload.count - 1] ^= 0x01
        let parts: [CBOR] = [
            .bytes(message.protectedHeader), message.unprotectedHeader, .bytes(payload), .bytes(message.signature),
        ]
        let changed = fixture.replacing(image, message: CBOR.tagged(18, .array(parts)).encoded())
        #expect(fixture.refusal(changed) == .invalidSignature)
    }

    @Test func `a key beside another key's identifier is malformed`() throws {
        let message = try COSESign1(decoding: ImageFixture.message(in: image))
        let header = CBOR.map([
            .init(.integer(4), .bytes([UInt8](repeating: 0, count: 48))),
            .init(.integer(-65537), COSEKey(fixture.key.publicKey).cbor),
        ])
        let parts: [CBOR] = [
            .bytes(message.protectedHeader), header, .bytes(message.payload), .bytes(message.signature),
        ]
        let changed = fixture.replacing(image, message: CBOR.array(parts).encoded())
        #expect(
            fixture.refusal(changed)
                == .malformed("the key identifier is not the digest of the signer's key"))
        let bare = CBOR.array([parts[0], .map([]), parts[2], parts[3]]).encoded()
        #expect(
            fixture.refusal(fixture.replacing(image, message: bare)) == .noSigner)
    }

    @Test(arguments: [
        (0, FirmwareRefusal.truncated(size: 0, needed: 0x1_0004)),
        (0x1_0003, .truncated(size: 0x1_0003, needed: 0x1_0004)),
    ])
    func `an image that ends before the manifest is truncated`(size: Int, refusal: FirmwareRefusal) {
        #expect(fixture.refusal(Array(image[..<size])) == refusal)
    }

    @Test func `an image that ends within the manifest is truncated`() {
        #expect(
            fixture.refusal(Array(image[..<0x1_0100]))
                == .truncated(size: 0x1_0100, needed: 0x1_0004 + UInt64(ImageFixture.message(in: image).count)))
    }

    @Test(arguments: [
        (0x1_F000, "directory", 0x1_F048), (0x2_0001, "OpenSBI", 0x2_0000 + 270_000),
        (0x10_0000, "next stage", 0x10_0000 + 120_001), (0x10_0000 + 120_000, "next stage", 0x10_0000 + 120_001),
    ])
    func `an image that ends before a component names the component`(size: Int, name: String, end: Int) {
        #expect(
            fixture.refusal(Array(image[..<size]))
                == .componentOutOfRange(name, end: UInt64(end), slotSize: UInt64(size)))
    }

    @Test(arguments: [UInt32.max, 0])
    func `a manifest length of erased or cleared flash is no manifest`(length: UInt32) {
        #expect(fixture.refusal(fixture.replacing(image, message: [], length: length)) == .noManifest)
    }

    @Test(arguments: [UInt32(0xEFFD), 0x7FFF_FFFF, 0xFFFF_FFFE])
    func `a manifest length beyond its place is too long`(length: UInt32) {
        #expect(
            fixture.refusal(fixture.replacing(image, message: [], length: length))
                == .manifestTooLong(length: length, limit: 0xEFFC))
    }

    @Test func `an erased chip has no manifest`() {
        #expect(fixture.refusal([UInt8](repeating: 0xFF, count: 1 << 20)) == .noManifest)
    }

    @Test func `bad CBOR is named with its place`() {
        let changed = fixture.replacing(image, message: [0xD2, 0x84, 0x5F, 0x01, 0, 0, 0])
        #expect(fixture.refusal(changed) == .badCBOR(.reserved(offset: 3)))
    }

    @Test func `another algorithm is refused`() throws {
        let message = try COSESign1(decoding: ImageFixture.message(in: image))
        let header = CBOR.map([.init(.unsigned(1), .integer(-7))]).encoded()
        let parts: [CBOR] = [
            .bytes(header), message.unprotectedHeader, .bytes(message.payload), .bytes(message.signature),
        ]
        let changed = fixture.replacing(image, message: CBOR.array(parts).encoded())
        #expect(fixture.refusal(changed) == .unknownAlgorithm(-7))
    }

    @Test func `an image for another board is refused`() throws {
        #expect(
            fixture.refusal(try fixture.image(board: "baseboard,desktop"))
                == .wrongBoard(found: "baseboard,desktop", expected: "baseboard,server"))
    }

    @Test(arguments: [UInt32(0), 2])
    func `an old security version is refused`(version: UInt32) throws {
        #expect(
            fixture.refusal(try fixture.image(securityVersion: version))
                == .securityVersionTooLow(found: version, minimum: 3))
    }

    @Test(arguments: [UInt32(3), 4, .max])
    func `the minimum security version and newer are accepted`(version: UInt32) throws {
        #expect(fixture.refusal(try fixture.image(securityVersion: version)) == nil)
    }

    @Test(arguments: [(UInt64.max, UInt64(1)), (.max, .max), (1, .max), (32 << 20, 1), ((32 << 20) - 1, 2)])
    func `a component outside the image is out of range`(offset: UInt64, size: UInt64) throws {
        let changed = try signed([component(), component("far", offset: offset, size: size)])
        let (end, overflow) = offset.addingReportingOverflow(size)
        #expect(
            fixture.refusal(changed)
                == .componentOutOfRange("far", end: overflow ? nil : end, slotSize: UInt64(image.count)))
    }

    @Test func `components that share a byte overlap`() throws {
        #expect(
            fixture.refusal(try signed([component(size: 100), component("second", offset: 99, size: 1)]))
                == .overlappingComponents("first stage", "second"))
        #expect(
            fixture.refusal(try signed([component(), component("sly", offset: 0x1_0001, size: 1)]))
                == .overlappingComponents("manifest", "sly"))
    }

    @Test func `an image whose first instruction is not covered is refused`() throws {
        #expect(fixture.refusal(try signed([component("late", offset: 4)])) == .noFirstStage)
    }

    @Test func `a reader that fails is not taken for a bad image`() {
        struct Failing: ImageReader {
            var byteCount: UInt64 { 1 << 25 }
            mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
                throw ImageReadError("the wire is cut")
            }
        }
        var reader = Failing()
        #expect(
            FirmwareVerifier.verify(&reader, fuses: fixture.fuses)
                == .refused(.unreadable("the wire is cut"), imageName: nil))
    }

    @Test func `a reader that brings too little is not believed`() {
        struct Short: ImageReader {
            var inner: ByteArrayReader
            var byteCount: UInt64 { inner.byteCount }
            mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
                try inner.read(offset: offset, count: count < 100_000 ? count : count - 1, body)
            }
        }
        var reader = Short(inner: ByteArrayReader(image))
        #expect(
            FirmwareVerifier.verify(&reader, fuses: fixture.fuses)
                == .refused(.unreadable("269999 bytes of 270000 came"), imageName: "test image"))
    }

    @Test func `a report's text keeps name and reason apart and fits its field`() {
        let verdict = FirmwareVerdict.refused(.digestMismatch("OpenSBI"), imageName: "name: one")
        let parsed = FirmwareVerdict.parse(reportText: verdict.reportText)
        #expect(parsed.imageName == "name: one")
        #expect(parsed.reason == "component OpenSBI: digest mismatch")
        let long = FirmwareVerdict.refused(
            .malformed(String(repeating: "\u{1F600}", count: 200)), imageName: String(repeating: "n", count: 128))
        #expect(long.reportText.utf8.count <= 255)
        #expect(FirmwareVerdict.parse(reportText: "just words").reason == "just words")
    }

    @Test func `inspection reads an image without trusting it`() throws {
        var reader = ByteArrayReader(image)
        let inspection = try FirmwareVerifier.inspect(&reader)
        #expect(inspection.manifest.name == "test image")
        let signature = try #require(inspection.signature)
        #expect(signature.signerDigest == fixture.fuses.rootKeyDigest)
        #expect(signature.isValid && signature.certificate == nil)
    }

    @Test func `random damage to the manifest region is always refused and never traps`() throws {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        let message = ImageFixture.message(in: image)
        let small = image
        for _ in 0..<500 {
            var changed = small
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                // The unprotected header's map may grow unknown members, but none of its bytes may just change.
                let place = 0x1_0000 + Int.random(in: 0..<message.count + 4, using: &generator)
                changed[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            }
            if changed == small { continue }
            #expect(fixture.refusal(changed) != nil, "seed \(seed)")
        }
    }
}
