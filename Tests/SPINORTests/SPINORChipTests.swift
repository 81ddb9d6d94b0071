import Foundation
import SPINOR
import Serprog
import TestKit
import Testing
import Wire

/// An erased image file of its own, removed by `remove()`.
struct ImageFile {
    let path = "/tmp/spinor-\(UUID().uuidString.prefix(8)).img"

    init(size: Int = SPINORModel.mx25l25635f.size, fill: UInt8 = 0xFF) throws {
        // Erased is not the file's natural state: made by writing.
        try Data(repeating: fill, count: size).write(to: URL(fileURLWithPath: path))
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }

    func bytes(_ range: Range<Int>) throws -> [UInt8] {
        let handle = try #require(FileHandle(forReadingAtPath: path))
        try handle.seek(toOffset: UInt64(range.lowerBound))
        return Array(try #require(try handle.read(upToCount: range.count)))
    }
}

/// An erased chip in memory.
final class Bench {
    var chip: SPINORChip

    init(
        model: SPINORModel = .mx25l25635f, timing: SPINORTiming = .none,
        registers: SPINORChip.NonvolatileRegisters = .init(), seed: UInt64 = 0
    ) throws {
        chip = SPINORChip(
            content: FlashContent(erased: model.size), model: model, timing: timing, registers: registers, seed: seed)
    }

    /// The chip's clock.
    var now = MonotonicTime(nanoseconds: 1_000_000)

    @discardableResult
    func callAsFunction(_ write: [UInt8], _ readCount: Int = 0) -> [UInt8] {
        var response = [UInt8](repeating: 0xAA, count: readCount)
        chip.transact(write, readCount: readCount, into: &response, now: now)
        return response
    }

    var status: UInt8 { self([0x05], 1)[0] }

    func program(_ address: UInt32, _ data: [UInt8]) {
        self([0x06])
        self([0x12] + SPIFlash.addressBytes(address) + data)
    }

    func read(_ address: UInt32, _ count: Int) -> [UInt8] {
        self([0x0C] + SPIFlash.addressBytes(address) + [0], count)
    }
}

@Suite struct SPINORChipTests {
    let chip: Bench

    init() throws { chip = try Bench() }

    @Test(
        arguments: [
            ([0x9F], [0xC2, 0x20, 0x19, 0xC2]), ([0xAB, 0, 0, 0], [0x18, 0x18]),
            ([0x90, 0, 0, 0], [0xC2, 0x18, 0xC2]),
            ([0x90, 0, 0, 1], [0x18, 0xC2]), ([0x05], [0x00, 0x00]), ([0x15], [0x07]), ([0x2B], [0x00]),
            ([0xC8], [0x00]),
            ([0xAB], [0xFF, 0xFF, 0xFF, 0x18]), ([0x42], [0xFF, 0xFF]), ([], [0xFF]), ([0x06], [0xFF]),
            ([0x9F, 0], [0x20, 0x19]), ([0x03, 0, 0], [0xFF]),
        ] as [([UInt8], [UInt8])])
    func `a register or an identity reads as in the data sheet`(write: [UInt8], answer: [UInt8]) {
        #expect(chip(write, answer.count) == answer)
    }

    @Test func `the write enable latch is set, cleared, and cleared by each write`() {
        #expect(chip.status == 0)
        chip([0x06])
        #expect(chip.status == 0x02)
        chip([0x04])
        #expect(chip.status == 0)
        chip.program(0, [0])
        #expect(chip.status == 0)
        chip([0x06, 0])
        #expect(chip.status == 0, "a command with bytes too many is not taken")
        chip([0x06], 1)
        #expect(chip.status == 0, "nor one that is clocked on")
    }

    @Test func `a program without the latch changes nothing`() {
        chip([0x12, 0, 0, 0, 0, 0x00])
        #expect(chip.read(0, 1) == [0xFF])
        #expect(chip.chip.counters.refusedWrites == 1)
    }

    @Test func `a program only clears bits`() {
        chip.program(5, [0xF0])
        chip.program(5, [0x3F])
        #expect(chip.read(4, 3) == [0xFF, 0x30, 0xFF])
    }

    @Test func `a program wraps within its page`() {
        chip.program(0x1FE, [1, 2, 3, 4])
        #expect(chip.read(0x1FE, 3) == [1, 2, 0xFF])
        #expect(chip.read(0x100, 3) == [3, 4, 0xFF])
        #expect(chip.read(0x200, 1) == [0xFF])
    }

    @Test func `of more than a page the last 256 bytes count, where they would have gone`() {
        let data = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
        chip.program(0x1010, data)
        let page = chip.read(0x1000, 256)
        for index in 44..<300 { #expect(page[(0x10 + index) % 256] == data[index]) }
        #expect(chip.read(0x1100, 1) == [0xFF])
    }

    @Test(
        arguments: [
            (0x20, 3, 0x1000), (0x21, 4, 0x1000), (0x52, 3, 0x8000), (0x5C, 4, 0x8000), (0xD8, 3, 0x1_0000),
            (0xDC, 4, 0x1_0000),
        ] as [(UInt8, Int, UInt32)])
    func `an erase sets its aligned block and nothing beside it`(opcode: UInt8, addressLength: Int, size: UInt32) {
        let start = 2 * size
        for place in [start - 1, start, start + size - 1, start + size] { chip.program(place, [0]) }
        chip([0x06])
        chip([opcode] + SPIFlash.addressBytes(start + size / 2 + 3).suffix(addressLength))
        #expect(chip.read(start - 1, 2) == [0, 0xFF])
        #expect(chip.read(start + size - 1, 2) == [0xFF, 0])
    }

    @Test func `an erase with a byte too few or too many is not taken`() {
        chip.program(0, [0])
        for address in [[0, 0], [0, 0, 0, 0]] as [[UInt8]] {
            chip([0x06])
            chip([0x20] + address)
            #expect(chip.read(0, 1) == [0])
            #expect(chip.status == 0x02, "the latch stays")
        }
    }

    @Test(arguments: [0x60, 0xC7] as [UInt8])
    func `a chip erase sets everything`(opcode: UInt8) {
        for address in [0, 0x100_0000, 0x1FF_FFFF] as [UInt32] { chip.program(address, [0]) }
        chip([opcode])
        #expect(chip.read(0, 1) == [0], "the latch is needed")
        chip([0x06])
        chip([opcode])
        for address in [0, 0x100_0000, 0x1FF_FFFF] as [UInt32] { #expect(chip.read(address, 1) == [0xFF]) }
    }

    @Test func `four-byte mode and the extended address reach the upper half`() {
        chip.program(0x100_0005, [0x11])
        chip.program(0x5, [0x22])
        #expect(chip([0x03, 0, 0, 5], 1) == [0x22])
        chip([0xB7])
        #expect(chip([0x15], 1) == [0x27])
        #expect(chip([0x03, 1, 0, 0, 5], 1) == [0x11])
        #expect(chip([0x0B, 0, 0, 0, 5, 0], 1) == [0x22])
        chip([0xE9])
        #expect(chip([0x0B, 0, 0, 5, 0], 1) == [0x22])
        chip([0xC5, 1])
        #expect(chip([0xC8], 1) == [0], "the latch is needed")
        chip([0x06])
        chip([0xC5, 0xFF])
        #expect(chip([0xC8], 1) == [1])
        #expect(chip([0x03, 0, 0, 5], 1) == [0x11])
        #expect(chip([0x13, 0, 0, 0, 5], 1) == [0x22], "opcodes with four bytes do not care")
    }

    @Test func `a read goes on at the beginning behind the last byte`() {
        chip.program(0x1FF_FFFF, [0x77])
        chip.program(0, [0x88])
        #expect(chip.read(0x1FF_FFFF, 2) == [0x77, 0x88])
        #expect(chip.read(0xFFFF_FFFF, 2) == [0x77, 0x88], "address bits beyond the chip do not exist")
    }

    @Test func `dummy bytes may be clocked in either phase`() {
        chip.program(0, [1, 2, 3])
        #expect(chip([0x0C, 0, 0, 0, 0], 3) == [0xFF, 1, 2])
        #expect(chip([0x0C, 0, 0, 0, 0, 0, 0xFF], 2) == [2, 3])
    }

    @Test func `a software reset needs both commands in a row`() {
        chip([0xB7])
        chip([0x66])
        #expect(chip.status == 0)
        chip([0x99])
        #expect(chip.chip.isIn4ByteMode)
        chip([0x66])
        chip([0x99])
        #expect(!chip.chip.isIn4ByteMode)
    }

    @Test func `a chip in deep power-down wakes by one opcode only`() {
        chip([0xB9])
        #expect(chip([0x9F], 1) == [0xFF])
        #expect(chip([0xAB, 0, 0, 0], 1) == [0x18])
        #expect(chip([0x9F], 1) == [0xC2])
    }

    @Test func `the larger chip has its identity, size and segments`() throws {
        let large = try Bench(model: .mx66l1g45g)
        #expect(large([0x9F], 3) == [0xC2, 0x20, 0x1B])
        #expect(large([0x5A, 0, 0, 0x34, 0], 4) == [0xFF, 0xFF, 0xFF, 0x3F])
        large.program(0x700_0001, [0x21])
        large([0x06])
        large([0xC5, 0xFF])
        #expect(large([0xC8], 1) == [7])
        #expect(large([0x03, 0, 0, 1], 1) == [0x21])
    }

    @Test func `block protection keeps its range from programs and erases`() {
        chip.program(0x1FF_0000, [0x0F])
        chip([0x06])
        // BP = 1: the topmost 64 KiB.
        chip([0x01, 0x04])
        #expect(chip.status == 0x04)
        chip.program(0x1FF_0000, [0x00])
        chip.program(0x1FE_FFFF, [0x00])
        #expect(chip.read(0x1FE_FFFF, 2) == [0x00, 0x0F])
        chip([0x06])
        chip([0x21, 0x01, 0xFF, 0, 0])
        chip([0x06])
        chip([0x60])
        #expect(chip.read(0x1FE_FFFF, 2) == [0x00, 0x0F])
        // TB, then all: the bottom, and it cannot be undone.
        chip([0x06])
        chip([0x01, 0x04, 0x08])
        chip([0x06])
        chip([0x01, 0x04, 0x00])
        #expect(chip([0x15], 1)[0] & 0x08 != 0)
        chip.program(0, [0x00])
        #expect(chip.read(0, 1) == [0xFF])
        chip.program(0x1FF_0000, [0x01])
        #expect(chip.read(0x1FF_0000, 1) == [0x01])
    }

    @Test func `random transactions never trap`() {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        print("seed \(seed)")
        for _ in 0..<20_000 {
            let write = (0..<Int.random(in: 0...8, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            // A chip erase takes milliseconds: not the point here.
            if let opcode = write.first, [0x60, 0xC7].contains(opcode) { continue }
            let count = Int.random(in: 0...16, using: &generator)
            #expect(chip(write, count).count == count)
        }
    }
}

@Suite struct FlashContentTests {
    @Test func `a private chip leaves its file alone, a writable one changes it`() throws {
        for writable in [false, true] {
            let file = try ImageFile()
            defer { file.remove() }
            let bench = try Bench()
            bench.chip = SPINORChip(
                content: try FlashContent(path: file.path, count: SPINORModel.mx25l25635f.size, writable: writable))
            bench.program(0x1234, [0x5A])
            #expect(bench.read(0x1234, 1) == [0x5A])
            #expect(try file.bytes(0x1234..<0x1235) == [writable ? 0x5A : 0xFF])
        }
    }

    @Test(arguments: [0, SPINORModel.mx25l25635f.size - 1, SPINORModel.mx25l25635f.size + 1])
    func `an image of another size is refused with both sizes`(size: Int) throws {
        let file = try ImageFile(size: size)
        defer { file.remove() }
        let error = #expect(throws: FlashContentError.self) {
            try FlashContent(path: file.path, count: SPINORModel.mx25l25635f.size, writable: false)
        }
        #expect(
            error == .wrongSize(path: file.path, size: UInt64(size), expected: UInt64(SPINORModel.mx25l25635f.size)))
        #expect(error?.description.contains(size < SPINORModel.mx25l25635f.size ? "truncated" : "another chip") == true)
    }

    @Test func `a missing image and a folder are refused by name`() {
        let missing = #expect(throws: FlashContentError.self) {
            try FlashContent(path: "/nonexistent.img", count: SPINORModel.mx25l25635f.size, writable: false)
        }
        #expect(missing?.description == "/nonexistent.img: cannot open the flash image: No such file or directory")
        #expect(throws: FlashContentError.notAFile(path: "/tmp")) {
            try FlashContent(path: "/tmp", count: SPINORModel.mx25l25635f.size, writable: false)
        }
    }

    @Test func `an image is writable for one chip at a time`() throws {
        let file = try ImageFile()
        defer { file.remove() }
        let first = try FlashContent(path: file.path, count: SPINORModel.mx25l25635f.size, writable: true)
        #expect(throws: FlashContentError.inUse(path: file.path)) {
            try FlashContent(path: file.path, count: SPINORModel.mx25l25635f.size, writable: true)
        }
        #expect(first.isPersistent)
        #expect(throws: Never.self) {
            try FlashContent(path: file.path, count: SPINORModel.mx25l25635f.size, writable: false)
        }
    }
}
