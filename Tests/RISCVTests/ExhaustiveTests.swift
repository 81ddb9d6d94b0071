import RISCV
import TestKit
import Testing

/// What random programs rarely meet: every compressed encoding, CSRs under random writes, accesses across two pages.
@Suite struct ExhaustiveTests {
    /// Runs every 16-bit encoding that does not jump, each from the same registers, and logs what it left: a digest of
    /// registers, memory and traps every sixteen encodings.
    @Test func `every compressed encoding does, or refuses, what QEMU's does`() throws {
        let registers = (1...31).map { "x\($0)" }
        var text = """
            body:
                la t5, kept
                sd ra, 0(t5)
                sd sp, 8(t5)
                sd s11, 16(t5)
                la t0, caught
                csrw mtvec, t0
                la t0, after
                csrw mscratch, t0
                # x31 is loaded last, from `before`.
                li a0, 0
            next:
                # Encodings that jump: c.j, c.beqz, c.bnez; c.jr, c.jalr, c.ebreak.
                andi t0, a0, 3
                srli t1, a0, 13
                li t2, 1
                bne t0, t2, 1f
                li t2, 5
                bge t1, t2, skip
                j 2f
            1:  li t2, 3
                beq t0, t2, skip
                li t2, 2
                bne t0, t2, 2f
                li t2, 4
                bne t1, t2, 2f
                andi t0, a0, 0x7c
                beqz t0, skip
            2:  la t0, number
                sd a0, 0(t0)
                la t0, slot
                sh a0, 0(t0)
                fence.i
                la x31, before

            """
        for index in 1...30 { text += " ld x\(index), \(index * 8)(x31)\n" }
        text += """
                ld x31, 248(x31)
                .balign 4
            slot:
                .hword 1
                .option push
                .option norvc
                csrrw x31, mscratch, x31

            """
        for index in 1...30 { text += " sd x\(index), \(index * 8)(x31)\n" }
        text += """
                csrr x1, mscratch
                sd x1, 248(x31)
                csrw mscratch, x31
                li a4, 0
                j both
                .balign 4
            caught:
                csrrw x31, mscratch, x31

            """
        for index in 1...30 { text += " sd x\(index), \(index * 8)(x31)\n" }
        text += """
                csrr x1, mscratch
                sd x1, 248(x31)
                csrw mscratch, x31
                csrr a4, mcause
                # QEMU leaves mtval of a breakpoint at 0.
                li t0, 3
                beq a4, t0, both
                csrr t0, mtval
                slli t0, t0, 8
                xor a4, a4, t0
            both:
                .option pop
                la t0, digests
                ld s4, 0(t0)
                ld s5, 8(t0)
                digest a4
                csrr a4, fcsr
                digest a4
                csrw fcsr, x0
                la t1, after
                addi t1, t1, 8
                li t2, 31
            3:  ld t3, 0(t1)
                digest t3
                addi t1, t1, 8
                addi t2, t2, -1
                bnez t2, 3b
                sd s4, 0(t0)
                la t0, number
                ld a0, 0(t0)
                andi t1, a0, 15
                li t2, 15
                bne t1, t2, skip
                la t5, kept
                ld s11, 16(t5)
                log s4
                sd s11, 16(t5)
            skip:
                addi a0, a0, 1
                li t0, 0x10000
                and t1, a0, t0
                beqz t1, next
                la t5, kept
                ld ra, 0(t5)
                ld sp, 8(t5)
                ld s11, 16(t5)
                la a1, scratch
                li a2, 1024
                li s4, 0
                li s5, 0x9E3779B97F4A7C15
            5:  ld a3, 0(a1)
                digest a3
                addi a1, a1, 8
                addi a2, a2, -1
                bnez a2, 5b
                log s4
                ret
                .balign 8
            kept: .zero 24
            number: .zero 8
            digests: .dword 0, 0x9E3779B97F4A7C15
            before: .dword 0

            """
        for register in registers {
            // Bases of compressed accesses point into the middle of the scratch area; others are numbers.
            let isBase = register == "x2" || (8...15).contains(Int(register.dropFirst())!)
            text +=
                isBase
                ? " .dword scratch + \(2048 + 8 * Int(register.dropFirst())!)\n"
                : " .dword 0x8123456789abc0\(10 + Int(register.dropFirst())!)\n"
        }
        text += "after: .zero 256\n"
        try expectSameAsQEMU(GuestProgram(text))
    }

    /// Random CSR instructions with random operands: what is read is compared, in the bits that both machines have.
    @Test func `CSRs under random writes, sets and clears keep what QEMU's keep`() throws {
        var random = SeededGenerator.fresh()
        // The bits where specification and QEMU 7.2 agree (TrapTests tells why the others are left out).
        let registers: [(name: String, mask: UInt64)] = [
            ("mstatus", 0x8000_0000_007E_61AA), ("sstatus", 0x8000_0000_000C_6122), ("medeleg", 0xB1FE),
            ("mideleg", 0x222), ("mie", 0xAAA), ("sie", 0x222), ("mcounteren", 7), ("scounteren", 7), ("mtvec", .max),
            ("stvec", .max), ("mscratch", .max), ("sscratch", .max), ("mepc", .max - 1), ("sepc", .max - 1),
            ("mcause", .max), ("scause", .max), ("mtval", .max), ("stval", .max), ("satp", .max), ("fflags", .max),
            ("frm", .max), ("fcsr", .max), ("pmpaddr3", (1 << 54) - 1), ("pmpaddr15", (1 << 54) - 1),
            ("mcountinhibit", 5), ("mip", 0x222),
        ]
        var text = "body:\n"
        var names: [String] = []
        for index in 0..<600 {
            let (name, mask) = registers.randomElement(using: &random)!
            var value = [random.next(), random.next(), 0, .max, 1 << (random.next() % 64), random.next() & 0xFFF]
                .randomElement(using: &random)!
            if name == "mstatus" || name == "sstatus" {
                // No MPRV (the log would go elsewhere), no interrupts, no reserved MPP, FS stays on.
                value = value & ~0x2_1888 | 0x6000
            }
            // Reserved values of tvec's mode are kept differently: only direct and vectored.
            if name.hasSuffix("tvec") { value &= ~2 }
            // QEMU knows what satp holds by mode alone; all of ours are its.
            if name == "satp" { value = value & (.max >> 4) | [0, 8, 9, 10, 5].randomElement(using: &random)! << 60 }
            let operation =
                name.hasSuffix("status") || name == "satp" || name.hasSuffix("tvec")
                ? "csrrw" : ["csrrw", "csrrs", "csrrc"].randomElement(using: &random)!
            let saved = "csrr s3, \(name)\n"
            let keepsOld = name.hasSuffix("status") || name == "mtvec" || name == "mie" || name == "mip"
            text += " \(saved) li a0, \(Int64(bitPattern: value))\n \(operation) a1, \(name), a0\n csrr a2, \(name)\n"
            if keepsOld { text += " csrw \(name), s3\n" }
            text += " li a3, \(Int64(bitPattern: mask))\n and a1, a1, a3\n and a2, a2, a3\n log a1\n log a2\n"
            names += ["\(index): \(name) before \(operation)", "\(index): \(name) after \(operation) \(value)"]
        }
        text += " csrw satp, x0\n csrw medeleg, x0\n csrw mideleg, x0\n csrw mcountinhibit, x0\n ret\n"
        try expectSameAsQEMU(GuestProgram(text), names: names, note: "(BASEBOARD_SEED=\(random.seed))")
    }

    /// Two neighbouring pages with every pair of permissions, and accesses of every width over their border.
    @Test func `an access across two pages faults at the byte that may not be touched, and stores nothing then`() throws
    {
        // Valid with A and D: none, R, RW, RX, RWX, X.
        let permissions = [0, 0xC3, 0xC7, 0xCB, 0xCF, 0xC9]
        var text = """
            body:
                mv s9, ra
                li t0, -1
                csrw pmpaddr0, t0
                li t0, 31
                csrw pmpcfg0, t0
                la s10, out
                # Root: 1 GiB identity of RAM (entry 2) for code, entry 0 leads to two tables and two pages.
                la t0, tables
                srli t1, t0, 12
                li t2, 8 << 60
                or t2, t2, t1
                csrw satp, t2
                li t1, 0x200000cf
                sd t1, 16(t0)
                li t2, 4096
                add t1, t0, t2
                srli t1, t1, 2
                ori t1, t1, 1
                sd t1, 0(t0)
                add t3, t0, t2
                add t1, t3, t2
                srli t1, t1, 2
                ori t1, t1, 1
                sd t1, 0(t3)
                add s7, t3, t2
                csrr s1, mstatus
                li s6, 0x20800         # MPRV, MPP = S
                li t1, 0x1800
                not t1, t1
                and s1, s1, t1
                or s6, s6, s1
                la s8, scratch
                li a1, 0

            """
        // Frames in reverse order: what is adjacent virtually is not physically.
        for first in permissions {
            for second in permissions {
                // Where neither page can be stored to, either may be told: QEMU tells one or the other.
                let isTold = (first | second) & 4 != 0
                text += " la t0, scratch + 4096\n srli t0, t0, 2\n ori t0, t0, \(first & 0x3F)\n"
                text += first & 0xC0 != 0 ? " ori t0, t0, 0xC0\n" : ""
                text += " sd t0, 0(s7)\n la t0, scratch\n srli t0, t0, 2\n ori t0, t0, \(second & 0x3F)\n"
                text += second & 0xC0 != 0 ? " ori t0, t0, 0xC0\n" : ""
                text += " sd t0, 8(s7)\n sfence.vma\n li s4, 0\n"
                for (width, load, store) in [(2, "lh", "sh"), (4, "lwu", "sw"), (8, "ld", "sd")] {
                    for offset in [4096 - width + 1, 4095] {
                        text += """
                             li s3, \(offset)
                             li a0, \(0x1122_3344_5566_7788 &* (offset & 7))
                             csrw mstatus, s6
                             \(load) a1, 0(s3)
                             csrw mstatus, s6       # a trap changed MPP
                             \(isTold ? "\(store) a0, 0(s3)" : "nop")
                             csrw mstatus, s1
                             digest a1

                            """
                    }
                }
                // What memory holds now around the border.
                text += " ld a1, 0(s8)\n digest a1\n li t0, 8184\n add t0, t0, s8\n ld a1, 0(t0)\n digest a1\n log s4\n"
            }
        }
        text += "out:\n csrw satp, x0\n mv ra, s9\n ret\n"
        try expectSameAsQEMU(GuestProgram(text))
    }
}
