import RISCV
import TestKit
import Testing

/// Every F and D instruction through decoder, interpreter, registers and `fcsr`, against QEMU: edge operands, every
/// rounding mode statically and through `frm`, results and accrued exceptions.
@Suite struct FloatingPointInstructionTests {
    // MARK: operands

    private static let doubles: [UInt64] = [
        0x0000_0000_0000_0000, 0x8000_0000_0000_0000,  // ±0
        0x0000_0000_0000_0001, 0x8000_0000_0000_0001, 0x000F_FFFF_FFFF_FFFF,  // subnormals
        0x0010_0000_0000_0000, 0x8010_0000_0000_0001,  // smallest normals
        0x3FF0_0000_0000_0000, 0xBFF0_0000_0000_0000, 0x3FF0_0000_0000_0001, 0x3FD5_5555_5555_5555,  // ±1, next, 1/3
        0x7FEF_FFFF_FFFF_FFFF, 0xFFEF_FFFF_FFFF_FFFF,  // largest
        0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000,  // ±∞
        0x7FF8_0000_0000_0000, 0xFFF8_0000_DEAD_BEEF, 0x7FF0_0000_0000_0001, 0xFFF4_0000_0000_0000,  // quiet, signaling
    ]
    /// For conversions: halves, and what just fits or does not fit an integer or a single.
    private static let moreDoubles: [UInt64] = [
        0x3FE0_0000_0000_0000, 0xBFE0_0000_0000_0000, 0x3FF8_0000_0000_0000, 0xC004_0000_0000_0000,  // ±½, 1½, −2½
        0x3FDF_FFFF_FFFF_FFFF, 0xBFF0_0000_0000_0001, 0xBFEF_FFFF_FFFF_FFFF,  // below ½, around −1
        0x41DF_FFFF_FFC0_0000, 0x41DF_FFFF_FFE0_0000, 0x41E0_0000_0000_0000, 0xC1E0_0000_0000_0000,  // 2³¹
        0xC1E0_0000_0010_0000, 0xC1E0_0000_0020_0000, 0x41EF_FFFF_FFE0_0000, 0x41EF_FFFF_FFF0_0000,  // 2³²
        0x41F0_0000_0000_0000, 0x43DF_FFFF_FFFF_FFFF, 0x43E0_0000_0000_0000, 0xC3E0_0000_0000_0000,  // 2⁶³
        0xC3E0_0000_0000_0001, 0x43EF_FFFF_FFFF_FFFF, 0x43F0_0000_0000_0000,  // 2⁶⁴
        0x47EF_FFFF_E000_0000, 0x47EF_FFFF_F000_0000, 0x47EF_FFFF_EFFF_FFFF, 0x3810_0000_0000_0000,  // range of singles
        0x380F_FFFF_FFFF_FFFF, 0x380F_FFFF_E000_0000, 0x36A0_0000_0000_0000, 0xB690_0000_0000_0000,
        0x3690_0000_0000_0001, 0x3FF0_0000_1000_0000, 0x3FF0_0000_3000_0000,  // ties of singles
    ]
    private static let singles: [UInt64] =
        [
            0x0000_0000, 0x8000_0000, 0x0000_0001, 0x8000_0001, 0x007F_FFFF, 0x0080_0000, 0x8080_0001,
            0x3F80_0000, 0xBF80_0000, 0x3F80_0001, 0x3EAA_AAAB, 0x7F7F_FFFF, 0xFF7F_FFFF, 0x7F80_0000, 0xFF80_0000,
            0x7FC0_0000, 0xFFC0_BEEF, 0x7F80_0001, 0xFFA0_0000,
        ].map { 0xFFFF_FFFF_0000_0000 | $0 } + unboxed
    /// Not boxed in ones: they read as the canonical NaN, whatever is below.
    private static let unboxed: [UInt64] = [
        0x0000_0000_3F80_0000, 0xFFFF_FFFE_3F80_0000, 0x7FFF_FFFF_BF80_0000, 0xFFFF_0000_7F80_0001,
    ]
    private static let moreSingles: [UInt64] = [
        0x3F00_0000, 0xBF00_0000, 0x3FC0_0000, 0xC020_0000, 0x3EFF_FFFF, 0xBF80_0001, 0xBF7F_FFFF, 0x4EFF_FFFF,
        0x4F00_0000, 0xCF00_0000, 0xCF00_0001, 0x4F7F_FFFF, 0x4F80_0000, 0x5EFF_FFFF, 0x5F00_0000, 0xDF00_0000,
        0xDF00_0001, 0x5F7F_FFFF, 0x5F80_0000,
    ].map { 0xFFFF_FFFF_0000_0000 | $0 }
    private static let integers: [UInt64] = [
        0, 1, 2, 3, 0x7F, 0x00FF_FFFF, 0x0100_0001, 0x0100_0003, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FF7F, 0xFFFF_FFFF,
        0x1_0000_0000, 0x1FFF_FFFF_FFFF_FF, 0x20_0000_0000_0001, 0x20_0000_0000_0003, 0x7FFF_FFFF_FFFF_FDFF,
        0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0x8000_0000_0000_0001, 0xFFFF_FFFF_0000_0001,
        0xFFFF_FFFF_FFFF_FBFF, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_8000_0000, 0x8000_0040_0000_0000,
        0x8000_00C0_0000_0001,
    ]

    private static let tables: [(name: String, values: [UInt64])] = [
        ("doubles", doubles), ("wide_doubles", doubles + moreDoubles), ("singles", singles),
        ("wide_singles", singles + moreSingles), ("integers", integers),
    ]
    private static let data = tables.map { table in
        "\n.balign 8\n\(table.name):\n" + table.values.map { ".dword \($0)\n" }.joined() + "\(table.name)_end:\n"
    }.joined()

    // MARK: instructions

    /// One instruction of the table.
    struct Instruction: Sendable {
        let name: String
        /// Operands as the assembler wants them: results in fa3 or a2, sources fa0, fa1, fa2 or a0.
        let operands: String
        let table: String
        var hasRounding = false

        var arity: Int { operands.contains("fa2") ? 3 : operands.contains("fa1") ? 2 : 1 }
        /// The text with a static rounding mode, or as without one (dynamic).
        func text(_ mode: String? = nil) -> String {
            hasRounding ? "\(name) \(operands), \(mode ?? "dyn")" : "\(name) \(operands)"
        }
    }

    static let instructions: [Instruction] = ["s", "d"].flatMap { format -> [Instruction] in
        let (table, wide) = format == "s" ? ("singles", "wide_singles") : ("doubles", "wide_doubles")
        let other = format == "s" ? "d" : "s"
        var all: [Instruction] = []
        for name in ["fadd", "fsub", "fmul", "fdiv"] {
            all.append(.init(name: "\(name).\(format)", operands: "fa3, fa0, fa1", table: table, hasRounding: true))
        }
        for name in ["fmadd", "fmsub", "fnmsub", "fnmadd"] {
            all.append(
                .init(name: "\(name).\(format)", operands: "fa3, fa0, fa1, fa2", table: table, hasRounding: true))
        }
        all.append(.init(name: "fsqrt.\(format)", operands: "fa3, fa0", table: wide, hasRounding: true))
        for name in ["fsgnj", "fsgnjn", "fsgnjx", "fmin", "fmax"] {
            all.append(.init(name: "\(name).\(format)", operands: "fa3, fa0, fa1", table: table))
        }
        for name in ["feq", "flt", "fle"] {
            all.append(.init(name: "\(name).\(format)", operands: "a2, fa0, fa1", table: table))
        }
        all.append(.init(name: "fclass.\(format)", operands: "a2, fa0", table: wide))
        for integer in ["w", "wu", "l", "lu"] {
            all.append(
                .init(name: "fcvt.\(integer).\(format)", operands: "a2, fa0", table: wide, hasRounding: true))
            all.append(
                .init(name: "fcvt.\(format).\(integer)", operands: "fa3, a0", table: "integers", hasRounding: true))
        }
        all.append(
            .init(
                name: "fcvt.\(other).\(format)", operands: "fa3, fa0", table: wide, hasRounding: true))
        let move = format == "s" ? "w" : "d"
        all.append(.init(name: "fmv.x.\(move)", operands: "a2, fa0", table: wide))
        all.append(.init(name: "fmv.\(move).x", operands: "fa3, a0", table: "integers"))
        return all
    }

    /// Loads and stores, `a4` pointing to scratch memory.
    static let memoryInstructions = [
        "flw fa3, 4(a4)", "fld fa3, 8(a4)", "fsw fa0, 4(a4)", "fsd fa0, 8(a4)", "c.fld fa3, 8(a4)", "c.fsd fa0, 8(a4)",
        "c.fldsp fa3, 8(sp)", "c.fsdsp fa0, 8(sp)",
    ]

    static let modes = ["rne", "rtz", "rdn", "rup", "rmm"]

    // MARK: comparison with QEMU

    /// A loop over all combinations of operands in fa0, fa1 and fa2 (or a0), with each result in a2 and the exceptions
    /// in a3, each handed to `sink`.
    private static func loop(_ arity: Int, _ table: String, _ code: String, _ sink: String) -> String {
        var (open, close) = ("", "")
        for level in 0..<arity {
            open += " la s\(level), \(table)\n\(level + 1):\n"
            close = " addi s\(level), s\(level), 8\n la t0, \(table)_end\n bltu s\(level), t0, \(level + 1)b\n" + close
        }
        for level in 0..<arity { open += " fld fa\(level), 0(s\(level))\n" }
        return " li s4, 0\n la a4, scratch\n\(open) ld a0, 0(s0)\n csrwi fflags, 0\n\(code) csrr a3, fflags\n"
            + " \(sink) a2\n \(sink) a3\n\(close)"
    }

    private struct Case {
        let name: String
        let arity: Int
        let table: String
        let code: String
    }

    private static func cases(_ instruction: Instruction) -> [Case] {
        // Results in a register go through memory, all 64 bits.
        let collect = instruction.operands.hasPrefix("fa3") ? " fsd fa3, 0(a4)\n ld a2, 0(a4)\n" : ""
        func one(_ suffix: String, _ code: String) -> Case {
            Case(
                name: instruction.name + suffix, arity: instruction.arity, table: instruction.table,
                code: code + collect)
        }
        if !instruction.hasRounding { return [one("", " \(instruction.text())\n")] }
        return modes.indices.flatMap { index in
            // The static mode counts although frm says another.
            [
                one(" \(modes[index])", " fsrmi \((index + 1) % 5)\n \(instruction.text(modes[index]))\n"),
                one(" dyn \(modes[index])", " fsrmi \(index)\n \(instruction.text())\n"),
            ]
        }
    }

    /// Runs all cases in both machines, a digest each; of the first that differs, all operands one by one.
    private func compare(_ cases: [Case], sourceLocation: SourceLocation = #_sourceLocation) throws {
        func program(_ text: String) throws -> GuestProgram {
            try GuestProgram("body:\n mv s9, ra\n\(text) mv ra, s9\n ret\n" + Self.data)
        }
        let all = try program(
            cases.map { Self.loop($0.arity, $0.table, $0.code, "digest") + " log s4\n" }.joined())
        let ours = try #require(TestMachine(image: all.image).run())
        let theirs = try all.runInQEMU()
        #expect(ours.count == cases.count && theirs.count == cases.count, sourceLocation: sourceLocation)
        let different = cases.indices.filter { index in
            index >= ours.count || index >= theirs.count || ours[index] != theirs[index]
        }
        guard let first = different.first.map({ cases[$0] }) else { return }
        Issue.record("differ: \(different.map { cases[$0].name })", sourceLocation: sourceLocation)
        let values = Self.tables.first { $0.name == first.table }!.values
        var combinations: [[UInt64]] = [[]]
        for _ in 0..<first.arity { combinations = combinations.flatMap { left in values.map { left + [$0] } } }
        let names = combinations.flatMap { operands in
            ["result", "flags"].map {
                "\(first.name) \(operands.map { String($0, radix: 16) }.joined(separator: ", ")): \($0)"
            }
        }
        try expectSameAsQEMU(
            program(Self.loop(first.arity, first.table, first.code, "log")), names: names,
            sourceLocation: sourceLocation)
    }

    @Test func `instructions of two operands and one compute QEMU's results and flags in every rounding mode`() throws {
        try compare(Self.instructions.filter { $0.arity < 3 }.flatMap(Self.cases))
    }

    @Test func `fused multiply-adds compute QEMU's results and flags in every rounding mode`() throws {
        try compare(Self.instructions.filter { $0.arity == 3 }.flatMap(Self.cases))
    }

    @Test func `loads and stores move every bit pattern, singles boxed`() throws {
        // Each case leaves what a load got in fa3 and what a store left in memory in a2.
        let both = " fsd fa3, 24(a4)\n ld a3, 24(a4)\n slli a3, a3, 1\n xor a2, a2, a3\n"
        let cases = [
            ("fsw, flw", " sd x0, 0(a4)\n fsw fa0, 4(a4)\n ld a2, 0(a4)\n flw fa3, 4(a4)\n"),
            ("fsd, fld", " fsd fa0, 8(a4)\n ld a2, 8(a4)\n fld fa3, 8(a4)\n"),
            ("misaligned singles", " sd x0, 0(a5)\n sd x0, 8(a5)\n fsw fa0, 4(a5)\n ld a2, 0(a5)\n flw fa3, 3(a5)\n"),
            ("misaligned doubles", " fsd fa0, 3(a5)\n ld a2, 3(a5)\n fld fa3, 1(a5)\n"),
            ("c.fsd, c.fld", " c.fsd fa0, 248(a4)\n ld a2, 248(a4)\n c.fld fa3, 248(a4)\n"),
            (
                "c.fsdsp, c.fldsp",
                " mv a6, sp\n mv sp, a4\n c.fsdsp fa0, 504(sp)\n c.fldsp fa3, 504(sp)\n mv sp, a6\n ld a2, 504(a4)\n"
            ),
            ("c.fld at 0", " fsd fa0, 0(a4)\n c.fld fa3, 0(a4)\n mv a2, x0\n"),
            (
                "c.fldsp into f31",
                " mv a6, sp\n mv sp, a4\n fmv.d ft11, fa0\n c.fsdsp ft11, 8(sp)\n c.fldsp ft0, 8(sp)\n mv sp, a6\n fmv.d fa3, ft0\n mv a2, x0\n"
            ),
        ]
        let prologue = " la a5, scratch + 4090\n"
        try compare(
            cases.flatMap { name, code in
                ["wide_doubles", "wide_singles"].map {
                    Case(name: "\(name), \($0)", arity: 1, table: $0, code: prologue + code + both)
                }
            })
    }

    @Test func `one register may be named for everything, and x0 swallows results`() throws {
        try compare(
            ["fadd", "fsub", "fmul", "fdiv", "fsgnjn", "fmin"].flatMap { name in
                [("s", "singles"), ("d", "doubles")].map { format, table in
                    Case(
                        name: "\(name).\(format) in place", arity: 1, table: table,
                        code: " \(name).\(format) fa0, fa0, fa0\n fsd fa0, 0(a4)\n ld a2, 0(a4)\n")
                }
            }
                + [
                    "feq.s x0, fa0, fa1", "flt.d x0, fa0, fa1", "fcvt.w.s x0, fa0", "fcvt.lu.d x0, fa0",
                    "fclass.d x0, fa0", "fmv.x.d x0, fa0",
                ].map {
                    Case(name: $0, arity: 2, table: "doubles", code: " \($0)\n mv a2, x0\n")
                })
    }

    // MARK: random programs

    private static func randomInstruction(_ random: inout SeededGenerator) -> String {
        func f() -> String { "f\(Int.random(in: 0..<32, using: &random))" }
        func x() -> String { "x\(Int.random(in: 8...23, using: &random))" }
        switch Int.random(in: 0..<16, using: &random) {
        case 0..<9:
            let instruction = instructions.randomElement(using: &random)!
            let mode = Bool.random(using: &random) ? modes.randomElement(using: &random)! : nil
            let operands = instruction.operands.split(separator: ", ").map { $0.hasPrefix("fa") ? f() : x() }
            let rounding = instruction.hasRounding ? ", \(mode ?? "dyn")" : ""
            return "\(instruction.name) \(operands.joined(separator: ", "))\(rounding)"
        case 9, 10:
            let (table, offset) = random.next() & 1 == 0 ? ("x30", doubles.count) : ("x29", singles.count)
            return "fld \(f()), \(Int.random(in: 0..<offset, using: &random) * 8)(\(table))"
        case 11: return "flw \(f()), \(Int.random(in: 0..<500, using: &random))(x28)"
        case 12: return "fld \(f()), \(Int.random(in: 0..<500, using: &random))(x28)"
        case 13: return "fsw \(f()), \(Int.random(in: 0..<500, using: &random))(x28)"
        case 14: return "fsd \(f()), \(Int.random(in: 0..<500, using: &random))(x28)"
        default:
            return [
                "fsrmi \(x()), \(Int.random(in: 0..<5, using: &random))",
                "fsflagsi \(x()), \(Int.random(in: 0..<32, using: &random))", "frcsr \(x())", "frflags \(x())",
            ].randomElement(using: &random)!
        }
    }

    @Test(arguments: 0..<3)
    func `random floating-point programs leave the registers, flags and memory that QEMU leaves`(_ run: Int) throws {
        var random = SeededGenerator.fresh()
        // s0–s7 are numbers here; s10 holds the return address, sp the rounds left.
        var text = "body:\n mv s10, ra\n mv gp, sp\n li sp, \(1 + run * 8)\n la x30, doubles\n la x29, singles\n"
        text += " la x28, scratch\n"
        for index in 0..<32 { text += " li t0, \(Int64(truncatingIfNeeded: random.next()))\n fmv.d.x f\(index), t0\n" }
        for index in 8...23 { text += " li x\(index), \(Int64(truncatingIfNeeded: random.next()))\n" }
        text += "again:\n"
        for _ in 0..<2500 { text += " " + Self.randomInstruction(&random) + "\n" }
        text += " addi sp, sp, -1\n beqz sp, 1f\n la t0, again\n jr t0\n1:\n frcsr t0\n log t0\n"
        for index in 8...23 { text += " log x\(index)\n" }
        for index in 0..<32 { text += " fsd f\(index), 1024(x28)\n ld t0, 1024(x28)\n log t0\n" }
        for offset in stride(from: 0, to: 512, by: 8) { text += " ld t0, \(offset)(x28)\n log t0\n" }
        text += " mv sp, gp\n mv ra, s10\n ret\n"
        try expectSameAsQEMU(GuestProgram(text + Self.data), note: "(BASEBOARD_SEED=\(random.seed))")
    }
}

extension FloatingPointInstructionTests {
    // MARK: mstatus.FS and frm

    /// The numbers a program logs in our hart.
    private func log(_ program: GuestProgram) throws -> [UInt64] {
        try #require(TestMachine(image: program.image).run()).map { UInt64($0, radix: 16)! }
    }

    @Test func `with FS off every floating-point instruction and register is illegal`() throws {
        let code =
            Self.instructions.map { $0.text($0.hasRounding ? "rtz" : nil) } + Self.memoryInstructions
            + [
                "flw fa0, 0(x0)", "fsd fa0, 1(x0)", "frcsr a0", "frrm a0", "frflags a0", "fsrmi 1", "fsflagsi 1",
                "fscsr a0",
            ]
        let program = try GuestProgram(
            "body:\n mv s9, ra\n la a4, scratch\n li t0, 0x6000\n csrc mstatus, t0\n"
                + code.map { " \($0)\n" }.joined() + " csrr a0, mstatus\n log a0\n mv ra, s9\n ret\n")
        let values = try log(program)
        #expect(values.count == code.count * 3 + 1)
        let causes = stride(from: 0, to: values.count - 1, by: 3).map { values[$0] }
        #expect(causes == code.map { _ in 2 })
        #expect(values.last.map { $0 & 0x8000_0000_0000_6000 } == 0, "FS stays off")
        try expectSameAsQEMU(program)
    }

    @Test func `what changes a register or fcsr makes FS dirty, what only reads does not`() throws {
        let writing =
            Self.instructions.filter { $0.operands.hasPrefix("fa3") }.map { $0.text() }
            + Self.memoryInstructions.filter { $0.contains("fa3") } + ["fsrmi 1", "fsflagsi 1", "fscsr a0"]
            // Changes fflags only.
            + ["feq.d a2, fa5, fa5", "fcvt.w.s a2, fa5"]
        let reading = Self.memoryInstructions.filter { $0.contains("fa0") } + ["frcsr a0", "frrm a0", "frflags a0"]
        let code = (writing + reading).map {
            // fa5: a signaling NaN. FS becomes clean.
            " li t0, 0x7ff0000000000001\n fmv.d.x fa5, t0\n li t0, 0x6000\n csrc mstatus, t0\n li t0, 0x4000\n"
                + " csrs mstatus, t0\n li a0, 0\n \($0)\n csrr a1, mstatus\n srli a2, a1, 63\n slli a2, a2, 2\n"
                + " srli a1, a1, 13\n andi a1, a1, 3\n or a1, a1, a2\n log a1\n"
        }
        let values = try log(
            GuestProgram(
                "body:\n mv s9, ra\n mv s8, sp\n la a4, scratch\n mv sp, a4\n\(code.joined())"
                    + " csrw fcsr, x0\n mv sp, s8\n mv ra, s9\n ret\n"))
        // SD above FS: 7 is dirty, 2 is clean.
        let all = writing + reading
        #expect(values.count == all.count)
        for (index, value) in values.enumerated() where index < all.count {
            #expect(value == (index < writing.count ? 7 : 2), "\(all[index])")
        }
    }

    @Test(arguments: [5, 6, 7])
    func `a reserved frm makes dynamic rounding illegal and nothing else`(_ mode: Int) throws {
        let rounded = Self.instructions.filter(\.hasRounding)
        let legal = rounded.map { $0.text("rdn") } + Self.instructions.filter { !$0.hasRounding }.map { $0.text() }
        let program = try GuestProgram(
            "body:\n mv s9, ra\n fsrmi \(mode)\n" + (rounded.map { $0.text() } + legal).map { " \($0)\n" }.joined()
                + " frcsr a0\n log a0\n csrw fcsr, x0\n mv ra, s9\n ret\n")
        let values = try log(program)
        #expect(values.count == rounded.count * 3 + 1)
        let causes = stride(from: 0, to: values.count - 1, by: 3).map { values[$0] }
        #expect(causes == rounded.map { _ in 2 })
        #expect(values.last.map { $0 >> 5 } == UInt64(mode), "frm keeps what was written")
        try expectSameAsQEMU(program)
    }

    @Test(arguments: [5, 6])
    func `a reserved static rounding mode is illegal whatever frm says`(_ mode: Int) throws {
        // The same words as with rounding mode 0, bits 14:12 replaced in the image.
        let rounded = Self.instructions.filter(\.hasRounding)
        let program = try GuestProgram("body:\n" + rounded.map { " \($0.text("rne"))\n" }.joined())
        let plain = program.image
        let start = try #require(
            (0..<plain.count / 2).map { $0 * 2 }.first { Self.word(plain, $0) == 0x00B5_06D3 },
            "fadd.s fa3, fa0, fa1 is the first")
        let words = rounded.indices.map { Self.word(plain, start + $0 * 4) | UInt32(mode) << 12 }
        let reserved = try GuestProgram(
            "body:\n mv s9, ra\n" + words.map { " .4byte \($0)\n" }.joined() + " mv ra, s9\n ret\n")
        let values = try log(reserved)
        #expect(values.count == words.count * 3)
        for (index, word) in words.enumerated() where index * 3 + 1 < values.count {
            #expect(values[index * 3] == 2 && values[index * 3 + 1] == UInt64(word), "\(rounded[index].name)")
        }
        try expectSameAsQEMU(reserved)
    }

    private static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(offset + $1 < bytes.count ? bytes[offset + $1] : 0) << UInt32($1 * 8) }
    }
}
