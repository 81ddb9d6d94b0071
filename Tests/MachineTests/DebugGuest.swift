import Foundation
import QMP
import TestKit
import Testing
import Wire

/// A small program in a `host-cpu` process, with its debugger socket.
final class DebugGuest {
    let folder = TemporaryFolder()
    let host: RunningProcess
    let elf: String
    var socket: String { folder.file("gdb") }

    /// A program for 0x8000_0000, as an ELF file and flat; both go with `folder`.
    struct Program {
        let folder: TemporaryFolder
        let elf: String
        let flat: String
    }

    static func assemble(_ source: String, in folder: TemporaryFolder = TemporaryFolder()) throws -> Program {
        let program = Program(folder: folder, elf: folder.file("program.elf"), flat: folder.file("program.bin"))
        let (text, script) = (folder.file("program.S"), folder.file("program.ld"))
        try source.write(toFile: text, atomically: false, encoding: .utf8)
        try """
        ENTRY(_start)
        SECTIONS { . = 0x80000000; .text : { *(.text*) } .data : { *(.data*) } .eh_frame : { *(.eh_frame) } }
        """.write(toFile: script, atomically: false, encoding: .utf8)
        try tool(
            "clang",
            [
                "--target=riscv64-unknown-elf", "-march=rv64gc", "-mabi=lp64d", "-mno-relax", "-nostdlib", "-g",
                "-fuse-ld=lld", "-Wl,-T,\(script)", text, "-o", program.elf,
            ])
        try tool("llvm-objcopy", ["-O", "binary", program.elf, program.flat])
        return program
    }

    /// Assembles `source` for 0x8000_0000, where it is entered in M-mode, and starts it.
    init(_ source: String, harts: Int = 1) throws {
        let program = try Self.assemble(source, in: folder)
        elf = program.elf
        host = try RunningProcess(
            binary("host-cpu"),
            [
                "--memory", "64MiB", "--harts", "\(harts)", "--firmware", program.flat, "--gdb", folder.file("gdb"),
                "--listen", "control=\(folder.file("control"))", "--die-with-parent",
            ])
        let socket = folder.file("gdb")
        let isReady = eventually {
            (try? self.control().execute("query-status"))?["status"] == "running"
                && FileManager.default.fileExists(atPath: socket)
        }
        #expect(isReady, "\(host.text)")
    }

    private static func tool(_ name: String, _ arguments: [String]) throws {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
        let path =
            (folders + ["/opt/swift/usr/bin", "/usr/bin"]).map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) } ?? name
        let result = try run(path, arguments)
        try #require(result.status == 0, "\(name): \(result.output)")
    }

    func control() throws -> QMPClient { try QMPClient(path: folder.file("control")) }

    /// What gdb-multiarch prints for these commands, run on the guest. Its status is 1 when the last command failed.
    func gdb(_ commands: String, status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) throws -> String
    {
        let result = try run("/usr/bin/gdb-multiarch", try arguments(commands) + ["-batch"])
        #expect(result.status == status, "\(result.output) \(host.text)", sourceLocation: sourceLocation)
        return result.output
    }

    /// A gdb-multiarch that waits for more commands.
    func interactiveGDB(_ commands: String) throws -> RunningProcess {
        try RunningProcess("/usr/bin/gdb-multiarch", try arguments(commands))
    }

    private func arguments(_ commands: String) throws -> [String] {
        let file = folder.file("commands-" + String(UInt32.random(in: 0...UInt32.max), radix: 36))
        let start = "set pagination off\nset confirm off\nset architecture riscv:rv64\ntarget remote \(socket)\n"
        try (start + commands).write(toFile: file, atomically: false, encoding: .utf8)
        return ["-nx", "-q", "-x", file, elf]
    }

    /// Instructions that hart 0 has retired.
    func retired(_ hart: Int = 0) throws -> Int64 {
        try control().execute("query-cpus").arrayValue?[hart]["instructions-retired"]?.integerValue ?? -1
    }

    /// Whether a hart gets on.
    func isRunning(_ hart: Int = 0) throws -> Bool {
        let before = try retired(hart)
        return eventually { (try? retired(hart)) ?? 0 > before }
    }

    /// Counts calls in `counter`, with frames that a debugger can unwind. `extra` runs once, before.
    static func counting(_ extra: String = "") -> String {
        """
            .text
            .globl _start
        _start:
            la sp, stack_top
            li s1, 0
            li t0, 0x6000
            csrs mstatus, t0
            li t0, 0x3ff8000000000000
            fmv.d.x fa0, t0
            \(extra)
        loop:
            addi s1, s1, 1
            mv a0, s1
            call outer
            j loop
            .globl outer
            .type outer, @function
        outer:
            .cfi_startproc
            addi sp, sp, -16
            .cfi_def_cfa_offset 16
            sd ra, 8(sp)
            .cfi_offset ra, -8
            call inner
            ld ra, 8(sp)
            addi sp, sp, 16
            ret
            .cfi_endproc
            .size outer, .-outer
            .globl inner
            .type inner, @function
        inner:
            .cfi_startproc
            la t0, counter
            sd a0, 0(t0)
            add a0, a0, a0
            ret
            .cfi_endproc
            .size inner, .-inner
            .data
            .balign 8
            .globl counter
        counter: .dword 0
            .balign 16
            .zero 256
        stack_top:

        """
    }
}
