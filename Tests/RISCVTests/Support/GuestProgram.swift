// Bare-metal RISC-V programs for tests: assembled by the toolchain's clang, run by our hart and by QEMU.
//
// A program logs doublewords; at its end the runtime prints the log as lines of 16 hexadecimal digits on the UART and
// stops the machine. The same image runs in both, so what two machines print can be compared line by line.
import Foundation
import TestKit

/// An assembled program.
struct GuestProgram {
    /// For QEMU.
    let elfPath: String
    /// Flat, loaded and entered at 0x8000_0000.
    let image: [UInt8]
    private let folder: TemporaryFolder

    struct AssemblyFailure: Error, CustomStringConvertible { let description: String }

    /// Assembles `body`, which the runtime calls in M-mode with traps logged.
    ///
    /// Registers with a meaning: s11 the log's end (`log REG` appends), s10 where to go on in M-mode after an ecall or
    /// a fetch fault, s5 a multiplier for digests; t5 and t6 are the trap handler's.
    init(_ body: String, march: String = "rv64gc_zba_zbb_zbs_zicbom_zicboz") throws {
        folder = TemporaryFolder()
        elfPath = folder.file("program.elf")
        let source = folder.file("program.S")
        let script = folder.file("program.ld")
        let flat = folder.file("program.bin")
        try (Self.runtime + body + Self.data).write(toFile: source, atomically: false, encoding: .utf8)
        try "ENTRY(_start)\nSECTIONS { . = 0x80000000; .text : { *(.text*) *(.data*) *(.bss*) } }\n"
            .write(toFile: script, atomically: false, encoding: .utf8)
        let clang = try TestKit.run(
            Self.tool("clang"),
            [
                "--target=riscv64-unknown-elf", "-march=\(march)", "-mabi=lp64d", "-mno-relax", "-nostdlib",
                "-fuse-ld=lld", "-Wl,-T,\(script)", source, "-o", elfPath,
            ])
        guard clang.status == 0 else { throw AssemblyFailure(description: clang.output) }
        let objcopy = try TestKit.run(Self.tool("llvm-objcopy"), ["-O", "binary", elfPath, flat])
        guard objcopy.status == 0 else { throw AssemblyFailure(description: objcopy.output) }
        image = try [UInt8](Data(contentsOf: URL(fileURLWithPath: flat)))
    }

    /// What QEMU prints on the serial port.
    func runInQEMU(cpu: String = "rv64,zba=true,zbb=true,zbs=true", machine: String = "virt") throws -> [String] {
        let output = folder.file("serial.txt")
        let qemu = try TestKit.run(
            Self.tool("qemu-system-riscv64"),
            [
                "-M", machine, "-cpu", cpu, "-m", "64", "-bios", "none", "-kernel", elfPath, "-display", "none",
                "-monitor", "none", "-serial", "file:\(output)",
            ], within: .seconds(60))
        guard qemu.status == 0 else {
            throw AssemblyFailure(description: "QEMU ended with \(String(describing: qemu.status)): \(qemu.output)")
        }
        return try Self.lines(String(contentsOfFile: output, encoding: .utf8))
    }

    static func lines(_ text: String) -> [String] { text.split(separator: "\n").map(String.init) }

    private static func tool(_ name: String) -> String {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let folders = path.split(separator: ":").map(String.init) + ["/opt/swift/usr/bin", "/usr/bin"]
        return folders.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) } ?? name
    }

    private static let runtime = """
        .macro log reg
            sd \\reg, 0(s11)
            addi s11, s11, 8
        .endm
        .macro digest reg
            xor s4, s4, \\reg
            mul s4, s4, s5
            srli t6, s4, 29
            xor s4, s4, t6
        .endm
        .text
        .globl _start
        _start:
            la sp, stack_top
            la s11, log_start
            la t0, trap
            csrw mtvec, t0
            li s5, 0x9E3779B97F4A7C15
            li t0, 0x6000
            csrs mstatus, t0
            call body
        finish:
            la s0, log_start
            li s1, 0x10000000
        1:  bgeu s0, s11, 4f
            ld t0, 0(s0)
            addi s0, s0, 8
            li t1, 60
        2:  srl t2, t0, t1
            andi t2, t2, 15
            li t3, 10
            addi t2, t2, '0'
            li t4, '0' + 10
            bltu t2, t4, 3f
            addi t2, t2, 'a' - '0' - 10
        3:  sb t2, 0(s1)
            addi t1, t1, -4
            bgez t1, 2b
            li t2, 10
            sb t2, 0(s1)
            j 1b
        4:  li t0, 0x100000
            li t1, 0x5555
            sw t1, 0(t0)
        5:  j 5b

            .balign 256
        trap:
            csrr t5, mcause
            log t5
            csrr t5, mtval
            log t5
            csrr t5, mepc
            la t6, _start
            sub t6, t5, t6
            log t6
            csrr t6, mcause
            bltz t6, 2f
            addi t6, t6, -1
            beqz t6, 2f
            addi t6, t6, -11
            beqz t6, 2f
            addi t6, t6, 4
            beqz t6, 2f
            addi t6, t6, -1
            beqz t6, 2f
            lhu t6, 0(t5)
            andi t6, t6, 3
            addi t6, t6, -3
            bnez t6, 1f
            addi t5, t5, 2
        1:  addi t5, t5, 2
            csrw mepc, t5
            mret
        2:  csrw mepc, s10
            li t6, 0x1800
            csrs mstatus, t6
            mret

            .balign 4
        """ + "\n"

    private static let data =
        "\n" + """
                .data
                .balign 4096
            scratch:
                .zero 8192
                .balign 4096
            tables:
                .zero 65536
            stack:
                .zero 4096
            stack_top:
                .balign 4096
            log_start:
                .zero 262144
            """ + "\n"
}
