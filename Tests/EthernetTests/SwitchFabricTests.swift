import Ethernet
import Foundation
import Synchronization
import TestKit
import Testing
import Wire

struct SwitchFabricTests {
    func fabric(_ thread: LoopThread, _ names: String...) throws -> (SwitchFabric, [FramePeer]) {
        let fabric = SwitchFabric(ports: names, loop: thread.loop)
        let peers = try names.map { name in
            let (ours, theirs) = try Socket.pair()
            try fabric.start(name, .connected(ours))
            return FramePeer(socket: theirs)
        }
        return (fabric, peers)
    }

    @Test func `stations find each other through the switch and the counters say so`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "b", "c")
        // A peer that is released leaves, and its stations with it.
        defer { withExtendedLifetime(peers) {} }
        let question = frame(to: .broadcast, from: station(1), payload: 100)
        try peers[0].send(question)
        #expect(try peers[1].next() == question)
        #expect(try peers[2].next() == question)
        let answer = frame(to: station(1), from: station(2), payload: 50)
        try peers[1].send(answer)
        #expect(try peers[0].next() == answer)
        let counters = fabric.ports.map(\.statistics)
        #expect(counters.map(\.receivedFrames) == [1, 1, 0])
        #expect(counters.map(\.receivedBytes) == [114, 64, 0])
        #expect(counters.map(\.sentFrames) == [1, 1, 1])
        #expect(counters.map(\.sentBytes) == [64, 114, 114])
        #expect(fabric.stations.map(\.port) == ["a", "b"])
    }

    @Test func `a burst arrives whole and in order`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "b")
        try peers[1].send(frame(to: .broadcast, from: station(2)))
        _ = try peers[0].next()
        let frames = (0..<100).map { frame(to: station(2), from: station(1), payload: 46 + $0) }
        try peers[0].socket.send(frames.flatMap(framed))
        for expected in frames { #expect(try peers[1].next() == expected) }
        #expect(fabric.ports[1].statistics.sentDropped == 0)
    }

    @Test func `a peer that does not read loses its own frames and holds up nobody`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "slow", "b")
        try peers[2].send(frame(to: .broadcast, from: station(3)))
        _ = try peers[0].next()
        // Broadcasts to a peer that reads and one that does not, until the slow one's queue has overflowed.
        let shout = frame(to: .broadcast, from: station(1), payload: 1486)
        var sent = 0
        while fabric.ports[1].statistics.sentDropped < 10, sent < 5000 {
            try peers[0].send(shout)
            #expect(try peers[2].next() == shout)
            sent += 1
        }
        #expect(sent < 5000)
        #expect(fabric.ports[2].statistics.sentDropped == 0)
        // What the slow peer finds afterwards is whole frames.
        let first = try peers[1].next()
        #expect(first == frame(to: .broadcast, from: station(3)))
        let queued = Int(fabric.ports[1].statistics.sentFrames) - 1
        for _ in 0..<queued { #expect(try peers[1].next() == shout) }
        // And the port carries again.
        try peers[0].send(shout)
        #expect(try peers[1].next() == shout)
    }

    @Test func `a peer that breaks the framing loses its link and no one else does`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "bad", "b")
        try peers[1].socket.send([0, 0, 0, 0])
        #expect(try peers[1].next() == nil)
        #expect(eventually { !fabric.ports[1].isUp })
        let shout = frame(to: .broadcast, from: station(1))
        try peers[0].send(shout)
        #expect(try peers[2].next() == shout)
    }

    @Test func `runts are counted and go nowhere`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "b")
        let good = frame(to: .broadcast, from: station(1))
        try peers[0].send([1, 2, 3], good)
        #expect(try peers[1].next() == good)
        #expect(eventually { fabric.ports[0].statistics.receivedDropped == 1 })
    }

    @Test func `a peer that leaves can come again, on either kind of port`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let folder = TemporaryFolder()
        let serving = SwitchFabric(ports: ["a", "b"], loop: thread.loop)
        let listener = try Listener(path: folder.file("a"))
        try serving.start("a", .serves(listener))
        let (ours, theirs) = try Socket.pair()
        try serving.start("b", .connected(ours))
        let b = FramePeer(socket: theirs)
        let shout = frame(to: .broadcast, from: station(2))
        for _ in 0..<3 {
            let visitor = FramePeer(socket: try Socket.connect(to: folder.file("a")))
            #expect(eventually { serving.ports[0].isUp })
            try b.send(shout)
            #expect(try visitor.next() == shout)
            visitor.socket.shutdown()
            #expect(eventually { !serving.ports[0].isUp })
        }
        // The other way round: our port connects, its peer's listener goes away and is made again.
        let using = SwitchFabric(ports: ["c"], loop: thread.loop)
        for round in 0..<2 {
            let other = try Listener(path: folder.file("c"))
            if round == 0 { try using.start("c", .uses(path: folder.file("c"))) }
            let visitor = try other.accept(until: .after(.seconds(10)))
            #expect(eventually { using.ports[0].isUp })
            other.shutdown()
            visitor.shutdown()
            #expect(eventually { !using.ports[0].isUp })
        }
        using.stop()
        serving.stop()
    }

    @Test func `a peer that accepts and closes is not called without end`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let folder = TemporaryFolder()
        let listener = try Listener(path: folder.file("a"))
        let fabric = SwitchFabric(ports: ["a"], loop: thread.loop)
        try fabric.start("a", .uses(path: folder.file("a")))
        // The intervals double from 20 ms: seven calls take at least 1.26 s.
        let start = MonotonicTime.now
        for _ in 0..<7 { try listener.accept(until: .after(.seconds(20))).shutdown() }
        #expect(MonotonicTime.now.since(start) >= .milliseconds(1260))
        fabric.stop()
    }

    @Test func `a lost peer that does not accept again holds up neither the other ports nor the end`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let folder = TemporaryFolder()
        let path = folder.file("a")
        let listener = try Listener(path: path, backlog: 0)
        let reports = Mutex<[String]>([])
        let fabric = SwitchFabric(ports: ["a", "b", "c"], loop: thread.loop) { line in
            reports.withLock { $0.append(line) }
        }
        try fabric.start("a", .uses(path: path))
        let peers = try ["b", "c"].map { name in
            let (ours, theirs) = try Socket.pair()
            try fabric.start(name, .connected(ours))
            return FramePeer(socket: theirs)
        }
        let link = try listener.accept(until: .after(.seconds(20)))
        // Somebody else takes the only place in the queue; then the link is lost.
        let other = try Socket.connect(to: path, patience: .zero)
        link.shutdown()
        #expect(eventually { reports.withLock { $0.contains { $0.contains("trying again") } } })
        let shout = frame(to: .broadcast, from: station(1))
        try peers[0].send(shout)
        #expect(try peers[1].next() == shout)
        fabric.stop()
        withExtendedLifetime((other, peers)) {}
    }

    @Test func `a link to a path where nobody listens is refused by name`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let fabric = SwitchFabric(ports: ["a"], loop: thread.loop)
        let error = #expect(throws: WireError.self) {
            try fabric.start("a", .uses(path: "/tmp/bb-nobody-\(UUID().uuidString.prefix(8))"))
        }
        #expect(error.map { "\($0)" }?.contains("/tmp/bb-nobody-") == true)
    }

    @Test func `the policy of a running switch can be replaced`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "b")
        fabric.setPolicy(.denyAll)
        let lost = frame(to: .broadcast, from: station(1), payload: 10)
        try peers[0].send(lost)
        #expect(eventually { fabric.ports[0].statistics.receivedDropped == 1 })
        fabric.setPolicy(.permitAll)
        let seen = frame(to: .broadcast, from: station(1), payload: 20)
        try peers[0].send(seen)
        #expect(try peers[1].next() == seen)
    }

    @Test func `a capture of two running links is read by tshark`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "b")
        let folder = TemporaryFolder()
        let path = folder.file("x.pcapng")
        let capture = try PcapngCapture(path: path)
        for port in fabric.ports { port.tap.insert(capture.observer(named: "switch." + port.name)) }
        let shout = frame(to: .broadcast, from: station(1), payload: 30)
        try peers[0].send(shout)
        #expect(try peers[1].next() == shout)
        let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
        let rows = try tshark(
            bytes, fields: ["frame.interface_name", "frame.packet_flags_direction"])
        #expect(rows == [["switch.a", "0x00000001"], ["switch.b", "0x00000002"]])
        #expect(capture.failure == nil)
    }

    @Test func `a capture that cannot be written ends, the link does not`() throws {
        let capture = try PcapngCapture(path: "/dev/null")
        #expect(capture.failure == nil)
        #expect(throws: WireError.self) { try PcapngCapture(path: "/dev/full") }
        #expect(throws: WireError.self) { try PcapngCapture(path: "/nowhere/at/all.pcapng") }
    }

    @Test func `an impaired link drops, replaces and disconnects as it is told`() throws {
        final class Impairment: LinkObserver {
            func message(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict {
                guard direction == .received else { return .pass }
                return switch bytes.count {
                case 14: .drop
                case 15: .replace([Array(bytes), Array(bytes)])
                case 16: .disconnect
                default: .pass
                }
            }
        }
        let thread = try LoopThread()
        defer { thread.end() }
        let (fabric, peers) = try fabric(thread, "a", "b")
        fabric.ports[0].tap.insert(Impairment())
        let shout = { frame(to: .broadcast, from: station(1), payload: $0) }
        try peers[0].send(shout(0), shout(1), shout(5))
        #expect(try peers[1].next() == shout(1))
        #expect(try peers[1].next() == shout(1))
        #expect(try peers[1].next() == shout(5))
        try peers[0].send(shout(2))
        #expect(try peers[0].next() == nil)
        #expect(eventually { !fabric.ports[0].isUp })
    }
}
