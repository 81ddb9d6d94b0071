import FoundationEssentials
import Machine
import TestKit
import Testing

@Suite struct `ELF programs` {
    static let ram = AddressRange(base: 0x8000_0000, size: 64 << 20)
    static let plain = ELFBuilder(code: [0x13, 0, 0, 0], symbols: [("tohost", 0x8000_1000)])

    private func problem(_ bytes: [UInt8]) -> ELFError.Problem? {
        do throws(ELFError) {
            _ = try ELFImage(path: "p", bytes: bytes, memory: Self.ram)
            return nil
        } catch { return error.problem }
    }

    @Test func `segments come in order of address, symbols by name`() throws {
        var builder = Self.plain
        builder.segments.insert(.init(address: 0x8010_0000, content: [1, 2], memorySize: 4096), at: 0)
        builder.symbols.append(("begin_signature", 0x8010_0000))
        let image = try ELFImage(path: "p", bytes: builder.bytes, memory: Self.ram)
        #expect(image.entry == 0x8000_0000)
        #expect(image.segments.map(\.physicalAddress) == [0x8000_0000, 0x8010_0000])
        #expect(image.segments.map(\.memorySize) == [4, 4096])
        #expect(image.symbol("tohost") == 0x8000_1000)
        #expect(image.symbol("begin_signature") == 0x8010_0000)
        #expect(image.symbol("tohos") == nil)
        #expect(image.symbol("begin_signature_") == nil)
    }

    static let broken: [(name: String, bytes: [UInt8], problem: ELFError.Problem)] = {
        let good = plain.bytes
        // The first program header is at 64: offset +8, physical address +24, sizes +32 and +40.
        func segment(_ offset: Int, _ value: UInt64) -> [UInt8] { good.patched(64 + offset, value, 8) }
        var overlapping = plain
        overlapping.segments.append(.init(address: 0x8000_0002, content: [1]))
        func outside(_ address: UInt64, _ size: UInt64) -> ELFError.Problem {
            .segmentOutsideMemory(index: 0, address: address, size: size, memory: ram)
        }
        return [
            ("empty", [], .notELF),
            ("text", Array("#!/bin/sh".utf8), .notELF),
            ("only a magic", Array(good[..<4]), .truncated(what: "header", count: 4)),
            ("half a header", Array(good[..<63]), .truncated(what: "header", count: 63)),
            ("32-bit", good.patched(4, 1, 1), .class32),
            ("big-endian", good.patched(5, 2, 1), .bigEndian),
            ("x86-64", good.patched(18, 62, 2), .machine(62)),
            ("relocatable", good.patched(16, 1, 2), .type(1)),
            ("no program headers", good.patched(56, 0, 2), .nothingToLoad),
            (
                "headers beyond the end", good.patched(32, 1 << 40, 8),
                .truncated(what: "program header table", count: good.count)
            ),
            (
                "headers that wrap", good.patched(32, .max - 8, 8),
                .truncated(what: "program header table", count: good.count)
            ),
            (
                "too many headers", good.patched(56, 0xFFFE, 2),
                .truncated(what: "program header table", count: good.count)
            ),
            ("a note only", good.patched(64, 4, 4), .nothingToLoad),
            ("content beyond the end", segment(8, 1 << 30), .truncated(what: "segment 0", count: good.count)),
            ("content that wraps", segment(8, .max), .truncated(what: "segment 0", count: good.count)),
            ("more in the file than in memory", segment(40, 3), .segmentShorterThanFile(index: 0)),
            ("below RAM", segment(24, 0x7FFF_FFFE), outside(0x7FFF_FFFE, 4)),
            ("over RAM's end", segment(24, 0x83FF_FFFE), outside(0x83FF_FFFE, 4)),
            ("at the top of all addresses", segment(24, .max - 1), outside(.max - 1, 4)),
            ("larger than RAM", segment(40, (64 << 20) + 1), outside(0x8000_0000, (64 << 20) + 1)),
            ("a size that wraps", segment(40, .max), outside(0x8000_0000, .max)),
            ("overlapping", overlapping.bytes, .segmentsOverlap(first: 0, second: 1)),
            ("entry at zero", good.patched(24, 0, 8), .entryOutsideProgram(0)),
            ("entry behind the code", good.patched(24, 0x8000_0003, 8), .entryOutsideProgram(0x8000_0003)),
            (
                "section headers beyond the end", good.patched(40, .max, 8),
                .truncated(what: "section header table", count: good.count)
            ),
            (
                "too many section headers", good.patched(60, 0xFFFF, 2),
                .truncated(what: "section header table", count: good.count)
            ),
            (
                "symbols beyond the end", good.patched(good.count - 128 + 24, 1 << 50, 8),
                .truncated(what: "symbol table", count: good.count)
            ),
            (
                "symbols without names", good.patched(good.count - 128 + 40, 99, 4),
                .badHeader("its symbol table has no names")
            ),
        ]
    }()

    @Test(arguments: broken.indices)
    func `a file that is wrong in one place is refused for that reason`(_ index: Int) {
        let (name, bytes, expected) = Self.broken[index]
        let found = problem(bytes)
        #expect(found == expected, "\(name): \(found.map { "\($0)" } ?? "accepted")")
        let text = ELFError(path: "some/file", problem: expected).description
        #expect(text.hasPrefix("some/file: ") && text.contains(": ") && !text.contains("\n"), "\(text)")
    }

    @Test func `tohost must be aligned and in RAM, and a signature must not be reversed`() throws {
        var builder = Self.plain
        for misplaced in [0x8000_1004, 0x7FFF_FFF8, 0x8400_0000, UInt64.max - 7] {
            builder.symbols = [("tohost", misplaced)]
            let image = try ELFImage(path: "p", bytes: builder.bytes, memory: Self.ram)
            #expect(throws: ELFError(path: "p", problem: .symbolMisplaced("tohost", misplaced, memory: Self.ram))) {
                try image.doubleword("tohost", in: Self.ram)
            }
        }
        for (begin, end) in [(0x8000_1010, 0x8000_1000), (0x10, 0x20), (0x8000_0000, .max)] as [(UInt64, UInt64)] {
            builder.symbols = [("begin_signature", begin), ("end_signature", end)]
            let image = try ELFImage(path: "p", bytes: builder.bytes, memory: Self.ram)
            #expect(throws: ELFError.self) { try image.signature(in: Self.ram) }
        }
        builder.symbols = [("begin_signature", 0x8000_0000)]
        let image = try ELFImage(path: "p", bytes: builder.bytes, memory: Self.ram)
        #expect(throws: ELFError(path: "p", problem: .symbolMissing("end_signature"))) {
            try image.signature(in: Self.ram)
        }
    }

    @Test func `no damaged file traps or reads outside`() {
        var random = SeededGenerator.fresh()
        var builder = Self.plain
        builder.segments.append(.init(address: 0x8000_2000, content: random.bytes(64), memorySize: 8192))
        let good = builder.bytes
        var accepted = 0
        for _ in 0..<20_000 {
            var bytes = good
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
            for _ in 0..<Int.random(in: 0...3, using: &random) where !bytes.isEmpty {
                // Numbers near limits hurt most.
                let place = Int.random(in: 0..<bytes.count, using: &random)
                let value = [UInt64.max, 0, 1 << 63, random.next(), UInt64(bytes.count)].randomElement(using: &random)!
                let count = min([1, 2, 4, 8].randomElement(using: &random)!, bytes.count - place)
                bytes = bytes.patched(place, value, count)
            }
            guard let image = try? ELFImage(path: "p", bytes: bytes, memory: Self.ram) else { continue }
            accepted += 1
            _ = image.symbol("tohost")
            for segment in image.segments {
                #expect(Self.ram.contains(segment.physicalAddress, count: segment.memorySize), "seed \(random.seed)")
                #expect(segment.content.upperBound <= bytes.count, "seed \(random.seed)")
            }
        }
        #expect(accepted > 0, "seed \(random.seed)")
    }

    @Test func `a signature has its lines in ascending order and each line's highest byte first`() {
        let content = (1...10).map { UInt8($0) }
        func lines(_ granularity: Int) -> [String] {
            String(decoding: Signature.text(content, granularity: granularity), as: UTF8.self).split(separator: "\n")
                .map(String.init)
        }
        #expect(lines(4) == ["04030201", "08070605", "00000a09"])
        #expect(lines(8) == ["0807060504030201", "0000000000000a09"])
        #expect(lines(16) == ["0000000000000a090807060504030201"])
        #expect(lines(1).count == 10)
        #expect(Signature.text([], granularity: 4).isEmpty)
    }
}
