import RISCV
import Testing

/// Traps: causes, values, return addresses, delegation, vectors; and what CSRs let software write.
@Suite struct TrapTests {
    @Test func `exceptions in machine mode have QEMU's cause, value and address`() throws {
        let program = try GuestProgram(
            """
            body:
                mv s9, ra
                .word 0            # illegal
                .hword 0           # illegal, two bytes
                .hword 0x8002      # c.jr x0: reserved
                .word 0xffffffff
                ecall
                csrw cycle, x0     # read-only
                csrr a0, 0x5c0     # not there
                csrr a0, 0x123
                li a0, 0x40
                ld a1, 0(a0)       # nothing there
                sd a1, 0(a0)
                la a0, scratch
                addi a0, a0, 2
                lr.w a1, (a0)      # misaligned
                addi a0, a0, 2
                lr.d a1, (a0)
                li a0, 0x40
                lr.w a1, (a0)
                la s10, 1f
                li a0, 0x50000
                jr a0              # fetch from nowhere
            1:  csrw mstatus, x0   # FS off
                fadd.d fa0, fa1, fa2
                fld fa0, 0(a0)
                fsd fa0, 0(a0)
                csrr a0, fcsr
                c.fld fa0, 0(a0)
                li t0, 0x6000
                csrs mstatus, t0
                li t0, 5
                csrw frm, t0
                fadd.d fa0, fa1, fa2   # dynamic rounding mode is invalid
                .word 0x02c5d553       # fadd.d with rounding mode 5
                csrw frm, x0
                csrr a0, mstatus
                log a0
                mv ra, s9
                ret
            """)
        try expectSameAsQEMU(program)
    }

    @Test func `misaligned and homeless atomics have the causes of stores`() throws {
        // QEMU 7.2 with one hart does an AMO as a load and a store and gives the load's cause; a store-conditional
        // without reservation it does not check at all.
        let program = try GuestProgram(
            """
            body:
                la a0, scratch
                addi a0, a0, 2
                sc.w a1, a1, (a0)
                amoadd.w a1, a1, (a0)
                amoswap.d a1, a1, (a0)
                li a0, 0x40
                sc.d a1, a1, (a0)
                amoor.w a1, a1, (a0)
                ret
            """)
        let lines = try #require(TestMachine(image: program.image).run())
        let causes = stride(from: 0, to: lines.count, by: 3).map { lines[$0].last! }
        #expect(causes == ["6", "6", "6", "7", "7"])
    }

    /// Enters S or U mode (`mpp`) at `code`, which ends by ecall; delegates what `medeleg` says to a handler that logs.
    private func lower(_ mpp: Int, medeleg: Int, code: String) -> String {
        """
        body:
            mv s9, ra
            li t0, -1
            csrw pmpaddr0, t0
            li t0, 31
            csrw pmpcfg0, t0
            li t0, \(medeleg)
            csrw medeleg, t0
            la t0, supervisor_trap
            csrw stvec, t0
            la s10, back
            li t0, 0x1800
            csrc mstatus, t0
            li t0, \(mpp << 11)
            csrs mstatus, t0
            la t0, 1f
            csrw mepc, t0
            mret
        1:
        \(code)
            li a7, 0
            ecall
        back:
            csrw medeleg, x0
            csrr a0, mstatus
            li a1, 0x1e000009
            andn a0, a0, a1
            log a0
            mv ra, s9
            ret
            .balign 4
        supervisor_trap:
            csrr t0, scause
            log t0
            csrr t0, stval
            log t0
            csrr t0, sepc
            la t1, _start
            sub t1, t0, t1
            log t1
            csrr t1, sstatus
            li t2, 0x122
            and t1, t1, t2
            log t1
            lhu t1, 0(t0)
            andi t1, t1, 3
            addi t1, t1, -3
            bnez t1, 1f
            addi t0, t0, 2
        1:  addi t0, t0, 2
            csrw sepc, t0
            sret

        """
    }

    private static let forbidden = """
            .word 0
            csrr a0, mstatus
            csrw mscratch, a0
            csrr a0, sstatus
            csrr a0, satp
            csrr a0, cycle
            csrr a0, time
            mret
            wfi
            sfence.vma
            li a0, 0x40
            ld a1, 0(a0)
            sd a1, 0(a0)

        """

    @Test func `user mode is refused what it may not do, undelegated and delegated`() throws {
        // WFI may wait in S-mode but never in U-mode.
        for delegated in [0, 0xB1FF & ~(1 << 8)] {
            try expectSameAsQEMU(
                GuestProgram(lower(0, medeleg: delegated, code: Self.forbidden + " sret\n")),
                note: "(medeleg \(delegated))")
        }
    }

    @Test func `supervisor mode is refused what it may not do, undelegated and delegated`() throws {
        let code = Self.forbidden.replacing(" wfi\n", with: "")
        for delegated in [0, 0xB1FF] {
            try expectSameAsQEMU(
                GuestProgram(lower(1, medeleg: delegated, code: code)), note: "(medeleg \(delegated))")
        }
    }

    @Test func `TVM, TSR and TW trap supervisor instructions`() throws {
        try expectSameAsQEMU(
            GuestProgram(
                lower(
                    1, medeleg: 0,
                    code: """
                         csrr a0, satp
                         csrw satp, x0
                         sfence.vma
                         wfi
                         sret

                        """
                ).replacing("la s10, back", with: "la s10, back\n li t0, 0x700000\n csrs mstatus, t0")))
    }

    @Test func `counters are visible where counteren lets them`() throws {
        let code = "csrr a0, cycle\n csrr a0, instret\n csrr a0, hpmcounter5\n"
        for (machine, supervisor) in [(0, 0), (1, 0), (5, 1), (7, 7), (0, 7)] {
            for mode in [0, 1] {
                let text = lower(mode, medeleg: 0, code: code).replacing(
                    "la s10, back",
                    with:
                        "la s10, back\n li t0, \(machine)\n csrw mcounteren, t0\n li t0, \(supervisor)\n csrw scounteren, t0"
                )
                try expectSameAsQEMU(GuestProgram(text), note: "(\(machine), \(supervisor), mode \(mode))")
            }
        }
    }

    @Test func `CSRs keep what QEMU's keep of all ones and all zeros`() throws {
        let registers = [
            "sstatus", "sie", "stvec", "scounteren", "sscratch", "sepc", "scause", "stval", "sip", "mstatus", "medeleg",
            "mideleg", "mie", "mtvec", "mcounteren", "mscratch", "mepc", "mcause", "mtval", "pmpaddr0",
            "pmpcfg0", "mcountinhibit", "fflags", "frm", "fcsr", "satp",
        ]
        var text = "body:\n"
        var names: [String] = []
        for register in registers {
            let undo = "csrw \(register), s3\n"
            for (value, name) in [("-1", "ones"), ("0", "zeros"), ("0x5555555555555554", "fives")] {
                text += "csrr s3, \(register)\n li a0, \(value)\n csrrw a1, \(register), a0\n csrr a2, \(register)\n"
                text += mask(register) + undo + "log a2\n"
                names.append("\(register) after \(name)")
            }
        }
        text += "ret\n"
        try expectSameAsQEMU(GuestProgram(text), names: names)
    }

    /// Drops bits that QEMU 7.2 has and we have not, or the other way round.
    private func mask(_ register: String) -> String {
        switch register {
        // QEMU's default CPU has the hypervisor extension, which adds bits to these.
        // It also has VS, a writable UXL and lets MPP be 2.
        case "mstatus": "li a3, 0x80000000007e61aa\n and a2, a2, a3\n"
        case "sstatus": "li a3, 0x80000000000c6122\n and a2, a2, a3\n"
        // It forgets that bit 0 is always zero, and that physical addresses have 56 bits.
        case "mepc", "sepc": "andi a2, a2, -2\n"
        case "pmpaddr0": "slli a2, a2, 10\n srli a2, a2, 10\n"
        case "medeleg": "li a3, 0xb1fe\n and a2, a2, a3\n"
        case "mideleg": "li a3, 0x222\n and a2, a2, a3\n"
        case "mie", "sie", "sip": "li a3, 0xaaa\n and a2, a2, a3\n"
        // QEMU implements the inhibit bits and enable bits of some performance counters.
        case "mcountinhibit": "andi a2, a2, 5\n"
        case "mcounteren", "scounteren": "andi a2, a2, 7\n"
        // The lower half only: QEMU keeps pmpaddr bits of its own.
        case "pmpcfg0": "li a3, 0x1f1f1f1f1f1f1f1f\n and a2, a2, a3\n"
        default: ""
        }
    }

    @Test func `trigger registers say that there is no trigger, to machine mode alone`() throws {
        // tselect stays 0, the type in tdata1 is 0 (none), tinfo lists that type only. The debugger's registers are not
        // there, nor are triggers for lower modes.
        let program = try GuestProgram(
            """
            body:
                li a0, -1
                csrw tselect, a0
                csrr a1, tselect
                log a1
                csrw tdata1, a0
                csrr a1, tdata1
                log a1
                csrw tdata2, a0
                csrr a1, tdata2
                log a1
                csrr a1, tinfo
                log a1
                csrr a1, dcsr
                csrr a1, dpc
                la t0, 1f
                csrw mepc, t0
                li t0, 0x1800
                csrc mstatus, t0
                li t0, 0x800
                csrs mstatus, t0
                li t0, -1
                csrw pmpaddr0, t0
                li t0, 31
                csrw pmpcfg0, t0
                la s10, 2f
                mret
            1:  csrr a1, tselect
                ecall
            2:  la ra, finish
                ret
            """)
        let lines = try #require(TestMachine(image: program.image).run())
        #expect(lines[0..<4].map { UInt64($0, radix: 16) } == [0, 0, 0, 1])
        let causes = stride(from: 4, to: lines.count, by: 3).map { lines[$0].last! }
        #expect(causes == ["2", "2", "2", "9"])
    }

    @Test func `interrupts come in order of priority through vectored handlers`() throws {
        let program = try GuestProgram(
            """
            body:
                mv s9, ra
                la t0, vectors
                ori t0, t0, 1
                csrw mtvec, t0
                li t0, 0x200       # SEIP by software, SSIP, STIP
                csrs mip, t0
                li t0, 0x22
                csrs mip, t0
                li t0, 1
                li a0, 0x2000000
                sw t0, 0(a0)       # MSIP
                li a0, 0x2004000
                sd x0, 0(a0)       # MTIP
                li t0, 0xaaa
                csrw mie, t0
                csrsi mstatus, 8   # now: MSI, MTI, SEI, SSI, STI
                nop
                csrci mstatus, 8
                la t0, trap
                csrw mtvec, t0
                mv ra, s9
                ret
                .balign 256
                .option push
                .option norvc
            vectors:
                j other
                j ssi
                j other
                j msi
                j other
                j sti
                j other
                j mti
                j other
                j sei
                j other
                j other
                .option pop
            other: li t0, 99
                log t0
                li t0, -1
                csrc mie, t0
                mret
            ssi: csrr t0, mcause
                log t0
                csrci mip, 2
                mret
            sti: csrr t0, mcause
                log t0
                li t0, 0x20
                csrc mip, t0
                mret
            sei: csrr t0, mcause
                log t0
                li t0, 0x200
                csrc mip, t0
                mret
            msi: csrr t0, mcause
                log t0
                csrr t0, mip
                log t0
                li a0, 0x2000000
                sw x0, 0(a0)
                mret
            mti: csrr t0, mcause
                log t0
                li a0, 0x2004000
                li t0, -1
                sd t0, 0(a0)
                mret
            """)
        // The specification's order; QEMU 7.2 takes the lowest number first.
        let cause = "800000000000000"
        #expect(
            TestMachine(image: program.image).run() == [
                cause + "3", "00000000000002aa", cause + "7", cause + "9", cause + "1", cause + "5",
            ])
    }

    @Test func `delegated interrupts reach supervisor mode and no deeper`() throws {
        let text = lower(
            0, medeleg: 0,
            code: """
                 nop
                 csrr a0, sstatus      # illegal in user mode

                """
        ).replacing(
            "la s10, back",
            with: """
                la s10, back
                li t0, 0x222
                csrw mideleg, t0
                csrw mie, t0
                csrs mip, t0
                csrsi mstatus, 8
                nop
                la t0, interrupt_trap
                csrw stvec, t0
                """
        ).replacing(
            "supervisor_trap:",
            with: """
                interrupt_trap:
                    csrr t0, scause
                    log t0
                    csrr t0, sip
                    log t0
                    csrr t0, scause
                    andi t0, t0, 15
                    li t1, 1
                    sll t1, t1, t0
                    csrc sie, t1
                    sret
                    .balign 4
                supervisor_trap:
                """)
        let lines = try #require(try TestMachine(image: GuestProgram(text).image).run())
        let (cause, pending) = ("800000000000000", "0000000000000222")
        #expect(
            lines.prefix(7) == [cause + "9", pending, cause + "1", pending, cause + "5", pending, "0000000000000002"])
    }
}
