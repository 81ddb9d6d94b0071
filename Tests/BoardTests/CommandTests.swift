import Crypto
import Foundation
import QMP
import TestKit
import Testing
import Trust
import Wire

@Suite struct CommandTests {
    @Test(arguments: [
        "up", "down", "ps", "logs", "console", "qmp", "check", "timeline", "lspci", "measurements", "provision",
    ])
    func `every command has help with an example`(_ command: String) throws {
        let result = try run(binary("baseboard"), [command, "--help"])
        #expect(result.status == 0)
        #expect(result.output.contains("EXAMPLES") && result.output.contains("  baseboard "), "\(result.output)")
        #expect(result.output.contains("baseboard \(command) "), "\(result.output)")
    }

    @Test(arguments: [["--nonsense"], ["up"], ["frobnicate"], ["up", "--timeout", "5", "x.yaml"], ["qmp", "host0"]])
    func `wrong usage ends with 2`(_ arguments: [String]) throws {
        let result = try run(binary("baseboard"), arguments)
        #expect(result.status == 2)
        #expect(result.output.contains("Error: "), "\(result.output)")
    }

    @Test func `without boards every command says so`() throws {
        let bench = LauncherBench()
        #expect(try bench.baseboard("ps").output == "no boards; 'baseboard up FILE' starts one\n")
        #expect(try bench.baseboard("ps", "--json").output == "[\n\n]\n")
        for arguments in [
            ["down"], ["logs"], ["timeline"], ["console", "host0"], ["qmp", "host0", "quit"], ["lspci"],
            ["measurements"],
        ] {
            let result = try run(binary("baseboard"), arguments, environment: bench.environment())
            #expect(result.status == 1)
            #expect(result.output == "baseboard: error: no board runs; 'baseboard up FILE' starts one\n")
        }
        #expect(try bench.baseboard("ps", "none").output.contains("there is no board 'none'"))
    }

    @Test func `check prints mistakes as JSON`() throws {
        let bench = LauncherBench()
        #expect(
            try bench.baseboard("check", bench.topology).output.hasSuffix(": board 'bench', 3 components, 2 links\n"))
        let result = try bench.baseboard("check", "--json", "--set", "components.host0.harts=99", bench.topology)
        #expect(result.status == 2)
        let mistake = try #require(JSONValue(parsing: result.output)?[0], "\(result.output)")
        #expect(mistake["file"] == "--set")
        #expect(mistake["column"] == 24)
        #expect(mistake["message"] == "'harts' must be a whole number from 1 to 8, not '99'")
    }

    @Test func `qmp sends arguments as JSON where they are, and tells refusals`() throws {
        let bench = LauncherBench()
        try bench.up()
        let emitted = try bench.baseboard(
            "qmp", "host0", "test-emit", "event=HELLO", #"data={"who": "world", "n": 3}"#)
        #expect(emitted.status == 0)
        #expect(
            eventually { (try? bench.baseboard("timeline").output.contains("HELLO n=3 who=world")) == true })
        for (arguments, expected) in [
            (["host0", "frobnicate"], "host0: The command frobnicate has not been found"),
            (["host0", "test-die", "code=five"], "host0: Invalid parameter type for 'code', expected: integer"),
            (["host9", "quit"], "board 'bench' has no component 'host9'; it has flash0, host0, bmc0"),
        ] {
            let result = try run(binary("baseboard"), ["qmp"] + arguments, environment: bench.environment())
            #expect(result.status == 1)
            #expect(result.output == "baseboard: error: \(expected)\n")
        }
        _ = try bench.baseboard("down")
    }

    @Test func `measurements are shown, written in both forms, and refused when they do not add up`() throws {
        var log = MeasurementLog()
        try log.extend(register: 6, action: "slot A is active")
        try log.extend(
            register: 2, type: .postCode, digest: [UInt8](repeating: 7, count: 48), data: Array("OpenSBI".utf8))
        let bench = LauncherBench()
        try bench.up()
        #expect(
            try bench.baseboard("measurements").output
                == "baseboard: error: board 'bench' has no security logic: nothing measures it\n")
        #expect(
            try bench.baseboard("measurements", "host0").output.contains(
                "host0: The command query-measurements has not been found"))
        func answer(_ value: JSONValue) throws {
            let told = try bench.baseboard(
                "qmp", "host0", "test-answer", "command=query-measurements", "value=\(value.text())")
            #expect(told.status == 0, "\(told.output)")
        }
        try answer(log.json)
        let shown = try bench.baseboard("measurements", "host0").output
        #expect(shown.contains("register 6  \(Hex.encode(log.registers[6]))"), "\(shown)")
        #expect(shown.contains(" 1  register 2  EV_POST_CODE  070707070707070707070707…  OpenSBI"), "\(shown)")
        let folder = TemporaryFolder()
        let written = try bench.baseboard(
            "measurements", "host0", "--tcg", folder.file("tcg"), "--cbor", folder.file("cbor"))
        #expect(written.status == 0 && written.output.isEmpty, "\(written.output)")
        #expect(try WholeFile.read(folder.file("tcg"), limit: 1 << 16) == log.tcgEventLog())
        #expect(try MeasurementLog(cbor: WholeFile.read(folder.file("cbor"), limit: 1 << 16)) == log)
        let json = try #require(JSONValue(parsing: try bench.baseboard("measurements", "host0", "--json").output))
        #expect(json == log.json)

        guard case .object(var members) = log.json else { return }
        members["registers"] = MeasurementLog().json["registers"]
        try answer(.object(members))
        let refused = try bench.baseboard("measurements", "host0")
        #expect(refused.status == 1)
        #expect(refused.output.contains("do not give the value of register 2"), "\(refused.output)")
        _ = try bench.baseboard("down")
    }

    @Test func `ps tells a component that does not answer and does not hang itself`() throws {
        let bench = LauncherBench()
        try bench.up()
        try QMPClient(path: "\(bench.runtime)/bench/host0.control.sock").send("test-block")
        let start = MonotonicTime.now
        let record = try bench.record()
        // It waits a bounded time for each component, and no longer; a busy machine adds to it.
        #expect(MonotonicTime.now.since(start) < .seconds(30))
        #expect(try bench.component("host0", of: record)["status"] == "does not answer")
        #expect(try bench.component("flash0", of: record)["status"] == "running")
        // Asked after the one that hangs, and not blamed for it.
        #expect(try bench.component("bmc0", of: record)["status"] == "running")
        _ = try bench.baseboard("down")
    }

    @Test func `logs are shown by component and followed until the board ends`() throws {
        let bench = LauncherBench()
        try bench.up()
        #expect(try bench.baseboard("qmp", "host0", "test-print", "text=first").status == 0)
        #expect(eventually { (try? bench.baseboard("logs").output) == "host0  | first\n" })
        #expect(try bench.baseboard("logs", "host0").output == "first\n")
        #expect(try bench.baseboard("logs", "flash0").output == "")
        let follower = try bench.start("logs", "-f", "host0", "bmc0")
        try #require(follower.waitForOutput("host0 | first\n"), "\(follower.text)")
        _ = try bench.baseboard("qmp", "bmc0", "test-print", "text=second")
        #expect(follower.waitForOutput("bmc0  | second\n"), "\(follower.text)")
        #expect(try bench.baseboard("down").status == 0)
        #expect(follower.waitForExit() == 0)
        #expect(try bench.baseboard("logs", "--json", "bmc0").output == #"{"component":"bmc0","line":"second"}"# + "\n")
        #expect(try bench.baseboard("logs", "nobody").output.contains("has no component 'nobody'"))
    }

    @Test func `the timeline is shown as text and JSON and followed until the board ends`() throws {
        let bench = LauncherBench()
        try bench.up()
        let follower = try bench.start("timeline", "-f", "--json")
        try #require(follower.waitForOutput("BOARD_UP"), "\(follower.text)")
        _ = try bench.baseboard("qmp", "flash0", "test-emit", "event=FIRMWARE_REFUSED", #"data={"image":"a b"}"#)
        #expect(follower.waitForOutput("FIRMWARE_REFUSED"), "\(follower.text)")
        #expect(
            try bench.baseboard("timeline").output.contains(#" s  flash          flash0     FIRMWARE_REFUSED "a b""#))
        _ = try bench.baseboard("down")
        #expect(follower.waitForExit() == 0)
        let entries = try bench.baseboard("timeline", "--json").output.split(separator: "\n")
            .map { try #require(JSONValue(parsing: String($0))) }
        #expect(entries.last?["event"] == "BOARD_STOPPED")
        let times = entries.compactMap { $0["time"]?.integerValue }
        #expect(times == times.sorted() && times.count == entries.count)
        #expect(entries.filter { $0["event"] == "COMPONENT_READY" }.count == 3, "each event comes once")
    }

    @Test func `a console works through pipes`() throws {
        let bench = LauncherBench()
        try bench.up()
        let console = try bench.start("console", "bmc0")
        console.type("hello, ")
        console.type("board\n")
        #expect(console.waitForOutput("HELLO, BOARD\n"), "\(console.text)")
        let short = try run(
            "/bin/sh", ["-c", "echo quick | \(binary("baseboard")) console --idle 300ms host0"],
            environment: bench.environment())
        #expect(short.status == 0)
        #expect(short.output == "QUICK\n")
        let none = try bench.baseboard("console", "flash0")
        #expect(none.status == 1)
        #expect(
            none.output.contains("component 'flash0' (flash) has no console; host0, bmc0 has one"), "\(none.output)")
        _ = try bench.baseboard("down")
        #expect(console.waitForExit() == 0, "the console ends with its board")
    }

    @Test func `a component that spews fills no disk and stops nobody`() throws {
        let bench = LauncherBench()
        try bench.up(behaviour: "bmc0=boot,host0=spew")
        #expect(
            eventually(within: .seconds(60)) {
                let log = try? FileManager.default.attributesOfItem(atPath: "\(bench.runtime)/bench/logs/host0.log.old")
                return (log?[.size] as? Int ?? 0) > 16 << 20
            })
        #expect(try bench.baseboard("qmp", "flash0", "query-status").status == 0)
        #expect(try bench.baseboard("down").status == 0)
        // Its end came in the middle of a line as likely as not.
        #expect(try bench.baseboard("logs", "host0").output.contains("x\n"))
    }
}
