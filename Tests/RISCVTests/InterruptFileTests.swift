import Foundation
import RISCV
import Testing

/// Smaia and Ssaia: interrupt files through their CSRs, top-interrupt registers, messages from other threads.
@Suite struct InterruptFileTests {
    private static let common = """
        .macro select number
            li t0, \\number
            csrw 0x350, t0
        .endm
        .macro put value
            li t0, \\value
            csrw 0x351, t0
        .endm
        .macro show
            csrr t0, 0x351
            log t0
        .endm

        """

    private func run(_ body: String, plic: Bool = false) throws -> [String] {
        let configuration = HartConfiguration(interrupts: plic ? .plic : .aia)
        let machine = TestMachine(image: try GuestProgram(Self.common + body).image, configuration: configuration)
        return try #require(machine.run())
    }

    private func hex(_ values: [UInt64]) -> [String] {
        values.map { value in
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
    }

    @Test func `registers of the machine file keep what they can and hide what is not there`() throws {
        let lines = try run(
            """
            body:
                select 0x70
                put -1
                show               # eidelivery: 1
                select 0x72
                put -1
                show               # eithreshold: 8 bits
                select 0x80
                put -1
                show               # eip0: identity 0 does not exist
                select 0x86
                put 6
                show
                select 0x88
                put -1
                show               # beyond 255: zero
                select 0xC2
                put 0x10
                show
                select 0x30
                put -1
                show               # priorities: zero
                csrr t0, 0x308     # mvien
                log t0
                select 0x81        # odd: illegal in RV64
                csrr t0, 0x351
                select 0x20        # nothing
                csrw 0x351, t0
                ret
            """)
        #expect(lines.prefix(8) == hex([1, 0xFF, ~1, 6, 0, 0x10, 0, 0])[...])
        #expect(lines.count == 14 && lines[8] == hex([2])[0] && lines[11] == hex([2])[0])
    }

    @Test func `the lowest enabled identity under the threshold is on top and is claimed by writing mtopei`() throws {
        let lines = try run(
            """
            body:
                select 0x80
                put 0x1110          # 4, 8, 12
                select 0xC0
                put 0x1100          # 8, 12
                csrr t0, 0x35C
                log t0              # 8
                csrr t0, mip
                log t0              # not delivered yet
                select 0x70
                put 1
                csrr t0, mip
                log t0              # MEIP
                csrr t0, 0xFB0
                log t0              # mtopi: not enabled in mie
                li t0, 0x800
                csrw mie, t0
                csrr t0, 0xFB0
                log t0              # 11, priority 1
                select 0x72
                put 8
                csrr t0, 0x35C
                log t0              # 8 is masked
                csrr t0, mip
                log t0
                put 9
                csrrw t0, 0x35C, x0
                log t0              # claims 8
                put 0
                csrrw t0, 0x35C, x0
                log t0              # claims 12
                csrr t0, 0x35C
                log t0              # none
                csrr t0, mip
                log t0
                select 0x80
                show                # 4 is still pending
                ret
            """)
        #expect(
            lines
                == hex([
                    0x80008, 0, 0x800, 0, 0xB0001, 0, 0, 0x80008, 0xC000C, 0, 0, 0x10,
                ]))
    }

    @Test func `the supervisor file is behind the same registers and drives SEIP beside software`() throws {
        let lines = try run(
            """
            body:
                li t0, 0x80
                csrw 0x150, t0
                li t0, 0x20
                csrw 0x151, t0
                li t0, 0xC0
                csrw 0x150, t0
                li t0, 0x20
                csrw 0x151, t0
                li t0, 0x70
                csrw 0x150, t0
                csrw 0x151, 1
                csrr t0, mip
                log t0              # SEIP by the file
                csrr t0, 0x15C
                log t0
                li t0, 0x200
                csrs mip, t0        # and by software
                csrrw t0, 0x15C, x0
                log t0
                csrr t0, mip
                log t0              # software's stays
                csrr t0, 0x309
                log t0              # mvip shows it
                csrw 0x309, x0
                csrr t0, mip
                log t0
                li t0, 0x222
                csrw mideleg, t0
                csrw mie, t0
                csrsi mip, 2
                csrr t0, 0xDB0
                log t0              # stopi: SSI
                ret
            """)
        #expect(lines == hex([0x200, 0x50005, 0x50005, 0x200, 0x200, 0, 0x10001]))
    }

    @Test func `with a PLIC the AIA's registers do not exist`() throws {
        for register in ["0x350", "0x351", "0x35C", "0xFB0", "0x150", "0x15C", "0xDB0", "0x308"] {
            let lines = try run("body:\n csrr t0, \(register)\n ret\n", plic: true)
            #expect(lines.first == hex([2])[0], "\(register)")
        }
        #expect(!HartConfiguration(interrupts: .plic).isaString.contains("aia"))
        #expect(HartConfiguration().isaString.hasPrefix("rv64imafdc_zicbom_zicboz_zicntr"))
    }

    @Test func `messages of another thread are neither lost nor invented, and wake the hart`() throws {
        // The handler claims, counts per identity 1…4, and stops after the last message (identity 5).
        let program = try GuestProgram(
            Self.common + """
                body:
                    la t0, handler
                    csrw mtvec, t0
                    select 0xC0
                    put 0x3E
                    select 0x70
                    put 1
                    li t0, 0x800
                    csrw mie, t0
                    la s2, scratch
                1:  csrsi mstatus, 8
                    wfi
                    csrci mstatus, 8
                    ld t0, 40(s2)
                    beqz t0, 1b
                    ld t0, 8(s2)
                    log t0
                    ld t0, 40(s2)
                    log t0
                    la t0, trap
                    csrw mtvec, t0
                    ret
                    .balign 4
                handler:
                    csrrw t1, 0x35C, x0
                    srli t1, t1, 16
                    slli t1, t1, 3
                    add t1, t1, s2
                    ld t2, 0(t1)
                    addi t2, t2, 1
                    sd t2, 0(t1)
                    mret

                """)
        let machine = TestMachine(image: program.image)
        let file = machine.wires[0].machineInterruptFile
        let sender = Thread {
            for _ in 0..<2000 {
                file.deliver(identity: 1)
                file.deliver(identity: 0)
                file.deliver(identity: 9999)
                usleep(20)
            }
            file.deliver(identity: 5)
        }
        sender.start()
        let lines = try #require(machine.run())
        let count = try #require(UInt64(lines[0], radix: 16))
        #expect(count >= 1 && count <= 2000)
        #expect(lines[1] == hex([1])[0])
    }
}
