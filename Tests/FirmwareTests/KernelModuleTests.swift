import Foundation
import TestKit
import Testing
import Trust

/// A kernel that the machine has put into RAM and tells of in the devicetree, as the first stage finds it on QEMU.
@Suite("A kernel in the devicetree")
struct KernelModuleTests {
    private let folder = TemporaryFolder()

    /// QEMU's own devicetree with a kernel module of this `reg` (address, size).
    private func tree(_ address: UInt64, _ size: UInt64, _ interrupts: Machine.Interrupts) throws -> String {
        let (binary, source) = (folder.file("tree.dtb"), folder.file("tree.dts"))
        let dump = try run(
            "/usr/bin/qemu-system-riscv64",
            ["-M", "virt,aia=\(interrupts.rawValue),dumpdtb=\(binary)", "-m", "256M", "-smp", "2", "-nographic"])
        try #require(dump.status == 0, "\(dump.output)")
        let decompiled = try run("/usr/bin/dtc", ["-q", "-I", "dtb", "-O", "dts", "-o", source, binary])
        try #require(decompiled.status == 0, "\(decompiled.output)")
        let cells = [address >> 32, address & 0xFFFF_FFFF, size >> 32, size & 0xFFFF_FFFF].map(String.init)
        let module = """
            / { chosen { #address-cells = <2>; #size-cells = <2>; module@0 {
                compatible = "multiboot,kernel", "multiboot,module"; reg = <\(cells.joined(separator: " "))>;
            }; }; };
            """
        let text = try String(contentsOfFile: source, encoding: .utf8) + module
        try Data(text.utf8).write(to: URL(fileURLWithPath: source))
        let compiled = try run("/usr/bin/dtc", ["-q", "-I", "dts", "-O", "dtb", "-o", binary, source])
        try #require(compiled.status == 0, "\(compiled.output)")
        return binary
    }

    @Test(arguments: Machine.Interrupts.allCases)
    func `it is entered, whatever the flash holds as next stage`(_ interrupts: Machine.Interrupts) throws {
        var flash = try Flash()
        let start = Int(FlashLayout.nextStage.offset)
        flash.bytes.replaceSubrange(start..<start + 0x1_0000, with: [UInt8](repeating: 0, count: 0x1_0000))
        let kernel = folder.file("kernel")
        try Data(try Part.host.bytes()).write(to: URL(fileURLWithPath: kernel))
        let size = UInt64(try Part.host.bytes().count)
        let tree = try tree(0x8020_0000, size, interrupts)
        let machine = try Machine(
            flash, interrupts: interrupts, harts: 2,
            ["-dtb", tree, "-device", "loader,addr=0x80200000,force-raw=on,file=\(kernel)"])
        #expect(machine.waitForReady(), "\(machine.process.text)")
        #expect(machine.process.text.contains(", the machine's kernel (\(size) bytes) at 0x80200000"))
    }

    @Test(
        arguments: [
            (0x9000_0000, 0x1000, "the devicetree's kernel lies where there is no memory"),
            (0x8FFF_F000, 0x1001, "the devicetree's kernel lies where there is no memory"),
            (0x8020_0000, 0, "the devicetree's kernel lies where there is no memory"),
            (0x8020_0000, .max, "the devicetree's kernel lies where there is no memory"),
            (0x2000_0000, 0x1000, "the devicetree's kernel lies where there is no memory"),
            (
                0x8018_F000, 0x10, "the devicetree's kernel lies over the first stage's memory or the devicetree"
            ),
            (
                0x801F_FFFF, 0x10_0000, "the devicetree's kernel lies over the first stage's memory or the devicetree"
            ),
            (0x8000_0100, 0x1000, "OpenSBI and the next stage would be loaded over each other"),
        ] as [(UInt64, UInt64, String)])
    func `one that cannot be there is named and the board stops`(
        _ address: UInt64, _ size: UInt64, _ complaint: String
    ) throws {
        let machine = try Machine(Flash(), harts: 2, ["-dtb", try tree(address, size, .imsic)])
        #expect(
            machine.process.waitForOutput(
                "Baseboard first stage: stopped; write a good image to the flash and power-cycle the board\r\n"),
            "\(machine.process.text)")
        #expect(machine.lines.first == "Baseboard first stage: \(complaint)")
        #expect(!machine.process.text.contains("OpenSBI v"))
    }
}
