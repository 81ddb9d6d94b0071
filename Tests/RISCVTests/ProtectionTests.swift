import RISCV
import Testing

/// PMP: matching, priority, partial matches, locks; compared with QEMU.
@Suite struct ProtectionTests {
    /// Tries accesses around the scratch area in user mode (and machine mode) under entries given as (cfg, address),
    /// addresses relative to scratch in bytes; NAPOT sizes are added by `size`.
    private func program(_ entries: [(configuration: Int, offset: Int, size: Int)], lastAllows: Bool) throws
        -> GuestProgram
    {
        var text = "body:\n mv s9, ra\n la s2, scratch\n li s4, 0\n"
        var configuration: UInt64 = 0
        for (index, entry) in entries.enumerated() {
            text += " li t0, \(entry.offset)\n add t0, t0, s2\n srli t0, t0, 2\n"
            if entry.configuration & 0x18 == 0x18 { text += " li t1, \(entry.size / 8 - 1)\n or t0, t0, t1\n" }
            text += " csrw pmpaddr\(index), t0\n"
            configuration |= UInt64(entry.configuration) << UInt64(index * 8)
        }
        if lastAllows {
            text += " li t0, -1\n csrw pmpaddr\(entries.count), t0\n"
            configuration |= 0x1F << UInt64(entries.count * 8)
        }
        text += " li t0, \(configuration)\n csrw pmpcfg0, t0\n csrr t0, pmpcfg0\n log t0\n"
        text += " csrr s1, mstatus\n li s6, 0x20000\n or s6, s6, s1\n"
        for offset in [0, 4, 8, 12, 16, 60, 64, 68, 4088, 4092, 4096, 4100] {
            for code in ["lb a0, 0(s3)", "lw a0, 0(s3)", "ld a0, 0(s3)", "sb x0, 0(s3)", "sw x0, 0(s3)"] {
                if code.contains("d a0") && offset % 8 != 0 { continue }
                text += " li t0, \(offset)\n add s3, s2, t0\n csrw mstatus, s6\n \(code)\n csrw mstatus, s1\n"
                text += " \(code)\n"
            }
        }
        text += " mv ra, s9\n ret\n"
        return try GuestProgram(text)
    }

    @Test(arguments: [
        // NA4, NAPOT 8, NAPOT 64, TOR, permissions missing one by one, priority of the lower entry.
        [(0x17, 4, 0)], [(0x11, 4, 0)], [(0x19, 8, 8)], [(0x1B, 0, 64)], [(0x19, 0, 4096)], [(0x1F, 4096, 4096)],
        [(0x00, 8, 0), (0x0B, 64, 0)], [(0x00, 64, 0), (0x0F, 8, 0)], [(0x18, 0, 64), (0x1F, 0, 4096)],
        [(0x10, 4, 0), (0x1B, 0, 16), (0x18, 64, 64), (0x19, 0, 4096)],
        // Locked: machine mode obeys too.
        [(0x99, 0, 64)], [(0x90, 8, 0), (0x1F, 0, 4096)], [(0x00, 8, 0), (0x8B, 4096, 0)], [(0x98, 0, 4096)],
    ])
    func `accesses pass and fault as in QEMU`(_ entries: [(Int, Int, Int)]) throws {
        for lastAllows in [false, true] {
            try expectSameAsQEMU(
                program(entries.map { (configuration: $0.0, offset: $0.1, size: $0.2) }, lastAllows: lastAllows),
                note: "(\(entries), then everything: \(lastAllows))")
        }
    }

    @Test func `locked entries and the lower bounds of locked ranges keep their values`() throws {
        try expectSameAsQEMU(
            GuestProgram(
                """
                body:
                    li t0, 0x1000
                    csrw pmpaddr0, t0
                    csrw pmpaddr1, t0
                    csrw pmpaddr2, t0
                    li t0, 0x1f8f1f
                    slli t0, t0, 8
                    csrw pmpcfg0, t0       # entry 2 is locked TOR: entries 1 and 2 keep their addresses
                    li t0, 0x2000
                    csrw pmpaddr0, t0
                    csrw pmpaddr1, t0
                    csrw pmpaddr2, t0
                    csrw pmpaddr3, t0
                    csrr a0, pmpaddr0
                    log a0
                    csrr a0, pmpaddr1
                    log a0
                    csrr a0, pmpaddr2
                    log a0
                    csrr a0, pmpaddr3
                    log a0
                    csrw pmpcfg0, x0
                    csrr a0, pmpcfg0
                    log a0
                    ret
                """))
    }

    @Test func `a fetch from a page that PMP splits is checked instruction by instruction`() throws {
        // QEMU 7.2 goes on to the end of the translation block.
        let program = try GuestProgram(
            """
            body:
                mv s9, ra
                la s2, scratch
                li t0, 0x00100513      # li a0, 1
                sw t0, 0(s2)
                sw t0, 4(s2)
                sw t0, 8(s2)
                addi t0, s2, 8
                srli t0, t0, 2
                csrw pmpaddr1, t0
                srli t0, s2, 2
                csrw pmpaddr0, t0
                li t0, 0x0c00          # TOR, execute only: the first two instructions
                csrw pmpcfg0, t0
                fence.i
                la s10, 1f
                csrw mepc, s2
                li t0, 0x1800
                csrc mstatus, t0
                li a0, 0
                mret
            1:  log a0
                mv ra, s9
                ret
            """)
        let lines = try #require(TestMachine(image: program.image).run())
        #expect(lines.count == 4 && lines[0].hasSuffix("01") && lines[1].hasSuffix("8") && lines[3].hasSuffix("1"))
        #expect(lines.count > 3 && lines[1] == "0000000080001008")

    }
}
