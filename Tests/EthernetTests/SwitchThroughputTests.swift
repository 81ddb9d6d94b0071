import Ethernet
import TestKit
import Testing
import Wire

/// Not a benchmark of record, only a floor that a mistake (a system call or an allocation a frame) would fall below.
struct SwitchThroughputTests {
    @Test func `a decision costs less than a microsecond`() {
        var fabric = EthernetSwitch()
        for port in 0..<2 { fabric.setLink(true, on: SwitchPort(rawValue: UInt8(port))) }
        let there = frame(to: station(2), from: station(1))
        let back = frame(to: station(1), from: station(2))
        let rounds = 500_000
        var forwarded = 0
        let start = MonotonicTime.now
        for _ in 0..<rounds {
            if case .forward = fabric.decide(there.span, from: SwitchPort(rawValue: 0), at: start) { forwarded += 1 }
            if case .forward = fabric.decide(back.span, from: SwitchPort(rawValue: 1), at: start) { forwarded += 1 }
        }
        let nanoseconds = Double(MonotonicTime.now.since(start).clampedNanoseconds) / Double(2 * rounds)
        print("switch decision: \(nanoseconds) ns")
        #expect(forwarded == 2 * rounds)
        #expect(nanoseconds < 1000)
    }

    @Test(arguments: [64, 1514])
    func `frames cross the switch in batches`(length: Int) throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let fabric = SwitchFabric(ports: ["a", "b"], loop: thread.loop)
        let (oursA, theirsA) = try Socket.pair()
        let (oursB, theirsB) = try Socket.pair()
        for socket in [oursA, theirsA, oursB, theirsB] { socket.setBufferSize(1 << 20) }
        try fabric.start("a", .connected(oursA))
        try fabric.start("b", .connected(oursB))
        try FramePeer(socket: theirsB).send(frame(to: .broadcast, from: station(2)))
        _ = try FramePeer(socket: theirsA).next()

        let batch = (0..<(48_000 / length)).flatMap { _ in
            framed(frame(to: station(2), from: station(1), payload: length - 14))
        }
        let rounds = 1500
        let perBatch = 48_000 / length
        let start = MonotonicTime.now
        let reader = WorkerThread("reader") {
            var bytes = 0
            while bytes < rounds * batch.count {
                guard let more = try? theirsB.receiveBytes(limit: 1 << 18, until: .after(.seconds(5))) else { break }
                bytes += more.count
            }
        }
        for _ in 0..<rounds { try theirsA.send(batch) }
        // Frames may be dropped: the reader is not waited for. Count what the switch took and passed on.
        #expect(eventually { fabric.ports[0].statistics.receivedFrames == UInt64(rounds * perBatch) })
        let seconds = Double(MonotonicTime.now.since(start).clampedNanoseconds) / 1e9
        theirsB.shutdown()
        reader.join()
        let passed = fabric.ports[1].statistics
        print(
            "switch, \(length)-byte frames: \(Int(Double(rounds * perBatch) / seconds)) frames/s in, "
                + "\(Int(Double(passed.sentFrames) / seconds)) passed, \(passed.sentDropped) dropped")
        #expect(Double(rounds * perBatch) / seconds > 50_000)
        #expect(passed.sentFrames + passed.sentDropped >= UInt64(rounds * perBatch))
    }
}
