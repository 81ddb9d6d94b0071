import DeviceFirmware
import Ethernet
import Management
import Sideband
import Synchronization
import TestKit
import Testing
import Wire

/// A controller on a loop of its own with the far end of each of its links.
final class Bench: Sendable {
    let thread: LoopThread
    let controller: ManagementController
    let folder = TemporaryFolder()

    init(_ configuration: ManagementController.Configuration = .init()) throws {
        thread = try LoopThread()
        let recorder = Recorder()
        controller = ManagementController(configuration, loop: thread.loop) { recorder.record($0) }
        self.recorder = recorder
    }

    private final class Recorder: Sendable {
        let events = Mutex<[ManagementController.Event]>([])
        func record(_ event: ManagementController.Event) { events.withLock { $0.append(event) } }
    }
    private let recorder: Recorder

    var events: [ManagementController.Event] { recorder.events.withLock { $0 } }

    deinit { thread.end() }

    func network() throws -> FramePeer {
        let (ours, theirs) = try Socket.pair()
        try controller.startNetwork(.connected(ours))
        return FramePeer(socket: theirs)
    }

    func sideband() throws -> SidebandLink {
        let (ours, theirs) = try Socket.pair(kind: .seqpacket)
        try controller.startPower(.connected(ours))
        return SidebandLink(socket: theirs)
    }

    /// Begins to serve a port and returns the path to connect to.
    func serial() throws -> String {
        try controller.startSerial(try Listener(path: folder.file("serial")))
        return folder.file("serial")
    }

    func console() throws -> String {
        try controller.startConsole(try Listener(path: folder.file("console")))
        return folder.file("console")
    }
}

/// Reads until `text` has come; what came instead when it does not within the deadline.
func read(_ socket: Socket, until text: String) -> String {
    var bytes: [UInt8] = []
    let deadline = MonotonicTime.after(.seconds(20))
    while !String(decoding: bytes, as: UTF8.self).contains(text) {
        guard let more = try? socket.receiveBytes(limit: 4096, until: deadline) else { break }
        bytes += more
    }
    return String(decoding: bytes, as: UTF8.self)
}

struct ManagementControllerTests {
    @Test func `in reset nothing is answered, released everything is`() throws {
        let bench = try Bench()
        let sideband = try bench.sideband()
        let network = try bench.network()
        let serial = try Socket.connect(to: try bench.serial())
        try network.send(arp(), echo())
        try serial.send(Array("early\n".utf8))
        #expect(eventually { bench.controller.snapshot.port.receivedDropped == 2 })
        #expect(eventually { bench.controller.snapshot.consoleDropped == 6 })
        #expect(bench.controller.snapshot.isHeld)
        #expect(bench.controller.snapshot.consoleBytes == 0)

        try sideband.send(.signal(.reset, level: true))
        #expect(try sideband.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: true))
        // The first frame is the announcement: nothing was answered before.
        #expect(try network.next().map { Array($0[..<6]) } == octets(.broadcast))
        try network.send(echo())
        #expect(try network.next()?[34] == 0)
        #expect(bench.events == [.resetReleased, .firmwareLoaded(.builtIn), .powerGood])

        try sideband.send(.signal(.reset, level: false))
        #expect(try sideband.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: false))
        try network.send(echo())
        #expect(eventually { bench.controller.snapshot.port.receivedDropped == 3 })
        #expect(bench.events == [.resetReleased, .firmwareLoaded(.builtIn), .powerGood, .resetAsserted])
    }

    @Test func `a security logic that dies takes the controller into reset`() throws {
        let bench = try Bench()
        let sideband = try bench.sideband()
        try sideband.send(.signal(.reset, level: true))
        #expect(eventually { !bench.controller.snapshot.isHeld })
        sideband.socket.shutdown()
        #expect(eventually { bench.controller.snapshot.isHeld })
    }

    @Test func `a security logic that comes again is obeyed again`() throws {
        let bench = try Bench()
        let path = bench.folder.file("sideband")
        let listener = try Listener(path: path, kind: .seqpacket)
        try bench.controller.startPower(.uses(path: path))
        for _ in 0..<3 {
            let logic = SidebandLink(socket: try listener.accept(until: .after(.seconds(20))))
            try logic.send(.signal(.reset, level: true))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: true))
            logic.socket.shutdown()
            #expect(eventually { bench.controller.snapshot.isHeld })
        }
    }

    @Test func `a refused sideband datagram changes nothing`() throws {
        let bench = try Bench()
        let sideband = try bench.sideband()
        try sideband.socket.send([0x01, 0x00])
        try sideband.socket.send([0x01, 0x00, 0x02])
        try sideband.socket.send([0x77])
        try sideband.send(.signal(.attention, level: true))
        try sideband.send(.signal(.reset, level: true))
        #expect(eventually { !bench.controller.snapshot.isHeld })
    }

    @Test func `RESET# released just before serial output does not lose the output`() throws {
        for _ in 0..<20 {
            let bench = try Bench()
            let sideband = try bench.sideband()
            let serial = try Socket.connect(to: try bench.serial())
            #expect(eventually { bench.controller.snapshot.isSerialConnected })
            try sideband.send(.signal(.reset, level: true))
            try serial.send(Array("first".utf8))
            #expect(eventually { bench.controller.snapshot.consoleBytes == 5 })
        }
    }

    @Test func `a console shows the backlog, then what comes, and types to the host`() throws {
        let bench = try Bench()
        try bench.controller.startPower(nil)
        let serial = try Socket.connect(to: try bench.serial())
        let path = try bench.console()
        try serial.send(Array("before ".utf8))
        #expect(eventually { bench.controller.snapshot.consoleBytes == 7 })
        let first = try Socket.connect(to: path)
        #expect(read(first, until: "before ") == "before ")
        try serial.send(Array("after".utf8))
        #expect(read(first, until: "after") == "after")
        let second = try Socket.connect(to: path)
        #expect(read(second, until: "after") == "before after")
        try first.send(Array("root\r".utf8))
        #expect(read(serial, until: "\r") == "root\r")
        first.shutdown()
        #expect(eventually { bench.controller.snapshot.consoleClients == 1 })
    }

    @Test func `a console client that does not read holds up nobody and goes on with the oldest byte kept`() throws {
        var configuration = ManagementController.Configuration()
        configuration.consoleCapacity = 4096
        let bench = try Bench(configuration)
        try bench.controller.startPower(nil)
        let serial = try Socket.connect(to: try bench.serial())
        let client = try Socket.connect(to: try bench.console())
        let chunk = [UInt8](repeating: UInt8(ascii: "x"), count: 65_536)
        for _ in 0..<32 { try serial.send(chunk) }
        try serial.send(Array("the end".utf8))
        #expect(eventually { bench.controller.snapshot.consoleBytes == 32 * 65_536 + 7 })
        let text = read(client, until: "the end")
        #expect(text.hasSuffix("the end"))
        #expect(text.utf8.count < 32 * 65_536)
    }

    @Test func `a host that does not read does not stop what it prints`() throws {
        let bench = try Bench()
        try bench.controller.startPower(nil)
        let serial = try Socket.connect(to: try bench.serial())
        let client = try Socket.connect(to: try bench.console())
        #expect(
            eventually { bench.controller.snapshot.isSerialConnected && bench.controller.snapshot.consoleClients == 1 })
        let paste = [UInt8](repeating: UInt8(ascii: "y"), count: 65_536)
        for _ in 0..<16 { try client.send(paste) }
        try serial.send(Array("alive".utf8))
        #expect(read(client, until: "alive") == "alive")
    }

    @Test func `the first byte and the last line of a boot are events, once each reset`() throws {
        let bench = try Bench()
        let sideband = try bench.sideband()
        let serial = try Socket.connect(to: try bench.serial())
        for round in 1...2 {
            try sideband.send(.signal(.reset, level: true))
            #expect(eventually { bench.events.filter { $0 == .powerGood }.count == round })
            for piece in ["OpenSBI\r\nBaseboard firm", "ware: ready\r", "\nBaseboard firmware: ready\r\n"] {
                try serial.send(Array(piece.utf8))
            }
            #expect(eventually { bench.controller.snapshot.hasBootCompleted })
            try sideband.send(.signal(.reset, level: false))
            #expect(eventually { bench.controller.snapshot.isHeld })
        }
        let boot: [ManagementController.Event] = [
            .resetReleased, .firmwareLoaded(.builtIn), .powerGood, .firstOutput, .bootComplete, .resetAsserted,
        ]
        #expect(bench.events == boot + boot)
    }

    @Test func `the ring buffer is read once, whoever watches the console`() throws {
        let bench = try Bench()
        try bench.controller.startPower(nil)
        let serial = try Socket.connect(to: try bench.serial())
        try serial.send(Array("0123456789".utf8))
        #expect(eventually { bench.controller.snapshot.consoleBytes == 10 })
        #expect(bench.controller.readRingBuffer(4) == Array("0123".utf8))
        #expect(bench.controller.readRingBuffer(.max) == Array("456789".utf8))
        #expect(bench.controller.readRingBuffer(1) == [])
        #expect(read(try Socket.connect(to: try bench.console()), until: "9") == "0123456789")
    }

    @Test func `the host may leave its serial line and come again`() throws {
        let bench = try Bench()
        try bench.controller.startPower(nil)
        let path = try bench.serial()
        for round in 1...3 {
            let serial = try Socket.connect(to: path)
            try serial.send(Array("host".utf8))
            #expect(eventually { bench.controller.snapshot.consoleBytes == UInt64(4 * round) })
            serial.shutdown()
            #expect(eventually { !bench.controller.snapshot.isSerialConnected })
        }
    }

    @Test func `console lines reach the syslog collector once it answers`() throws {
        var configuration = ManagementController.Configuration()
        configuration.collector = IPv4Address("192.168.7.9")
        configuration.hostname = "bmc0"
        let bench = try Bench(configuration)
        let network = try bench.network()
        try bench.controller.startPower(nil)
        #expect(try network.next().map { Array($0[12..<14]) } == [0x08, 0x06])
        let serial = try Socket.connect(to: try bench.serial())
        try serial.send(Array("one\r\ntwo\r\nthr".utf8))
        let question = try #require(try network.next())
        #expect(Array(question[38..<42]) == peerAddress)
        try network.send(arp(operation: 2, to: bmcMAC))
        try serial.send(Array("ee\r\n".utf8))
        for line in ["one", "two", "three"] {
            let frame = try #require(try network.next())
            #expect(Array(frame[36..<38]) == big(514))
            let text = String(decoding: frame[42...], as: UTF8.self)
            #expect(text.hasPrefix("<134>1 ") && text.hasSuffix(" bmc0 bmc - console - \(line)"), "\(text)")
        }
    }
}
