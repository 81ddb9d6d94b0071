import SPINOR
import SecurityLogic
import TestKit
import Testing
import Trust

@Suite struct SlotRestorationTests {
    private func restore(_ chip: UpdatedChip, isWanted: () -> Bool = { true }) -> String? {
        var medium = UpdatedChip.Medium(chip: chip)
        return SlotRestoration.restore(.a, &medium, UpdatedChip.layout, isWanted: isWanted)
    }

    /// A chip whose golden slot is good and whose slot A is not: `damaged` in one byte, or another image with one.
    private func broken(_ seed: UInt64, sameImage: Bool) throws -> UpdatedChip {
        let chip = try UpdatedChip(seed: seed)
        chip.place(sameImage ? chip.old : try UpdatedChip.image(chip.key, "golden", 5), .golden)
        _ = chip.chip.inject(.bitFlip(address: 0x2_0010, mask: 0x40))
        return chip
    }

    @Test(arguments: [true, false])
    func `a slot becomes what golden is, and a second time nothing is written`(sameImage: Bool) throws {
        let chip = try broken(1, sameImage: sameImage)
        #expect(chip.bootable(.a) == nil)
        #expect(restore(chip) == nil)
        #expect(chip.bootable(.a) == (sameImage ? "old" : "golden"))
        let writes = chip.writes
        #expect(restore(chip) == nil)
        #expect(chip.writes == writes)
    }

    @Test(arguments: [true, false])
    func `power that falls at any write leaves golden, and a slot that is golden's or refused`(sameImage: Bool) throws {
        var generator = SeededGenerator.fresh()
        let counting = try broken(1, sameImage: sameImage)
        let before = counting.writes
        #expect(restore(counting) == nil)
        let writes = counting.writes - before
        #expect(writes > 5)
        let name = sameImage ? "old" : "golden"
        for cut in 1...writes {
            for _ in 0..<4 {
                let chip = try broken(generator.next(), sameImage: sameImage)
                _ = chip.chip.inject(.powerLoss(after: cut))
                #expect(restore(chip) != nil, "cut \(cut), seed \(generator.seed)")
                chip.chip.powerOn()
                #expect(chip.bootable(.golden) == name, "cut \(cut), seed \(generator.seed)")
                let slot = chip.bootable(.a)
                #expect(slot == nil || slot == name, "cut \(cut), seed \(generator.seed)")
                // The next boot goes on.
                #expect(restore(chip) == nil, "cut \(cut), seed \(generator.seed)")
                #expect(chip.bootable(.a) == name, "cut \(cut), seed \(generator.seed)")
            }
        }
    }

    @Test func `cells that do not change are named, and work that is not wanted ends`() throws {
        let chip = try broken(1, sameImage: true)
        _ = chip.chip.inject(.stuck(address: 0x2_0020, mask: 0xFF, value: 0xA5))
        #expect(restore(chip)?.contains("0x20000") == true)
        #expect(restore(chip, isWanted: { false }) == "it was given up")
        #expect(chip.bootable(.a) == nil && chip.bootable(.golden) == "old")
    }
}
