import Foundation
import QMP
import TestKit
import Testing
import Wire

@Suite struct UpTests {
    @Test func `a board comes up with its timeline and table, and Ctrl-C stops all of it`() throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", bench.topology, behaviour: "bmc0=boot")
        try #require(launcher.waitForOutput("Ctrl-C stops it"), "\(launcher.text)")
        for expected in [
            " s  host-cpu       host0      COMPONENT_READY\n", " s  bmc            bmc0       BOOT_COMPLETE\n",
            "COMPONENT  KIND      PID", "\nflash0     flash     ", "board bench: up after 0.",
        ] {
            #expect(launcher.text.contains(expected), "\(launcher.text)")
        }
        let record = try bench.record()
        #expect(record["state"] == "up")
        #expect(bench.pids(record).count == 3)
        kill(launcher.pid, SIGINT)
        #expect(launcher.waitForExit() == 0, "\(launcher.text)")
        #expect(bench.allGone(bench.pids(record)))
        #expect(bench.leftovers() == LauncherBench.records)
        #expect(try bench.record()["state"] == "stopped")
    }

    @Test(arguments: [SIGHUP, SIGTERM])
    func `a terminal that is closed stops the board in order, as SIGTERM does`(_ signal: Int32) throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", bench.topology, behaviour: "bmc0=boot")
        try #require(launcher.waitForOutput("Ctrl-C stops it"), "\(launcher.text)")
        let record = try bench.record()
        kill(launcher.pid, signal)
        #expect(launcher.waitForExit() == 0, "\(launcher.text)")
        #expect(bench.allGone(bench.pids(record)))
        #expect(bench.leftovers() == LauncherBench.records)
        #expect(try bench.record()["state"] == "stopped")
    }

    @Test func `a board whose reader leaves stops in order`() throws {
        let bench = LauncherBench()
        let result = try run(
            "/bin/sh",
            ["-c", #"{ "$0" up "$1"; echo "ended $?" >&2; } | head -n 1"#, binary("baseboard"), bench.topology],
            environment: bench.environment("bmc0=boot"))
        #expect(result.output.contains("ended 0"), "\(result.output)")
        #expect(try bench.record()["state"] == "stopped")
    }

    @Test func `a detached board lives on until down`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", "-d", bench.topology, behaviour: "bmc0=boot")
        #expect(result.status == 0)
        #expect(result.output.contains("'baseboard down bench' stops it"), "\(result.output)")
        let record = try bench.record()
        #expect(bench.pids(record).allSatisfy(isAlive))
        let down = try bench.baseboard("down")
        #expect(down.status == 0)
        #expect(down.output == "board bench stopped\n")
        #expect(bench.allGone(bench.pids(record)))
        #expect(bench.leftovers() == LauncherBench.records)
        #expect(try bench.baseboard("down").output.contains("no board runs"))
    }

    @Test func `a detached board does not care who stopped reading`() throws {
        let bench = LauncherBench()
        let shell = "'\(binary("baseboard"))' up -d '\(bench.topology)' 2>&1 | head -c 1"
        _ = try run("/bin/sh", ["-c", shell], environment: bench.environment("bmc0=boot"))
        #expect(eventually { (try? bench.record()["state"]?.stringValue) == "up" })
        #expect(try bench.baseboard("down").status == 0)
    }

    @Test func `a second up of a running board is refused and names the pid`() throws {
        let bench = LauncherBench()
        try bench.up()
        let supervisor = try #require(try bench.record()["supervisor"]?.integerValue)
        let second = try bench.baseboard("up", bench.topology)
        #expect(second.status == 1)
        #expect(second.output.contains("board 'bench' runs already (pid \(supervisor))"), "\(second.output)")
        #expect(try bench.record()["state"] == "up")
        _ = try bench.baseboard("down")
    }

    @Test func `two boards run side by side and are told apart by name`() throws {
        let bench = LauncherBench()
        try bench.up()
        try bench.up("--set", "name=other")
        let both = try bench.baseboard("ps").output
        #expect(both.contains("board bench: up") && both.contains("board other: up"), "\(both)")
        let unclear = try bench.baseboard("down")
        #expect(unclear.status == 1)
        #expect(unclear.output.contains("which board? bench, other"), "\(unclear.output)")
        let print = try bench.baseboard("qmp", "--board", "other", "host0", "query-status")
        #expect(print.status == 0)
        #expect(try bench.baseboard("down", "other").status == 0)
        #expect(try bench.record()["state"] == "up")
        #expect(try bench.baseboard("down", "--board", "bench").status == 0)
    }

    @Test func `the stale folder of a dead board is recognised, said and cleared`() throws {
        let bench = LauncherBench()
        try bench.up()
        let record = try bench.record()
        let supervisor = Int32(try #require(record["supervisor"]?.integerValue))
        kill(supervisor, SIGKILL)
        #expect(bench.allGone(bench.pids(record)), "components die with their launcher")
        #expect(eventually { !isAlive(supervisor) })
        #expect(bench.leftovers().contains("host0.control.sock"))
        let dead = try bench.record()
        #expect(dead["state"] == "failed")
        #expect(dead["reason"]?.stringValue == "its supervisor (pid \(supervisor)) died")

        let again = try bench.baseboard("up", "-d", bench.topology, behaviour: "bmc0=boot")
        #expect(again.status == 0)
        #expect(again.output.contains("cleared what a dead board 'bench' (pid \(supervisor)) left"), "\(again.output)")
        _ = try bench.baseboard("down")
        let third = try bench.baseboard("up", "-d", bench.topology, behaviour: "bmc0=boot")
        #expect(!third.output.contains("cleared"), "what a board leaves that ended in order is not stale")
        _ = try bench.baseboard("down")
    }

    @Test func `what still runs of a killed board is gone before the next one starts, even what hangs`() throws {
        let bench = LauncherBench()
        try bench.up(behaviour: "bmc0=boot,flash0=stubborn")
        let record = try bench.record()
        kill(Int32(try #require(record["supervisor"]?.integerValue)), SIGKILL)
        let again = try bench.baseboard("up", "-d", bench.topology, behaviour: "bmc0=boot")
        #expect(again.status == 0, "\(again.output)")
        #expect(bench.pids(record).allSatisfy { !isAlive($0) })
        #expect(again.output.contains("flash0 of the dead board did not end; killed"), "\(again.output)")
        #expect(!again.output.contains("host0 of the dead board"), "\(again.output)")
        _ = try bench.baseboard("down")
    }

    @Test func `a missing executable is one clear error and starts nothing`() throws {
        let bench = LauncherBench()
        try FileManager.default.removeItem(atPath: "\(bench.executables)/bmc")
        let result = try bench.baseboard("up", bench.topology)
        #expect(result.status == 1)
        #expect(
            result.output == """
                baseboard: error: component 'bmc0' needs the executable 'bmc', and there is none at \
                \(bench.executables)/bmc: build it by 'swift build -c release --product bmc'

                """)
        #expect(!FileManager.default.fileExists(atPath: bench.runtime))
    }

    @Test func `an executable that cannot be executed is named`() throws {
        let bench = LauncherBench()
        try FileManager.default.removeItem(atPath: "\(bench.executables)/bmc")
        try "not a program".write(toFile: "\(bench.executables)/bmc", atomically: true, encoding: .utf8)
        chmod("\(bench.executables)/bmc", 0o700)
        let result = try bench.baseboard("up", bench.topology)
        #expect(result.status == 1)
        #expect(result.output.contains("component 'bmc0': cannot start \(bench.executables)/bmc"), "\(result.output)")
        #expect(!bench.leftovers().contains { $0.hasSuffix(".sock") })
        let record = try bench.record()
        #expect(record["state"] == "failed")
        #expect(record["reason"]?.stringValue?.contains("cannot start \(bench.executables)/bmc") == true, "\(record)")
    }

    @Test func `a topology with mistakes ends with 2, attached or detached`() throws {
        let bench = LauncherBench()
        try "name: x\ncomponents: {h: {type: hots-cpu}}\n".write(
            toFile: bench.topology, atomically: true, encoding: .utf8)
        for arguments in [["up"], ["up", "-d"], ["check"]] {
            let result = try run(
                binary("baseboard"), arguments + [bench.topology], environment: bench.environment())
            #expect(result.status == 2)
            #expect(
                result.output == """
                    \(bench.topology):2:24: error: unknown component type 'hots-cpu'; did you mean 'host-cpu'?
                        components: {h: {type: hots-cpu}}
                                               ^
                    1 mistake

                    """)
        }
    }

    @Test func `a board that does not boot in time says what is missing`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", "--timeout", "1s", bench.topology, behaviour: "flash0=hang")
        #expect(result.status == 1)
        #expect(
            result.output.contains(
                "error: not up within 1 s: waiting for flash0 to be ready, the host to boot (BOOT_COMPLETE)"),
            "\(result.output)")
        #expect(bench.leftovers() == LauncherBench.records)
    }

    @Test func `a component that ignores its end is killed`() throws {
        let bench = LauncherBench()
        try bench.up(behaviour: "bmc0=boot,flash0=stubborn")
        let record = try bench.record()
        #expect(try bench.baseboard("down").status == 0)
        #expect(bench.allGone(bench.pids(record)))
        let flash = try bench.component("flash0", of: try bench.record())
        #expect(flash["end"] == "killed by signal 9 (Killed)")
    }

    @Test func `settings and overrides reach the components`() throws {
        let bench = LauncherBench()
        try bench.up("--set", "components.host0.memory=1GiB", "--set", "components.host0.interrupts=plic")
        let answer = try bench.baseboard("qmp", "--json", "host0", "query-status").output
        #expect(answer.contains(#"["--memory","1GiB","--interrupts","plic"]"#), "\(answer)")
        let watchdog = try bench.baseboard("qmp", "--json", "host0", "test-environment", "name=WATCHDOG_USEC")
        #expect(watchdog.output == "\"30000000\"\n")
        _ = try bench.baseboard("down")
    }

    @Test func `JSON is one object a line and ends with the board`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", "-d", "--json", bench.topology, behaviour: "bmc0=boot")
        let lines = try result.output.split(separator: "\n").map { try #require(JSONValue(parsing: String($0))) }
        let events = lines.compactMap { $0["event"]?.stringValue }
        #expect(events.contains("BOOT_COMPLETE"))
        let last = try #require(lines.last)
        #expect(last["state"] == "up")
        _ = try bench.baseboard("down")
    }

    @Test func `Ctrl-C while a detached board still starts takes it back`() throws {
        let bench = LauncherBench()
        let launcher = try bench.start("up", "-d", bench.topology, behaviour: "flash0=hang")
        try #require(launcher.waitForOutput("PROCESSES_STARTED"), "\(launcher.text)")
        let record = try bench.record()
        kill(launcher.pid, SIGINT)
        #expect(launcher.waitForExit() == 0)
        #expect(bench.allGone(bench.pids(record)))
        #expect(bench.leftovers() == LauncherBench.records)
    }
}

@Suite struct DryRunTests {
    @Test func `every process is printed with its settings, sockets and connections`() throws {
        let bench = LauncherBench()
        let result = try bench.baseboard("up", "--dry-run", bench.topology)
        #expect(result.status == 0)
        let (bin, run) = (bench.executables, "\(bench.runtime)/bench")
        let commands = result.output.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
        let expected = [
            "mkdir -p -m 700 \(run)",
            """
            \(bin)/flash --name flash0 --image \(bench.folder.path)/chip.img --listen spi=\(run)/flash0.spi.sock \
            --listen control=\(run)/flash0.control.sock
            """,
            """
            \(bin)/bmc --name bmc0 --listen serial=\(run)/bmc0.serial.sock \
            --listen console=\(run)/bmc0.console.sock --listen control=\(run)/bmc0.control.sock
            """,
            """
            \(bin)/host-cpu --name host0 --connect spi=\(run)/flash0.spi.sock \
            --connect serial=\(run)/bmc0.serial.sock --listen console=\(run)/host0.console.sock \
            --listen gdb=\(run)/host0.gdb.sock --listen control=\(run)/host0.control.sock
            """,
        ]
        #expect(commands == expected)
        #expect(
            result.output.contains(
                "#   NOTIFY_SOCKET=\(run)/flash0.notify WATCHDOG_USEC=30000000 BASEBOARD_LISTEN=1 LISTEN_FDS=2 "
                    + "LISTEN_FDNAMES=spi:control … --die-with-parent"), "\(result.output)")
        #expect(!FileManager.default.fileExists(atPath: bench.runtime), "a dry run makes nothing")
    }

    @Test func `a printed command works when pasted into a shell`() throws {
        let bench = LauncherBench()
        let lines = try bench.baseboard("up", "--dry-run", bench.topology).output.split(separator: "\n")
        let commands = lines.filter { !$0.hasPrefix("#") }.prefix(2).map(String.init)
        let pasted = try RunningProcess(
            "/bin/sh", ["-c", commands[0] + "\nexec " + commands[1]], environment: bench.environment())
        let socket = "\(bench.runtime)/bench/flash0.control.sock"
        #expect(eventually { (try? Socket.connect(to: socket)) != nil }, "\(pasted.text)")
        let client = try QMPClient(path: socket)
        #expect(try client.execute("query-status")["name"] == "flash0")
        _ = try client.execute("quit")
        #expect(pasted.waitForExit() == 0, "\(pasted.text)")
    }
}
