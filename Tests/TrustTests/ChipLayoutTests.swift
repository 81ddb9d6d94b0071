import Testing
import Trust

@Suite struct ChipLayoutTests {
    @Test func `the server board's chip is four slots' worth of 8 MiB`() throws {
        let layout = ChipLayout.server
        #expect(layout == (try ChipLayout(chipSize: 32 << 20)))
        #expect(layout.slotSize == 8 << 20)
        #expect(FirmwareSlot.allCases.map { layout.base(of: $0) } == [0, 8 << 20, 16 << 20])
        #expect(layout.data == 24 << 20..<32 << 20)
        #expect(layout.range(of: .b) == 8 << 20..<16 << 20)
    }

    static let addresses: [(UInt64, FirmwareSlot?)] = [
        (0, .a), (0x7F_FFFF, .a), (0x80_0000, .b), (0x100_0000, .golden), (0x17F_FFFF, .golden), (0x180_0000, nil),
        (0x200_0000, nil), (.max, nil),
    ]

    @Test(arguments: addresses)
    func `an address belongs to the slot that holds it`(address: UInt64, slot: FirmwareSlot?) {
        #expect(ChipLayout.server.slot(at: address) == slot)
    }

    @Test(arguments: [UInt64(0), 1, 0x8_0000, 0x200_0001, 0x180_0000, 0x2_0000_0000, .max])
    func `a size that cannot be divided into slots is refused`(size: UInt64) {
        let error = #expect(throws: ChipLayoutError.badSize(size)) { try ChipLayout(chipSize: size) }
        #expect(error?.description.contains("\(size) bytes") == true)
    }

    @Test(arguments: [UInt64(1 << 20), 1 << 32])
    func `the smallest and the largest chip are divided`(size: UInt64) throws {
        #expect(try ChipLayout(chipSize: size).data.upperBound == size)
    }

    @Test func `a slot's reader counts from the slot's first byte and ends with it`() throws {
        let chip = ByteArrayReader((0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 >> 12) })
        let layout = try ChipLayout(chipSize: 1 << 20)
        var reader = SlotReader(chip, layout: layout, slot: .golden)
        #expect(reader.byteCount == 1 << 18)
        #expect(try reader.read(offset: 0x1000, count: 2) == [0x81, 0x81])
        #expect(try reader.read(offset: (1 << 18) - 1, count: 1) == [0xBF])
        for (offset, count) in [(UInt64(1 << 18), UInt64(1)), ((1 << 18) - 1, 2), (.max, 1), (0, .max)] {
            #expect(throws: ImageReadError.self) { try reader.read(offset: offset, count: count) { _ in } }
        }
    }

    @Test(arguments: [(UInt64(3), UInt64(5), UInt64(5)), (6, 5, 4), (10, 5, 0), (.max, .max, 0)])
    func `a slot that the medium does not hold is cut`(base: UInt64, size: UInt64, available: UInt64) {
        #expect(
            SlotReader(ByteArrayReader([UInt8](repeating: 0, count: 10)), base: base, size: size).byteCount == available
        )
    }

    @Test func `a chip holds images in their slots and is erased elsewhere`() throws {
        let layout = try ChipLayout(chipSize: 1 << 20)
        let chip = try FirmwareImage.chip(a: [1], golden: [3, 3], layout: layout)
        #expect(chip.count == 1 << 20)
        #expect(Array(chip[0..<2]) == [1, 0xFF])
        #expect(chip[1 << 18] == 0xFF)
        #expect(Array(chip[1 << 19..<(1 << 19) + 3]) == [3, 3, 0xFF])
        let long = [UInt8](repeating: 0, count: (1 << 18) + 1)
        #expect(throws: FirmwareImageError.slotTooLarge(.b, size: long.count, limit: 1 << 18)) {
            try FirmwareImage.chip(b: long, layout: layout)
        }
    }
}
