import SecurityLogic
import Serprog
import TestKit
import Testing

/// What is executed is what was verified, whoever holds the chip's wires.
@Suite struct PageDigestsTests {
    @Test func `bytes that change on the chip's wire after the verification never reach the host`() throws {
        let tamper = Tamper()
        let chip = try GatedChip(tamper: tamper)
        for page in 0..<32 { try chip.program(0x80_0000 + 4096 * UInt32(page), [0x42, UInt8(page)]) }
        try chip.verify(0x80_0000..<0x82_0000)
        chip.gate.setState(GatedChip.locked)
        let host = try chip.port(.host)
        #expect(try host.readFlash(offset: 0x5000, count: 2) == [0x42, 5])

        tamper.begin(at: 0x80_5001)
        let bytes = try host.readFlash(offset: 0x4000, count: 0x3000)
        #expect(Array(bytes[..<2]) == [0x42, 4], "the page before is what was verified")
        #expect(bytes[0x1000..<0x2000].allSatisfy { $0 == 0xFF }, "no byte of the page passes")
        #expect(bytes[0x2000..<0x3000].allSatisfy { $0 == 0xFF }, "nor anything after it")
        #expect(chip.gate.current.phase == .failed)
        #expect(try host.readFlash(offset: 0, count: 2) == [0xFF, 0xFF])
        #expect(try chip.port(.bmc).spiTransaction(write: [0x9F], readCount: 1) == [0xFF])
    }

    @Test func `a byte outside what the host asked for counts: pages are compared whole`() throws {
        let tamper = Tamper()
        let chip = try GatedChip(tamper: tamper)
        try chip.program(0x80_0000, [1, 2, 3])
        try chip.verify(0x80_0000..<0x80_1000)
        chip.gate.setState(GatedChip.locked)
        tamper.begin(at: 0x80_0FFF)
        #expect(try chip.port(.host).readFlash(offset: 0, count: 1) == [0xFF])
        #expect(chip.gate.current.phase == .failed)
    }

    @Test func `a chip that shows the verifier two contents is never executed`() throws {
        let tamper = Tamper()
        let chip = try GatedChip(tamper: tamper)
        try chip.program(0x80_0000, [1])
        tamper.begin(at: 0x80_0000, after: 1)
        try chip.verify(0x80_0000..<0x80_1000)
        try chip.verify(0x80_0000..<0x80_1000)
        chip.gate.setState(GatedChip.locked)
        #expect(try chip.port(.host).readFlash(offset: 0, count: 1) == [0xFF])
        #expect(chip.gate.current.phase == .failed)
    }

    @Test func `what the verifier saw before a power cycle counts no more`() throws {
        let chip = try GatedChip()
        try chip.program(0x80_0000, [1])
        try chip.verify(0x80_0000..<0x80_1000)
        chip.gate.forgetVerified()
        chip.gate.setState(GatedChip.locked)
        #expect(try chip.port(.host).readFlash(offset: 0, count: 1) == [0xFF])
        #expect(chip.gate.digests.count == 0)
    }

    @Test func `a transaction of any length and place digests the whole pages in them`() throws {
        var generator = SeededGenerator.fresh()
        let chip = try GatedChip()
        for _ in 0..<40 {
            chip.gate.forgetVerified()
            let start = UInt32.random(in: 0..<200_000, using: &generator)
            let count = UInt32.random(in: 1..<262_144, using: &generator)
            try chip.verify(start..<start + count)
            let first = (start + 4095) / 4096
            let last = (start + count) / 4096
            #expect(chip.gate.digests.count == Int(last) - Int(min(first, last)), "seed \(generator.seed)")
        }
    }
}
