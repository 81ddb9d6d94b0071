import FoundationEssentials
import QMP
import TestKit
import Testing

/// The BMC as Linux sees it on a board that locks at boot complete: the drivers ipmi_si, ipmi_msghandler and ipmi_devintf
/// of Debian's source, unmodified, and Debian's ipmitool.
@Suite(
    .serialized,
    .enabled(
        if: Guest.isFetched && FileManager.default.fileExists(atPath: Guest.ipmiInitramfs), "run scripts/fetch-guest"))
struct BMCInterfaceTests {
    @Test func `ipmi_si finds the BMC and ipmitool asks it before the board locks, and nobody reaches it after`() throws
    {
        let settings = [
            "host0.kernel=\(Guest.kernel)", "host0.initrd=\(Guest.ipmiInitramfs)", "host0.boot-arguments=iomem=relaxed",
            "bmc0.boot-line=Baseboard guest: ready", "logic0.lock-at=boot-complete",
        ]
        let board = try LiveBoard("topology/server.yaml", settings.flatMap { ["--set", "components.\($0)"] })
        try #require(board.up.status == 0, "\(board.up.output)")
        let console = try GuestConsole(try board.socket("host0", "console"))
        let report = try Guest.waitForShell(console).replacing("\r\n", with: "\n")
        for line in [
            "Device ID                 : 32\n", "Device Revision           : 1\n", "Firmware Revision         : 1.01\n",
            "IPMI Version              : 2.0\n", "Chassis Device\n", "Baseboard guest: ipmitool ended with 0\n",
        ] {
            #expect(report.contains(line), "missing '\(line)' in:\n\(report)")
        }
        // The driver works by the interrupt that the devicetree gives it, and the BMC was told so.
        #expect(try console.run("grep -c ipmi_si /proc/interrupts").output == "1\n")
        let before = try board.qmp("bmc0", "query-ipmi")
        #expect(
            before["global-enables"] == 1 && before["kcs-errors"] == 0 && before["kcs-state"] == "idle", "\(before)")
        #expect(before["requests"]?.integerValue ?? 0 > 5, "\(before)")
        // Linux itself said that it has booted: the logic locked, and the two are apart.
        let locked = try board.qmp("logic0", "query-security-state")
        #expect(locked["state"] == "locked" && locked["lpc"]?["connected"] == false, "\(locked)")
        #expect(locked["lpc"]?["post-code"] == 0xAA, "\(locked)")
        let (status, output) = try console.run("timeout 3 ipmitool mc info")
        #expect(status != 0 && !output.contains("Device ID"), "\(output)")
        // Port by port: the bus floats, and POST codes still end in the logic.
        #expect(try console.run("devmem 0x10020ca3 8; devmem 0x10020080 8").output == "0xFF\n0xAA\n")
        let after = try board.qmp("logic0", "query-security-state")
        #expect(after["lpc"]?["passed"] == locked["lpc"]?["passed"] && after["lpc"]?["denied"]?.integerValue ?? 0 > 1)
        #expect(try board.qmp("bmc0", "query-ipmi")["cycles"] == before["cycles"], "the BMC has seen none of it")
        try console.type("poweroff")
        try console.wait(for: "reboot: Power down")
    }
}
