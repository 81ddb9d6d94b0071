import Foundation
import QMP
import TestKit
import Testing
import Wire

/// Whole boards of real components. One at a time: two cores carry one boot well.
@Suite(.serialized) struct ServerBoardTests {
    @Test
    func `the server board verifies its firmware, releases the BMC, the card, then the host, and prints its cards`()
        throws
    {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")

        // The order of the boot, each step by the one it follows from.
        let timeline = try board.timeline()
        let order = [
            "logic0 RESET_ASSERTED host", "adapter0 FIRMWARE_VERIFYING", "logic0 FIRMWARE_VERIFIED",
            "logic0 RESET_RELEASED bmc", "logic0 RESET_RELEASED card0", "offload0 POWER_GOOD",
            "logic0 RESET_RELEASED host", "logic0 BOARD_LOCKED", "bmc0 BOOT_COMPLETE",
        ]
        let places = order.map { timeline.firstIndex(of: $0) ?? -1 }
        #expect(places == places.sorted() && !places.contains(-1), "\(places) in \(timeline)")

        // What the host's own code printed, as the BMC received it over the serial wire.
        let console = try board.hostConsole()
        #expect(console.contains("OpenSBI v1."))
        for line in ["1af4:1041      020000    Baseboard adapter card", "1b36:0b0a"] {
            #expect(console.contains(line), "\(console)")
        }
        #expect(console.contains("answered     by DMA and MSI-X interrupt"), "\(console)")
        #expect(console.contains("Baseboard firmware: ready\r\n"))

        for name in ["flash0", "logic0", "host0", "bmc0", "adapter0", "offload0"] {
            #expect(try board.component(name)["state"] == "ready")
        }
        #expect(try board.qmp("logic0", "query-security-state")["state"] == "locked")
        let down = try board.baseboard(["down"])
        #expect(down.status == 0)
    }

    @Test func `a power cycle of a running board leaves a card that works`() throws {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        for boots in 2...3 {
            _ = try board.qmp("logic0", "system_reset")
            #expect(
                eventually {
                    ((try? board.hostConsole()) ?? "").components(separatedBy: "Baseboard firmware: ready").count
                        == boots + 1
                })
            let console = try board.hostConsole()
            // Found on the bus, and it serves its ring by DMA and interrupts.
            #expect(console.components(separatedBy: "1b36:0b0a").count == boots + 1, "\(console)")
            #expect(
                console.components(separatedBy: "answered     by DMA and MSI-X interrupt").count == boots + 1,
                "\(console)")
        }
        let timeline = try board.timeline()
        #expect(timeline.count { $0 == "offload0 RESET_ASSERTED" } == 2, "\(timeline)")
        #expect(timeline.count { $0 == "offload0 POWER_GOOD" } == 3)
        #expect(try board.qmp("host0", "query-pcie-ports")[1]?["link"] == true)
        #expect(try board.qmp("offload0", "query-offload")["commands-served"] == 3, "one a boot")
    }

    /// Who has 192.168.7.2? Asked by 52:54:00:12:34:56, 192.168.7.9 (RFC 826).
    private static let arpRequest: [UInt8] =
        [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x08, 0x06]
        + [
            0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 192, 168, 7, 9, 0, 0, 0, 0, 0, 0, 192, 168, 7,
            2,
        ]

    @Test func `the BMC answers on the management network through the adapter's switch, and shows the host's console`()
        throws
    {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        let network = FramePeer(socket: try Socket.connect(to: board.folder.path + "/server/management.sock"))
        try network.send(Self.arpRequest)
        let answer = try #require(try network.next())
        // To the asker, ARP, an answer, from 192.168.7.2.
        #expect(Array(answer[0..<6]) == [0x52, 0x54, 0x00, 0x12, 0x34, 0x56])
        #expect(Array(answer[12..<14] + answer[20..<22] + answer[28..<32]) == [8, 6, 0, 2, 192, 168, 7, 2])

        let console = try Socket.connect(to: try board.socket("bmc0", "console"))
        var text = ""
        while !text.contains("Baseboard firmware: ready"),
            let bytes = try console.receiveBytes(limit: 4096, until: .after(.seconds(20)))
        {
            text += String(decoding: bytes, as: UTF8.self)
        }
        #expect(text.contains("OpenSBI v1.") && text.contains("Offload card"))
    }

    @Test(arguments: [
        ["components.host0.interrupts=plic"], ["components.host0.harts=2"], ["components.host0.memory=128MiB"],
    ])
    func `the board boots in other shapes`(settings: [String]) throws {
        let board = try LiveBoard("topology/server.yaml", settings.flatMap { ["--set", $0] })
        #expect(board.up.status == 0, "\(board.up.output)")
        let console = try board.hostConsole()
        #expect(console.contains("1b36:0b0a") && console.contains("Baseboard firmware: ready"), "\(console)")
    }

    @Test func `the minimal board boots to its console`() throws {
        let board = try LiveBoard("topology/minimal.yaml")
        try #require(board.up.status == 0, "\(board.up.output)")
        let console = try Socket.connect(to: try board.socket("host0", "console"))
        var text = ""
        let deadline = MonotonicTime.after(.seconds(20))
        while !text.contains("Baseboard firmware: ready"), MonotonicTime.now < deadline {
            guard let bytes = try? console.receiveBytes(limit: 4096, until: deadline) else { break }
            text += String(decoding: bytes, as: UTF8.self)
        }
        #expect(text.contains("Baseboard firmware: ready"), "\(text)")
    }

    @Test func `what a board measured at its boot is replayed by tpm2_eventlog`() throws {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        let folder = TemporaryFolder()
        let written = try board.baseboard(["measurements", "--tcg", folder.file("log")])
        #expect(written.status == 0, "\(written.output)")
        let told = try board.baseboard(["measurements"]).output
        for name in ["first stage", "OpenSBI", "next stage"] { #expect(told.contains("  \(name)\n"), "\(told)") }
        let registers = try board.qmp("logic0", "query-measurements")["registers"]?.arrayValue ?? []
        let replayed = try run("/usr/bin/tpm2_eventlog", [folder.file("log")])
        #expect(replayed.status == 0, "\(replayed.output)")
        #expect(registers.count == 8)
        for register in [0, 1, 2, 3, 6] where registers.indices.contains(register) {
            #expect(
                replayed.output.lowercased().contains("0x" + (registers[register].stringValue ?? "?")), "\(register)")
        }
    }

    @Test func `an image signed by another key leaves host, BMC and card held, and up says so`() throws {
        let images = TemporaryFolder()
        let firmware = packageFolder + "/.build/firmware"
        let provision = try run(binary("baseboard"), ["provision", "--output", images.path])
        try #require(provision.status == 0, "\(provision.output)")
        let build = try run(
            binary("baseboard"),
            [
                "image", "build", "--key", images.file("keys/root.pem"), "--name", "evil", "--security-version", "1",
                "--first-stage", firmware + "/first-stage.bin", "--opensbi", firmware + "/fw_dynamic.bin",
                "--next-stage", firmware + "/host.bin", "--output", images.file("evil.img"),
            ])
        try #require(build.status == 0, "\(build.output)")
        let chip = try run(
            binary("baseboard"),
            ["image", "chip", "--a", images.file("evil.img"), "--output", images.file("evil.chip.img")])
        try #require(chip.status == 0, "\(chip.output)")
        try expectHeld(image: images.file("evil.chip.img"), names: "evil")
    }

    @Test func `one changed byte of OpenSBI in every slot leaves host, BMC and card held`() throws {
        let images = TemporaryFolder()
        var bytes = try Data(contentsOf: URL(fileURLWithPath: packageFolder + "/.build/firmware/server.img"))
        for slot in [0, 0x80_0000, 0x100_0000] { bytes[slot + 0x2_0000 + 1234] ^= 1 }
        try bytes.write(to: URL(fileURLWithPath: images.file("changed.img")))
        try expectHeld(image: images.file("changed.img"), names: "server")
    }

    private func expectHeld(image: String, names name: String) throws {
        let board = try LiveBoard("topology/server.yaml", ["--set", "components.flash0.image=\(image)"])
        #expect(board.up.status == 3, "\(board.up.output)")
        #expect(board.up.output.contains(name), "\(board.up.output)")
        #expect(!board.up.output.contains("RESET_RELEASED"))
        #expect(try board.component("host0")["status"] == "held")
        #expect(try board.component("bmc0")["status"] == "held")
        #expect(try board.component("logic0")["status"] == "failed")
        // The card is in its slot, and the host's root port sees nothing of it.
        #expect(try board.component("offload0")["status"] == "held")
        let slot = try board.qmp("host0", "query-pcie-ports")[1]
        #expect(slot?["present"] == true && slot?["link"] == false, "\(slot ?? .null)")
        #expect(try board.qmp("host0", "query-pcie-ports")[0]?["link"] == true, "the master runs on standby power")
        let cpus = try board.qmp("host0", "query-cpus")
        #expect(cpus[0]?["instructions-retired"] == 0, "\(cpus)")
        // A BMC in reset answers nothing.
        let network = FramePeer(socket: try Socket.connect(to: board.folder.path + "/server/management.sock"))
        try network.send(Self.arpRequest)
        #expect(throws: WireError.timedOut) { try network.next(within: .milliseconds(100)) }
    }

    @Test func `a truncated flash image is one clear error that names it`() throws {
        let images = TemporaryFolder()
        try Data(repeating: 0, count: 12345).write(to: URL(fileURLWithPath: images.file("short.img")))
        let board = try LiveBoard(
            "topology/server.yaml", ["--set", "components.flash0.image=\(images.file("short.img"))"])
        #expect(board.up.status == 1)
        #expect(board.up.output.contains("short.img") && board.up.output.contains("12345"), "\(board.up.output)")
    }

    @Test func `a card that is killed is reported and the board is taken down`() throws {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        let pid = try #require(try board.component("offload0")["pid"]?.integerValue)
        kill(Int32(pid), SIGKILL)
        #expect(eventually { (try? board.record()["state"]?.stringValue?.hasPrefix("failed")) == true })
        #expect(try board.baseboard(["ps"]).output.contains("offload0"))
    }

    @Test func `an idle board costs no processor time`() throws {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        let pid = try #require(try board.component("host0")["pid"]?.integerValue)
        // Two seconds of idling; the tick is 10 ms, and an idle hart that polled would burn 200 of them.
        let before = try ticks(pid)
        #expect(eventually(within: .seconds(3)) { false } == false)
        #expect(try ticks(pid) - before <= 15)
    }

    /// User and system time of a process in clock ticks.
    private func ticks(_ pid: Int64) throws -> Int {
        let fields = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8).split(separator: " ")
        return (Int(fields[13]) ?? 0) + (Int(fields[14]) ?? 0)
    }

    @Test func `a host that is reset boots again, one that is powered off ends the board`() throws {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        _ = try board.qmp("host0", "system_reset")
        #expect(
            eventually {
                ((try? board.hostConsole()) ?? "").components(separatedBy: "Baseboard firmware: ready").count == 3
            })
        let console = try Socket.connect(to: try board.socket("host0", "console"))
        try console.send(Array("poweroff\r".utf8))
        let stopped = eventually { (try? board.record()["state"]?.stringValue) == "stopped" }
        let record = try board.record().text()
        #expect(stopped, "\(record)")
    }
}
