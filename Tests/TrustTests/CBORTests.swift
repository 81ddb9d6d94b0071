import CBOR
import Crypto
import TestKit
import Testing

@Suite struct CBORTests {
    /// Spec: RFC 8949 appendix A, the examples that are deterministic.
    static let examples: [(CBOR, String)] = [
        (.unsigned(0), "00"), (.unsigned(1), "01"), (.unsigned(10), "0a"), (.unsigned(23), "17"),
        (.unsigned(24), "1818"), (.unsigned(25), "1819"), (.unsigned(100), "1864"), (.unsigned(1000), "1903e8"),
        (.unsigned(1_000_000), "1a000f4240"), (.unsigned(1_000_000_000_000), "1b000000e8d4a51000"),
        (.unsigned(.max), "1bffffffffffffffff"), (.negative(.max), "3bffffffffffffffff"), (.integer(-1), "20"),
        (.integer(-10), "29"), (.integer(-100), "3863"), (.integer(-1000), "3903e7"), (.float(0), "f90000"),
        (.float(-0.0), "f98000"), (.float(1), "f93c00"), (.float(1.1), "fb3ff199999999999a"), (.float(1.5), "f93e00"),
        (.float(65504), "f97bff"), (.float(100000), "fa47c35000"), (.float(3.4028234663852886e+38), "fa7f7fffff"),
        (.float(1.0e+300), "fb7e37e43c8800759c"), (.float(5.960464477539063e-8), "f90001"),
        (.float(0.00006103515625), "f90400"), (.float(-4), "f9c400"), (.float(-4.1), "fbc010666666666666"),
        (.float(.infinity), "f97c00"), (.float(-.infinity), "f9fc00"), (.false, "f4"), (.true, "f5"), (.null, "f6"),
        (.simple(23), "f7"), (.simple(16), "f0"), (.simple(255), "f8ff"),
        (.tagged(1, .unsigned(1_363_896_240)), "c11a514b67b0"), (.tagged(23, .bytes([1, 2, 3, 4])), "d74401020304"),
        (.tagged(32, .text("http://www.example.com")), "d82076687474703a2f2f7777772e6578616d706c652e636f6d"),
        (.bytes([]), "40"), (.bytes([1, 2, 3, 4]), "4401020304"), (.text(""), "60"), (.text("a"), "6161"),
        (.text("IETF"), "6449455446"), (.text("\"\\"), "62225c"), (.text("\u{fc}"), "62c3bc"),
        (.text("\u{6c34}"), "63e6b0b4"), (.text("\u{10151}"), "64f0908591"), (.array([]), "80"),
        (.array([.unsigned(1), .unsigned(2), .unsigned(3)]), "83010203"),
        (
            .array([.unsigned(1), .array([.unsigned(2), .unsigned(3)]), .array([.unsigned(4), .unsigned(5)])]),
            "8301820203820405"
        ),
        (
            .array((1...25).map { .unsigned($0) }),
            "98190102030405060708090a0b0c0d0e0f101112131415161718181819"
        ),
        (.map([]), "a0"),
        (.map([.init(.unsigned(1), .unsigned(2)), .init(.unsigned(3), .unsigned(4))]), "a201020304"),
        (
            .map([.init(.text("a"), .unsigned(1)), .init(.text("b"), .array([.unsigned(2), .unsigned(3)]))]),
            "a26161016162820203"
        ),
    ]

    @Test(arguments: examples)
    func `an example of RFC 8949 reads and writes as printed there`(item: CBOR, hex: String) throws {
        #expect(Hex.encode(item.encoded()) == hex)
        let bytes = try #require(Hex.decode(hex))
        #expect(try CBOR.decode(bytes) == item)
        #expect(try CBOR.decode(bytes, rules: .valid) == item)
    }

    /// Spec: RFC 8949 appendix A, the examples with indefinite lengths or long floats.
    @Test(arguments: [
        ("5f42010243030405ff", CBOR.bytes([1, 2, 3, 4, 5])), ("7f657374726561646d696e67ff", .text("streaming")),
        ("9fff", .array([])), ("9f018202039f0405ffff", nested), ("83018202039f0405ff", nested),
        ("83019f0203ff820405", nested),
        (
            "bf61610161629f0203ffff",
            .map([.init(.text("a"), .unsigned(1)), .init(.text("b"), .array([.unsigned(2), .unsigned(3)]))])
        ),
        ("fa7f800000", .float(.infinity)), ("fbfff0000000000000", .float(-.infinity)), ("1800", .unsigned(0)),
        ("1b0000000000000001", .unsigned(1)), ("a2020101ff".replacing("ff", with: "02"), swapped),
    ])
    func `a form that is not deterministic is read by the lenient rules only`(hex: String, item: CBOR) throws {
        let bytes = try #require(Hex.decode(hex))
        #expect(try CBOR.decode(bytes, rules: .valid) == item)
        #expect(throws: CBORError.self) { try CBOR.decode(bytes) }
    }

    static let nested = CBOR.array([
        .unsigned(1), .array([.unsigned(2), .unsigned(3)]), .array([.unsigned(4), .unsigned(5)]),
    ])
    static let swapped = CBOR.map([.init(.unsigned(2), .unsigned(1)), .init(.unsigned(1), .unsigned(2))])

    @Test func `map keys are written in bytewise order whatever the order given`() {
        let keys: [CBOR] = [.text("aa"), .text("z"), .integer(-1), .unsigned(100), .unsigned(10), .array([]), .false]
        // Spec: RFC 8949 §4.2.1, the example there, without its array of -1.
        let map = CBOR.map(keys.map { .init($0, .null) })
        #expect(Hex.encode(map.encoded()) == "a70af61864f620f6617af6626161f680f6f4f6")
    }

    @Test(arguments: [
        ("", CBORError.truncated(offset: 0)), ("18", .truncated(offset: 0)), ("19ff", .truncated(offset: 0)),
        ("1b00000000000000", .truncated(offset: 0)), ("42ff", .truncated(offset: 0)), ("61", .truncated(offset: 0)),
        ("8201", .truncated(offset: 0)), ("820118", .truncated(offset: 2)), ("a101", .truncated(offset: 0)),
        ("5bffffffffffffffff00", .truncated(offset: 0)), ("9bffffffffffffffff00", .truncated(offset: 0)),
        ("bbffffffffffffffff00", .truncated(offset: 0)), ("c1", .truncated(offset: 1)),
        ("0000", .trailingBytes(offset: 1)), ("1c", .reserved(offset: 0)), ("fe", .reserved(offset: 0)),
        ("ff", .reserved(offset: 0)), ("1f", .reserved(offset: 0)), ("df", .reserved(offset: 0)),
        ("f800", .reserved(offset: 0)), ("f81f", .reserved(offset: 0)), ("61ff", .invalidUTF8(offset: 0)),
        ("62c328", .invalidUTF8(offset: 0)), ("63eda080", .invalidUTF8(offset: 0)),
        ("a201020103", .duplicateKey(offset: 3)), ("a202000100", .unsortedKeys(offset: 3)),
        ("1817", .notShortest(offset: 0)), ("1900ff", .notShortest(offset: 0)), ("1a0000ffff", .notShortest(offset: 0)),
        ("1b00000000ffffffff", .notShortest(offset: 0)), ("3817", .notShortest(offset: 0)),
        ("5801ff", .notShortest(offset: 0)), ("fa3f800000", .notShortest(offset: 0)),
        ("fb3ff0000000000000", .notShortest(offset: 0)), ("fa7fc00000", .notShortest(offset: 0)),
        ("f97e01", .notShortest(offset: 0)), ("5fff", .indefiniteLength(offset: 0)),
        ("9fff", .indefiniteLength(offset: 0)), ("bfff", .indefiniteLength(offset: 0)),
    ])
    func `what is not deterministic CBOR is refused precisely`(hex: String, error: CBORError) throws {
        let bytes = try #require(Hex.decode(hex))
        #expect(throws: error) { try CBOR.decode(bytes) }
    }

    @Test(arguments: [
        ("bf01020103ff", CBORError.duplicateKey(offset: 3)), ("a2180100" + "0100", .duplicateKey(offset: 4)),
        ("5f01ff", .reserved(offset: 1)), ("5f5fffff", .reserved(offset: 1)), ("7f41ffff", .reserved(offset: 1)),
        ("9f", .truncated(offset: 0)), ("9f01", .truncated(offset: 0)), ("5f41", .truncated(offset: 1)),
        ("bf01ff", .reserved(offset: 2)),
    ])
    func `the lenient rules refuse what is not valid`(hex: String, error: CBORError) throws {
        let bytes = try #require(Hex.decode(hex))
        #expect(throws: error) { try CBOR.decode(bytes, rules: .valid) }
    }

    @Test func `depth, items and length are capped`() {
        var limits = CBOR.Limits()
        limits.depth = 3
        limits.items = 5
        limits.bytes = 8
        #expect(throws: CBORError.tooDeep(offset: 3)) {
            try CBOR.decode([0x81, 0x81, 0x81, 0x00], limits: limits)
        }
        #expect(throws: CBORError.tooManyItems(offset: 5)) {
            try CBOR.decode([0x85, 0, 0, 0, 0, 0], limits: limits)
        }
        #expect(throws: CBORError.tooLong(count: 9, limit: 8)) {
            try CBOR.decode([UInt8](repeating: 0, count: 9), limits: limits)
        }
        #expect(throws: CBORError.tooDeep(offset: 16)) {
            try CBOR.decode([UInt8](repeating: 0x81, count: 60_000))
        }
        #expect(throws: CBORError.tooDeep(offset: 16)) {
            try CBOR.decode([UInt8](repeating: 0x9F, count: 60_000), rules: .valid)
        }
    }

    @Test func `integers keep their value at the ends of the range`() {
        #expect(CBOR.integer(.min).integerValue == .min)
        #expect(CBOR.integer(.max).integerValue == .max)
        #expect(CBOR.unsigned(UInt64(Int64.max) + 1).integerValue == nil)
        #expect(CBOR.negative(UInt64(Int64.max) + 1).integerValue == nil)
    }

    @Test func `what the decoder accepts from mutated input it also writes back`() throws {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        let corpus = Self.examples.map { $0.0.encoded() } + [CBOR.array(Self.examples.map(\.0)).encoded()]
        var accepted = 0
        for _ in 0..<40_000 {
            var bytes = corpus.randomElement(using: &generator)!
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                switch Int.random(in: 0..<3, using: &generator) {
                case 0 where !bytes.isEmpty:
                    bytes[bytes.indices.randomElement(using: &generator)!] = .random(in: 0...255, using: &generator)
                case 1 where !bytes.isEmpty: bytes.removeLast()
                default: bytes.append(.random(in: 0...255, using: &generator))
                }
            }
            if let item = try? CBOR.decode(bytes) {
                accepted += 1
                #expect(item.encoded() == bytes, "seed \(seed)")
            }
            if let item = try? CBOR.decode(bytes, rules: .valid) {
                #expect(try CBOR.decode(item.encoded()).encoded() == item.encoded(), "seed \(seed)")
            }
        }
        #expect(accepted > 0, "the fuzzer never got through: seed \(seed)")
    }
}
