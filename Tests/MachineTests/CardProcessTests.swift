import FoundationEssentials
import Glibc
import QMP
import TestKit
import Testing
import Wire

/// Cards that are plugged into a `host-cpu` process and pulled out of it, by QMP and by their own end.
@Suite struct `cards of host-cpu` {
    /// A host whose guest does nothing.
    private static func host(in folder: TemporaryFolder, _ arguments: [String] = []) throws -> ComponentProcess {
        try Data(Program.count).write(to: URL(filePath: folder.file("program")))
        return try ComponentProcess(
            "host-cpu", in: folder, ["--firmware", folder.file("program"), "--memory", "64MiB"] + arguments)
    }

    private func port(_ host: ComponentProcess, _ number: Int) throws -> JSONValue {
        let ports = try host.control.execute("query-pcie-ports")
        return try #require(ports[number])
    }

    @Test func `a card is plugged in, dies unasked, and is plugged in again on the same socket`() throws {
        let folder = TemporaryFolder()
        let host = try Self.host(in: folder, ["--root-ports", "2"])
        #expect(try port(host, 1)["present"] == false)
        let path = folder.file("offload-card.pcie")
        for round in 0..<2 {
            let card = try ComponentProcess("offload-card", in: folder, listens: ["pcie"])
            let name = "card-\(round)"
            _ = try host.control.execute(
                "device_add",
                [
                    "driver": "vfio-user-pci", "id": .string(name), "bus": "rp1",
                    "socket": ["path": .string(path), "type": "unix"],
                ])
            let slot = try port(host, 1)
            #expect(slot["present"] == true && slot["link"] == true && slot["cards"] == [.string(name)])
            card.child.signal(SIGKILL)
            #expect(card.child.waitForExit() == 128 + SIGKILL)
            // Nobody touches the card: its end itself is what the host hears.
            let event = try host.control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(10)))
            #expect(event.data["device"] == .string(name) && event.data["bus"] == "rp1")
            #expect(try port(host, 1)["present"] == false)
            unlink(path)
            unlink(folder.file("offload-card.control"))
        }
        #expect(host.child.text.contains("root port rp1: the link is down"), "\(host.child.text)")
    }

    @Test func `functions are plugged in one by one and pulled out by force`() throws {
        let folder = TemporaryFolder()
        let card = try ComponentProcess("offload-card", in: folder, listens: ["pcie"])
        let host = try Self.host(in: folder)
        let path = JSONValue.string(folder.file("offload-card.pcie"))
        _ = try host.control.execute("device_add", ["bus": "rp0.3", "path": path])
        let slot = try port(host, 0)
        #expect(slot["cards"] == ["card0.3"] && slot["present"] == false)
        _ = try host.control.execute("device_del", ["id": "card0.3", "surprise": true])
        let event = try host.control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(10)))
        #expect(event.data["reason"] == "pulled out")
        _ = try host.control.execute("device_add", ["bus": "rp0", "path": path])
        #expect(try port(host, 0)["present"] == true)
        // Asking in order presses a button; nobody in this guest looks at it, and the card stays.
        _ = try host.control.execute("device_del", ["id": "card0"])
        #expect(try port(host, 0)["present"] == true)
        #expect(card.child.isRunning)
    }

    /// A command that cannot be done, and words of the answer.
    @Test(
        arguments: [
            ("device_add", ["bus": "rp1", "path": "/tmp/x"], "Bus 'rp1' not found: they are rp0 to rp0"),
            ("device_add", ["bus": "pci.0", "path": "/tmp/x"], "Bus 'pci.0' not found"),
            ("device_add", ["bus": "rp0"], "Parameter 'path' is missing"),
            ("device_add", ["bus": "rp0", "path": "/nowhere/x"], "the device at root port rp0"),
            ("device_add", ["bus": "rp0", "path": "/tmp/x", "driver": "e1000"], "not a valid device model"),
            ("device_add", ["bus": "rp0", "path": "/tmp/x", "id": "rp3"], "cannot be a card's id"),
            ("device_add", ["bus": "rp0", "socket": ["type": "tcp", "path": "x"]], "unix sockets"),
            ("device_del", ["id": "card0"], "Device 'card0' not found"),
            ("pcie_aer_inject_error", ["id": "card0", "error_status": "DLP"], "Device 'card0' not found"),
            ("pcie_aer_inject_error", ["id": "rp0", "error_status": "FLOOD"], "no error 'FLOOD'"),
            ("pcie_aer_inject_error", ["id": "rp5", "error_status": "DLP"], "no root port 5"),
            ("pcie_pme", ["id": "nobody"], "Device 'nobody' not found"),
        ] as [(String, [String: JSONValue], String)])
    func `what cannot be done is one clear answer`(
        command: String, arguments: [String: JSONValue], words: String
    ) throws {
        let host = try Self.host(in: TemporaryFolder())
        do {
            _ = try host.control.execute(command, arguments)
            Issue.record("accepted")
        } catch {
            #expect("\(error)".contains(words), "\(error)")
        }
        // A failed attempt leaves the place free.
        #expect(try port(host, 0)["cards"] == [])
    }

    @Test(arguments: [
        (["--connect", "rp0=/nowhere/card.sock"], "device_add bus=rp0 path=/nowhere/card.sock"),
        (["--connect", "rp2.1=/nowhere/card.sock"], "rp2 is not: software finds a card by its function 0"),
    ])
    func `a device that is not there at the start is one error with the way out`(
        arguments: [String], words: String
    ) throws {
        let folder = TemporaryFolder()
        try Data(Program.count).write(to: URL(filePath: folder.file("program")))
        let (status, output) = try run(
            binary("host-cpu"), ["--firmware", folder.file("program"), "--memory", "64MiB"] + arguments)
        #expect(status == 1 && output.contains(words), "\(output)")
        #expect(output.split(separator: "\n").count == 1, "\(output)")
    }
}
