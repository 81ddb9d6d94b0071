import CBOR
import Crypto
import Testing
import Trust

@Suite struct FirmwareImageTests {
    let key: P384PrivateKey

    init() throws { key = try P384PrivateKey.generate() }

    private func build(
        firstStage: Int = 4, opensbi: Int = 4, nextStage: Int = 4, name: String = "image"
    ) throws(FirmwareImageError) -> [UInt8] {
        try FirmwareImage.build(
            firstStage: [UInt8](repeating: 1, count: firstStage), opensbi: [UInt8](repeating: 2, count: opensbi),
            nextStage: [UInt8](repeating: 3, count: nextStage), key: key, name: name, securityVersion: 1)
    }

    @Test func `parts that fill their places exactly are built and verify`() throws {
        var reader = ByteArrayReader(try build(firstStage: 0x1_0000, opensbi: 0xE_0000, nextStage: 0x10_0000))
        let fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 1)
        guard case .verified = FirmwareVerifier.verify(&reader, fuses: fuses) else {
            Issue.record("refused")
            return
        }
    }

    @Test func `a part that does not fit its place is refused with both sizes`() {
        #expect(throws: FirmwareImageError.tooLarge("first stage", size: 0x1_0001, limit: 0x1_0000)) {
            try build(firstStage: 0x1_0001)
        }
        #expect(throws: FirmwareImageError.tooLarge("OpenSBI", size: 0xE_0001, limit: 0xE_0000)) {
            try build(opensbi: 0xE_0001)
        }
        #expect(throws: FirmwareImageError.tooLarge("next stage", size: 0x10_0001, limit: 0x10_0000)) {
            try build(nextStage: 0x10_0001)
        }
    }

    @Test func `an empty part is refused`() {
        #expect(throws: FirmwareImageError.empty("first stage")) { try build(firstStage: 0) }
        #expect(throws: FirmwareImageError.empty("OpenSBI")) { try build(opensbi: 0) }
        #expect(throws: FirmwareImageError.empty("next stage")) { try build(nextStage: 0) }
    }

    @Test(arguments: ["", "two\nlines", String(repeating: "x", count: 129)])
    func `a name that no board would accept is refused`(name: String) {
        #expect(throws: FirmwareImageError.badName(name)) { try build(name: name) }
    }
}

@Suite struct FirmwareManifestTests {
    static let manifest = FirmwareManifest(
        name: "n", boardCompatibility: "b", securityVersion: 7, rollbackFloor: 5,
        components: [
            .init(
                name: "c", offset: 1, size: 2, digest: [UInt8](repeating: 9, count: 48), loadAddress: 3,
                target: .adapter)
        ])

    @Test func `a manifest is a deterministic map with the labels of the layout`() throws {
        let hex =
            "a60102026162030704" + "81a60161630201030204" + "5830" + String(repeating: "09", count: 48) + "0503"
            + "0602"
            + "05616e" + "0605"
        #expect(Hex.encode(Self.manifest.encoded()) == hex)
        #expect(try FirmwareManifest(decoding: Self.manifest.encoded()) == Self.manifest)
    }

    private func changed(_ label: Int64, _ value: CBOR?) throws -> [UInt8] {
        guard case .map(let entries) = try CBOR.decode(Self.manifest.encoded()) else { return [] }
        let kept = entries.filter { $0.key != .integer(label) }
        return CBOR.map(kept + (value.map { [.init(.integer(label), $0)] } ?? [])).encoded()
    }

    private static func component(_ label: Int64, _ value: CBOR?) -> CBOR {
        let fields: [(Int64, CBOR)] = [
            (1, .text("c")), (2, .unsigned(1)), (3, .unsigned(2)), (4, .bytes([UInt8](repeating: 9, count: 48))),
            (5, .unsigned(3)), (6, .unsigned(2)),
        ]
        let kept = fields.filter { $0.0 != label } + (value.map { [(label, $0)] } ?? [])
        return .array([.map(kept.map { .init(.integer($0.0), $0.1) })])
    }

    /// A field's label and what stands there instead; nil: nothing.
    struct Change: Sendable {
        let label: Int64
        let value: CBOR?
        init(_ label: Int64, _ value: CBOR?) {
            self.label = label
            self.value = value
        }
    }

    static let changes: [Change] = [
        Change(1, nil), Change(1, .text("1")), Change(2, nil), Change(2, .text("")), Change(2, .bytes([0x62])),
        Change(3, nil), Change(3, .integer(-1)), Change(3, .unsigned(1 << 32)), Change(4, nil),
        Change(4, .array([])), Change(4, .map([])), Change(4, .array([.null])),
        Change(4, .array([CBOR](repeating: .null, count: 65))), Change(5, nil), Change(5, .unsigned(1)),
        Change(5, .text("a\u{7}")), Change(6, nil), Change(6, .null), Change(6, .unsigned(8)), Change(7, .null),
        Change(4, component(1, nil)), Change(4, component(1, .text(""))),
        Change(4, component(2, .integer(-1))), Change(4, component(3, .unsigned(0))),
        Change(4, component(3, .text("2"))), Change(4, component(4, .bytes([1]))),
        Change(4, component(4, .text("d"))), Change(4, component(5, nil)), Change(4, component(6, .null)),
        Change(4, component(6, nil)), Change(4, component(6, .unsigned(4))), Change(4, component(7, .null)),
    ]

    @Test(arguments: changes)
    func `a manifest with a field missing, wrong or unknown is refused`(change: Change) throws {
        let payload = try changed(change.label, change.value)
        #expect(throws: FirmwareManifestError.self) { try FirmwareManifest(decoding: payload) }
    }

    @Test func `another format version is refused as such`() throws {
        let payload = try changed(1, .unsigned(3))
        #expect(throws: FirmwareManifestError.unknownFormatVersion(3)) { try FirmwareManifest(decoding: payload) }
    }

    @Test func `two components of one name are refused`() throws {
        let twice = FirmwareManifest(
            name: "n", boardCompatibility: "b", securityVersion: 7,
            components: Self.manifest.components + Self.manifest.components)
        #expect(throws: FirmwareManifestError.badField("two components are named c")) {
            try FirmwareManifest(decoding: twice.encoded())
        }
    }

    @Test func `a payload that is not deterministic is refused`() {
        #expect(throws: FirmwareManifestError.cbor(.indefiniteLength(offset: 0))) {
            try FirmwareManifest(decoding: [0xBF, 0xFF])
        }
    }
}

@Suite struct FirmwareDirectoryTests {
    @Test(arguments: [
        [UInt8](), Array("BIRD".utf8), Array("BIRX".utf8) + [0, 0, 0, 0], Array("BIRD".utf8) + [1, 0, 0, 0],
        Array("BIRD".utf8) + [0xFF, 0xFF, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 64),
    ])
    func `bytes that are no directory are none`(bytes: [UInt8]) {
        #expect(FirmwareDirectory(decoding: bytes) == nil)
    }
}
