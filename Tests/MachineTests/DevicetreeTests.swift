import FoundationEssentials
import Machine
import RISCV
import TestKit
import Testing
import Wire

@Suite struct `Devicetree` {
    /// Runs Debian's dtc over a tree: the source it makes, and its diagnostics.
    private func decompile(_ bytes: [UInt8]) throws -> (source: String, diagnostics: String) {
        let folder = TemporaryFolder()
        try Data(bytes).write(to: URL(filePath: folder.file("tree.dtb")))
        let (status, diagnostics) = try run(
            "/usr/bin/dtc", ["-I", "dtb", "-O", "dts", "-o", folder.file("tree.dts"), folder.file("tree.dtb")])
        #expect(status == 0, "\(diagnostics)")
        let source = try Data(contentsOf: URL(filePath: folder.file("tree.dts")))
        return (String(decoding: source, as: UTF8.self), diagnostics)
    }

    static let configurations: [MachineConfiguration] = [
        MachineConfiguration(),
        MachineConfiguration(hartCount: 8),
        MachineConfiguration(interrupts: .plic, hasLPC: true), MachineConfiguration(hasLPC: true),
        MachineConfiguration(memorySize: 16 << 30, hartCount: 2, interrupts: .plic, bootArguments: "console=ttyS0"),
    ]

    @Test(arguments: configurations)
    func `dtc takes it without a warning`(_ configuration: MachineConfiguration) throws {
        let (source, diagnostics) = try decompile(configuration.devicetree)
        #expect(diagnostics == "")
        #expect(source.contains("stdout-path = \"/soc/serial@10000000"))
        for hart in 0..<configuration.hartCount { #expect(source.contains("cpu@\(hart) {")) }
        #expect(source.contains("bootargs = \"console=ttyS0\"") == (configuration.bootArguments != nil))
    }

    @Test func `it has an APLIC and IMSICs or a PLIC, never both`() throws {
        let advanced = try decompile(MachineConfiguration(interrupts: .aia).devicetree).source
        #expect(advanced.contains("riscv,aplic") && advanced.contains("riscv,imsics"))
        #expect(!advanced.contains("riscv,plic0"))
        let plain = try decompile(MachineConfiguration(interrupts: .plic).devicetree).source
        #expect(plain.contains("riscv,plic0"))
        #expect(!plain.contains("aplic") && !plain.contains("imsic"))
    }

    @Test func `the nodes and properties of QEMU's own tree are there with the same values`() throws {
        let ours = try decompile(MachineConfiguration(hartCount: 2).devicetree).source
        // Lines as `qemu-system-riscv64 -M virt,aia=aplic-imsic,dumpdtb=… -smp 2` (7.2) gives them, where the value does
        // not depend on its phandle numbers.
        for line in [
            "timebase-frequency = <0x989680>;",
            "compatible = \"sifive,test1\", \"sifive,test0\", \"syscon\";",
            "compatible = \"google,goldfish-rtc\";",
            "reg = <0x00 0x10000000 0x00 0x100>;",
            "compatible = \"sifive,clint0\", \"riscv,clint0\";",
            "reg = <0x00 0xd000000 0x00 0x8000>;",
            "reg = <0x00 0x28000000 0x00 0x2000>;",
            "riscv,num-ids = <0xff>;",
            "riscv,num-sources = <0x60>;",
            "bus-range = <0x00 0xff>;",
            "interrupt-map-mask = <0x1800 0x00 0x00 0x07>;",
            """
            ranges = <0x1000000 0x00 0x00 0x00 0x3000000 0x00 0x10000 0x2000000 0x00 0x40000000 0x00 0x40000000 \
            0x00 0x40000000 0x3000000 0x04 0x00 0x04 0x00 0x04 0x00>;
            """,
        ] {
            // dtc before 1.7 writes string lists with \0.
            let old = line.replacing("\", \"", with: "\\0")
            #expect(ours.contains(line) || ours.contains(old), "missing: \(line)")
        }
    }

    @Test func `a machine with an LPC bus has a BMC's interface on it, and others have neither`() throws {
        let (with, diagnostics) = try decompile(MachineConfiguration(hasLPC: true).devicetree)
        #expect(diagnostics == "")
        for line in [
            "lpc@10020000 {", "ranges = <0x00 0x00 0x10020000 0x10000>;", "ipmi@ca2 {", "compatible = \"ipmi-kcs\";",
            "device_type = \"ipmi\";", "reg = <0xca2 0x02>;", "reg-spacing = <0x01>;", "interrupts = <0x0d 0x04>;",
        ] {
            #expect(with.contains(line), "missing: \(line)")
        }
        let without = try decompile(MachineConfiguration().devicetree).source
        #expect(!without.contains("lpc") && !without.contains("ipmi"))
    }

    @Test func `the 64-bit window moves above RAM that would reach it`() {
        #expect(MemoryMap.pcieMemory64(memorySize: 512 << 20).base == 0x4_0000_0000)
        #expect(MemoryMap.pcieMemory64(memorySize: 14 << 30).base == 0x4_0000_0000)
        #expect(MemoryMap.pcieMemory64(memorySize: 15 << 30).base == 0x8_0000_0000)
    }

    @Test func `boot arguments that the ROM cannot hold are refused`() throws {
        let long = MachineConfiguration(bootArguments: String(repeating: "x", count: 61_440))
        let thread = try LoopThread()
        #expect(throws: MachineError.self) {
            _ = try Machine(long, flash: nil, loop: thread.loop) { _ in }
        }
    }
}
