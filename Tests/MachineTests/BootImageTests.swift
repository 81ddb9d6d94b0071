import FoundationEssentials
import Glibc
import Machine
import QMP
import RISCV
import TestKit
import Testing
import Wire

/// Files that lie in RAM when the harts start: `--firmware`, `--kernel`, `--initrd`.
@Suite struct `Boot files` {
    private let folder = TemporaryFolder()

    private func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        try Data(bytes).write(to: URL(filePath: folder.file(name)))
        return folder.file(name)
    }

    /// A file of `size` bytes that takes no room.
    private func hole(_ name: String, _ size: UInt64) throws -> String {
        let path = try file(name, [])
        let handle = try Descriptor.open(path, flags: 0o1)
        #expect(ftruncate(handle.rawValue, Int(size)) == 0)
        return path
    }

    /// A RISC-V image header as Linux writes it, then 64 bytes of nothing.
    private static func header(
        textOffset: UInt64 = 0x20_0000, imageSize: UInt64 = 0x40_0000, flags: UInt64 = 0,
        magic: UInt64 = 0x0000_0056_4353_4952, magic2: UInt32 = 0x0543_5352
    ) -> [UInt8] {
        func little(_ value: UInt64, _ count: Int = 8) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        }
        return little(0) + little(textOffset) + little(imageSize) + little(flags) + little(2) + little(0)
            + little(magic) + little(UInt64(magic2), 4) + little(0, 4) + [UInt8](repeating: 0, count: 64)
    }

    // MARK: what happens

    /// Stores a0, a1, a2 and the first three words behind a2 from 0x8100_0000 on, counts its own starts at 0x8100_0080,
    /// damages its own file in RAM and resets the machine until it has started twice.
    private static var witness: [UInt8] {
        var program = Assembler()
        let again = program.label()
        program.li(.s0, 0x8100_0000)
        program.sd(.a0, 0, .s0)
        program.sd(.a1, 8, .s0)
        program.sd(.a2, 16, .s0)
        for word in 0..<3 as Range<Int32> {
            program.ld(.t0, word * 8, .a2)
            program.sd(.t0, 24 + word * 8, .s0)
        }
        program.ld(.t1, 0x80, .s0)
        program.addi(.t1, .t1, 1)
        program.sd(.t1, 0x80, .s0)
        program.li(.t2, Program.finisher)
        program.li(.t3, 2)
        program.bltu(.t1, .t3, again)
        program.li(.t4, 0x5555)
        program.sw(.t4, 0, .t2)
        let forever = program.here()
        program.wfi()
        program.j(forever)
        program.place(again)
        // Zeroes over the first instruction and over the kernel and the initramfs.
        program.li(.t0, MemoryMap.ramBase)
        program.sd(.zero, 0, .t0)
        program.li(.t0, 0x8020_0000)
        program.sd(.zero, 0, .t0)
        program.li(.t0, 0x83DF_F000)
        program.sd(.zero, 0, .t0)
        program.li(.t4, 0x7777)
        program.sw(.t4, 0, .t2)
        program.j(forever)
        return program.bytes
    }

    @Test func `a firmware starts at the begin of RAM with a devicetree and fw_dynamic_info, again after a reset`()
        throws
    {
        let kernel = [UInt8](repeating: 0x4B, count: 5000)
        let disk = [UInt8](repeating: 0x44, count: 4096)
        let images = BootImages(
            firmware: try BootImage(.firmware, path: file("firmware", Self.witness)),
            kernel: try BootImage(.kernel, path: file("kernel", kernel)),
            initialRAMDisk: try BootImage(.initialRAMDisk, path: file("disk", disk)))
        let configuration = MachineConfiguration(memorySize: 64 << 20, images: images)
        let thread = try LoopThread()
        let events = Collected<MachineEvent>()
        let machine = try Machine(configuration, flash: nil, loop: thread.loop) { events.append($0) }
        machine.releaseReset()
        expectEventually { events.all == [.guestReset, .powerOff] }
        func memory(_ address: UInt64, _ count: Int) -> [UInt8] {
            let offset = Int(address - MemoryMap.ramBase)
            return machine.memoryContent(offset..<offset + count)
        }
        func word(_ address: UInt64) -> UInt64 { memory(address, 8).reversed().reduce(0) { $0 << 8 | UInt64($1) } }
        let tree = word(0x8100_0008)
        #expect(word(0x8100_0000) == 0)
        #expect(tree == 0x83E0_0000)
        // "OSBI", version 2, the next stage.
        #expect((0..<3).map { word(0x8100_0018 + $0 * 8) } == [0x4942_534F, 2, 0x8020_0000])
        #expect(memory(tree, configuration.devicetree.count) == configuration.devicetree)
        // What the first start destroyed is there again.
        #expect(memory(0x8020_0000, kernel.count) == kernel)
        #expect(memory(0x83DF_F000, disk.count) == disk)
        #expect(memory(MemoryMap.ramBase, 8) == Array(Self.witness.prefix(8)))
    }

    @Test func `the devicetree tells where kernel and initramfs are, and dtc takes it`() throws {
        let images = BootImages(
            kernel: try BootImage(.kernel, path: file("kernel", Self.header(imageSize: 0x123_4000))),
            initialRAMDisk: try BootImage(.initialRAMDisk, path: file("disk", [UInt8](repeating: 1, count: 5000))))
        let tree = try file("tree.dtb", MachineConfiguration(memorySize: 8 << 30, images: images).devicetree)
        let (status, source) = try run("/usr/bin/dtc", ["-q", "-I", "dtb", "-O", "dts", tree])
        #expect(status == 0)
        // Below 4 GiB, page-aligned.
        for line in [
            "linux,initrd-start = <0x00 0xffffe000>;", "linux,initrd-end = <0x00 0xfffff388>;", "module@80200000 {",
            "reg = <0x00 0x80200000 0x00 0x1234000>;",
        ] { #expect(source.contains(line), "missing: \(line)") }
        #expect(try run("/usr/bin/dtc", ["-I", "dtb", "-O", "dts", "-o", "/dev/null", tree]).output == "")
    }

    @Test func `a file that shrank since the start ends the machine at its next reset, with its name`() throws {
        let kernel = try file("kernel", [UInt8](repeating: 0, count: 8192))
        let process = try RunningProcess(
            binary("host-cpu"),
            [
                "--firmware", try file("firmware", Program.count), "--kernel", kernel, "--listen",
                "control=\(folder.file("control"))",
            ])
        // The path is there a moment before anyone listens.
        expectEventually { (try? Socket.connect(to: folder.file("control"))) != nil }
        let control = try QMPClient(path: folder.file("control"))
        _ = try control.execute("system_reset")
        #expect(try control.execute("query-status")["status"] == "running")
        #expect(truncate(kernel, 3) == 0)
        _ = try control.execute("system_reset")
        #expect(process.waitForExit() == 1)
        #expect(process.text.contains("\(kernel): had 8192 bytes at the start and now 3"), "\(process.text)")
    }

    // MARK: refusals

    @Test(
        arguments: [
            (header(magic2: 0), "magic numbers"),
            (header(magic: 1), "magic numbers"),
            (header(flags: 1), "big-endian"),
            (header(imageSize: 0), "image size of 0 bytes"),
            (header(imageSize: .max), "image size of"),
            (header(textOffset: 0x1234), "text offset of 0x1234"),
            (header(imageSize: 128 << 20), "give the machine 130MiB of memory or more"),
            ([0x7F, 0x45, 0x4C, 0x46, 2, 1, 1], "an ELF file: use the flat image"),
            ([0x1F, 0x8B, 8, 0], "compressed by gzip: unpack it first"),
            ([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0], "compressed by xz"),
            (Array("070701".utf8), "a cpio archive: an initramfs is given by --initrd"),
            ([], "the file is empty"),
        ] as [([UInt8], String)])
    func `a kernel that cannot be one is refused, with its name and the way out`(
        _ content: [UInt8], _ words: String
    ) throws {
        let path = try file("kernel", content)
        try expectRefused(["--kernel", path], path, words)
    }

    @Test func `files that are none, or do not fit, are refused before anything runs`() throws {
        let small = try file("small", [1, 2, 3, 4])
        let large = try hole("large", 100 << 20)
        let huge = try hole("huge", 1 << 42)
        #expect(mkfifo(folder.file("pipe"), 0o600) == 0)
        let (missing, pipe) = (folder.file("missing"), folder.file("pipe"))
        try expectRefused(["--kernel", missing], missing, "No such file")
        try expectRefused(["--kernel", folder.path], folder.path, "not a regular file")
        try expectRefused(["--initrd", pipe, "--kernel", small], pipe, "not a regular file")
        try expectRefused(["--kernel", "/dev/zero"], "/dev/zero", "not a regular file")
        try expectRefused(["--initrd", small], small, "add --kernel")
        try expectRefused(["--kernel", large], large, "104857600 bytes of RAM where 65011712 are free")
        try expectRefused(["--kernel", huge], huge, "use a smaller one")
        try expectRefused(["--kernel", small, "--initrd", large], large, "give the machine 104MiB of memory or more")
        let firmware = try hole("firmware", (2 << 20) + 1)
        try expectRefused(["--firmware", firmware], firmware, "2097153 bytes of RAM where 2097152 are free")
        let words = String(repeating: "x", count: 61_440)
        try expectRefused(
            ["--firmware", small, "--boot-arguments", words], "devicetree", "shorten the boot arguments")
    }

    /// `host-cpu` ends at once with one line that has all of `words`.
    private func expectRefused(
        _ arguments: [String], _ words: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let (status, output) = try run(
            binary("host-cpu"), ["--memory", "64MiB", "--listen", "console=\(folder.file("c"))"] + arguments)
        #expect(status != nil && status != 0 && status! < 128, "\(output)", sourceLocation: sourceLocation)
        for word in words { #expect(output.contains(word), "\(output)", sourceLocation: sourceLocation) }
        #expect(output.split(separator: "\n").count <= 1, "\(output)", sourceLocation: sourceLocation)
    }
}
