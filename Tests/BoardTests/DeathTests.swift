import Foundation
import QMP
import TestKit
import Testing
import Wire

@Suite struct DeathTests {
    @Test func `a component that dies at its start is reported with its status and last lines`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", bench.topology, behaviour: "bmc0=die")
        #expect(result.status == 1)
        #expect(result.output.contains("error: bmc0 (bmc, pid "), "\(result.output)")
        #expect(
            result.output.contains(
                ") ended: exit code 7; its last lines, of \(bench.runtime)/bench/logs/bmc0.log:\n    line 22\n"),
            "\(result.output)")
        #expect(result.output.contains("\n    line 30\n    cannot go on\n"))
        let record = try bench.record()
        #expect(record["state"] == "failed")
        #expect(try bench.component("bmc0", of: record)["end"] == "exit code 7")
        #expect(bench.allGone(bench.pids(record)))
        #expect(bench.leftovers() == LauncherBench.records)
    }

    @Test func `a component that is killed is reported with its signal`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", "-d", bench.topology, behaviour: "host0=abort")
        #expect(result.status == 1)
        #expect(result.output.contains("ended: killed by signal 6 (Aborted)"), "\(result.output)")
        #expect(result.output.contains("about to abort"))
    }

    /// How soon is measured by `scripts/bench`.
    @Test func `a component that ends with an error is reported with its exit code and last lines`() throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", bench.topology, behaviour: "bmc0=boot")
        try #require(launcher.waitForOutput("Ctrl-C stops it"), "\(launcher.text)")
        let client = try QMPClient(path: "\(bench.runtime)/bench/host0.control.sock")
        try client.send("test-die", ["code": 5])
        #expect(launcher.waitForExit() == 1)
        #expect(launcher.text.contains("ended: exit code 5"), "\(launcher.text)")
        #expect(launcher.text.contains("\n    dying as told\n"), "\(launcher.text)")
    }

    @Test func `a component that hangs is found by its watchdog`() throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", "--watchdog", "1s", bench.topology, behaviour: "bmc0=boot")
        try #require(launcher.waitForOutput("Ctrl-C stops it"), "\(launcher.text)")
        let client = try QMPClient(path: "\(bench.runtime)/bench/host0.control.sock")
        try client.send("test-block")
        #expect(launcher.waitForExit(within: .seconds(30)) == 1)
        #expect(launcher.text.contains("error: host0 hangs: no sign of life for 1 s"), "\(launcher.text)")
        #expect(bench.leftovers() == LauncherBench.records)
    }

    @Test func `a guest that turns the power off stops the board in order`() throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", bench.topology, behaviour: "bmc0=boot")
        try #require(launcher.waitForOutput("Ctrl-C stops it"), "\(launcher.text)")
        let record = try bench.record()
        #expect(try bench.baseboard("qmp", "host0", "test-power-off").status == 0)
        #expect(launcher.waitForExit() == 0, "\(launcher.text)")
        #expect(launcher.text.contains("the guest of host0 turned the power off"), "\(launcher.text)")
        #expect(try bench.record()["state"] == "stopped")
        #expect(bench.allGone(bench.pids(record)))
    }

    @Test func `a component that ends on its own while the board runs is a failure`() throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", bench.topology, behaviour: "bmc0=boot")
        try #require(launcher.waitForOutput("Ctrl-C stops it"), "\(launcher.text)")
        #expect(try bench.baseboard("qmp", "flash0", "quit").status == 0)
        #expect(launcher.waitForExit() == 1)
        #expect(launcher.text.contains(") ended: exit code 0"), "\(launcher.text)")
    }
}

@Suite struct RefusalTests {
    @Test func `a refused firmware ends up with 3, names the image, and ps tells it afterwards`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", bench.topology, behaviour: "host0=refuse")
        #expect(result.status == 3)
        let reason = "verification failed: image 'server': the signature is wrong"
        #expect(result.output.contains("baseboard: error: \(reason)"), "\(result.output)")
        let record = try bench.record()
        #expect(record["state"] == "failed")
        #expect(record["reason"]?.stringValue == reason)
        #expect(bench.leftovers() == LauncherBench.records)
    }

    @Test func `a refused board that is detached stays held until down`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", "-d", bench.topology, behaviour: "host0=refuse")
        #expect(result.status == 3)
        let record = try bench.record()
        #expect(record["state"] == "failed")
        #expect(bench.pids(record).allSatisfy(isAlive))
        let shown = try bench.baseboard("ps").output
        #expect(
            shown.contains("board bench: failed: verification failed: image 'server': the signature is wrong (pid "))
        #expect(try bench.baseboard("down").status == 0)
        #expect(bench.allGone(bench.pids(record)))
        #expect(try bench.record()["reason"]?.stringValue?.contains("verification failed") == true)
    }

    @Test func `a guest that panics before it booted is a failure`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", bench.topology, behaviour: "host0=panic")
        #expect(result.status == 1)
        #expect(result.output.contains("error: the guest of host0 panicked"), "\(result.output)")
    }
}
