import FoundationEssentials
import LPC
import QMP
import SecurityLogic
import Synchronization
import TestKit
import Testing
import Wire

/// The BMC as Linux sees it: the unmodified drivers ipmi_si, ipmi_msghandler and ipmi_devintf of Debian's source, and
/// Debian's ipmitool, over the lpc wire and through the security logic's bridge, which parts host and BMC at the POST code
/// 0xAA as `lock-at: boot-complete` does.
@Suite(
    .serialized,
    .enabled(
        if: Guest.isFetched && FileManager.default.fileExists(atPath: Guest.ipmiInitramfs), "run scripts/fetch-guest"))
struct BMCInterfaceTests {
    /// What the bridge told, and itself.
    private final class Logic: Sendable {
        private let thread: LoopThread
        private let bridge = Mutex<LPCBridge?>(nil)
        let codes = Mutex<[UInt8]>([])

        init(_ folder: TemporaryFolder) throws {
            let thread = try LoopThread()
            self.thread = thread
            let bridge = LPCBridge(
                loop: thread.loop, host: try Listener(path: folder.file("lpc-host"), kind: .seqpacket),
                bmc: try Listener(path: folder.file("lpc-bmc"), kind: .seqpacket),
                onPostCode: { [weak self] in self?.hear($0) }, onDenial: { _ in })
            self.bridge.withLock { $0 = bridge }
            bridge.setConnected(true)
            try bridge.start()
        }

        deinit { thread.end() }

        private func hear(_ code: UInt8) {
            if code == LPCPort.bootComplete { bridge.withLock { $0 }?.setConnected(false) }
            codes.withLock { $0.append(code) }
        }

        var statistics: LPCBridge.Statistics { bridge.withLock { $0!.statistics } }
    }

    @Test func `ipmi_si finds the BMC and ipmitool asks it before the boot is complete, and nobody reaches it after`()
        throws
    {
        let folder = TemporaryFolder()
        let logic = try Logic(folder)
        let bmc = try ComponentProcess("bmc", in: folder, connects: ["lpc": "lpc-bmc"])
        let host = try LoneHost([
            "--kernel", Guest.kernel, "--initrd", Guest.ipmiInitramfs,
            "--boot-arguments", "iomem=relaxed", "--connect", "lpc=\(folder.file("lpc-host"))",
        ])
        let boot = try Guest.waitForShell(host.console)
        let report = boot.replacing("\r\n", with: "\n")
        for line in [
            "Device ID                 : 32\n", "Device Revision           : 1\n", "Firmware Revision         : 1.00\n",
            "IPMI Version              : 2.0\n", "Chassis Device\n", "Baseboard guest: ipmitool ended with 0\n",
        ] {
            #expect(report.contains(line), "missing '\(line)' in:\n\(report)")
        }
        let console = host.console
        // The driver works by the interrupt that the devicetree gives it, and the BMC was told so.
        #expect(try console.run("grep -c ipmi_si /proc/interrupts").output == "1\n")
        let before = try bmc.control.execute("query-ipmi")
        #expect(
            before["global-enables"] == 1 && before["kcs-errors"] == 0 && before["kcs-state"] == "idle", "\(before)")
        #expect(before["requests"]?.integerValue ?? 0 > 5, "\(before)")
        #expect(logic.codes.withLock { $0 } == [0xAA] && logic.statistics.denied < logic.statistics.forwarded)
        // Apart: the tool gets no answer, and the BMC has seen nothing of it.
        let passed = logic.statistics.forwarded
        let (status, output) = try console.run("timeout 3 ipmitool mc info")
        #expect(status != 0 && !output.contains("Device ID"), "\(output)")
        #expect(logic.statistics.denied > 0 && logic.statistics.forwarded == passed)
        #expect(try bmc.control.execute("query-ipmi")["cycles"] == before["cycles"])
        // Port by port: the bus floats, and POST codes still end in the logic.
        #expect(try console.run("devmem 0x10020ca3 8; devmem 0x10020080 8").output == "0xFF\n0xAA\n")
        #expect(bmc.child.isRunning && host.process.isRunning)
        try console.type("poweroff")
        #expect(host.process.waitForExit(within: .seconds(60)) == 0, "\(host.process.text)")
    }
}
