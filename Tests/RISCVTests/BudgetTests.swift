import RISCV
import TestKit
import Testing

/// Budgets to the instruction, single steps, and EBREAK for a debugger.
@Suite struct BudgetTests {
    private static let base = TestMachine.ramBase
    /// addi a0, a0, 1; addi a1, a0, 2; add a2, a2, a1; sd a2, 0(sp); ld a3, 0(sp); c.addi a4, 1; xor; bne back.
    private static let loop: [UInt32] = [
        0x0015_0513, 0x0025_0593, 0x00B6_0633, 0x00C1_3023, 0x0001_3683, 0x0001_0705, 0x00D7_47B3, 0xFE0F_14E3,
    ]

    private func machine(_ translation: HartConfiguration.Translation) -> TestMachine {
        let machine = TestMachine(image: [], configuration: HartConfiguration(translation: translation))
        defer { withExtendedLifetime(machine) {} }
        machine.store(code: Self.loop, at: Self.base)
        machine.harts[0].setX(2, Self.base + 0x1000)
        machine.harts[0].setX(30, 1)
        return machine
    }

    private func registers(_ hart: Hart) -> [UInt64] { (0..<32).map(hart.x) + [hart.pc, hart.retiredInstructions] }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `a budget is retired to the instruction, in whatever pieces it comes`(
        _ translation: HartConfiguration.Translation
    ) {
        var random = SeededGenerator.fresh()
        for _ in 0..<50 {
            let (whole, pieces) = (machine(.none), machine(translation))
            defer { withExtendedLifetime((whole, pieces)) {} }
            let total = Int.random(in: 1...5000, using: &random)
            #expect(whole.harts[0].run(budget: total) == .budget)
            #expect(whole.harts[0].retiredInstructions == UInt64(total), "seed \(random.seed)")
            var left = total
            while left > 0 {
                let piece = min(left, Int.random(in: 1...40, using: &random))
                #expect(pieces.harts[0].run(budget: piece) == .budget)
                left -= piece
            }
            #expect(registers(pieces.harts[0]) == registers(whole.harts[0]), "seed \(random.seed)")
        }
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `a budget of one is a single step`(_ translation: HartConfiguration.Translation) {
        let machine = machine(translation)
        defer { withExtendedLifetime(machine) {} }
        let hart = machine.harts[0]
        var places: [UInt64] = []
        for _ in 0..<9 {
            places.append(hart.pc - Self.base)
            #expect(hart.run(budget: 1) == .budget)
        }
        // The sixth word is c.addi and c.nop.
        #expect(places == [0, 4, 8, 12, 16, 20, 22, 24, 28])
    }

    @Test func `a trap is a step too`() {
        let machine = TestMachine(image: [])
        defer { withExtendedLifetime(machine) {} }
        machine.store(code: [0xFFFF_FFFF], at: Self.base)
        let hart = machine.harts[0]
        #expect(hart.run(budget: 1) == .budget)
        #expect(hart.pc == 0 && hart.csr(0x342) == 2 && hart.retiredInstructions == 0)
    }

    @Test(arguments: [0x0010_0073, 0x0001_9002] as [UInt32])
    func `EBREAK ends the run for a debugger and traps without one`(_ word: UInt32) {
        let machine = TestMachine(image: [])
        defer { withExtendedLifetime(machine) {} }
        machine.store(code: [0x0015_0513, word], at: Self.base)
        let hart = machine.harts[0]
        hart.stopsAtEBREAK = true
        for _ in 0..<2 {
            #expect(hart.run(budget: 100) == .breakpoint)
            #expect(hart.pc == Self.base + 4 && hart.x(10) == 1 && hart.retiredInstructions == 1)
        }
        // The debugger puts an instruction there.
        machine.store(code: [0x0000_006F], at: Self.base + 4)
        hart.invalidateInstructions()
        #expect(hart.run(budget: 10) == .budget)
        #expect(hart.retiredInstructions == 11 && hart.pc == Self.base + 4)
        machine.store(code: [word], at: Self.base + 4)
        hart.invalidateInstructions()
        hart.stopsAtEBREAK = false
        #expect(hart.run(budget: 1) == .budget)
        #expect(hart.csr(0x342) == 3 && hart.csr(0x341) == Self.base + 4)
    }
}
