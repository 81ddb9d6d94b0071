import CBOR
import DeviceFirmware
import QMP
import TestKit
import Testing

/// Packages as values: what they say, their bytes, and everything that is refused.
@Suite struct FirmwarePackageTests {
    static let bmc = try! FirmwarePackage(
        target: .bmc, version: FirmwareVersion("1.2.3")!,
        settings: ["boot-line": .text("up"), "product-id": .unsigned(7), "rmcp": .boolean(false)])

    @Test func `a package is magic, length and a map in deterministic encoding`() throws {
        let map: [UInt8] =
            [0xA4, 0x01, 0x01, 0x02, 0x01, 0x03, 0x83, 1, 2, 3, 0x04, 0xA3]
            + [0x64] + Array("rmcp".utf8) + [0xF4] + [0x69] + Array("boot-line".utf8) + [0x62] + Array("up".utf8)
            + [0x6A] + Array("product-id".utf8) + [0x07]
        #expect(Self.bmc.encoded() == Array("BFPK".utf8) + [UInt8(map.count), 0, 0, 0] + map)
        #expect(try FirmwarePackage(decoding: Self.bmc.encoded(), for: .bmc) == Self.bmc)
    }

    @Test(arguments: DeviceTarget.allCases)
    func `every setting of every target goes there and back, at both ends of its range`(target: DeviceTarget) throws {
        for isLast in [false, true] {
            var settings: [String: FirmwareSetting.Value] = [:]
            for setting in target.settings {
                settings[setting.name] =
                    switch setting.kind {
                    case .text(let maximum): .text(String(repeating: "~", count: isLast ? maximum : 1))
                    case .unsigned(let range): .unsigned(isLast ? range.upperBound : range.lowerBound)
                    case .boolean: .boolean(isLast)
                    case .choice(let texts): .text(isLast ? texts.last! : texts.first!)
                    }
            }
            let package = try FirmwarePackage(
                target: target, version: FirmwareVersion("127.99.255")!, settings: settings)
            #expect(try FirmwarePackage(decoding: package.encoded(), for: target) == package)
            let place = package.encoded() + [UInt8](repeating: 0xFF, count: 100)
            #expect(try FirmwarePackage(at: place, for: target) == package)
            #expect(package.encoded().count < 4096, "it comes with the first read")
        }
    }

    @Test func `an erased place holds no package, and half a header is refused`() throws {
        #expect(try FirmwarePackage(at: [UInt8](repeating: 0xFF, count: 4096), for: .bmc) == nil)
        for count in 0..<8 {
            #expect(throws: FirmwarePackageError.badLength(found: count, expected: 8)) {
                try FirmwarePackage(at: [UInt8](repeating: 0xFF, count: count), for: .bmc)
            }
        }
        #expect(throws: FirmwarePackageError.noMagic(.max)) {
            try FirmwarePackage(decoding: [UInt8](repeating: 0xFF, count: 4096), for: .bmc)
        }
    }

    /// A package of these fields, whatever they are.
    private static func bytes(_ fields: [Int64: CBOR]) -> [UInt8] {
        let map = CBOR.map(fields.map { CBOR.Entry(.integer($0.key), $0.value) }).encoded()
        return Array("BFPK".utf8) + (0..<4).map { UInt8(truncatingIfNeeded: map.count >> (8 * $0)) } + map
    }

    private static func settings(_ entries: [(CBOR, CBOR)]) -> CBOR { .map(entries.map { CBOR.Entry($0.0, $0.1) }) }

    private static let good: [Int64: CBOR] = [
        1: .unsigned(1), 2: .unsigned(1), 3: .array([.unsigned(1), .unsigned(2), .unsigned(3)]), 4: .map([]),
    ]

    static let refusals: [([Int64: CBOR?], String)] = [
        ([1: .unsigned(2)], "package format 2, only 1 is known"), ([1: .text("1")], "no format"),
        ([1: nil], "no format"),
        ([2: .unsigned(2)], "for adapter, not for bmc"), ([2: .unsigned(0)], "target is not one of 1 to 3"),
        ([2: .unsigned(9)], "target is not one of 1 to 3"), ([2: nil], "target is not one of 1 to 3"),
        ([3: .array([.unsigned(1), .unsigned(2)])], "version"),
        ([3: .array([.unsigned(1), .unsigned(2), .unsigned(3), .text("4")])], "version"),
        ([3: .array([.unsigned(128), .unsigned(0), .unsigned(0)])], "version"),
        ([3: .array([.unsigned(0), .unsigned(100), .unsigned(0)])], "version"),
        ([3: .array([.unsigned(0), .unsigned(0), .unsigned(256)])], "version"),
        ([3: .array([.unsigned(0), .unsigned(.max), .unsigned(0)])], "version"), ([3: .text("1.2.3")], "version"),
        ([4: nil], "no settings"), ([4: .array([])], "no settings"), ([5: .unsigned(1)], "5 fields, must have 4"),
        ([4: settings([(.text("speed"), .unsigned(1))])], "no setting 'speed'"),
        ([4: settings([(.text("forwarding"), .text("deny-all"))])], "no setting 'forwarding'"),
        ([4: settings([(.text("a\nb"), .unsigned(1))])], "no setting 'a?b'"),
        ([4: settings([(.unsigned(1), .unsigned(1))])], "not a text"),
        ([4: settings([(.text("rmcp"), .null)])], "'rmcp' is not a text, an unsigned number or a boolean"),
        ([4: settings([(.text("rmcp"), .unsigned(1))])], "rmcp '1' must be true or false"),
        ([4: settings([(.text("device-id"), .unsigned(256))])], "device-id '256' must be a number from 0 to 255"),
        ([4: settings([(.text("device-id"), .integer(-1))])], "'device-id' is not"),
        ([4: settings([(.text("device-id"), .text("1"))])], "device-id '1' must be"),
        ([4: settings([(.text("boot-line"), .text(""))])], "boot-line '' must be"),
        ([4: settings([(.text("boot-line"), .text("a\u{1B}[2J"))])], "boot-line 'a?[2J' must be"),
        ([4: settings([(.text("boot-line"), .text(String(repeating: "x", count: 81)))])], "1 to 80 printable"),
    ]

    @Test(arguments: refusals.indices)
    func `a field that is wrong, missing or unknown is refused by its name`(index: Int) throws {
        let (changes, reason) = Self.refusals[index]
        var fields = Self.good
        #expect(try FirmwarePackage(decoding: Self.bytes(fields), for: .bmc).version.description == "1.2.3")
        for (label, value) in changes { fields[label] = value }
        let error = #expect(throws: FirmwarePackageError.self) {
            try FirmwarePackage(decoding: Self.bytes(fields), for: .bmc)
        }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func `lengths that lie, other bytes and other CBOR are refused`() throws {
        let good = Self.bytes(Self.good)
        #expect(throws: FirmwarePackageError.badLength(found: good.count - 1, expected: good.count)) {
            try FirmwarePackage(decoding: good.dropLast(), for: .bmc)
        }
        #expect(throws: FirmwarePackageError.badLength(found: good.count + 1, expected: good.count)) {
            try FirmwarePackage(decoding: good + [0], for: .bmc)
        }
        // Longer than its place, by one byte and by all that the field can say.
        for (target, length) in [
            (DeviceTarget.bmc, 0x10_0000 - 7), (.adapter, 0x8_0000 - 7), (.bmc, Int(UInt32.max - 1)),
        ] {
            let bytes = Array("BFPK".utf8) + (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }
            #expect(throws: FirmwarePackageError.tooLong(length: UInt64(length) + 8, limit: target.capacity)) {
                try FirmwarePackage(decoding: bytes, for: target)
            }
        }
        #expect(throws: FirmwarePackageError.noMagic(0x5850_4642)) {
            try FirmwarePackage(decoding: Array("BFPX".utf8) + good.dropFirst(4), for: .bmc)
        }
        // A map of indefinite length, and one with its keys out of order.
        for map: [UInt8] in [
            [0xBF, 0x01, 0x01, 0x02, 0x01, 0x03, 0x83, 1, 2, 3, 0x04, 0xA0, 0xFF],
            [0xA4, 0x02, 0x01, 0x01, 0x01, 0x03, 0x83, 1, 2, 3, 0x04, 0xA0], [0x80], [],
        ] {
            #expect(throws: FirmwarePackageError.self) {
                try FirmwarePackage(decoding: Array("BFPK".utf8) + [UInt8(map.count), 0, 0, 0] + map, for: .bmc)
            }
        }
        // More items than any package has.
        let many = CBOR.map(
            (0..<300).map { CBOR.Entry(.text("\($0)"), .unsigned(0)) })
        #expect(throws: FirmwarePackageError.self) {
            try FirmwarePackage(decoding: Self.bytes([1: .unsigned(1), 2: .unsigned(1), 4: many]), for: .bmc)
        }
    }

    @Test func `damaged packages are refused or are what they say, and never trap`() {
        var generator = SeededGenerator.fresh()
        let seeds: [(DeviceTarget, [UInt8])] = [
            (.bmc, Self.bmc.encoded()), (.bmc, Self.bytes(Self.good)),
            (
                .adapter,
                try! FirmwarePackage(
                    target: .adapter, version: FirmwareVersion("0.0.0")!, settings: ["forwarding": .text("deny-all")]
                ).encoded()
            ),
            (
                .offload,
                try! FirmwarePackage(
                    target: .offload, version: FirmwareVersion("9.9.9")!,
                    settings: ["maximum-instances": .unsigned(300)]
                ).encoded()
            ),
        ]
        var taken = 0
        for round in 0..<20_000 {
            let (target, seed) = seeds[round % seeds.count]
            let isCut = round % 3 == 0
            var bytes = isCut ? Array(seed.prefix(Int.random(in: 0...seed.count, using: &generator))) : seed
            for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                case 1: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 2: bytes.insert(contentsOf: generator.bytes(Int.random(in: 1...9, using: &generator)), at: place)
                default:
                    bytes[place] = [0x1B, 0x3B, 0x5B, 0x7B, 0x9B, 0xBB, 0xDB, 0x5F, 0x7F, 0x9F, 0xBF, 0xFF][place % 12]
                }
            }
            // Half of them with a length that is right again, so that the map is looked at.
            if round % 2 == 0, bytes.count >= 8 {
                for index in 0..<4 { bytes[4 + index] = UInt8(truncatingIfNeeded: (bytes.count - 8) >> (8 * index)) }
            }
            for reading in [target, .bmc] {
                guard let package = try? FirmwarePackage(at: bytes, for: reading) else { continue }
                taken += 1
                #expect(
                    package.encoded() == Array(bytes.prefix(package.encoded().count)) && package.target == reading,
                    "\(bytes), seed \(generator.seed)")
            }
        }
        #expect(taken > 0, "seed \(generator.seed)")
    }

    @Test func `versions are three numbers, and the minor one is told in BCD`() {
        for (text, minor) in [("0.0.0", 0x00), ("127.99.255", 0x99), ("1.42.7", 0x42)] {
            let version = FirmwareVersion(text)
            #expect(version?.description == text && version?.minorBCD == UInt8(minor))
        }
        for text in [
            "", "1", "1.2", "1.2.3.4", "1.2.", ".1.2", "128.0.0", "0.100.0", "0.0.256", "-1.0.0", "+1.0.0", "1.0x1.0",
            "1.2.99999999999999999999", " 1.2.3", "1.2.3\n", "a.b.c",
        ] {
            #expect(FirmwareVersion(text) == nil, "\(text)")
        }
        for (text, revision) in [("1.2.3", "1.2.3"), ("12.34.56", "12.34.56"), ("127.9.255", "12709255")] {
            #expect(FirmwareVersion(text)?.revision == revision)
        }
        #expect(FirmwareVersion("1.9.0")! < FirmwareVersion("1.10.0")!)
    }

    @Test func `what a person writes becomes a value in range or nothing`() {
        func value(_ target: DeviceTarget, _ name: String, _ text: String) -> FirmwareSetting.Value? {
            target.setting(named: name)?.value(parsing: text)
        }
        #expect(value(.bmc, "device-id", "0x2A") == .unsigned(42))
        #expect(value(.bmc, "device-id", "255") == .unsigned(255))
        #expect(value(.bmc, "device-id", "256") == nil && value(.bmc, "device-id", "") == nil)
        #expect(value(.bmc, "rmcp", "false") == .boolean(false) && value(.bmc, "rmcp", "no") == nil)
        #expect(value(.bmc, "boot-line", "up") == .text("up") && value(.bmc, "boot-line", "") == nil)
        #expect(value(.adapter, "forwarding", "deny-all") == .text("deny-all"))
        #expect(value(.adapter, "forwarding", "deny") == nil)
    }

    @Test func `what runs is told as JSON`() {
        #expect(
            FirmwareState.loaded(LoadedFirmware(Self.bmc)).json == [
                "state": "loaded", "source": "flash", "version": "1.2.3",
                "settings": ["boot-line": "up", "product-id": 7, "rmcp": false],
            ])
        #expect(FirmwareState.loaded(.builtIn).json["source"] == "built-in")
        #expect(FirmwareState.failed(reason: "cut").json == ["state": "failed", "reason": "cut"])
    }
}
