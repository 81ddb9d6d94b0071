import Foundation
import SPINOR
import Serprog
import TestKit
import Testing
import Wire

/// Time, and what happens when there is not enough of it.
@Suite struct SPINOROperationTests {
    static let fullTime = SPINORTiming(percent: 100)

    @Test(
        arguments: [
            ([0x12, 0, 0, 0, 0, 0x00], 16), ([0x12, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 256), 512),
            ([0x12, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 100), 115), ([0x21, 0, 0, 0, 0], 48_000),
            ([0x5C, 0, 0, 0, 0], 192_000), ([0xDC, 0, 0, 0, 0], 384_000), ([0x60], 112_000_000),
            ([0x01, 0x04], 40_000),
        ] as [([UInt8], Int)])
    func `an operation is under way as long as the data sheet says`(write: [UInt8], microseconds: Int) throws {
        let chip = try Bench(timing: Self.fullTime)
        chip([0x06])
        chip(write)
        let end = chip.now + .microseconds(microseconds)
        chip.now = MonotonicTime(nanoseconds: end.nanoseconds - 1)
        #expect(chip.status & 0x03 == 0x03, "WIP and WEL are set")
        chip.now = end
        #expect(chip.status & 0x03 == 0, "both are clear")
    }

    @Test func `times are scaled`() throws {
        let chip = try Bench(timing: SPINORTiming(percent: 1))
        chip([0x06])
        chip([0x21, 0, 0, 0, 0])
        #expect(chip.chip.busyUntil == chip.now + .microseconds(480))
    }

    @Test func `a busy chip takes nothing but status reads and a reset`() throws {
        let chip = try Bench(timing: Self.fullTime)
        chip.program(0, [0x12])
        for opcode in UInt8.min...UInt8.max where ![0x05, 0x15, 0x2B, 0x66, 0x99].contains(opcode) {
            #expect(chip([opcode, 0, 0, 0, 0, 0], 2) == [0xFF, 0xFF], "opcode \(opcode)")
            #expect(chip([opcode]) == [], "opcode \(opcode)")
        }
        #expect(chip([0x15], 1) == [0x07])
        chip.now = chip.now + .milliseconds(1)
        #expect(chip.read(0, 2) == [0x12, 0xFF])
        #expect(chip.chip.counters.programs == 1)
        #expect(chip.status == 0)
    }

    @Test func `a reset cuts an operation off`() throws {
        let chip = try Bench(timing: Self.fullTime, seed: 3)
        chip.program(0, [UInt8](repeating: 0, count: 256))
        chip([0x66])
        chip([0x99])
        #expect(chip.status == 0)
        let page = chip.read(0, 256)
        #expect(page.contains { $0 != 0 }, "not all was programmed")
        #expect(page.contains { $0 != 0xFF }, "but something was")
    }

    @Test func `power that falls in a program leaves only bits that were to be cleared, as its seed says`() throws {
        var pages: [[UInt8]] = []
        for seed in [7, 7, 8] as [UInt64] {
            let chip = try Bench(timing: Self.fullTime, seed: seed)
            chip.program(0x100, [UInt8](repeating: 0x0F, count: 128))
            chip.chip.losePower()
            #expect(chip.read(0, 2) == [0xFF, 0xFF], "without power it drives nothing")
            #expect(chip([0x9F], 3) == [0xFF, 0xFF, 0xFF])
            chip.chip.powerOn()
            #expect(chip([0x9F], 1) == [0xC2])
            pages.append(chip.read(0x100, 256))
        }
        #expect(pages[0] == pages[1])
        #expect(pages[0] != pages[2])
        #expect(pages[0][..<128].allSatisfy { $0 & 0x0F == 0x0F } && pages[0][128...].allSatisfy { $0 == 0xFF })
        #expect(Set(pages[0][..<128]).count > 4)
    }

    @Test func `power that falls in an erase leaves bits between old and erased, and only there`() throws {
        let chip = try Bench(timing: Self.fullTime, seed: 9)
        for page in 0..<48 {
            chip.program(UInt32(page * 256), [UInt8](repeating: 0x00, count: 256))
            chip.now = chip.now + .milliseconds(1)
        }
        chip([0x06])
        chip([0x21, 0, 0, 0x10, 0])
        chip.chip.losePower()
        chip.chip.powerOn()
        #expect(chip.read(0, 4096).allSatisfy { $0 == 0 } && chip.read(0x2000, 4096).allSatisfy { $0 == 0 })
        let torn = chip.read(0x1000, 4096)
        #expect(Set(torn).count > 100)
        // Erased again it is whole.
        chip([0x06])
        chip([0x21, 0, 0, 0x10, 0])
        chip.now = chip.now + .milliseconds(48)
        #expect(chip.read(0x1000, 4096).allSatisfy { $0 == 0xFF })
    }

    @Test func `power falls at the operation that a fault names`() throws {
        let chip = try Bench()
        let identifier = chip.chip.inject(.powerLoss(after: 3))
        #expect(identifier == 1)
        for address in [0, 256] as [UInt32] { chip.program(address, [0x55]) }
        #expect(chip.read(0, 1) + chip.read(256, 1) == [0x55, 0x55])
        chip.program(512, [0x55])
        #expect(!chip.chip.isPowered)
        #expect(chip.read(0, 1) == [0xFF])
        chip.chip.powerOn()
        #expect(chip.chip.injectedFaults.isEmpty)
        #expect(chip.read(0, 1) == [0x55])
        #expect(chip.read(512, 1)[0] | 0x55 == chip.read(512, 1)[0])
    }

    @Test func `the security register tells of a protected place and of a stuck bit until the next success`() throws {
        let chip = try Bench()
        chip([0x06])
        chip([0x01, 0x04])
        chip.program(0x1FF_0000, [0])
        #expect(chip([0x2B], 1) == [0x20])
        chip([0x06])
        chip([0x21, 0x01, 0xFF, 0, 0])
        #expect(chip([0x2B], 1) == [0x60])
        chip.program(0, [0])
        #expect(chip([0x2B], 1) == [0x40])

        let identifier = chip.chip.inject(.stuck(address: 0x1004, mask: 0x81, value: 0x80))
        let stuck = try #require(identifier)
        #expect(chip.read(0x1003, 3) == [0xFF, 0xFE, 0xFF])
        chip.program(0x1000, [0, 0, 0, 0, 0])
        #expect(chip.read(0x1004, 1) == [0x80])
        #expect(chip([0x2B], 1)[0] & 0x20 != 0, "bit 7 should be 0")
        chip([0x06])
        chip([0x21, 0, 0, 0x10, 0])
        #expect(chip([0x2B], 1)[0] & 0x40 != 0, "bit 0 should be 1")
        #expect(chip.read(0x1FF_FFFF, 1) == [0xFF])
        for isThere in [true, false] {
            let wasCleared = chip.chip.clearFault(stuck)
            #expect(wasCleared == isThere)
        }
        #expect(chip.read(0x1004, 1) == [0xFF])
    }

    @Test func `stuck bits show in reads that go on at the beginning`() throws {
        let chip = try Bench()
        for address in [0, 0x1FF_FFFF, 5] { _ = chip.chip.inject(.stuck(address: address, mask: 0x0F, value: 0)) }
        #expect(chip.read(0x1FF_FFFE, 8) == [0xFF, 0xF0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xF0])
    }

    @Test func `a flipped bit is in the content, a dead chip drives nothing`() throws {
        let chip = try Bench()
        let identifier = chip.chip.inject(.bitFlip(address: 9, mask: 0x10))
        #expect(identifier == 0)
        #expect(chip.read(9, 1) == [0xEF])
        _ = chip.chip.inject(.dead)
        #expect(chip([0x9F], 3) == [0xFF, 0xFF, 0xFF])
        chip.program(0, [0])
        chip.chip.clearFaults()
        #expect(chip.read(0, 1) == [0xFF])
        #expect(chip([0x9F], 1) == [0xC2])
    }

    @Test func `faults have a limit`() throws {
        let chip = try Bench()
        for number in 0..<4096 {
            let identifier = chip.chip.inject(.stuck(address: number, mask: 1, value: 0))
            #expect(identifier == number + 1)
        }
        let beyond = chip.chip.inject(.dead)
        #expect(beyond == nil)
    }

    @Test func `protection stays without power, the rest does not`() throws {
        let chip = try Bench()
        chip([0x06])
        chip([0x01, 0x2C, 0x08])
        chip([0xB7])
        chip.chip.losePower()
        chip.chip.powerOn()
        #expect(chip.status == 0x2C)
        #expect(chip([0x15], 1) == [0x0F])
        let again = try Bench(registers: chip.chip.registers)
        #expect(again.status == 0x2C)
        #expect(again([0x15], 1) == [0x0F])
        #expect(try Bench(registers: .init(status: 0xFF, configuration: 0xFF)).status == 0xFC)
    }
}

@Suite struct FlashRegisterFileTests {
    @Test func `the file keeps two bytes, and another length is refused by name`() throws {
        let folder = TemporaryFolder()
        var registers = SPINORChip.NonvolatileRegisters()
        _ = try FlashRegisterFile(image: folder.file("chip"), registers: &registers)
        #expect(registers == SPINORChip.NonvolatileRegisters())
        try Data([0x2C, 0x08]).write(to: URL(fileURLWithPath: folder.file("chip.registers")))
        _ = try FlashRegisterFile(image: folder.file("chip"), registers: &registers)
        #expect(registers == SPINORChip.NonvolatileRegisters(status: 0x2C, configuration: 0x08))
        for length in [1, 3, 4096] {
            try Data(repeating: 1, count: length).write(to: URL(fileURLWithPath: folder.file("chip.registers")))
            let error = #expect(throws: FlashContentError.self) {
                try FlashRegisterFile(image: folder.file("chip"), registers: &registers)
            }
            #expect(error?.description.contains("chip.registers") == true)
        }
    }
}
