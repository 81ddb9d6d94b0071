import Foundation
import QMP
import TestKit
import Testing
import Wire

/// `baseboard lspci` against the real lspci, which reads its dump by -F.
@Suite(.serialized) struct LSPCITests {
    /// A board whose firmware numbered its buses, and its dump.
    final class Enumerated {
        let board: LiveBoard
        var dump: String { board.folder.file("dump") }

        init() throws {
            board = try LiveBoard()
            try #require(board.up.status == 0, "\(board.up.output)")
            let result = try board.baseboard(["lspci", "--dump", dump])
            try #require(result.status == 0 && result.output.isEmpty, "\(result.output)")
        }

        func real(_ arguments: [String]) throws -> String {
            let result = try run("/usr/bin/lspci", ["-F", dump] + arguments)
            try #require(result.status == 0, "\(result.output)")
            return result.output.replacing("lspci: Unable to load libkmod resources: error -2\n", with: "")
        }
    }

    @Test func `every view of a board is that of the real lspci`() throws {
        let it = try Enumerated()
        let views = [
            "", "-n", "-nn", "-x", "-xxx", "-nxxxx", "-s 1:", "-s .0 -nn", "-s 1f: -x", "-v", "-vv -s 02:00.0",
            "-vvv -xxx",
            "-t", "-tv", "-tvnn",
        ]
        for view in views {
            let arguments = view.split(separator: " ").map(String.init)
            let shown = try it.board.baseboard(["lspci"] + arguments)
            #expect(shown.status == 0)
            #expect(shown.output == (try it.real(arguments)), "lspci \(view)")
        }
        let all = try it.board.baseboard(["lspci", "-n", "host0"]).output
        // Host bridge, two root ports, and behind them the cards of docs/wiring.md.
        #expect(
            all.split(separator: "\n").map { $0.prefix(23) } == [
                "00:00.0 0600: 1b36:0008", "00:01.0 0604: 1b36:000c", "00:02.0 0604: 1b36:000c",
                "01:00.0 0200: 1af4:1041", "02:00.0 1200: 1b36:0b0a",
            ])
        #expect(try it.board.baseboard(["lspci", "--dump", "-"]).output == it.real(["-xxxx"]))
    }

    @Test func `the configuration spaces are those of the cards, and looking changes nothing`() throws {
        let it = try Enumerated()
        let first = try it.board.qmp("host0", "query-pci")
        let second = try it.board.qmp("host0", "query-pci")
        #expect(first == second)
        let ports = try #require(first[0]?["devices"]?.arrayValue?.filter { $0["pci_bridge"] != nil }, "\(first)")
        #expect(ports.map { $0["qdev_id"] } == ["rp0", "rp1"])
        let card = try #require(ports[1]["pci_bridge"]?["devices"]?[0], "\(ports)")
        #expect(card["bus"] == 2)
        #expect(card["id"]?["vendor"] == 0x1B36 && card["id"]?["device"] == 0x0B0A)
        let regions = try #require(card["regions"]?.arrayValue, "\(card)")
        #expect(regions.map { $0["bar"] }.starts(with: [0]) && regions[0]["size"] == 4096)
        // In the window that the bridge opens.
        let window = try #require(ports[1]["pci_bridge"]?["bus"]?["memory_range"], "\(ports)")
        let address = try #require(regions[0]["address"]?.integerValue)
        #expect((window["base"]?.integerValue ?? .max)...(window["limit"]?.integerValue ?? .max) ~= address)

        let json = try it.board.baseboard(["lspci", "--json", "-s", "02:00.0"])
        let listed = try #require(JSONValue(parsing: json.output)?[0], "\(json.output)")
        #expect(listed["address"] == "02:00.0" && listed["port"] == "rp1")
        #expect(listed["class"]?["name"] == "Processing accelerators")
        #expect(listed["configuration"] == card["config"])
        #expect(listed["configuration"]?.stringValue?.count == 8192)
    }

    @Test func `hosts whose guests numbered no bus show what is there, each its own`() throws {
        let folder = TemporaryFolder()
        // A firmware that stays where it is: j .
        try Data([0x6F, 0, 0, 0]).write(to: URL(fileURLWithPath: folder.file("loop.bin")))
        try """
        name: twins
        components:
          host0: {type: host-cpu, memory: 64MiB, firmware: loop.bin}
          host1: {type: host-cpu, memory: 64MiB, firmware: loop.bin}
          offload0: {type: offload-card}
        links:
          - pcie: [host1.rp2, offload0]
        """.write(toFile: folder.file("twins.yaml"), atomically: true, encoding: .utf8)
        let environment = ["BASEBOARD_RUNTIME_DIR": folder.path, "NO_COLOR": "1"]
        func baseboard(_ arguments: String...) throws -> (status: Int32?, output: String) {
            try run(binary("baseboard"), arguments, environment: environment)
        }
        defer { _ = try? baseboard("down") }
        let up = try baseboard("up", "-d", folder.file("twins.yaml"))
        try #require(up.status == 0, "\(up.output)")

        let vague = try baseboard("lspci")
        #expect(vague.status == 1)
        #expect(vague.output == "baseboard: error: which host of board 'twins'? host0, host1\n")
        #expect(try baseboard("lspci", "-n", "host0").output == "00:00.0 0600: 1b36:0008\n00:01.0 0604: 1b36:000c\n")
        let shown = try baseboard("lspci", "-n", "host1")
        #expect(shown.status == 0)
        #expect(
            shown.output.hasPrefix(
                "baseboard: note: the guest of host1 has not numbered the bus behind rp2 yet; there is Red Hat, Inc. "),
            "\(shown.output)")
        #expect(shown.output.contains("[1b36:0b0a]\n00:00.0 0600: 1b36:0008\n"), "\(shown.output)")
        #expect(!shown.output.contains("01:00.0"))
        let json = JSONValue(parsing: try baseboard("lspci", "--json", "host1").output)
        let card = try #require(json?.arrayValue?.last)
        #expect(card["address"] == .null && card["port"] == "rp2" && card["device"]?["id"] == 0x0B0A)
        // lspci itself refuses nothing of what it is handed.
        #expect(try baseboard("lspci", "-tv", "host1").output.contains("-[0000:00]-"))

        let other = try baseboard("lspci", "offload0")
        #expect(other.status == 1)
        #expect(
            other.output == "baseboard: error: component 'offload0' (offload-card) is no host: it has no PCI buses\n")
    }

    @Test(arguments: [
        (["-s", "zz"], "'zz' is no PCI address"), (["-s", "0:20.0"], "is no PCI address"),
        (["--json", "-t"], "choose one of --json and -t"), (["--dump", "-", "-x"], "--dump writes everything"),
        (["--dump", "-", "-v"], "choose one of --dump and -v"),
    ])
    func `wrong usage of lspci ends with 2 and says why`(_ arguments: [String], _ reason: String) throws {
        let result = try run(binary("baseboard"), ["lspci"] + arguments)
        #expect(result.status == 2)
        #expect(result.output.contains(reason), "\(result.output)")
    }

    @Test func `without lspci in PATH the deep views say what to install, and the others work`() throws {
        let board = try LiveBoard("topology/server.yaml")
        try #require(board.up.status == 0, "\(board.up.output)")
        let environment = ["BASEBOARD_RUNTIME_DIR": board.folder.path, "NO_COLOR": "1", "PATH": board.folder.path]
        let deep = try run(binary("baseboard"), ["lspci", "-v"], environment: environment)
        #expect(deep.status == 1)
        #expect(deep.output.contains("apt-get install pciutils"), "\(deep.output)")
        let plain = try run(binary("baseboard"), ["lspci", "-n"], environment: environment)
        #expect(plain.status == 0 && plain.output.contains("1b36:0b0a"), "\(plain.output)")
    }
}
