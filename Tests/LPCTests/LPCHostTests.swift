import LPC
import Synchronization
import TestKit
import Testing
import Wire

/// The peripheral's end of a wire, by hand, and a host with what it was told.
final class HostBench: Sendable {
    let thread: LoopThread
    let host: LPCHost
    let peer: Socket
    private let heard: Heard

    final class Heard: Sendable {
        let lines = Mutex<[String]>([])
        let levels = Mutex<[Bool]>([])
    }

    init(patience: Duration = .seconds(20), pause: Duration = .seconds(600)) throws {
        thread = try LoopThread()
        let (near, far) = try Socket.pair(kind: .seqpacket)
        peer = far
        let heard = Heard()
        self.heard = heard
        host = LPCHost(
            socket: near, loop: thread.loop, patience: patience, pause: pause,
            report: { line in heard.lines.withLock { $0.append(line) } },
            onInterrupt: { _, level in heard.levels.withLock { $0.append(level) } })
        try host.start()
    }

    deinit { thread.end() }

    var lines: [String] { heard.lines.withLock { $0 } }
    var levels: [Bool] { heard.levels.withLock { $0 } }

    /// The next cycle of the host.
    func next() throws -> LPCMessage {
        let bytes = try peer.receiveBytes(limit: 16, until: .after(.seconds(20)))
        return try LPCMessage(decoding: bytes ?? [])
    }

    func send(_ message: LPCMessage) throws { try peer.send(message.encoded) }

    /// Answers each of the host's cycles on a thread of its own, until the wire ends.
    func answer(_ body: @escaping @Sendable (LPCMessage) -> [[UInt8]]) -> WorkerThread {
        WorkerThread("test-lpc") { [peer] in
            while let bytes = try? peer.receiveBytes(limit: 16), let message = try? LPCMessage(decoding: bytes) {
                for answer in body(message) { try? peer.send(answer) }
            }
        }
    }
}

@Suite struct LPCHostTests {
    @Test func `cycles carry port and data and bring what was read`() throws {
        let bench = try HostBench()
        let seen = Mutex<[LPCMessage]>([])
        let answered = Mutex(0)
        let thread = bench.answer { message in
            seen.withLock { $0.append(message) }
            answered.withLock { $0 += 1 }
            switch message {
            case .read(let tag, _): return [LPCMessage.sync(tag: tag, .ready, data: 0x5A).encoded]
            case .write(let tag, _, _): return [LPCMessage.sync(tag: tag, .ready, data: 0xFF).encoded]
            default: return []
            }
        }
        #expect(bench.host.read(0xCA3) == 0x5A)
        bench.host.write(0x80, 0x10)
        #expect(seen.withLock { $0 } == [.read(tag: 1, port: 0xCA3), .write(tag: 2, port: 0x80, data: 0x10)])
        #expect(bench.host.statistics == LPCHost.Statistics(cycles: 2, aborted: 0))
        bench.peer.shutdown()
        thread.join()
    }

    @Test(arguments: [LPCMessage.Sync.none, .error])
    func `a cycle without SYNC or with an error reads 0xFF`(_ sync: LPCMessage.Sync) throws {
        let bench = try HostBench()
        let thread = bench.answer { message in
            guard case .read(let tag, _) = message else { return [] }
            return [LPCMessage.sync(tag: tag, sync, data: 0x12).encoded]
        }
        #expect(bench.host.read(0x60) == 0xFF)
        #expect(bench.host.statistics.aborted == 1)
        bench.peer.shutdown()
        thread.join()
    }

    @Test func `garbage, stale answers and foreign cycles before the answer are passed over, and told`() throws {
        let bench = try HostBench()
        let thread = bench.answer { message in
            guard case .read(let tag, _) = message else { return [] }
            return [
                [0x77], [], [UInt8](repeating: 0, count: 64), LPCMessage.read(tag: tag, port: 1).encoded,
                LPCMessage.sync(tag: tag &- 1, .ready, data: 1).encoded,
                LPCMessage.sync(tag: tag, .ready, data: 2).encoded,
            ].filter { !$0.isEmpty }
        }
        #expect(bench.host.read(0xCA2) == 2)
        #expect(bench.lines.count == 2, "\(bench.lines)")
        bench.peer.shutdown()
        thread.join()
    }

    @Test func `a peer that hangs costs the patience once, and is used again after its late answer`() throws {
        let bench = try HostBench(patience: .milliseconds(20))
        #expect(bench.host.read(0xCA3) == 0xFF)
        #expect(bench.lines.count == 1)
        // Nothing of these goes out: the peer still has the first.
        for _ in 0..<1000 { #expect(bench.host.read(0xCA3) == 0xFF) }
        #expect(try bench.next() == .read(tag: 1, port: 0xCA3))
        #expect(bench.host.statistics == LPCHost.Statistics(cycles: 1001, aborted: 1001))
        try bench.send(.sync(tag: 1, .ready, data: 9))
        #expect(eventually { bench.lines.count == 2 })
        // The late answer is of the cycle that was given up, and of no other.
        let thread = bench.answer { message in
            guard case .read(let tag, _) = message else { return [] }
            return [LPCMessage.sync(tag: tag, .ready, data: 3).encoded]
        }
        // A machine so busy that it does not answer in 20 ms makes this one late, too.
        #expect(eventually { bench.host.read(0xCA3) == 3 })
        bench.peer.shutdown()
        thread.join()
    }

    @Test func `a peer that hangs for good is asked again after the pause`() throws {
        let bench = try HostBench(patience: .milliseconds(5), pause: .milliseconds(5))
        var asked = 0
        var hasAnswer = false
        #expect(
            eventually {
                hasAnswer = hasAnswer || bench.host.read(0xCA3) != 0xFF
                while (try? bench.peer.receiveBytes(limit: 16, until: .now)) ?? nil != nil { asked += 1 }
                return asked >= 3
            })
        #expect(!hasAnswer && bench.host.statistics.cycles >= 3)
        #expect(bench.lines.count == 1, "told once: \(bench.lines)")
    }

    @Test func `a peer that talks without end and does not answer holds nobody longer than the patience`() throws {
        let bench = try HostBench(patience: .milliseconds(20))
        let thread = WorkerThread("test-lpc") { [peer = bench.peer] in
            var level = false
            while (try? peer.send(LPCMessage.interrupt(11, level: level).encoded)) != nil { level.toggle() }
        }
        #expect(bench.host.read(0xCA3) == 0xFF)
        #expect(bench.host.statistics == LPCHost.Statistics(cycles: 1, aborted: 1))
        #expect(bench.lines.count == 1)
        bench.peer.shutdown()
        thread.join()
    }

    @Test func `interrupts come between cycles and before a cycle's end`() throws {
        let bench = try HostBench()
        try bench.send(.interrupt(11, level: true))
        #expect(eventually { bench.levels == [true] })
        #expect(bench.host.isAsserted(11) && !bench.host.isAsserted(10))
        let thread = bench.answer { message in
            guard case .read(let tag, _) = message else { return [] }
            return [LPCMessage.interrupt(11, level: false).encoded, LPCMessage.sync(tag: tag, .ready, data: 0).encoded]
        }
        #expect(bench.host.read(0xCA2) == 0)
        #expect(bench.levels == [true, false])
        bench.peer.shutdown()
        thread.join()
    }

    @Test func `when the peer is gone interrupts fall and ports read 0xFF`() throws {
        let bench = try HostBench()
        try bench.send(.interrupt(11, level: true))
        #expect(eventually { bench.levels == [true] })
        bench.peer.shutdown()
        #expect(eventually { bench.levels == [true, false] })
        #expect(bench.host.read(0xCA3) == 0xFF)
        bench.host.write(0x80, 1)
        #expect(bench.host.statistics.aborted == 2)
    }
}
