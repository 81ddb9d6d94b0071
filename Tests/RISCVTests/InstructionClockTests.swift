import Foundation
import RISCV
import Synchronization
import TestKit
import Testing

@Suite struct InstructionClockTests {
    /// Work of varying length under timer interrupts, with reads of time by CSR and by device, and waits. Logs where
    /// and when every interrupt came.
    private static let program = """
        body:
            la t0, tick
            csrw mtvec, t0
            li s6, 0x2004000
            li s7, 0x200bff8
            li s8, 0
            ld t0, 0(s7)
            log t0
            addi t0, t0, 37
            sd t0, 0(s6)
            li t0, 0x80
            csrw mie, t0
            csrsi mstatus, 8
            li s9, 1
        1:  andi t0, s9, 63
        2:  addi t0, t0, -1
            mul s9, s9, s5
            addi s9, s9, 7
            srli t1, s9, 33
            xor s9, s9, t1
            bgtz t0, 2b
            andi t1, s9, 15
            bnez t1, 3f
            csrci mstatus, 8
            rdtime t2
            log t2
            ld t2, 0(s7)
            log t2
            csrsi mstatus, 8
        3:  andi t1, s9, 31
            bnez t1, 4f
            wfi
        4:  li t0, 300
            blt s8, t0, 1b
            csrci mstatus, 8
            csrr t0, minstret
            log t0
            rdtime t0
            log t0
            ret
            .balign 4
        tick:
            csrr t5, mepc
            log t5
            ld t5, 0(s7)
            ld t6, 0(s6)
            sub t6, t5, t6
            log t6
            csrr t6, minstret
            log t6
            andi t6, t6, 127
            add t5, t5, t6
            addi t5, t5, 3
            sd t5, 0(s6)
            addi s8, s8, 1
            mret
            .balign 4

        """

    private func run(
        _ program: GuestProgram, _ translation: HartConfiguration.Translation, budget: () -> Int,
        between: (Hart) -> Void = { _ in }
    ) -> [String]? {
        let machine = TestMachine(image: program.image, translation: translation, clock: .instructions)
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            switch machine.harts[0].run(budget: budget()) {
            case .stopRequested: return GuestProgram.lines(machine.uart.text)
            case .waitForInterrupt: machine.harts[0].waitForInterrupt()
            case .budget, .kicked, .resetRequested, .breakpoint: break
            }
            between(machine.harts[0])
        }
        return nil
    }

    @Test func `interrupts come at the same instructions, however the hart is run`() throws {
        let program = try GuestProgram(Self.program)
        let expected = try #require(run(program, .none) { .max })
        #expect(expected.count > 900)
        for translation in HartConfiguration.Translation.allCases {
            let whole = try #require(run(program, translation) { .max })
            #expect(whole == expected, "translation \(translation)")
            var random = SeededGenerator.fresh()
            let pieces = try #require(run(program, translation) { Int.random(in: 1...300, using: &random) })
            #expect(pieces == expected, "translation \(translation), seed \(random.seed)")
        }
    }

    @Test func `interrupts come at the same instructions, whoever disturbs the hart`() throws {
        let program = try GuestProgram(Self.program)
        let expected = try #require(run(program, .none) { .max })
        let machine = TestMachine(image: program.image, translation: .hot, clock: .instructions)
        let hart = machine.harts[0]
        let isOver = Atomic<Bool>(false)
        let meddler = Thread {
            while !isOver.load(ordering: .relaxed) {
                hart.signals.kick()
                hart.signals.setStalled(true)
                hart.signals.setStalled(false)
            }
        }
        meddler.start()
        let ours = machine.run()
        isOver.store(true, ordering: .relaxed)
        #expect(ours == expected)
    }

    @Test func `a timer's interrupt is taken in its own tick`() throws {
        let lines = try #require(run(try GuestProgram(Self.program), .hot) { .max })
        let values = lines.compactMap { UInt64($0, radix: 16) }
        // Behind every interrupted address comes how many ticks its interrupt was late.
        let late = values.indices.dropFirst().filter { values[$0 - 1] >> 28 == 8 }.map { values[$0] }
        #expect(late.count >= 300 && late.allSatisfy { $0 == 0 }, "\(late.max() ?? 0)")
    }

    @Test func `guest time is ten nanoseconds an instruction, and waits pass it to the timer`() throws {
        let machine = TestMachine(
            image: [], clock: .instructions)
        machine.store(
            code: [
                0x0000_0013, 0x0000_0013,  // nop, nop
                0xC010_2573,  // rdtime a0
                0x1050_0073,  // wfi
                0xC010_25F3,  // rdtime a1
                0x0000_006F,  // j .
            ], at: TestMachine.ramBase)
        let hart = machine.harts[0]
        #expect(hart.setCSR(0x304, 0x80))
        machine.wires[0].signals.machineTimerDeadline = 1000
        #expect(hart.run(budget: 100) == .waitForInterrupt)
        #expect(hart.retiredInstructions == 4)
        while hart.run(budget: 1) == .waitForInterrupt { hart.waitForInterrupt() }
        #expect(hart.x(10) == 0, "two instructions are less than a tick")
        #expect(hart.x(11) == 1000, "the wait ended at the very tick")
        #expect(hart.retiredInstructions == 5, "and no instruction was made up")
        // From the start of a tick: a thousand instructions later it is a hundred ticks later.
        let before = machine.time.ticks
        #expect(hart.run(budget: 1000) == .budget)
        #expect(machine.time.ticks == before + 100)
    }

    @Test func `alarms are given at their instruction, in order`() throws {
        let machine = TestMachine(image: [], clock: .instructions)
        machine.store(code: [0x0000_006F], at: TestMachine.ramBase)
        let hart = machine.harts[0]
        let given = Mutex<[UInt64]>([])
        let time = machine.time
        for due: UInt64 in [250_000, 33, 999_990, 33, 5000] {
            _ = time.schedule(at: due) { given.withLock { $0.append(time.nanoseconds) } }
        }
        let cancelled = time.schedule(at: 100) { given.withLock { $0.append(0) } }
        time.cancel(cancelled)
        #expect(hart.run(budget: 200_000) == .budget)
        #expect(given.withLock { $0 } == [40, 40, 5000, 250_000, 999_990])
    }
}
