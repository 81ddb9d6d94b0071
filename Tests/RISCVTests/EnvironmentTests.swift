import RISCV
import Testing

/// What machine mode lets lower modes do: cache blocks (menvcfg, senvcfg), the supervisor's timer (Sstc).
@Suite struct EnvironmentTests {
    /// Runs `code` in S (1) or U (0) mode after `prepare` in M-mode; then `after` in M-mode. Numeric labels only, so that
    /// a program may hold many.
    private static func lower(_ mode: Int, prepare: String = "", code: String, after: String = "") -> String {
        """
            la s10, 9f
        \(prepare)
            li t0, 0x1800
            csrc mstatus, t0
            li t0, \(mode << 11)
            csrs mstatus, t0
            la t0, 8f
            csrw mepc, t0
            mret
        8:
        \(code)
            ecall
        9:
        \(after)

        """
    }

    /// A program of such parts, all of memory allowed.
    private static func program(_ parts: [String]) throws -> GuestProgram {
        try GuestProgram(
            "body:\n mv s9, ra\n li t0, -1\n csrw pmpaddr0, t0\n li t0, 31\n csrw pmpcfg0, t0\n" + parts.joined()
                + " csrw menvcfg, x0\n csrw senvcfg, x0\n csrw mideleg, x0\n csrw mie, x0\n mv ra, s9\n ret\n")
    }

    private func log(_ program: GuestProgram) throws -> [UInt64] {
        try #require(TestMachine(image: program.image).run()).map { UInt64($0, radix: 16)! }
    }

    // MARK: cache blocks. QEMU 7.2 has no Zicbom and Zicboz, so the tables are the specification's.

    /// Values of menvcfg and senvcfg, of which CBIE is bits 5:4, CBCFE bit 6 and CBZE bit 7.
    private static let environments: [UInt64] = [0, 0x10, 0x30, 0x40, 0x80, 0x70, 0xF0, 0xC0]
    private static let cacheBlockInstructions: [(name: String, enable: UInt64)] = [
        ("cbo.inval", 0x30), ("cbo.clean", 0x40), ("cbo.flush", 0x40), ("cbo.zero", 0x80),
    ]

    @Test func `cache-block instructions need their bit of menvcfg, and in user mode of senvcfg`() throws {
        var parts: [String] = []
        var expected: [(cause: UInt64, what: String)] = []
        for (mode, machine) in [0, 1].flatMap({ mode in Self.environments.map { (mode, $0) } }) {
            for supervisor in Self.environments {
                parts.append(
                    Self.lower(
                        mode,
                        prepare: " li t0, \(machine)\n csrw menvcfg, t0\n li t0, \(supervisor)\n csrw senvcfg, t0\n",
                        code: " la a0, scratch\n"
                            + Self.cacheBlockInstructions.map { " \($0.name) (a0)\n" }.joined()))
                let place = "mode \(mode), menvcfg \(machine), senvcfg \(supervisor)"
                for (name, enable) in Self.cacheBlockInstructions
                where machine & enable == 0 || (mode == 0 && supervisor & enable == 0) {
                    expected.append((2, "\(name) is illegal: \(place)"))
                }
                expected.append((mode == 0 ? 8 : 9, "the call at the end: \(place)"))
            }
        }
        let values = try log(Self.program(parts))
        #expect(values.count == expected.count * 3)
        for (index, (cause, what)) in expected.enumerated() where index * 3 < values.count {
            guard values[index * 3] != cause else { continue }
            Issue.record("\(what)")
            break
        }
    }

    @Test func `machine mode needs no permission; zeroing clears the 64 bytes around the address`() throws {
        let program = try GuestProgram(
            """
            body:
                csrw menvcfg, x0
                la a0, scratch
                li a1, -1
                li a2, 24
            1:  sd a1, 0(a0)
                addi a0, a0, 8
                addi a2, a2, -1
                bnez a2, 1b
                la a0, scratch + 67
                cbo.clean (a0)
                cbo.flush (a0)
                cbo.inval (a0)
                ld a1, -3(a0)
                log a1
                cbo.zero (a0)
                la a0, scratch
                li a2, 24
            1:  ld a1, 0(a0)
                log a1
                addi a0, a0, 8
                addi a2, a2, -1
                bnez a2, 1b
                li a0, 0x44
                cbo.zero (a0)
                cbo.clean (a0)
                ret

            """)
        let values = try log(program)
        let ones = [UInt64](repeating: .max, count: 8)
        let zeros = [UInt64](repeating: 0, count: 8)
        let expected: [UInt64] = [.max] + ones + zeros + ones
        #expect(Array(values.prefix(25)) == expected)
        // Store access faults at addresses where nothing is.
        #expect(values.count == 31)
        let faults = stride(from: 25, to: values.count, by: 3).map { Array(values[$0..<min($0 + 2, values.count)]) }
        #expect(faults == [[7, 0x44], [7, 0x44]])
    }

    @Test func `menvcfg and senvcfg keep their fields and CBIE never becomes the reserved 2`() throws {
        let values = try log(
            GuestProgram(
                """
                body:
                    li a0, -1
                    csrw menvcfg, a0
                    csrr a1, menvcfg
                    log a1
                    li a0, 0x20
                    csrw menvcfg, a0
                    csrr a1, menvcfg
                    log a1
                    li a0, -1
                    csrw senvcfg, a0
                    csrr a1, senvcfg
                    log a1
                    li a0, 0x20
                    csrw senvcfg, a0
                    csrr a1, senvcfg
                    log a1
                    csrw menvcfg, x0
                    csrw senvcfg, x0
                    ret

                """))
        #expect(values == [0xA000_0000_0000_00F1, 0x30, 0xF1, 0x30])
    }

    // MARK: counters

    @Test func `each counter is visible to user mode by its own bits alone`() throws {
        let enables = [(2, 2), (4, 4), (6, 6), (5, 6), (6, 5), (2, 7), (7, 2), (4, 1)]
        let program = try Self.program(
            enables.map { machine, supervisor in
                Self.lower(
                    0,
                    prepare: " li t0, \(machine)\n csrw mcounteren, t0\n li t0, \(supervisor)\n csrw scounteren, t0\n",
                    code: " rdcycle a0\n rdtime a0\n rdinstret a0\n")
            })
        let refusals = enables.map { 3 - ($0 & $1 & 7).nonzeroBitCount }
        #expect(try log(program).count == (refusals.reduce(0, +) + enables.count) * 3)
        try expectSameAsQEMU(program)
    }

    // MARK: Sstc

    private static let cpu = "rv64,zba=true,zbb=true,zbs=true,sstc=true"

    @Test func `stimecmp is the supervisor's where STCE and TM let it`() throws {
        let cases = [0, 1].flatMap { mode in [(0, 0), (0, 2), (1, 0), (1, 2)].map { (mode, $0, $1) } }
        let program = try Self.program(
            cases.map { mode, stce, counters in
                Self.lower(
                    mode,
                    prepare: " li t0, \(stce)\n slli t0, t0, 63\n csrw menvcfg, t0\n li t0, -1\n csrw stimecmp, t0\n"
                        + " li t0, \(counters)\n csrw mcounteren, t0\n",
                    code: " csrr a0, stimecmp\n li a1, -2\n csrw stimecmp, a1\n",
                    after: " csrr a0, stimecmp\n log a0\n")
            })
        let values = try log(program)
        // In S-mode with both: only the call, and the new value. Otherwise two refusals first, and the old value.
        #expect(values.count == 7 * 10 + 4)
        #expect(values.last == UInt64.max - 1)
        let old = stride(from: 9, to: 70, by: 10).map { values[$0] }
        #expect(old == [UInt64](repeating: .max, count: 7))
        try expectSameAsQEMU(program, cpu: Self.cpu)
    }

    @Test func `a due stimecmp interrupts supervisor mode until it is set later`() throws {
        let part = Self.lower(
            1,
            prepare: """
                li t0, 1
                slli t0, t0, 63
                csrw menvcfg, t0
                li t0, 2
                csrw mcounteren, t0
                li t0, -1
                csrw stimecmp, t0
                li t0, 0x20
                csrw mideleg, t0
                csrc mip, t0       # with STCE this bit shows the comparison only
                csrs mip, t0
                csrr a0, mip
                andi a0, a0, 0x20
                log a0
                csrw stimecmp, x0
                csrr a0, mip
                andi a0, a0, 0x20
                log a0
                csrc mip, t0
                csrr a0, mip
                andi a0, a0, 0x20
                log a0
                li t0, -1
                csrw stimecmp, t0
                csrr a0, mip
                andi a0, a0, 0x20
                log a0
                la t0, timer
                csrw stvec, t0

                """,
            code: """
                    li t0, 0x20
                    csrs sie, t0
                    csrsi sstatus, 2
                    rdtime s0
                    li t0, 5000
                    add s0, s0, t0
                    csrw stimecmp, s0
                    li s1, 0
                1:  wfi
                    beqz s1, 1b
                    log s1             # scause
                    sltu a0, s2, s0    # 0: not early
                    log a0
                    csrr a0, sip
                    log a0             # gone
                    csrci sstatus, 2
                    csrw stimecmp, x0  # due at once, but masked
                    csrr a0, sip
                    log a0
                    li s1, 0
                    csrsi sstatus, 2
                    nop
                    log s1
                    j 2f
                    .balign 4
                timer:
                    csrr s1, scause
                    rdtime s2
                    li t0, -1
                    csrw stimecmp, t0
                    sret
                2:

                """)
        let program = try Self.program([part])
        let values = try log(program)
        let cause: UInt64 = 1 << 63 | 5
        #expect(values.prefix(9) == [0, 0x20, 0x20, 0, cause, 0, 0, 0x20, cause])
        try expectSameAsQEMU(program, cpu: Self.cpu)
    }
}
