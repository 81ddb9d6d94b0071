import PCIe
import TestKit
import Testing

/// What devices say of themselves, true or not.
struct FunctionProfileTests {
    /// An endpoint's configuration space with a list of capabilities.
    private func space(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 256)
        bytes[0...1] = [0x36, 0x1B]
        bytes[6] = 0x10
        change(&bytes)
        return bytes
    }

    private func profile(
        _ bytes: [UInt8], regions: [UInt64] = [], interrupts: [UInt32] = [1, 32, 64]
    ) throws -> FunctionProfile {
        try FunctionProfile(configuration: bytes, regions: regions, interrupts: interrupts)
    }

    @Test func `what is no endpoint is refused with the reason`() {
        #expect(throws: FunctionProfile.ProfileError.tooShort) { try profile([UInt8](repeating: 0, count: 63)) }
        for vendor in [[0, 0], [0xFF, 0xFF]] as [[UInt8]] {
            #expect(throws: FunctionProfile.ProfileError.self) { try profile(space { $0[0...1] = vendor[...] }) }
        }
        #expect(throws: FunctionProfile.ProfileError.notAnEndpoint(1)) { try profile(space { $0[0x0E] = 0x81 }) }
    }

    @Test func `base addresses are of the sizes of their regions`() throws {
        let bytes = space { bytes in
            bytes[0x10] = 0x0C
            bytes[0x18] = 0x01
            bytes[0x1C] = 0x00
            bytes[0x24] = 0x04
        }
        let found = try profile(bytes, regions: [5000, 99, 6, 0x8000_0000, 0, 12, 3000])
        #expect(
            found.bars == [
                .init(index: 0, size: 8192, length: 5000, is64Bit: true, isPrefetchable: true),
                .init(index: 2, size: 8, length: 6, isIO: true), .init(index: 3, size: 1 << 31, length: 1 << 31),
                // A 64-bit register at the last place is none.
                .init(index: 5, size: 16, length: 12), .init(index: 6, size: 4096, length: 3000),
            ])
        #expect(found.remarks.isEmpty)
    }

    @Test(
        arguments: [(0x00, 0x8000_0001), (0x04, 1 << 40 + 1), (0x01, 0x8001), (0x00, .max), (0x04, .max)]
            as [(UInt8, UInt64)])
    func `a window that no machine has is left out`(flags: UInt8, length: UInt64) throws {
        let found = try profile(space { $0[0x10] = flags }, regions: [length])
        #expect(found.bars.isEmpty && found.remarks.count == 1)
        let rom = try profile(space(), regions: [0, 0, 0, 0, 0, 0, length])
        #expect(rom.bars.count <= 1)
    }

    /// MSI-X that cannot work: table word, pending word, vectors of the capability, vectors of the device.
    @Test(
        arguments: [
            (0x0000, 0x0800, 63, 0), (0x0FF0, 0x0800, 1, 64), (0x0000, 0x0FFC, 63, 64), (0x0001, 0x0800, 0, 64),
            (0x0006, 0x0800, 0, 64), (0x0007, 0x0007, 0, 64), (0xFFFF_FFF8, 0x0800, 0, 64), (0, 0xFFFF_FFF8, 0, 64),
        ] as [(UInt32, UInt32, UInt16, UInt32)])
    func `an MSI-X table outside its window hides the capability`(
        table: UInt32, pending: UInt32, size: UInt16, available: UInt32
    ) throws {
        let bytes = space { bytes in
            bytes[0x34] = 0x40
            bytes[0x40] = 0x11
            bytes[0x42...0x43] = [UInt8(size & 0xFF), UInt8(size >> 8)]
            for (place, word) in [(0x44, table), (0x48, pending)] {
                for index in 0..<4 { bytes[place + index] = UInt8(truncatingIfNeeded: word >> UInt32(index * 8)) }
            }
        }
        let found = try profile(bytes, regions: [4096, 0, 0, 0, 0, 0, 4096], interrupts: [0, 0, available])
        #expect(found.msix == nil && found.hidden == [0x40] && found.remarks.count == 1)
    }

    @Test func `MSI has as many vectors as there are eventfds, in powers of two`() throws {
        let bytes = space { bytes in
            bytes[0x34] = 0x40
            bytes[0x40...0x42] = [5, 0, 0x0A]
        }
        #expect(try profile(bytes).msi?.vectors == 32)
        #expect(try profile(bytes, interrupts: [0, 5]).msi?.vectors == 4)
        #expect(try profile(bytes, interrupts: [0, 0]).hidden == [0x40])
        #expect(try profile(bytes, interrupts: []).msi == nil)
        // One that does not fit.
        let late = space { bytes in
            bytes[0x34] = 0xFC
            bytes[0xFC...0xFE] = [5, 0, 0x8A]
        }
        #expect(try profile(late).hidden == [0xFC])
    }

    @Test(arguments: [[0x40: 0x40], [0x40: 0x80, 0x80: 0x40], [0x40: 0xFF], [0x40: 0x10]] as [[Int: UInt8]])
    func `a list of capabilities that loops or leaves its room ends`(links: [Int: UInt8]) throws {
        let bytes = space { bytes in
            bytes[0x34] = 0x40
            for (place, next) in links { bytes[place...place + 1] = [9, next] }
        }
        #expect(try profile(bytes).hidden.isEmpty)
    }

    @Test func `an interrupt pin that nothing is behind is none`() throws {
        #expect(try profile(space { $0[0x3D] = 4 }).interruptPin == 4)
        #expect(try profile(space { $0[0x3D] = 5 }).interruptPin == 0)
        #expect(try profile(space { $0[0x3D] = 1 }, interrupts: [0]).interruptPin == 0)
    }

    @Test func `noise is judged without a trap`() throws {
        var generator = SeededGenerator.fresh()
        for round in 0..<20_000 {
            var bytes = generator.bytes([64, 256, 4096][round % 3])
            // Let most of it be taken for an endpoint with capabilities.
            if round % 8 != 0 {
                bytes[0x0E] &= 0x80
                bytes[6] |= 0x10
                if bytes.count > 64 { bytes[0x34] = UInt8.random(in: 0x40...0xFC, using: &generator) }
            }
            let regions = (0..<9).map { _ in
                UInt64.random(in: 0...(.max), using: &generator) >> UInt64.random(in: 0...63, using: &generator)
            }
            let found = try? FunctionProfile(
                configuration: bytes, regions: regions,
                interrupts: (0..<5).map { _ in UInt32.random(in: 0...64, using: &generator) })
            guard let found else { continue }
            for bar in found.bars {
                #expect(bar.size >= bar.length && bar.size & (bar.size - 1) == 0, "seed \(generator.seed)")
            }
            if let msix = found.msix {
                #expect(found.bars.contains { $0.index == msix.tableBAR }, "seed \(generator.seed)")
            }
        }
    }
}
