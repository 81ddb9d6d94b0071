import RISCV
import Testing

/// Sv39, Sv48 and Sv57: every combination of an entry's bits in both modes, seen by loads, stores and fetches.
@Suite struct PagingTests {
    /// A guest program that tries entries. `entries` are pairs of a leaf's level and its bits, where bits with `frame`
    /// get the scratch page (level 0) or RAM's start (above) as their frame. Each is tried in user and supervisor mode
    /// with SUM and MXR as the bits of `sumMXR`.
    private func program(
        levels: Int, entries: [(level: Int, bits: UInt64, frame: Bool)], sumMXR: Int, menvcfg: UInt64 = 1 << 61
    ) throws -> GuestProgram {
        var text = """
            body:
                mv s9, ra
                li t0, -1
                csrw pmpaddr0, t0
                li t0, 31
                csrw pmpcfg0, t0
                li t0, \(menvcfg)
                csrw 0x30a, t0
                la t0, scratch
                li t1, 0x00000073      # an ecall to fetch
                sw t1, 0(t0)
                li t1, 0x1fffff
                and s3, t0, t1
                li t1, 0x40000000
                add s3, s3, t1         # the virtual address

            """
        for level in 1..<levels {
            text += """
                    la t0, tables + \(level * 4096)
                    srli t1, s3, \(12 + 9 * level)
                    andi t1, t1, 511
                    slli t1, t1, 3
                    add t0, t0, t1
                    la t1, tables + \((level - 1) * 4096)
                    srli t1, t1, 2
                    ori t1, t1, 1
                    sd t1, 0(t0)

                """
        }
        text += """
                la t0, tables + \((levels - 1) * 4096)
                srli t0, t0, 12
                li t1, \(levels + 5)
                slli t1, t1, 60
                or t0, t0, t1
                csrw satp, t0
                li s4, 0
                la s2, entries
            next:
                ld a0, 0(s2)           # entry
                ld a1, 8(s2)           # level
                beqz a1, 1f
                li t0, -1
                beq a1, t0, done
            1:  ld a2, 16(s2)          # frame, or 0
                addi s2, s2, 24
                beqz a2, 2f
                la a2, scratch
                beqz a1, 3f
                li a2, 0x80000000
            3:  srli a2, a2, 2
            2:  or a0, a0, a2
                # Where the entry goes.
                slli t0, a1, 12
                la s7, tables
                add s7, s7, t0
                li t1, 9
                mul t1, t1, a1
                addi t1, t1, 12
                srl t1, s3, t1
                andi t1, t1, 511
                slli t1, t1, 3
                add s7, s7, t1
                ld s8, 0(s7)           # what was there
                li s6, 0x0800          # supervisor
            mode:
                mv s0, s11
                sd a0, 0(s7)
                sfence.vma
                li t0, \(0x20000 | sumMXR << 18)
                or t0, t0, s6
                li t1, 0x6000
                or t0, t0, t1
                csrr s1, mstatus
                csrw mstatus, t0
                ld a3, 0(s3)
                csrw mstatus, s1
                log a3
                ld a3, 0(s7)
                log a3
                sd a0, 0(s7)
                sfence.vma
                csrw mstatus, t0
                sh x0, 8(s3)
                csrw mstatus, s1
                ld a3, 0(s7)
                log a3
                bnez a1, 4f            # only the scratch page holds code
                sd a0, 0(s7)
                sfence.vma
                la s10, 4f
                csrw mepc, s3
                li t1, ~0x20000
                and t0, t0, t1
                csrw mstatus, t0
                mret
            4:  csrw mstatus, s1
                mv a4, s11
                mv s11, s0
            5:  bgeu s0, a4, 6f
                ld a3, 0(s0)
                digest a3
                addi s0, s0, 8
                j 5b
            6:  log s4
                li s4, 0
                beqz s6, 7f
                li s6, 0
                j mode
            7:  sd s8, 0(s7)
                j next
            done:
                csrw satp, x0
                mv ra, s9
                ret
                .balign 8
            entries:

            """
        for entry in entries {
            text += ".dword \(entry.bits), \(entry.level), \(entry.frame ? 1 : 0)\n"
        }
        text += ".dword 0, -1, 0\n"
        return try GuestProgram(text)
    }

    private func compare(levels: Int, _ entries: [(level: Int, bits: UInt64, frame: Bool)], sumMXR: Int) throws {
        let names = entries.flatMap { entry in
            ["supervisor", "user"].map {
                "Sv\(levels * 9 + 12) level \(entry.level) \(String(entry.bits, radix: 16)) \($0)"
            }
        }
        try expectSameAsQEMU(
            program(levels: levels, entries: entries, sumMXR: sumMXR), names: names, note: "(SUM, MXR \(sumMXR))")
    }

    @Test(arguments: 0..<4)
    func `every combination of a leaf's bits permits and faults as in QEMU`(_ sumMXR: Int) throws {
        try compare(levels: 3, (0..<256).map { (0, UInt64($0), true) }, sumMXR: sumMXR)
    }

    @Test(arguments: [3, 4, 5])
    func `large pages, misaligned ones, reserved bits and broken tables fault as in QEMU`(_ levels: Int) throws {
        var entries: [(level: Int, bits: UInt64, frame: Bool)] = []
        for level in 0..<levels {
            entries += [0xCF, 0xDF, 0xC7, 0xD1, 0x01, 0x0F, 0x1F].map { (level, $0, true) }
            entries += [54, 57, 60, 61, 62, 63].map { (level, 0xCF | 1 << $0, true) }
            // A frame that is not aligned to the level's size, and one where there is nothing.
            entries.append((level, 0xCF | 0x2000_0400, false))
            entries.append((level, 0xCF | 0x50 << 10, false))
            // Pointers that have A, D or U.
            entries += [0x41, 0x81, 0x11].map { (level, $0, true) }
        }
        try compare(levels: levels, entries, sumMXR: 1)
    }

    @Test func `tables where there is no memory give access faults`() throws {
        // QEMU 7.2 gives page faults; the specification's step 2 says otherwise.
        let text = """
            body:
                li t0, -1
                csrw pmpaddr0, t0
                li t0, 31
                csrw pmpcfg0, t0
                li t0, 0x50
                li t1, 8
                slli t1, t1, 60
                or t0, t0, t1
                csrw satp, t0
                li s6, 0x20800
                csrr s1, mstatus
                or s6, s6, s1
                csrw mstatus, s6
                ld a0, 0(x0)
                csrw mstatus, s6
                sd a0, 0(x0)
                csrw mstatus, s1
                csrw satp, x0
                ret

            """
        let lines = try #require(TestMachine(image: GuestProgram(text).image).run())
        #expect([0, 3].map { lines[$0].last! } == ["5", "7"])
    }

    @Test func `without ADUE a clear A or D is a page fault and stays clear`() throws {
        // U and S pages with neither, A only, both; loads then stores, in supervisor mode with SUM.
        let text = """
            body:
                mv s9, ra
                li t0, -1
                csrw pmpaddr0, t0
                li t0, 31
                csrw pmpcfg0, t0
                la t0, tables + 8192
                la t1, tables
                srli t1, t1, 2
                ori t1, t1, 0x0f
                sd t1, 0(t0)           # a one-gigabyte leaf with a misaligned frame first
                li t1, 0x20000000
                ori t1, t1, 0x0f
                sd t1, 16(t0)          # 0x8000_0000 mapped to itself, A and D clear
                srli t0, t0, 12
                li t1, 8
                slli t1, t1, 60
                or t0, t0, t1
                csrw satp, t0
                li s6, 0x20800
                csrr s1, mstatus
                la s3, scratch
                or s6, s6, s1
                csrw mstatus, s6
                ld a0, 0(s3)           # A clear
                csrw mstatus, s1
                la t0, tables + 8192
                ld a0, 16(t0)
                log a0
                ori a0, a0, 0x40
                sd a0, 16(t0)
                sfence.vma
                csrw mstatus, s6
                ld a0, 0(s3)           # A set
                sd a0, 0(s3)           # D clear
                csrw mstatus, s1
                ld a0, 16(t0)
                log a0
                ori a0, a0, 0x80
                sd a0, 16(t0)
                sfence.vma
                csrw mstatus, s6
                sd a0, 0(s3)           # both set
                csrw mstatus, s1
                csrw satp, x0
                mv ra, s9
                ret

            """
        let machine = TestMachine(image: try GuestProgram(text).image)
        let lines = try #require(machine.run())
        let causes = lines.enumerated().filter { [0, 4].contains($0.offset) }.map(\.element)
        #expect(causes == ["000000000000000d", "000000000000000f"])
        #expect(lines.count == 8)
        #expect(lines.count > 7 && lines[3].hasSuffix("0f") && lines[7].hasSuffix("4f"))
    }

    @Test func `SFENCE.VMA for an address, for an ASID and for all show a changed mapping`() throws {
        // Two frames behind one page (through 4 KiB leaves) and behind one large page; each fence in turn.
        let text = """
            body:
                mv s9, ra
                la s2, scratch
                li t0, 0x1111
                sd t0, 0(s2)
                li t0, 4096
                add t1, s2, t0
                li t0, 0x2222
                sd t0, 0(t1)
                li t0, -1
                csrw pmpaddr0, t0
                li t0, 31
                csrw pmpcfg0, t0
                la t0, tables + 8192
                la t1, tables + 4096
                srli t1, t1, 2
                ori t1, t1, 1
                sd t1, 8(t0)           # 0x4000_0000
                la t0, tables + 4096
                la t1, tables
                srli t1, t1, 2
                ori t1, t1, 1
                sd t1, 0(t0)
                la s4, tables          # the leaf
                la t0, tables + 8192
                srli t0, t0, 12
                li t1, 8
                slli t1, t1, 60
                or t0, t0, t1
                li t1, 5               # ASID 5
                slli t1, t1, 44
                or t0, t0, t1
                csrw satp, t0
                li s3, 0x40000000
                csrr s1, mstatus
                li s6, 0x20800
                or s6, s6, s1
                srli s7, s2, 2
                ori s7, s7, 0xcf       # first frame
                addi s8, s7, 0x400     # second frame
                li a6, 5

                .macro look
                csrw mstatus, s6
                ld a0, 0(s3)
                csrw mstatus, s1
                log a0
                .endm

                sd s7, 0(s4)
                sfence.vma
                look
                sd s8, 0(s4)
                sfence.vma s3, x0
                look
                sd s7, 0(s4)
                sfence.vma x0, a6
                look
                sd s8, 0(s4)
                sfence.vma s3, a6
                look
                sd s7, 0(s4)
                sfence.vma
                look
                # The same by a large page at the next level: 0x8000_0000, then 0x8020_0000 (empty RAM).
                li s4, 0x80000000
                add s4, s4, x0
                la s4, tables + 4096
                li s7, 0x200000cf
                li s8, 0x200800cf
                li t0, 0x1fffff
                and t0, t0, s2
                add s3, s3, t0
                sd s7, 0(s4)
                sfence.vma
                look
                sd s8, 0(s4)
                li t0, 4096
                add t0, t0, s3
                sfence.vma t0, x0      # another address of the same large page
                look
                csrw satp, x0
                mv ra, s9
                ret

            """
        let lines = TestMachine(image: try GuestProgram(text).image).run()
        let (first, second) = ("0000000000001111", "0000000000002222")
        #expect(lines == [first, second, first, second, first, first, "0000000000000000"])
    }
}
