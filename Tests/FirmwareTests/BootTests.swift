import Foundation
import TestKit
import Testing

/// One base address register, as the firmware's table or QEMU's `info pci` has it.
private struct Region: Hashable, CustomStringConvertible {
    let address: UInt64
    let size: UInt64
    var description: String { "0x\(String(address, radix: 16))+0x\(String(size, radix: 16))" }

    /// A line of the firmware's table: `BAR 4  0x000400000000    16 KiB  64-bit prefetchable memory`.
    init?(table line: String) {
        guard let match = line.firstMatch(of: #/BAR \d  0x([0-9a-f]+) +(\d+) (B|KiB|MiB|GiB) /#),
            let address = UInt64(match.1, radix: 16), let count = UInt64(match.2)
        else { return nil }
        self.address = address
        size = count << (["B": 0, "KiB": 10, "MiB": 20, "GiB": 30][match.3] ?? 0)
    }

    /// A line of `info pci`: `BAR4: 64 bit prefetchable memory at 0x400000000 [0x400003fff].`
    init?(monitor line: String) {
        guard let match = line.firstMatch(of: #/BAR\d: .* at 0x([0-9a-f]+) \[0x([0-9a-f]+)\]/#),
            let address = UInt64(match.1, radix: 16), let last = UInt64(match.2, radix: 16), last > address
        else { return nil }
        self.address = address
        size = last - address + 1
    }
}

@Suite("The board's firmware on QEMU's virt machine")
struct BootTests {
    private static let rootPortAndEntropy = [
        "-device", "pcie-root-port,id=rp0,chassis=1,slot=1", "-device", "virtio-rng-pci,bus=rp0,romfile=",
    ]

    @Test(arguments: [1, 2], Machine.Interrupts.allCases)
    func `it boots from flash, shows what PCIe holds, obeys its console and switches off`(
        harts: Int, interrupts: Machine.Interrupts
    ) throws {
        let machine = try Machine(Flash(), interrupts: interrupts, harts: harts, Self.rootPortAndEntropy)
        #expect(machine.waitForReady(), "\(machine.process.text)")
        let lines = machine.lines
        let banner = try #require(lines.firstIndex(of: "Baseboard host firmware"), "\(machine.process.text)")
        #expect(lines.contains { $0.hasPrefix("OpenSBI v") })
        #expect(lines[banner...].contains("  memory       256 MiB at 0x80000000"))
        #expect(lines[banner...].contains("  harts        \(harts), this is hart 0"))
        switch interrupts {
        case .imsic:
            #expect(lines[banner...].contains("  interrupts   IMSIC file at 0x28000000, 255 identities"))
        case .plic:
            #expect(lines[banner...].contains("  interrupts   PLIC at 0x0c000000, context 1"))
        }
        let table = [
            "PCIe functions",
            "  address   vendor:device  class   what it is",
            "  00:00.0   1b36:0008      060000  PCIe host bridge",
            "  00:01.0   1b36:000c      060400  PCIe root port to bus 01",
            "            BAR 0  0x40000000         4 KiB  32-bit memory",
            "  01:00.0   1af4:1044      00ff00    virtio entropy source",
            "            BAR 1  0x40100000         4 KiB  32-bit memory",
            "            BAR 4  0x000400000000    16 KiB  64-bit prefetchable memory",
        ]
        let start = try #require(lines.firstIndex(of: "PCIe functions"))
        #expect(Array(lines[start...].prefix(table.count)) == table)
        #expect(lines.contains("  none         no offload card answers on the PCIe bus"))
        // The last line, and nothing behind it until somebody types.
        #expect(Array(lines.suffix(2)) == ["Baseboard firmware: ready", ""])
        #expect(lines.allSatisfy { $0.count <= 100 })

        machine.type("pci")
        #expect(
            machine.process.waitForOutput("pci\r\n\r\n" + table.joined(separator: "\r\n") + "\r\nbaseboard> "),
            "\(machine.process.text)")
        machine.type("poweroff")
        #expect(machine.process.waitForExit() == 0, "\(machine.process.text)")
    }

    @Test func `every base address behind switches is where QEMU sees it`() throws {
        let machine = try Machine(
            Flash(),
            [
                "-device", "pcie-root-port,id=rp0,chassis=1,slot=1", "-device", "x3130-upstream,id=up,bus=rp0",
                "-device", "xio3130-downstream,id=d0,bus=up,chassis=2,slot=2",
                "-device", "virtio-net-pci,bus=d0,romfile=",
                "-device", "xio3130-downstream,id=d1,bus=up,chassis=3,slot=3",
                "-object", "memory-backend-ram,id=m,size=64M", "-device", "ivshmem-plain,memdev=m,bus=d1",
                "-device", "pcie-root-port,id=rp1,chassis=4,slot=4",
                "-device", "pcie-pci-bridge,id=b,bus=rp1", "-device", "edu,bus=b,addr=3",
                "-device", "nvme,serial=1,addr=9.0,multifunction=on", "-device", "virtio-rng-pci,addr=9.1",
            ])
        #expect(machine.waitForReady(), "\(machine.process.text)")
        let shown = machine.lines.compactMap { Region(table: $0) }
        let answer = try #require(machine.askQEMU("info pci"), "\(machine.process.text)")
        let seen = answer.split(whereSeparator: \.isNewline).compactMap { Region(monitor: String($0)) }
        // 5 ports and bridges with registers of their own, 2 + 2 + 1 + 1 + 3 registers of devices.
        #expect(shown.count >= 11, "\(machine.process.text)")
        #expect(Set(shown) == Set(seen), "\(machine.process.text)")
        #expect(Set(shown).count == shown.count)
        // Every address is its own.
        let sorted = shown.sorted { $0.address < $1.address }
        for (lower, upper) in zip(sorted, sorted.dropFirst()) {
            #expect(lower.address + lower.size <= upper.address)
        }
        #expect(machine.lines.contains { $0.contains("PCIe switch downstream port to bus 04") })
        // Two functions of one device.
        #expect(machine.lines.contains { $0.hasPrefix("  00:09.1   1af4:1005") })
        // The device behind the last bridge answers where the table says: its identification register.
        let edu = try #require(machine.lines.firstIndex { $0.contains("1234:11e8") })
        let region = try #require(Region(table: machine.lines[edu + 1]))
        let word = try #require(machine.askQEMU("xp /1wx 0x\(String(region.address, radix: 16))"))
        #expect(word.contains("0x010000ed"), "\(word)")
    }

    @Test func `a device too large for every window is shown and stays off`() throws {
        let machine = try Machine(
            Flash(),
            [
                "-object", "memory-backend-ram,id=m,size=32G,reserve=off", "-device", "ivshmem-plain,memdev=m",
                "-device", "edu",
            ])
        #expect(machine.waitForReady(), "\(machine.process.text)")
        let lines = machine.lines
        #expect(lines.contains("            BAR 2  does not fit      32 GiB  64-bit prefetchable memory"))
        #expect(lines.contains { $0.contains("1af4:1110") && $0.hasSuffix(", off: no room for all of it") })
        // The next device is none the worse for it.
        let edu = try #require(lines.firstIndex { $0.contains("1234:11e8") })
        #expect(Region(table: lines[edu + 1])?.size == 1 << 20)
        let answer = try #require(machine.askQEMU("info pci"))
        #expect(answer.contains("BAR2: 64 bit prefetchable memory at 0xffffffffffffffff"))
    }

    @Test func `a restart begins at the reset vector again`() throws {
        let machine = try Machine(Flash(), harts: 2)
        #expect(machine.waitForReady(), "\(machine.process.text)")
        machine.type("reboot")
        let again = eventually(within: .seconds(60)) {
            machine.process.text.components(separatedBy: "Baseboard firmware: ready\r\n").count == 3
        }
        #expect(again, "\(machine.process.text)")
        #expect(machine.lines.filter { $0.contains("Baseboard first stage: OpenSBI (") }.count == 2)
    }

    @Test func `the other harts sleep in OpenSBI, not in flash`() throws {
        let machine = try Machine(Flash(), harts: 2)
        #expect(machine.waitForReady(), "\(machine.process.text)")
        // OpenSBI lies in the first 2 MiB of RAM.
        let inOpenSBI = eventually {
            guard let counters = machine.programCounters() else { return false }
            return counters.count == 2 && (0x8020_0000..<0x8030_0000).contains(counters[0])
                && (0x8000_0000..<0x8020_0000).contains(counters[1])
        }
        #expect(inOpenSBI, "\(machine.process.text)")
    }

    /// QEMU's own devicetree, changed by `edit`, which gets its path.
    private func changedTree(harts: Int, _ edit: (String) throws -> Void) throws -> (TemporaryFolder, String) {
        let folder = TemporaryFolder()
        let tree = folder.file("tree")
        _ = try run(
            "/usr/bin/qemu-system-riscv64",
            ["-M", "virt,aia=aplic-imsic,dumpdtb=\(tree)", "-smp", "\(harts)", "-m", "256M", "-nographic"])
        try edit(tree)
        return (folder, tree)
    }

    private func put(_ arguments: [String]) throws {
        let result = try run("/usr/bin/fdtput", arguments)
        try #require(result.status == 0, "\(result.output)")
    }

    @Test func `a machine without PCIe says so and is ready`() throws {
        let (folder, tree) = try changedTree(harts: 1) { try put(["-r", $0, "/soc/pci@30000000"]) }
        defer { withExtendedLifetime(folder) {} }
        let machine = try Machine(Flash(), ["-dtb", tree])
        #expect(machine.waitForReady(), "\(machine.process.text)")
        #expect(machine.lines.contains("  PCIe         no host bridge in the devicetree"))
        #expect(machine.lines.contains("  none         no offload card answers on the PCIe bus"))
    }

    @Test func `the firmware runs on hart 0 whichever hart OpenSBI boots on`() throws {
        let (folder, tree) = try changedTree(harts: 2) { tree in
            // OpenSBI's own setting for who may boot. Spec: OpenSBI docs/domain_support.md, opensbi-config.
            let phandle = try run("/usr/bin/fdtget", ["-t", "u", tree, "/cpus/cpu@1", "phandle"])
            try put(["-c", tree, "/chosen/opensbi-config"])
            try put(["-t", "s", tree, "/chosen/opensbi-config", "compatible", "opensbi,config"])
            let hart = phandle.output.trimmingCharacters(in: .whitespacesAndNewlines)
            try put(["-t", "u", tree, "/chosen/opensbi-config", "cold-boot-harts", hart])
        }
        defer { withExtendedLifetime(folder) {} }
        let machine = try Machine(Flash(), harts: 2, ["-dtb", tree])
        #expect(machine.waitForReady(), "\(machine.process.text)")
        #expect(machine.lines.contains("Boot HART ID                : 1"))
        #expect(machine.lines.filter { $0.hasPrefix("  harts") } == ["  harts        2, this is hart 0"])
        machine.type("poweroff")
        #expect(machine.process.waitForExit() == 0, "\(machine.process.text)")
    }

    @Test func `an unknown command is answered, an overlong one too, and a corrected one obeyed`() throws {
        let machine = try Machine(Flash())
        #expect(machine.waitForReady(), "\(machine.process.text)")
        machine.type("dance")
        #expect(machine.process.waitForOutput("dance\r\nunknown command; try: help\r\nbaseboard> "))
        machine.type(String(repeating: "x", count: 40))
        #expect(machine.process.waitForOutput("x\r\nunknown command; try: help\r\nbaseboard> "))
        machine.type("hekp\u{7F}\u{7F}lp")
        #expect(machine.process.waitForOutput("help      this list\r\n"), "\(machine.process.text)")
        machine.type("card")
        #expect(machine.process.waitForOutput("there is no offload card in service\r\n"))
    }
}
