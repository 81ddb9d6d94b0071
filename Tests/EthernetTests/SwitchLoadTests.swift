import Ethernet
import TestKit
import Testing
import Wire

/// Many frames at once: each is passed on or counted as dropped.
struct SwitchLoadTests {
    @Test(arguments: [64, 1514])
    func `frames that cross the switch in batches are passed on or counted as dropped`(length: Int) throws {
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
        theirsB.shutdown()
        reader.join()
        let passed = fabric.ports[1].statistics
        #expect(passed.sentFrames + passed.sentDropped >= UInt64(rounds * perBatch))
    }
}
