import BlockStore
import NVMe
import TestKit
import Testing
import VFIOUser
import Wire

/// The state of a controller goes to another one that shares its host's memory, and the host's queues go on.
struct MigrationTests {
    /// Writes one block of a byte, without waiting.
    private func push(_ number: Int, _ host: TestHost, _ queue: QueuePair, _ data: UInt64) {
        host.store([UInt8](repeating: UInt8(number + 1), count: 512), at: data + UInt64(number * 512))
        host.push(
            Entry(opcode: 1, namespace: 1, prp1: data + UInt64(number * 512), dwords: [UInt32(number), 0, 0]), queue)
    }

    @Test func `a host's queues go on with another controller, and no command is lost or done twice`() throws {
        let store = try BlockStore(memory: 1 << 20)
        let source = try TestHost([store])
        let queue = try source.makeQueues(1)
        let data = source.pages(4)
        // Beyond the ring's end, so that the phase matters.
        for round in 0..<20 {
            push(20, source, queue, data)
            source.ringTail(queue)
            #expect(try source.wait(queue).status == 0, "round \(round)")
        }
        // An event request waits; some commands are done here, some there.
        #expect(try source.run(Entry(opcode: 9, dwords: [0x0B, 0x100])).status == 0)
        source.push(Entry(opcode: 0x0C))
        source.ringTail(source.admin)
        #expect(try source.run(Entry(opcode: 10, dwords: [7])).status == 0)
        for number in 0..<4 { push(number, source, queue, data) }
        source.ringTail(queue)
        let state = try source.saveState()
        for number in 4..<8 { push(number, source, queue, data) }
        let target = try TestHost([store], isEnabled: false, memory: source.ram)
        try target.restore(state)
        #expect(target.status & 1 == 1)
        target.ringTail(queue)
        for _ in 0..<8 { #expect(try target.wait(queue).status == 0) }
        #expect(target.poll(queue) == nil)
        #expect(store.statistics.values.writes == 28)
        var blocks = [UInt8](repeating: 0, count: 8 * 512)
        try blocks.withUnsafeMutableBytes { try store.read(at: 0, into: $0) }
        #expect(blocks == (0..<8).flatMap { [UInt8](repeating: UInt8($0 + 1), count: 512) })
        // The event request is answered by the one that has it now.
        let admin = try #require(source.admin)
        #expect(target.controller.namespaceChanged(1))
        #expect(try target.wait(admin).result & 7 == 2)
        #expect(source.log.all.isEmpty && target.log.all.isEmpty)
    }

    @Test func `a command that a fault holds back is done before the state is taken`() throws {
        let store = try BlockStore(memory: 1 << 20)
        let host = try TestHost([store])
        let queue = try host.makeQueues(1)
        _ = store.faults.add(BlockFault(.delay(.seconds(3600)), operations: [.write], remaining: 1))
        push(0, host, queue, host.pages(1))
        host.ringTail(queue)
        #expect(eventually { host.controller.snapshot.delayed == 1 })
        _ = try host.saveState()
        #expect(host.poll(queue, ringsHead: false)?.status == 0)
    }

    @Test func `another controller's state is refused`() throws {
        let store = try BlockStore(memory: 1 << 20)
        let state = try TestHost([store]).saveState()
        let others = [
            try TestHost([store], pairs: 3), try TestHost([store, store]), try TestHost([BlockStore(memory: 1 << 19)]),
            try TestHost([BlockStore(memory: 1 << 20, blockSize: 4096)]),
        ]
        for host in others {
            try host.load(state)
            #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) {
                try host.client.setMigrationState(.stop)
            }
        }
    }

    @Test func `no state that was cut or changed makes a controller trap, and it works after a reset`() throws {
        var generator = SeededGenerator.fresh()
        let store = try BlockStore(memory: 1 << 20)
        let source = try TestHost([store])
        _ = try source.makeQueues(1)
        _ = try source.makeQueues(2)
        source.push(Entry(opcode: 0x0C))
        source.ringTail(source.admin)
        let good = try source.saveState()
        let target = try TestHost([store], isEnabled: false, memory: source.ram)
        // The controller's part lies behind the stream's head, the configuration space and the table of five vectors.
        let own = 12 + 1 + 4096 + 5 * 16
        for round in 0..<500 {
            var bad = good
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                bad[Int.random(in: own..<bad.count, using: &generator)] =
                    Bool.random(using: &generator) ? 0xFF : .random(in: 0...255, using: &generator)
            }
            if round % 5 == 0 { bad.removeLast(Int.random(in: 0..<300, using: &generator)) }
            try target.load(bad)
            if (try? target.client.setMigrationState(.running)) != nil {
                for doorbell in 0..<6 { target.ring(doorbell, 1) }
            }
            try target.client.reset()
            #expect(!target.client.isGone, "seed \(generator.seed), round \(round)")
        }
        target.client.write(region: 7, offset: 4, width: 2, value: 6)
        try target.enable()
        #expect(try target.run(Entry(opcode: 10, dwords: [7])).status == 0, "seed \(generator.seed)")
    }
}
