import Foundation
import RISCV
import TestKit
import Testing

/// What harts of one machine may see of each other's memory accesses: litmus tests, many rounds on threads of their own,
/// and reservations step by step.
@Suite struct MemoryModelTests {
    private static let base = TestMachine.ramBase
    /// Shared words, above every program.
    private static let data = base + 0x10_0000

    /// Runs one program on every hart, each on a thread, until each has counted itself done at `data` + 0xFC0. `body`
    /// gets a0 = mhartid, s0 = data, s1 = rounds and may use every register.
    private func run(
        harts count: Int, rounds: Int, _ translation: HartConfiguration.Translation, _ body: String,
        prepare: (TestMachine) -> Void = { _ in }
    ) throws -> TestMachine {
        let program = try GuestProgram(
            """
            body:
                csrr a0, mhartid
                li s0, \(Self.data)
                li s1, \(rounds)
            \(body)
                fence rw, rw
                li t0, 0xFC0
                add t0, t0, s0
                li t1, 1
                amoadd.d x0, t1, (t0)
            wait: j wait
            """)
        let machine = TestMachine(harts: count, image: program.image, translation: translation)
        prepare(machine)
        let threads = machine.harts.map { hart in
            let thread = Thread { while hart.run(budget: 100_000) != .stopRequested {} }
            thread.stackSize = 1 << 20
            thread.start()
            return thread
        }
        let isDone = eventually(within: .seconds(60)) { machine.load(Self.data + 0xFC0) == UInt64(count) }
        for wires in machine.wires { wires.signals.requestStop() }
        #expect(eventually { threads.allSatisfy(\.isFinished) })
        #expect(isDone, "only \(machine.load(Self.data + 0xFC0)) harts came to their end")
        return machine
    }

    @Test(
        arguments: HartConfiguration.Translation.allCases, ["fence w, w|fence r, r", "fence|fence", "release|acquire"])
    func `a message is never seen before what it announces`(
        _ translation: HartConfiguration.Translation, _ ordering: String
    ) throws {
        let parts = ordering.split(separator: "|")
        let byAtomics = ordering == "release|acquire"
        let send = byAtomics ? "addi t2, s0, 512\n amoswap.d.rl x0, t0, (t2)" : "\(parts[0])\n sd t0, 512(s0)"
        let receive = byAtomics ? "addi t2, s0, 512\n lr.d.aq t3, (t2)" : "ld t3, 512(s0)\n \(parts[1])"
        // Hart 0 writes ever larger numbers, the other must not see the second behind the first.
        let machine = try run(
            harts: 2, rounds: 300_000, translation,
            """
                li t0, 0
                bnez a0, 2f
            1:  addi t0, t0, 1
                sd t0, 0(s0)
                \(send)
                bne t0, s1, 1b
                j 4f
            2:  \(receive)
                ld t4, 0(s0)
                bltu t4, t3, 3f
                bne t3, s1, 2b
                j 4f
            3:  li t5, 1
                sd t5, 1024(s0)
            4:
            """)
        #expect(machine.load(Self.data + 1024) == 0, "a message came before its content")
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `of two harts that store and then look, with fences between, one sees the other`(
        _ translation: HartConfiguration.Translation
    ) throws {
        // Each stores the round to its word, looks at the other's, keeps what it saw; after a barrier hart 0 judges.
        let barrier = """
                fence rw, rw
                addi t6, t6, 2
                addi t5, s0, 1024
                li t4, 1
                amoadd.d x0, t4, (t5)
            5:  ld t4, 1024(s0)
                bltu t4, t6, 5b
                fence rw, rw

            """
        let machine = try run(
            harts: 2, rounds: 20_000, translation,
            """
                li t6, 0
                slli t0, a0, 8
                add s2, s0, t0         # own word
                xori t0, t0, 256
                add s3, s0, t0         # the other's
                li s4, 0
            1:  addi s4, s4, 1
                sd s4, 0(s2)
                fence rw, rw
                ld t0, 0(s3)
                sd t0, 8(s2)
            \(barrier)
                bnez a0, 2f
                ld t0, 8(s2)
                ld t1, 8(s3)
                bgeu t0, s4, 2f
                bgeu t1, s4, 2f
                ld t0, 1536(s0)
                addi t0, t0, 1
                sd t0, 1536(s0)
            2:
            \(barrier)
                bne s4, s1, 1b
            """)
        #expect(machine.load(Self.data + 1536) == 0, "rounds in which neither store was seen")
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `a stack without locks keeps all its nodes, though nodes come back to its top`(
        _ translation: HartConfiguration.Translation
    ) throws {
        // Every hart takes two nodes by LR/SC and puts them back in the other order: the textbook's ABA.
        let nodes: UInt64 = 4
        let pop = { (register: String, label: Int) in
            """
            \(label):  lr.d.aqrl \(register), (s0)
                beqz \(register), \(label)b
                ld t0, 0(\(register))
                sc.d.rl t1, t0, (s0)
                bnez t1, \(label)b

            """
        }
        let push = { (register: String, label: Int) in
            """
            \(label):  lr.d.aqrl t0, (s0)
                sd t0, 0(\(register))
                fence w, w
                sc.d.rl t1, \(register), (s0)
                bnez t1, \(label)b

            """
        }
        let machine = try run(
            harts: 2, rounds: 100_000, translation,
            "1:\n" + pop("s2", 2) + pop("s3", 3) + push("s2", 4) + push("s3", 5) + " addi s1, s1, -1\n bnez s1, 1b\n"
        ) { machine in
            for index in 0..<nodes {
                let node = Self.data + 0x1000 + index * 64
                machine.store(node, index == nodes - 1 ? 0 : node + 64)
            }
            machine.store(Self.data, Self.data + 0x1000)
        }
        var found: Set<UInt64> = []
        var node = machine.load(Self.data)
        while node != 0 && found.count <= Int(nodes) && found.insert(node).inserted { node = machine.load(node) }
        #expect(found.count == Int(nodes) && node == 0, "\(found.count) nodes are left of \(nodes)")
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `counters of four harts lose nothing, by AMOs and by LR and SC on one line`(
        _ translation: HartConfiguration.Translation
    ) throws {
        let machine = try run(
            harts: 4, rounds: 20_000, translation,
            """
                addi a2, s0, 8
                addi a3, s0, 16
                li a1, 1
            1:  amoadd.d x0, a1, (s0)
            2:  lr.d t0, (a2)
                add t0, t0, a1
                sc.d t1, t0, (a2)
                bnez t1, 2b
                amoadd.w x0, a1, (a3)
            3:  lr.w t0, (a3)
                add t0, t0, a1
                sc.w t1, t0, (a3)
                bnez t1, 3b
                addi s1, s1, -1
                bnez s1, 1b
            """)
        #expect(machine.load(Self.data) == 80_000)
        #expect(machine.load(Self.data + 8) == 80_000)
        #expect(machine.load(Self.data + 16) == 160_000)
    }

    // MARK: step by step

    /// lr.d x5, (x10)
    private static let reserve: UInt32 = 0x1005_32AF
    /// sc.d x6, x11, (x10)
    private static let storeConditional: UInt32 = 0x18B5_332F
    /// amoswap.d x7, x11, (x10)
    private static let swap: UInt32 = 0x08B5_33AF
    /// sd x11, 0(x10)
    private static let store: UInt32 = 0x00B5_3023

    /// Hart 0 reserves; hart 1 does `others` with x11 = 2, then 1, as memory is 1 at first; hart 0 stores 5.
    private func isStored(_ others: [UInt32], distance: UInt64 = 0) -> Bool {
        let machine = TestMachine(harts: 2, image: [])
        machine.store(Self.data, 1)
        machine.store(Self.data + distance, 1)
        machine.store(code: [Self.reserve, Self.storeConditional], at: Self.base)
        machine.store(code: others, at: Self.base + 0x1000)
        let (first, second) = (machine.harts[0], machine.harts[1])
        first.setX(10, Self.data)
        first.setX(11, 5)
        second.pc = Self.base + 0x1000
        second.setX(10, Self.data + distance)
        #expect(first.run(budget: 1) == .budget && first.x(5) == 1)
        for index in others.indices {
            second.setX(11, index % 2 == 0 ? 2 : 1)
            _ = second.run(budget: 1)
        }
        _ = first.run(budget: 1)
        #expect(machine.load(Self.data) == (first.x(6) == 0 ? 5 : machine.load(Self.data)))
        return first.x(6) == 0
    }

    @Test func `a reservation is lost when another hart writes the line atomically, even if the value comes back`() {
        #expect(isStored([]))
        #expect(!isStored([Self.swap]))
        #expect(!isStored([Self.swap, Self.swap]))
        #expect(!isStored([Self.reserve, Self.storeConditional]))
        #expect(!isStored([Self.swap, Self.swap], distance: 8))
        #expect(!isStored([Self.store]))
        // Another line, or a reservation alone, changes nothing.
        #expect(isStored([Self.swap, Self.swap], distance: 4096))
        #expect(isStored([Self.reserve]))
    }
}
