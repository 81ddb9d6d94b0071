import Crypto
import Ethernet
import Foundation
import QMP
import Sideband
import TestKit
import Testing
import Trust
import VFIOUser
import Wire

/// The executable itself, alone and with the real security logic and flash around it.
struct AdapterProcessTests {
    static func frame(to destination: String, from source: String, payload: Int) -> [UInt8] {
        let addresses = [destination, source].map { MACAddress($0)! }
        return addresses.flatMap { address in (0..<6).map { address[$0] } } + [0x88, 0xB5]
            + Array(repeating: 0x5A, count: payload)
    }

    @Test func `it switches between its ports and shows host and person the same counters`() throws {
        let card = try ComponentProcess("adapter-card", listens: ["pcie", "eth-bmc", "eth-host", "eth-ext"])
        let control = card.control
        let peers = try ["eth-bmc", "eth-host", "eth-ext"].map {
            FramePeer(socket: try card.connect($0))
        }
        #expect(
            eventually {
                // The function's port comes up with its driver.
                (try? control.execute("query-ports"))?.arrayValue?.prefix(3).allSatisfy { $0["link"] == true } ?? false
            })
        let shout = Self.frame(to: "ff:ff:ff:ff:ff:ff", from: "52:54:00:00:00:01", payload: 86)
        try peers[0].send(shout)
        #expect(try peers[1].next() == shout)
        #expect(try peers[2].next() == shout)
        let answer = Self.frame(to: "52:54:00:00:00:01", from: "52:54:00:00:00:02", payload: 50)
        try peers[2].send(answer)
        #expect(try peers[0].next() == answer)

        let host = try VFIOUserClient(socket: try card.connect("pcie"))
        // A virtio network function, made by us.
        #expect(host.read(region: 7, offset: 0, width: 4) == 0x1041_1AF4)
        #expect(host.read(region: 7, offset: 0x2C, width: 4) == 0x0B0B_1B36)
        #expect(host.read(region: 7, offset: 8, width: 4) >> 8 == 0x02_00_00)
        #expect(host.write(region: 7, offset: 4, width: 2, value: 2))
        #expect(host.read(region: 0, offset: 0, width: 4) == 0x4442_4441)
        #expect(host.read(region: 0, offset: 0x08, width: 4) == 0xAD00_5452)
        // Three links and the function.
        #expect(host.read(region: 0, offset: 0x10, width: 4) == 4)
        #expect(host.read(region: 0, offset: 0x18, width: 4) == 0)
        #expect(host.read(region: 0, offset: 0x100, width: 4) == 1)
        #expect(host.read(region: 0, offset: 0x108, width: 8) == 1)
        #expect(host.read(region: 0, offset: 0x110, width: 8) == 100)
        #expect(host.read(region: 0, offset: 0x120, width: 8) == 1)
        #expect(host.read(region: 0, offset: 0x1A0, width: 8) == 1)

        let ports = try control.execute("query-ports")
        #expect(ports[2]?["name"] == "eth-ext")
        #expect(ports[2]?["sent-bytes"] == 100)
        #expect(ports[2]?["received-bytes"] == 64)
        let stations = try control.execute("query-stations")
        #expect(
            stations == [
                ["mac": "52:54:00:00:00:01", "port": "eth-bmc"], ["mac": "52:54:00:00:00:02", "port": "eth-ext"],
            ])
        #expect(try control.execute("query-adapter")["verification"] == .null)
        withExtendedLifetime(peers) {}
        _ = try control.execute("quit")
        #expect(card.child.waitForExit() == 0)
    }

    @Test func `a card that is not the master is dead, functions and switch, while its sideband holds it in reset`()
        throws
    {
        let folder = TemporaryFolder()
        let listener = try Listener(path: folder.file("logic"), kind: .seqpacket)
        let card = try ComponentProcess(
            "adapter-card", in: folder, listens: ["pcie", "pcie1", "eth-bmc", "eth-ext"],
            connects: ["sideband": "logic"])
        let logic = SidebandLink(socket: try listener.accept(until: .after(.seconds(20))))
        let peers = try ["eth-bmc", "eth-ext"].map { FramePeer(socket: try card.connect($0)) }
        let hosts = try ["pcie", "pcie1"].map { try VFIOUserClient(socket: try card.connect($0)) }
        func ports() -> [JSONValue] { (try? card.control.execute("query-ports"))?.arrayValue ?? [] }
        #expect(eventually { ports().count { $0["link"] == true } == 2 })
        #expect(try card.control.execute("query-status")["status"] == "held")
        let shout = Self.frame(to: "ff:ff:ff:ff:ff:ff", from: "52:54:00:00:00:01", payload: 86)
        for round in 1...2 {
            // In reset.
            try peers[0].send(shout)
            let dropped = Int64(round)
            #expect(eventually { ports().first?["received-dropped"] == .integer(dropped) }, "\(ports())")
            for host in hosts {
                host.write(region: 7, offset: 4, width: 2, value: 6)
                #expect(host.read(region: 7, offset: 0, width: 4) == 0xFFFF_FFFF)
                #expect(host.read(region: 2, offset: 0, width: 4) == 0xFFFF_FFFF)
            }
            #expect(try card.control.execute("query-stations") == [])
            // Released.
            try logic.send(.signal(.reset, level: true))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: true))
            for host in hosts { #expect(host.read(region: 7, offset: 0, width: 4) == 0x1041_1AF4) }
            hosts[0].write(region: 7, offset: 4, width: 2, value: 6)
            #expect(hosts[0].read(region: 0, offset: 0, width: 4) == 0x4442_4441)
            try peers[0].send(shout)
            // Nothing that came before is let out now.
            #expect(try peers[1].next() == shout)
            #expect(throws: WireError.timedOut) { try peers[1].next(within: .milliseconds(20)) }
            #expect(try card.control.execute("query-stations").arrayValue?.count == 1)
            try logic.send(.signal(.reset, level: false))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: false))
        }
        let events = try card.control.execute("query-events").arrayValue?.compactMap { $0["event"]?.stringValue } ?? []
        #expect(events.filter { $0 == "POWER_GOOD" }.count == 2 && events.last == "RESET_ASSERTED")
    }

    @Test func `QEMU at the external port finds the BMC behind the switch`() throws {
        let card = try ComponentProcess("adapter-card", listens: ["eth-bmc", "eth-ext"])
        let bmc = try ComponentProcess("bmc", in: card.folder, connects: ["eth0": "adapter-card.eth-bmc"])
        let port = try freeUDPPort()
        let qemu = try startQEMURouter(
            port: port, station: "192.168.7.2", network: "192.168.7.0/24", host: "192.168.7.1",
            path: card.folder.file("adapter-card.eth-ext"))
        defer { qemu.terminate() }
        let client = try UDPClient(port: port)
        // The presence ping of DSP0136 §3.2.4.2; asked again until QEMU is up.
        let ping: [UInt8] = [6, 0, 0xFF, 6, 0x00, 0x00, 0x11, 0xBE, 0x80, 0x2A, 0, 0]
        var answer: [UInt8]?
        _ = eventually {
            client.send(ping)
            answer = client.receive(within: 200)
            return answer != nil || !qemu.isRunning
        }
        #expect(answer?.count == 28, "\(qemu.text)")
        #expect(answer.map { Array($0[4..<10]) } == [0x00, 0x00, 0x11, 0xBE, 0x40, 0x2A])
        let stations = try card.control.execute("query-stations").arrayValue ?? []
        #expect(stations.contains(["mac": "52:54:00:b0:00:01", "port": "eth-bmc"]))
        // QEMU asks from its own address behind the other port: the BMC was found by ARP through the switch.
        #expect(stations.contains { $0["port"] == "eth-ext" })
        let counters = try bmc.control.execute("query-bmc")["network"]
        #expect((counters?["presence-pongs"]?.integerValue ?? 0) >= 1)
        #expect((counters?["arp-replies"]?.integerValue ?? 0) >= 1)
    }

    /// A chip, the logic and the master, each its own process; the image decides.
    func verify(_ image: [UInt8], _ fuses: Fuses) throws -> (event: QMPEvent, state: JSONValue) {
        let folder = TemporaryFolder()
        try Data(FirmwareImage.chip(a: image)).write(to: URL(fileURLWithPath: folder.file("chip.img")))
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        let flash = try ComponentProcess("flash", in: folder, listens: ["spi"], ["--image", folder.file("chip.img")])
        let logic = try ComponentProcess(
            "security-logic", in: folder, listens: ["spi-adapter", "sideband-adapter"],
            connects: ["flash": "flash.spi"], ["--fuses", folder.file("fuses.json")])
        let card = try ComponentProcess(
            "adapter-card", in: folder,
            connects: ["spi": "security-logic.spi-adapter", "sideband": "security-logic.sideband-adapter"],
            ["--master"])
        defer { withExtendedLifetime((flash, logic)) {} }
        let control = card.control
        var verdict: JSONValue = .null
        #expect(
            eventually {
                let state = (try? control.execute("query-adapter"))?["verification"]
                verdict = state ?? .null
                return state?["phase"] == "finished"
            }, "\(card.child.text)\n\(logic.child.text)")
        let history = try control.execute("query-events").arrayValue ?? []
        let events = history.compactMap { QMPEvent(json: $0) }.filter {
            // What the card itself runs follows the verdict.
            $0.name.hasPrefix("FIRMWARE_") && $0.name != "FIRMWARE_LOADED"
        }
        #expect(events.map(\.name).first == "FIRMWARE_VERIFYING")
        return (try #require(events.last), verdict)
    }

    static let key = try! P384PrivateKey.generate()
    static let image = try! FirmwareImage.build(
        firstStage: Array(repeating: 1, count: 5000), opensbi: Array(repeating: 2, count: 300_000),
        nextStage: Array(repeating: 3, count: 200_000), key: key, name: "good image", securityVersion: 1)

    @Test func `the master verifies a signed image through the real logic`() throws {
        let (event, state) = try verify(Self.image, Fuses(root: Self.key.publicKey, minimumSecurityVersion: 1))
        #expect(event.name == "FIRMWARE_VERIFIED")
        #expect(event.data["image"] == "good image")
        #expect(state["verdict"] == "verified")
        if let nanoseconds = state["duration"]?.integerValue { print("verification took \(nanoseconds / 1000) µs") }
    }

    @Test func `the master refuses a wrong signature through the real logic and names the image`() throws {
        let stranger = try P384PrivateKey.generate()
        let (event, state) = try verify(Self.image, Fuses(root: stranger.publicKey, minimumSecurityVersion: 1))
        #expect(event.name == "FIRMWARE_REFUSED")
        #expect(event.data["image"] == "good image")
        #expect(event.data["reason"]?.stringValue?.contains("key digest does not match the fuses") == true)
        #expect(state["verdict"] == "refused")
    }

    static let mistakes: [([String], String)] = [
        (["--master"], "port 'spi' is not connected"),
        (["--master", "--connect", "spi=/tmp/x"], "port 'sideband' is not connected"),
        (["--connect", "spi=/tmp/x"], "give --master too"),
        (
            ["--master", "--connect", "spi=/tmp/x", "--connect", "sideband=/nowhere/x"],
            "port 'sideband': /nowhere/x"
        ),
        (["--mac", "01:00:5e:00:00:01"], "unicast"),
        (["--connect", "eth-ext=/nowhere/x"], "port 'eth-ext': /nowhere/x"),
        (["--listen", "eth9=/tmp/bb-nobody"], "eth9"),
    ]

    @Test(arguments: mistakes.indices)
    func `a mistake on the command line is named`(index: Int) throws {
        let (arguments, named) = Self.mistakes[index]
        let (status, output) = try run(binary("adapter-card"), arguments)
        #expect(status != 0 && status != nil && status! < 128)
        #expect(output.contains(named), "\(output)")
    }
}
