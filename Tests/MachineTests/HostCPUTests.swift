import FoundationEssentials
import Machine
import QMP
import RISCV
import Sideband
import TestKit
import Testing
import Wire

@Suite struct `host-cpu` {
    @Test func `it stays in reset until the sideband releases it, prints on serial and console, and ends cleanly`()
        throws
    {
        let host = try HostProcess(Program.print("Hello\n", then: 0x5555))
        let control = try host.control()
        #expect(try control.execute("query-status")["status"] == "held")
        let cpus = try control.execute("query-cpus")
        #expect(cpus[0]?["pc"] == "0x1000")
        #expect(cpus[0]?["instructions-retired"] == 0)
        let console = try Socket.connect(to: host.folder.file("console"))
        try host.setReset(released: true)
        #expect(try host.serial.read(until: "Hello\n") == "Hello\n")
        #expect(try console.read(until: "Hello\n") == "Hello\n")
        let event = try control.waitForEvent("SHUTDOWN", until: .after(.seconds(20)))
        #expect(event.data["guest"] == true)
        #expect(host.process.waitForExit() == 0, "\(host.process.text)")
    }

    @Test func `a guest's failure is an event and the exit status`() throws {
        let host = try HostProcess(Program.print("", then: 0x0003_3333))
        let control = try host.control()
        try host.setReset(released: true)
        let event = try control.waitForEvent("GUEST_PANICKED", until: .after(.seconds(20)))
        #expect(event.data["code"] == 3)
        #expect(host.process.waitForExit() == 1)
    }

    @Test func `a guest's reset begins again at the flash`() throws {
        let host = try HostProcess(Program.print("again ", then: 0x7777))
        let control = try host.control()
        try host.setReset(released: true)
        for _ in 0..<3 {
            let event = try control.waitForEvent("RESET", until: .after(.seconds(20)))
            #expect(event.data["guest"] == true)
        }
        #expect(try host.serial.read(until: "again again ").hasPrefix("again "))
        host.process.terminate()
        #expect(host.process.waitForExit() == 0)
    }

    @Test func `reset asserted stops the harts, and the loss of the sideband does too`() throws {
        let host = try HostProcess(Program.count, ["--harts", "2"])
        let control = try host.control()
        try host.setReset(released: true)
        #expect(try control.execute("query-status")["status"] == "running")
        try host.setReset(released: false)
        #expect(try control.execute("query-status")["status"] == "held")
        #expect(try control.execute("query-cpus")[1]?["pc"] == "0x1000")
        try host.setReset(released: true)
        #expect(
            eventually { (try? control.execute("query-cpus")[1]?["instructions-retired"]?.integerValue ?? 0) ?? 0 > 0 })
        host.sideband.socket.shutdown()
        #expect(eventually { (try? control.execute("query-status")["status"]) == "held" })
        #expect(host.process.waitForOutput("the security logic is gone"))
    }

    @Test func `stop, cont and system_reset do what QEMU's do`() throws {
        let host = try HostProcess(Program.count)
        let control = try host.control()
        for command in ["stop", "cont", "system_reset"] {
            #expect(throws: QMPClient.Failure.self) { try control.execute(command) }
        }
        try host.setReset(released: true)
        func retired() throws -> Int64 {
            try control.execute("query-cpus")[0]?["instructions-retired"]?.integerValue ?? -1
        }
        #expect(eventually { (try? retired()) ?? 0 > 10_000 })
        _ = try control.execute("stop")
        #expect(try control.execute("query-status")["status"] == "paused")
        let stopped = try retired()
        #expect(try retired() == stopped)
        // A paused machine stays paused over a reset.
        _ = try control.execute("system_reset")
        #expect(try retired() == 0)
        _ = try control.execute("cont")
        #expect(eventually { (try? retired()) ?? 0 > 10_000 })
        let names = try ["STOP", "RESET", "RESUME"].map {
            try control.waitForEvent($0, until: .after(.seconds(5))).name
        }
        #expect(names == ["STOP", "RESET", "RESUME"])
    }

    @Test func `pmemsave writes RAM, and refuses what is not RAM`() throws {
        let host = try HostProcess(Program.count)
        let control = try host.control()
        try host.setReset(released: true)
        #expect(
            eventually {
                (try? control.execute("query-cpus")[0]?["instructions-retired"]?.integerValue ?? 0) ?? 0 > 100
            })
        let file = host.folder.file("ram")
        _ = try control.execute("pmemsave", ["val": 0x8000_0000, "size": 4096, "filename": .string(file)])
        let bytes = Array(try Data(contentsOf: URL(filePath: file)))
        #expect(bytes.count == 4096)
        #expect(bytes[0..<8].contains { $0 != 0 })
        #expect(bytes[8...].allSatisfy { $0 == 0 })
        for (address, size) in [
            (0x7FFF_FFFF, 4), (0x83FF_FFFF, 2), (0x8000_0000, 0), (0x8000_0000, -1), (-1, 8), (0, .max),
        ] as [(Int64, Int64)] {
            #expect(throws: QMPClient.Failure.self) {
                try control.execute(
                    "pmemsave", ["val": .integer(address), "size": .integer(size), "filename": .string(file)])
            }
        }
        #expect(throws: QMPClient.Failure.self) {
            try control.execute(
                "pmemsave", ["val": 0x8000_0000, "size": 8, "filename": .string(host.folder.file("no/such"))])
        }
    }

    @Test(arguments: ["aia", "plic"])
    func `input of console and serial reaches the guest, a paste as large as its queue is not lost`(
        _ interrupts: String
    ) throws {
        let host = try HostProcess(Program.echo(interrupts == "aia" ? .aia : .plic), ["--interrupts", interrupts])
        try host.setReset(released: true)
        let console = try Socket.connect(to: host.folder.file("console"))
        try console.send(Array("typed".utf8))
        #expect(try host.serial.read(until: "typed") == "typed")
        #expect(try console.read(until: "typed") == "typed")
        let paste = String(repeating: "0123456789abcdef", count: 4096) + "!"
        let serial = host.serial
        let sender = WorkerThread("test-paste") { try? serial.send(Array(paste.utf8)) }
        let echoed = try console.read(until: "!")
        sender.join()
        #expect(echoed == paste)
        // A console that attaches late sees the last output.
        let late = try Socket.connect(to: host.folder.file("console"))
        #expect(try late.read(until: "!").hasSuffix("abcdef!"))
    }

    @Test(
        arguments: [
            ([], "port 'spi' is not connected"),
            (["--connect", "spi=/nonexistent/spi"], "/nonexistent/spi"),
            (["--memory", "1TiB"], "64 MiB to 64 GiB"),
            (["--memory", "65MiB"], "steps of 2 MiB"),
            (["--memory", "512MB"], "512MB"),
            (["--harts", "9"], "1 to 8"),
            (["--interrupts", "pic"], "pic"),
            (["--listen", "nonsense=/tmp/x"], "spi"),
        ] as [([String], String)])
    func `mistakes are told in words and end it`(_ arguments: [String], _ words: String) throws {
        let (status, output) = try run(binary("host-cpu"), arguments, within: .seconds(20))
        #expect(status != nil && status != 0)
        #expect(output.contains(words), "\(output)")
    }

    @Test func `the devicetree can be had without a board`() throws {
        let folder = TemporaryFolder()
        let file = folder.file("tree.dtb")
        let (status, output) = try run(
            binary("host-cpu"), ["--harts", "3", "--interrupts", "plic", "--dump-devicetree", file])
        #expect(status == 0, "\(output)")
        let expected = MachineConfiguration(hartCount: 3, interrupts: .plic).devicetree
        #expect(Array(try Data(contentsOf: URL(filePath: file))) == expected)
    }

    @Test func `a flash that is gone is one line in the log, and the control socket still answers`() throws {
        let host = try HostProcess(Program.count)
        let control = try host.control()
        host.closeFlash()
        try host.setReset(released: true)
        #expect(host.process.waitForOutput("flash: "))
        #expect(try control.execute("query-status")["status"] == "running")
        host.process.terminate()
        #expect(host.process.waitForExit() == 0)
        #expect(host.process.text.split(separator: "flash: ").count == 2, "\(host.process.text)")
    }
}
