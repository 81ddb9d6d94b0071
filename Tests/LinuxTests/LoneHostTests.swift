import FoundationEssentials
import QMP
import TestKit
import Testing

/// Kernels and boot loaders on `host-cpu` alone, without a flash: `--firmware`, `--kernel`, `--initrd`.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct LoneHostTests {
    @Test(arguments: ["aia", "plic"])
    func `Linux runs on four harts`(_ interrupts: String) throws {
        let host = try LoneHost([
            "--kernel", Guest.kernel, "--initrd", Guest.initramfs, "--harts", "4", "--interrupts", interrupts,
            "--memory", "1GiB",
        ])
        try Guest.waitForShell(host.console)
        try exercise(host.console, harts: 4)
        // Work on every hart at once, and the same result on each.
        let work = "for cpu in 0 1 2 3; do taskset -c $cpu sh -c 'seq 1 5000 | sha256sum' & done; wait"
        let sums = Set(try host.console.run(work).output.split(separator: "\n").filter { $0.hasSuffix("-") })
        #expect(sums.count == 1, "\(sums)")
        try host.console.type("poweroff")
        #expect(host.process.waitForExit(within: .seconds(60)) == 0, "\(host.process.text)")
    }

    @Test func `U-Boot comes to its prompt, lists PCI, and powers off`() throws {
        let host = try LoneHost(["--kernel", Guest.uBoot])
        try host.console.wait(for: "Hit any key to stop autoboot")
        try host.console.type("")
        try host.console.wait(for: "=> ")
        try host.console.type("pci enum; pci")
        let listing = try host.console.wait(for: "=> ")
        #expect(listing.contains("0x1b36     0x0008     Bridge device"), "\(listing)")
        try host.console.type("fdt addr $fdtcontroladdr; fdt print / model")
        let model = try host.console.wait(for: "=> ")
        #expect(model.contains("model = \"baseboard,server\""), "\(model)")
        try host.console.type("poweroff")
        #expect(host.process.waitForExit(within: .seconds(60)) == 0, "\(host.process.text)")
    }
}
