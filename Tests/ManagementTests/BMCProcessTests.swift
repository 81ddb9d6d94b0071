import Ethernet
import Foundation
import LPC
import QMP
import Sideband
import TestKit
import Testing
import Wire

/// The executable itself, started by hand.
struct BMCProcessTests {
    func start(_ arguments: [String] = []) throws -> ComponentProcess {
        try ComponentProcess("bmc", listens: ["eth0", "serial", "console"], arguments)
    }

    @Test func `it answers ping and presence on its socket and shows the console`() throws {
        let bmc = try start()
        let network = FramePeer(socket: try bmc.connect("eth0"))
        #expect(try network.next().map { Array($0[..<6]) } == octets(.broadcast))
        try network.send(arp(), echo(), udp(presencePing))
        #expect(try network.next().map { Array($0[20..<22]) } == [0, 2])
        #expect(try network.next()?[34] == 0)
        #expect(try network.next().map { Array($0[42...]) } == presencePong)

        let serial = try bmc.connect("serial")
        let console = try bmc.connect("console")
        try serial.send(Array("hello é\r\nBaseboard firmware: ready\r\n".utf8))
        #expect(read(console, until: "ready").hasPrefix("hello é"))
        try console.send(Array("ls\r".utf8))
        #expect(read(serial, until: "\r") == "ls\r")
        #expect(try bmc.control.waitForEvent("BOOT_COMPLETE", until: .after(.seconds(20))).monotonic != nil)

        let state = try bmc.control.execute("query-bmc")
        #expect(state["power"] == "running")
        #expect(state["address"] == "192.168.7.2/24")
        #expect(state["boot-complete"] == true)
        #expect(state["network"]?["echo-replies"] == 1)
        let text = try bmc.control.execute("ringbuf-read", ["device": "serial", "size": 8])
        #expect(text == "hello é")
        let rest = try bmc.control.execute("ringbuf-read", ["device": "serial", "size": 4, "format": "base64"])
        #expect(rest == .string(Data("\r\nBa".utf8).base64EncodedString()))
        for bad: [String: JSONValue] in [
            ["device": "tape", "size": 8], ["device": "serial", "size": 0], ["device": "serial", "size": -1],
            ["device": "serial", "size": 1, "format": "morse"],
        ] {
            #expect(throws: (any Error).self) { try bmc.control.execute("ringbuf-read", bad) }
        }
        _ = try bmc.control.execute("quit")
        #expect(bmc.child.waitForExit() == 0)
    }

    @Test func `on the lpc wire it answers while its reset is released, and nothing in reset`() throws {
        let folder = TemporaryFolder()
        let lpc = try Listener(path: folder.file("lpc"), kind: .seqpacket)
        let sideband = try Listener(path: folder.file("sideband"), kind: .seqpacket)
        let bmc = try ComponentProcess("bmc", in: folder, connects: ["lpc": "lpc", "sideband": "sideband"])
        let host = try lpc.accept(until: .after(.seconds(20)))
        let logic = SidebandLink(socket: try sideband.accept(until: .after(.seconds(20))))
        func cycle(_ message: LPCMessage) throws -> LPCMessage {
            try host.send(message.encoded)
            return try LPCMessage(decoding: try host.receiveBytes(limit: 16, until: .after(.seconds(20))) ?? [])
        }
        func setReset(released: Bool) throws {
            try logic.send(.signal(.reset, level: released))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: released))
        }
        // In reset: neither this nor what is no message gets an answer.
        try host.send(LPCMessage.write(tag: 1, port: 0xCA3, data: 0x61).encoded)
        try host.send([0x99])
        #expect(bmc.child.waitForOutput("lpc datagram of unknown kind 0x99"))
        try setReset(released: true)
        // The write in reset is not made up for: the interface is idle.
        #expect(try cycle(.read(tag: 2, port: 0xCA3)) == .sync(tag: 2, .ready, data: 0x00))
        for (register, byte) in [(UInt16(0xCA3), UInt8(0x61)), (0xCA2, 0x18), (0xCA3, 0x62), (0xCA2, 0x01)] {
            #expect(try cycle(.write(tag: 3, port: register, data: byte)) == .sync(tag: 3, .ready, data: 0xFF))
        }
        #expect(try cycle(.read(tag: 4, port: 0xCA2)) == .sync(tag: 4, .ready, data: 0x1C))
        let state = try bmc.control.execute("query-ipmi")
        #expect(state["connected"] == true && state["requests"] == 1 && state["kcs-state"] == "read")
        #expect(state["cycles"] == 6 && state["refused"] == 0 && state["kcs-errors"] == 0)
        // A reset in the middle of a response: nothing is left of it.
        try setReset(released: false)
        try setReset(released: true)
        #expect(try cycle(.read(tag: 5, port: 0xCA3)) == .sync(tag: 5, .ready, data: 0x00))
        #expect(try bmc.control.execute("query-ipmi")["requests"] == 0)
        // The wire ends and comes back.
        host.shutdown()
        let next = try lpc.accept(until: .after(.seconds(20)))
        try next.send(LPCMessage.read(tag: 6, port: 0xCA3).encoded)
        let answer = try next.receiveBytes(limit: 16, until: .after(.seconds(20)))
        #expect(answer == LPCMessage.sync(tag: 6, .ready, data: 0x00).encoded)
    }

    @Test func `a peer that speaks something else loses its link and the next is served`() throws {
        let bmc = try start()
        let stranger = try bmc.connect("eth0")
        try stranger.send(Array("GET / HTTP/1.1\r\n\r\n".utf8))
        #expect(bmc.child.waitForOutput("the peer announced a frame of 1195725856 bytes"))
        let network = FramePeer(socket: try bmc.connect("eth0"))
        _ = try network.next()
        try network.send(echo())
        #expect(try network.next()?[34] == 0)
    }

    @Test func `a running BMC is captured and tshark reads the conversation`() throws {
        let bmc = try start()
        let network = FramePeer(socket: try bmc.connect("eth0"))
        _ = try network.next()
        let path = bmc.folder.file("x.pcapng")
        _ = try bmc.control.execute("capture-start", ["path": .string(path)])
        #expect(throws: (any Error).self) { try bmc.control.execute("capture-start", ["path": .string(path)]) }
        try network.send(echo())
        _ = try network.next()
        _ = try bmc.control.execute("capture-stop")
        try network.send(echo())
        _ = try network.next()
        let rows = try tshark(
            [UInt8](Data(contentsOf: URL(fileURLWithPath: path))), fields: ["frame.interface_name", "icmp.type"])
        #expect(rows == [["bmc.eth0", "8"], ["bmc.eth0", "0"]])
        #expect(throws: (any Error).self) { try bmc.control.execute("capture-stop") }
        #expect(throws: (any Error).self) { try bmc.control.execute("capture-start", ["path": "/nowhere/x.pcapng"]) }
        _ = try bmc.control.execute("capture-start", ["path": "/dev/null"])
    }

    static let mistakes: [([String], String)] = [
        (["--connect", "eth0=/nowhere/x"], "port 'eth0': /nowhere/x"),
        (["--mac", "52:54:00"], "52:54:00"),
        (["--mac", "01:00:5e:00:00:01"], "unicast"),
        (["--address", "192.168.7.2"], "192.168.7.2"),
        (["--address", "192.168.7.0/24"], "192.168.7.0/24"),
        (["--syslog", "10.0.0.1"], "10.0.0.1"),
        (["--syslog", "192.168.7.2"], "not another station"),
        (["--console-size", "5KiB"], "power of two"),
        (["--connect", "sideband=/nowhere/x"], "sideband"),
        (["--listen", "eth7=/tmp/bb-nobody"], "eth7"),
    ]

    @Test(arguments: mistakes.indices)
    func `a mistake on the command line is named`(index: Int) throws {
        let (arguments, named) = Self.mistakes[index]
        let (status, output) = try run(binary("bmc"), arguments)
        #expect(status != 0 && status != nil && status! < 128)
        #expect(output.contains(named), "\(output)")
    }

    /// QEMU's user network is a whole IP stack that is not ours: a datagram from a socket of this machine crosses it and
    /// comes back as the pong.
    @Test func `a UDP client behind QEMU finds the BMC by its presence ping`() throws {
        let bmc = try start(["--address", "192.168.7.2/24"])
        let port = try freeUDPPort()
        let qemu = try startQEMURouter(
            port: port, station: "192.168.7.2", network: "192.168.7.0/24", host: "192.168.7.1",
            path: bmc.folder.file("bmc.eth0"))
        defer { qemu.terminate() }
        let client = try UDPClient(port: port)
        // Datagrams may be lost (QEMU may not be up yet): ask until an answer comes.
        var answer: [UInt8]?
        #expect(
            eventually {
                client.send(presencePing)
                answer = client.receive(within: 200)
                return answer != nil || !qemu.isRunning
            }, "\(qemu.text)")
        #expect(answer == presencePong, "\(qemu.text)")
        let state = try bmc.control.execute("query-bmc")
        #expect((state["network"]?["presence-pongs"]?.integerValue ?? 0) >= 1)
    }
}
