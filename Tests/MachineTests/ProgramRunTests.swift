import FoundationEssentials
import Machine
import TestKit
import Testing
import Wire

/// Runs of `host-cpu --elf`.
@Suite struct `host-cpu --elf` {
    static let tohost: UInt64 = 0x8000_1000
    static let fromhost: UInt64 = 0x8000_1040
    static let block: UInt64 = 0x8000_1080
    static let text: UInt64 = 0x8000_1100
    static let symbols: [(name: String, value: UInt64)] = [
        ("tohost", tohost), ("fromhost", fromhost), ("begin_signature", text), ("end_signature", text + 12),
    ]

    /// A program with four doubleword places and "Hello, host\n" at `text`.
    private func builder(_ body: (inout Assembler) -> Void) -> ELFBuilder {
        var code = Assembler()
        body(&code)
        let end = code.here()
        code.j(end)
        let data = [UInt8](repeating: 0, count: 256) + Array("Hello, host\n".utf8)
        return ELFBuilder(code: code.bytes, data: data, symbols: Self.symbols)
    }

    private func host(_ bytes: [UInt8], _ arguments: [String] = []) throws -> (status: Int32?, output: String) {
        let folder = TemporaryFolder()
        let file = folder.file("program.elf")
        try Data(bytes).write(to: URL(filePath: file))
        return try run(binary("host-cpu"), ["--elf", file, "--memory", "64MiB"] + arguments)
    }

    private func finish(_ code: inout Assembler, _ value: UInt64) {
        code.li(.t0, Self.tohost)
        code.li(.t1, value)
        code.sd(.t1, 0, .t0)
    }

    /// System call `number`, and a wait for its answer, which is left in a0.
    private func call(_ code: inout Assembler, _ number: UInt64, _ arguments: [UInt64]) {
        code.li(.s0, Self.block)
        for (index, value) in ([number] + arguments).enumerated() {
            code.li(.t1, value)
            code.sd(.t1, Int32(index * 8), .s0)
        }
        code.fence()
        code.li(.t0, Self.tohost)
        code.sd(.s0, 0, .t0)
        let wait = code.here()
        code.ld(.t1, 64, .t0)
        code.beq(.t1, .zero, wait)
        code.sd(.zero, 64, .t0)
        code.ld(.a0, 0, .s0)
    }

    @Test(arguments: [(1, 0), (3, 1), (0x53B, 157), (0x1FF, 255), (0x201, 255)] as [(UInt64, Int32)])
    func `the exit status is the low byte of tohost shifted right by one`(_ value: UInt64, _ status: Int32) throws {
        let (found, output) = try host(builder { finish(&$0, value) }.bytes)
        #expect(found == status, "\(output)")
        #expect(output.contains("failed with result \(value >> 1)") == (value != 1), "\(output)")
    }

    @Test func `each hart starts at the entry with its number and the devicetree`() throws {
        let program = builder { code in
            // Every hart counts itself, the last one ends the run if the devicetree has its magic number.
            let (wrong, wait) = (code.label(), code.label())
            code.csrr(.t0, 0xF14)
            code.bne(.t0, .a0, wrong)
            code.lw(.t1, 0, .a1)
            code.li(.t2, UInt64(bitPattern: Int64(Int32(bitPattern: 0xEDFE_0DD0))))
            code.bne(.t1, .t2, wrong)
            code.li(.s1, 1)
            code.li(.s0, Self.block)
            code.amoaddD(.s1, .s1, .s0)
            code.li(.t2, 3)
            code.bne(.s1, .t2, wait)
            finish(&code, 1)
            code.place(wait)
            code.wfi()
            code.j(wait)
            code.place(wrong)
            finish(&code, 0x63)
        }
        let (status, output) = try host(program.bytes, ["--harts", "4"])
        #expect(status == 0, "\(output)")
    }

    @Test func `the test finisher ends a program too`() throws {
        for (command, expected) in [(0x5555, 0), (0x0007_3333, 7), (0x0100_3333, 1)] as [(UInt64, Int32)] {
            let program = builder { code in
                code.li(.t0, 0x10_0000)
                code.li(.t1, command)
                code.sw(.t1, 0, .t0)
            }
            let (status, output) = try host(program.bytes)
            #expect(status == expected, "\(output)")
        }
    }

    @Test func `write and putchar print, exit ends, and other calls are refused`() throws {
        let program = builder { code in
            call(&code, 64, [1, Self.text, 12])
            code.addi(.s2, .a0, 0)
            // No such file, memory, call.
            call(&code, 64, [3, Self.text, 12])
            code.add(.s2, .s2, .a0)
            call(&code, 64, [1, 0x1000, 12])
            code.add(.s2, .s2, .a0)
            call(&code, 64, [1, 0x83FF_FFF8, 1 << 40])
            code.add(.s2, .s2, .a0)
            call(&code, 56, [])
            code.add(.s2, .s2, .a0)
            // A character, and a wait for it to be taken.
            code.li(.t0, Self.tohost)
            code.li(.t1, 0x0101_0000_0000_0021)
            code.sd(.t1, 0, .t0)
            let wait = code.here()
            code.ld(.t1, 0, .t0)
            code.bne(.t1, .zero, wait)
            // 12 − 9 − 14 − 14 − 38 = −63
            code.addi(.s2, .s2, 127)
            code.li(.s0, Self.block)
            code.li(.t1, 93)
            code.sd(.t1, 0, .s0)
            code.sd(.s2, 8, .s0)
            code.sd(.s0, 0, .t0)
        }
        let (status, output) = try host(program.bytes)
        #expect(status == 64, "\(output)")
        #expect(output.contains("Hello, host\n"))
        #expect(output.contains("!"))
        #expect(output.contains("system call 56"))
    }

    @Test func `what the program prints on COM1 is on standard output`() throws {
        let program = builder { code in
            code.li(.t0, 0x1000_0000)
            for byte in "serial".utf8 {
                code.li(.t1, UInt64(byte))
                code.sb(.t1, 0, .t0)
            }
            finish(&code, 1)
        }
        let (status, output) = try host(program.bytes)
        #expect(status == 0)
        #expect(output == "serial")
    }

    @Test func `the signature is written at the end, whatever the result`() throws {
        for value: UInt64 in [1, 5] {
            let folder = TemporaryFolder()
            let file = folder.file("signature")
            let (status, output) = try host(builder { finish(&$0, value) }.bytes, ["--signature", file])
            #expect(status == Int32(value >> 1), "\(output)")
            #expect(try String(contentsOf: URL(filePath: file), encoding: .utf8) == "6c6c6548\n68202c6f\n0a74736f\n")
        }
        let folder = TemporaryFolder()
        let wide = folder.file("wide")
        _ = try host(
            builder { finish(&$0, 1) }.bytes, ["--signature", wide, "--signature-granularity", "8"])
        #expect(
            try String(contentsOf: URL(filePath: wide), encoding: .utf8) == "68202c6f6c6c6548\n000000000a74736f\n")
    }

    @Test(arguments: [["--instructions", "100000"], ["--timeout", "50ms"]])
    func `a program that does not end is ended by a limit`(_ limit: [String]) throws {
        let folder = TemporaryFolder()
        let signature = folder.file("signature")
        let (status, output) = try host(builder { _ in }.bytes, limit + ["--signature", signature])
        #expect(status == 124)
        #expect(output.contains("not ended") && output.contains(limit[0]), "\(output)")
        #expect(try String(contentsOf: URL(filePath: signature), encoding: .utf8).hasPrefix("6c6c6548\n"))
    }

    @Test func `garbage in tohost is told once and changes nothing`() throws {
        let program = builder { code in
            code.li(.t0, Self.tohost)
            for value: UInt64 in [2, 0x7FFF_FFF8, .max - 7, 0x0300_0000_0000_0000, 0x0505_0000_0000_0001] {
                code.li(.t1, value)
                code.sd(.t1, 0, .t0)
                let wait = code.here()
                code.ld(.t1, 0, .t0)
                code.bne(.t1, .zero, wait)
            }
            finish(&code, 1)
        }
        let (status, output) = try host(program.bytes, ["--timeout", "10s"])
        #expect(status == 0, "\(output)")
        #expect(output.split(separator: "tohost: ").count == 2, "\(output)")
    }

    @Test func `a reset by the guest loads the program again`() throws {
        // The first time a word of the file is 0 and becomes 1; were it not loaded again, the second run would fail.
        let program = builder { code in
            let wrong = code.label()
            code.li(.s0, Self.block)
            code.ld(.t1, 8, .s0)
            code.bne(.t1, .zero, wrong)
            code.li(.t1, 1)
            code.sd(.t1, 8, .s0)
            // Memory behind the program is not of the file: it counts the runs.
            code.li(.s1, 0x8010_0000)
            code.ld(.t2, 0, .s1)
            code.addi(.t2, .t2, 1)
            code.sd(.t2, 0, .s1)
            code.li(.t1, 3)
            let again = code.label()
            code.bne(.t1, .t2, again)
            finish(&code, 1)
            let passed = code.here()
            code.j(passed)
            code.place(wrong)
            finish(&code, 3)
            let failed = code.here()
            code.j(failed)
            code.place(again)
            code.li(.t0, 0x10_0000)
            code.li(.t1, 0x7777)
            code.sw(.t1, 0, .t0)
        }
        let (status, output) = try host(program.bytes, ["--timeout", "10s"])
        #expect(status == 0, "\(output)")
    }

    @Test func `mistakes are told in one line`() throws {
        let good = builder { finish(&$0, 1) }
        let folder = TemporaryFolder()
        for (arguments, words) in [
            (["--elf", folder.file("none")], "none: cannot be read"),
            (["--elf", folder.path], "\(folder.path): "),
            (["--elf", "/dev/null"], "not an ELF file"),
            (["--signature", "/tmp/x"], "--signature needs --elf"),
            (["--timeout", "1s"], "--timeout needs --elf"),
            (["--instructions", "5"], "--instructions needs --elf"),
        ] as [([String], String)] {
            let (status, output) = try run(binary("host-cpu"), arguments)
            #expect(status != 0 && output.contains(words), "\(arguments): \(output)")
        }
        for (arguments, words) in [
            (["--timeout", "10"], "ns, us, ms, s or min"), (["--signature-granularity", "0"], "1 to 4096"),
            (["--signature", "/nonexistent/file"], "/nonexistent/file"),
        ] {
            let (status, output) = try host(good.bytes, arguments)
            #expect(status != 0 && status != 124 && output.contains(words), "\(arguments): \(output)")
        }
        let (status, output) = try host(good.bytes.patched(4, 1, 1))
        #expect(status == 1)
        #expect(output.contains("program.elf: is a 32-bit program"), "\(output)")
    }
}
