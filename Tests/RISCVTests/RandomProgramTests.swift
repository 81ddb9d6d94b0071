import RISCV
import TestKit
import Testing

/// Programs of random instructions, run by our hart and by QEMU, which must end with the same registers and memory.
@Suite struct RandomProgramTests {
    /// x31, x30 and x27 (s11) are not touched: trap handler and log.
    private static let registers = (1...26).map { "x\($0)" } + ["x28", "x29", "x0"]

    private static let threeOperands = """
        add sub sll slt sltu xor srl sra or and addw subw sllw srlw sraw mul mulh mulhsu mulhu div divu rem remu
        mulw divw divuw remw remuw sh1add sh2add sh3add add.uw sh1add.uw sh2add.uw sh3add.uw andn orn xnor max maxu
        min minu rol ror rolw rorw bclr bext binv bset
        """.split { " \n".contains($0) }.map(String.init)
    private static let withImmediate = ["addi", "slti", "sltiu", "xori", "ori", "andi", "addiw"]
    private static let withAmount = ["slli", "srli", "srai", "rori", "bclri", "bexti", "binvi", "bseti", "slli.uw"]
    private static let withWordAmount = ["slliw", "srliw", "sraiw", "roriw"]
    private static let unary = [
        "clz", "ctz", "cpop", "clzw", "cpopw", "sext.b", "sext.h", "zext.h", "orc.b", "rev8", "mv", "neg", "not",
    ]
    private static let branches = ["beq", "bne", "blt", "bge", "bltu", "bgeu"]
    private static let loads = [("lb", 1), ("lh", 2), ("lw", 4), ("ld", 8), ("lbu", 1), ("lhu", 2), ("lwu", 4)]
    private static let stores = [("sb", 1), ("sh", 2), ("sw", 4), ("sd", 8)]
    private static let atomics = ["swap", "add", "xor", "and", "or", "min", "max", "minu", "maxu"]

    /// What ends blocks or reaches memory in other ways: atomics, reservations, calls, far jumps, CSRs, code that is
    /// rewritten. x31 holds an address for a moment.
    private func rarity(
        _ rd: String, _ rs1: String, _ rs2: String, _ label: inout Int, _ random: inout SeededGenerator
    ) -> String {
        let width = Bool.random(using: &random) ? "w" : "d"
        let place = "addi x31, x30, \(Int.random(in: -256...255, using: &random) * 8)\n "
        label += 1
        switch Int.random(in: 0..<9, using: &random) {
        case 0, 1:
            let order = ["", ".aq", ".rl", ".aqrl"].randomElement(using: &random)!
            return place + "amo\(Self.atomics.randomElement(using: &random)!).\(width)\(order) \(rd), \(rs2), (x31)"
        case 2: return place + "lr.\(width) \(rd), (x31)\n sc.\(width) \(rs1), \(rs2), (x31)"
        case 3:
            // Fails: the place is another one, or was reserved and stored to already, or holds another value by now.
            let between = [
                "addi x31, x31, 8", "sc.\(width) \(rd), \(rs1), (x31)",
                "ld \(rd), 0(x31)\n not \(rd), \(rd)\n sd \(rd), 0(x31)",
            ].randomElement(using: &random)!
            return "addi x31, x30, 16\n lr.\(width) \(rd), (x31)\n \(between)\n sc.\(width) \(rd), \(rs2), (x31)"
        case 4: return "call leaf\(Int.random(in: 0..<4, using: &random))"
        case 5:
            let link = ["x0", "x1", "x5", rd].randomElement(using: &random)!
            return "la x31, .L\(label)\n jalr \(link), 0(x31)\n.L\(label):"
        case 6:
            let csr = ["mscratch", "sscratch"].randomElement(using: &random)!
            let name = ["csrrw", "csrrs", "csrrc"].randomElement(using: &random)!
            return "\(name) \(rd), \(csr), \(rs1)\n csrrwi \(rs2), \(csr), \(label % 32)"
        case 7:
            // An instruction is replaced before it runs.
            let kinds = [
                "addi \(rd), \(rs1), \(label % 2048)", "xor \(rd), \(rs1), \(rs2)", "sub \(rs2), \(rd), \(rs1)",
            ]
            let word = kinds.randomElement(using: &random)!
            // x0 would replace it by an illegal one, whose handler uses x30.
            let rd = rd == "x0" ? "x7" : rd
            return """
                la x31, .L\(label)
                 lw \(rd), 4(x31)
                 sw \(rd), 0(x31)
                 fence.i
                 j .L\(label)
                 .option push
                 .option norvc
                 .balign 4
                .L\(label): add \(rd), \(rd), \(rs1)
                 \(word)
                 .option pop
                """
        default: return "fence\n fence.i\n auipc \(rd), 0\n la \(rs1), _start\n sub \(rd), \(rd), \(rs1)"
        }
    }

    /// Functions to call, with blocks of several lengths and a loop.
    private static let leaves = """
        leaf0: ret
        leaf1: addi x8, x8, 1
         ret
        leaf2: andi x9, x9, 7
        1: addi x8, x8, 3
         addi x9, x9, -1
         bgtz x9, 1b
         ret
        leaf3: beqz x10, 1f
         xor x11, x11, x10
         jr ra
        1: sub x12, x12, x11
         ret

        """

    private func instruction(_ label: inout Int, _ pending: inout [Int], _ random: inout SeededGenerator) -> String {
        let r = Self.registers
        func register() -> String { r.randomElement(using: &random)! }
        /// Often the same few registers, so that values meet.
        func near() -> String { Bool.random(using: &random) ? register() : r[Int.random(in: 7...14, using: &random)] }
        let (rd, rs1, rs2) = (near(), near(), near())
        switch Int.random(in: 0..<22, using: &random) {
        case 0..<7: return "\(Self.threeOperands.randomElement(using: &random)!) \(rd), \(rs1), \(rs2)"
        case 7..<10:
            let immediate = Int.random(in: -2048...2047, using: &random)
            return "\(Self.withImmediate.randomElement(using: &random)!) \(rd), \(rs1), \(immediate)"
        case 10:
            let amount = Int.random(in: 0..<64, using: &random)
            return "\(Self.withAmount.randomElement(using: &random)!) \(rd), \(rs1), \(amount)"
        case 11:
            let amount = Int.random(in: 0..<32, using: &random)
            return "\(Self.withWordAmount.randomElement(using: &random)!) \(rd), \(rs1), \(amount)"
        case 12: return "\(Self.unary.randomElement(using: &random)!) \(rd), \(rs1)"
        case 13:
            // Pairs that compilers generate, whole and broken up.
            let value = Int.random(in: 0..<0x100000, using: &random)
            let low = Int.random(in: -2048...2047, using: &random)
            let second = Bool.random(using: &random) ? rd : rs1
            let kinds = [
                "lui \(rd), \(value)\n addiw \(rd), \(second), \(low)",
                "lui \(rd), \(value)\n addi \(rd), \(second), \(low)",
                "slli \(rd), \(rs1), \(value % 64)\n srli \(rd), \(second), \(abs(low) % 64)",
                "auipc \(rd), 16\n addi \(rd), \(rd), \(low)\n la \(rs2), _start\n sub \(rd), \(rd), \(rs2)",
            ]
            return kinds.randomElement(using: &random)!
        case 14, 15:
            // Forward over a few instructions; labels are placed as they come due.
            label += 1
            pending.append(label)
            return "\(Self.branches.randomElement(using: &random)!) \(rs1), \(rs2), .L\(label)"
        case 20, 21: return rarity(rd, rs1, rs2, &label, &random)
        case 16, 17:
            let (name, width) = Self.loads.randomElement(using: &random)!
            let place = Int.random(in: -2048...(2047 - width), using: &random)
            return "\(name) \(rd), \(Bool.random(using: &random) ? place : place & -width)(x30)"
        default:
            let (name, width) = Self.stores.randomElement(using: &random)!
            let place = Int.random(in: -2048...(2047 - width), using: &random)
            return "\(name) \(rs2), \(Bool.random(using: &random) ? place : place & -width)(x30)"
        }
    }

    /// A body of `count` random instructions repeated `rounds` times, after which everything is logged.
    private func program(count: Int, rounds: Int, _ random: inout SeededGenerator) -> String {
        var text = "body:\n la t5, saved\n sd ra, 0(t5)\n sd sp, 8(t5)\n li t6, \(rounds)\n sd t6, 16(t5)\n"
        for index in 1...26 { text += " li x\(index), \(Int64(truncatingIfNeeded: random.next()))\n" }
        text += " li x28, \(Int64(truncatingIfNeeded: random.next()))\n li x29, 3\n"
        text += "again:\n la x30, scratch + 2048\n"
        var label = 0
        var pending: [Int] = []
        for _ in 0..<count {
            text += " " + instruction(&label, &pending, &random) + "\n"
            if !pending.isEmpty && Int.random(in: 0..<3, using: &random) == 0 {
                text += pending.map { ".L\($0):\n" }.joined()
                pending = []
            }
        }
        text += pending.map { ".L\($0):\n" }.joined()
        text += " la x30, saved\n ld x31, 16(x30)\n addi x31, x31, -1\n sd x31, 16(x30)\n beqz x31, 1f\n"
        text += " la x31, again\n jr x31\n1:\n"
        for index in 1...26 { text += " log x\(index)\n" }
        text += " log x28\n log x29\n li s5, 0x9E3779B97F4A7C15\n li s4, 0\n la a0, scratch\n li a1, 512\n"
        text += "2: ld a2, 0(a0)\n digest a2\n addi a0, a0, 8\n addi a1, a1, -1\n bnez a1, 2b\n log s4\n"
        text += " la t5, saved\n ld ra, 0(t5)\n ld sp, 8(t5)\n ret\n \(Self.leaves) .balign 8\nsaved: .zero 24\n"
        return text
    }

    @Test(arguments: 0..<4)
    func `random programs leave the registers and memory that QEMU leaves`(_ run: Int) throws {
        var random = SeededGenerator.fresh()
        let text = program(count: 2500, rounds: 1 + run * 3, &random)
        try expectSameAsQEMU(GuestProgram(text), note: "(BASEBOARD_SEED=\(random.seed))")
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `random words never end the process and always use up their budget`(
        _ translation: HartConfiguration.Translation
    ) {
        var random = SeededGenerator.fresh()
        for _ in 0..<40 {
            let machine = TestMachine(image: random.bytes(65536), ramSize: 1 << 20, translation: translation)
            let hart = machine.harts[0]
            // Any trap goes on at random code again.
            for index in 1..<32 {
                hart.setX(index, random.next() & 0x8000_0000 | UInt64.random(in: 0..<0x10_0000, using: &random))
            }
            var left = 200
            while left > 0 {
                left -= 1
                if hart.run(budget: 500) == .stopRequested { machine.wires[0].signals.clearStop() }
                if left % 10 == 0 {
                    hart.pc = 0x8000_0000 + UInt64.random(in: 0..<65536, using: &random)
                    machine.wires[0].signals.set(.machineSoftware, Bool.random(using: &random))
                }
            }
            #expect(machine.harts[0].x(0) == 0, "seed \(random.seed)")
        }
    }
}
