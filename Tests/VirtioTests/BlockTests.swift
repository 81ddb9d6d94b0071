import BlockStore
import Testing
import VFIOUser
import Virtio
import Wire

/// A disk behind a driver of our own.
final class BlockRig {
    static let head = 0x20_0000
    static let status = 0x20_1000
    static let data = 0x21_0000

    let rig: FunctionRig
    let store: BlockStore
    var queue: DriverQueue

    init(_ kind: RingKind, store: BlockStore? = nil) throws {
        self.store = try store ?? BlockStore(memory: 1 << 20)
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        WorkerThread("virtio") { worker.run() }
        rig = try FunctionRig(VirtioBlock(self.store, serial: "BB-0001", loop: loop), joined: worker)
        let offered = rig.driver.offered
        try rig.driver.negotiate(offered.intersection(kind.features).union(offered.subtracting(.transport)))
        queue = rig.queue(0, size: 32, kind)
        rig.driver.enable(0, queue)
        rig.driver.start()
    }

    /// One request; its status and the bytes that count as written, or nil when the device needs a reset.
    func request(
        _ type: UInt32, sector: UInt64 = 0, out: [UInt8] = [], in count: Int = 0
    ) -> (status: UInt8, written: UInt32)? {
        rig.memory.store(type, Self.head)
        rig.memory.store(sector, Self.head + 8)
        rig.memory.store(UInt8(0xAA), Self.status)
        rig.memory.set(out, Self.data)
        var segments = [DriverQueue.Segment(Memory.base + UInt64(Self.head), 16)]
        // In two pieces, as a page boundary makes them.
        for (length, isWritable) in [(out.count, false), (count, true)] where length > 0 {
            let first = length / 3
            let place = Memory.base + UInt64(Self.data)
            if first > 0 { segments.append(.init(place, first, writable: isWritable)) }
            segments.append(.init(place + UInt64(first), length - first, writable: isWritable))
        }
        segments.append(.init(Memory.base + UInt64(Self.status), 1, writable: true))
        guard queue.add(segments) != nil else { return nil }
        if queue.publish() { rig.driver.kick(0) }
        let copy = queue
        _ = eventually { copy.hasUsed || rig.driver.status.contains(.deviceNeedsReset) }
        guard let answer = queue.take() else { return nil }
        return (rig.memory.load(UInt8.self, Self.status), answer.written)
    }
}

struct BlockTests {
    @Test(arguments: RingKind.all)
    func `sectors read as they were written`(_ kind: RingKind) throws {
        let disk = try BlockRig(kind)
        for round in 0..<20 {
            let sectors = 1 + round % 8
            let sector = UInt64(round * 37 % 2000)
            let content = (0..<sectors * 512).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ round) }
            let wrote = disk.request(1, sector: sector, out: content)
            #expect(wrote?.status == 0 && wrote?.written == 1)
            disk.rig.memory.set([UInt8](repeating: 0, count: content.count), BlockRig.data)
            let read = disk.request(0, sector: sector, in: content.count)
            #expect(read?.status == 0 && read?.written == UInt32(content.count + 1))
            #expect(disk.rig.memory.bytes(BlockRig.data, content.count) == content)
        }
        #expect(disk.request(4)?.status == 0)
        #expect(disk.store.statistics.values.flushes == 1)
    }

    @Test func `the configuration tells size, block size and bounds`() throws {
        let disk = try BlockRig(RingKind.all[0], store: try BlockStore(memory: 1 << 20, blockSize: 4096))
        let driver = disk.rig.driver
        #expect(driver.read(driver.device, BlockConfigurationField.capacity, 8) == 2048)
        #expect(driver.read(driver.device, BlockConfigurationField.blockSize, 4) == 4096)
        #expect(driver.read(driver.device, BlockConfigurationField.segmentMaximum, 4) == 254)
        #expect(driver.read(driver.device, BlockConfigurationField.discardAlignment, 4) == 8)
        #expect(driver.read(driver.device, BlockConfigurationField.length, 4) == 0)
    }

    @Test func `GET_ID answers the serial number`() throws {
        let disk = try BlockRig(RingKind.all[1])
        let answer = disk.request(8, in: 20)
        #expect(answer?.status == 0 && answer?.written == 21)
        #expect(disk.rig.memory.bytes(BlockRig.data, 20) == Array("BB-0001".utf8) + [UInt8](repeating: 0, count: 13))
    }

    @Test func `discarded and zeroed sectors read as zeroes`() throws {
        let disk = try BlockRig(RingKind.all[1])
        for type: UInt32 in [11, 13] {
            #expect(disk.request(1, sector: 8, out: [UInt8](repeating: 0xFF, count: 4096))?.status == 0)
            var range = [UInt8](repeating: 0, count: 16)
            range[0] = 9
            range[8] = 2
            #expect(disk.request(type, out: range)?.status == 0)
            #expect(disk.request(0, sector: 8, in: 4096)?.status == 0)
            let bytes = disk.rig.memory.bytes(BlockRig.data, 4096)
            #expect(bytes[..<512].allSatisfy { $0 == 0xFF } && bytes[1536...].allSatisfy { $0 == 0xFF })
            #expect(bytes[512..<1536].allSatisfy { $0 == 0 })
        }
    }

    @Test(arguments: [
        // Beyond the end, by wrap too; not whole sectors; unknown; bad ranges.
        (UInt32(0), UInt64(2048), 0, 512, UInt8(1)), (0, 2047, 0, 1024, 1), (0, .max, 0, 512, 1),
        (0, 1 << 55, 0, 512, 1), (1, 2048, 512, 0, 1), (1, 0, 500, 0, 1), (0, 0, 0, 500, 1), (2, 0, 0, 0, 2),
        (99, 0, 512, 512, 2), (11, 0, 15, 0, 1), (11, 0, 0, 0, 1), (13, 0, 16 * 17, 0, 1),
    ])
    func `a request that cannot be done says so and the next one works`(
        _ type: UInt32, _ sector: UInt64, _ out: Int, _ count: Int, _ status: UInt8
    ) throws {
        let disk = try BlockRig(RingKind.all[1])
        #expect(disk.request(type, sector: sector, out: [UInt8](repeating: 0, count: out), in: count)?.status == status)
        #expect(disk.request(0, sector: 2047, in: 512)?.status == 0)
        #expect(disk.rig.log.all.isEmpty)
    }

    @Test(arguments: [(UInt32(11), UInt32(1)), (13, 2), (11, 0x8000_0000)])
    func `flags of ranges that mean nothing are unsupported`(_ type: UInt32, _ flags: UInt32) throws {
        let disk = try BlockRig(RingKind.all[1])
        var range = [UInt8](repeating: 0, count: 16)
        range[8] = 1
        for index in 0..<4 { range[12 + index] = UInt8(truncatingIfNeeded: flags >> UInt32(index * 8)) }
        #expect(disk.request(type, out: range)?.status == 2)
    }

    @Test func `an injected delay holds one request back and lets others pass`() throws {
        let disk = try BlockRig(RingKind.all[1])
        _ = disk.store.faults.add(BlockFault(.delay(.milliseconds(50)), range: 0..<512, remaining: 1))
        let start = MonotonicTime.now
        #expect(disk.request(0, sector: 0, in: 512)?.status == 0)
        #expect(MonotonicTime.now.since(start) >= .milliseconds(50))
        #expect(disk.request(0, sector: 0, in: 512)?.status == 0)
        _ = disk.store.faults.add(BlockFault(.error, remaining: 1))
        #expect(disk.request(0, sector: 0, in: 512)?.status == 1)
    }

    @Test func `a request that is held back is gone with its queue's reset`() throws {
        let disk = try BlockRig(RingKind.all[1])
        let driver = disk.rig.driver
        _ = disk.store.faults.add(BlockFault(.delay(.milliseconds(100)), operations: [.read], remaining: 1))
        disk.rig.memory.store(UInt32(0), BlockRig.head)
        disk.rig.memory.store(UInt64(0), BlockRig.head + 8)
        _ = disk.queue.added(
            .init(Memory.base + UInt64(BlockRig.head), 16),
            .init(Memory.base + UInt64(BlockRig.data), 512, writable: true),
            .init(Memory.base + UInt64(BlockRig.status), 1, writable: true))
        if disk.queue.publish() { driver.kick(0) }
        let store = disk.store
        #expect(eventually { store.faults.entries.first?.hits == 1 })
        driver.write(driver.common, CommonField.queueSelect, 2, 0)
        driver.write(driver.common, CommonField.queueReset, 2, 1)
        #expect(eventually { driver.read(driver.common, CommonField.queueReset, 2) == 0 })
        disk.queue = disk.rig.queue(0x8000, size: 32, RingKind.all[1])
        driver.enable(0, disk.queue)
        // One answer to one request, although the other one's time has come.
        #expect(disk.request(0, in: 512)?.status == 0)
        let start = MonotonicTime.now
        #expect(eventually { MonotonicTime.now.since(start) > .milliseconds(150) })
        #expect(!disk.queue.hasUsed && disk.request(0, in: 512)?.status == 0)
    }

    @Test func `a request without a head needs a reset`() throws {
        let disk = try BlockRig(RingKind.all[1])
        _ = disk.queue.added(.init(Memory.base, 15), .init(Memory.base, 1, writable: true))
        if disk.queue.publish() { disk.rig.driver.kick(0) }
        #expect(eventually { disk.rig.driver.status.contains(.deviceNeedsReset) })
        #expect(disk.rig.log.all.count == 1)
    }
}

struct SmallDeviceTests {
    private let data = 0x20_0000

    @Test(arguments: RingKind.all)
    func `the random source fills buffers with different bytes`(_ kind: RingKind) throws {
        let rig = try FunctionRig(VirtioEntropy())
        try rig.driver.negotiate(kind.features)
        var queue = rig.queue(0, kind)
        rig.driver.enable(0, queue)
        rig.driver.start()
        var seen: Set<[UInt8]> = []
        for _ in 0..<20 {
            _ = queue.added(.init(Memory.base + UInt64(data), 64, writable: true))
            if queue.publish() { rig.driver.kick(0) }
            let answer = queue.awaitAnswer()
            #expect(answer?.written == 64)
            seen.insert(rig.memory.bytes(data, 64))
        }
        #expect(seen.count == 20)
    }

    @Test(arguments: RingKind.all)
    func `the console carries bytes both ways and keeps input until there are buffers`(_ kind: RingKind) throws {
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        WorkerThread("virtio") { worker.run() }
        let heard = Lines()
        let console = VirtioConsole(loop: loop) { bytes in
            heard.add(String((0..<bytes.byteCount).map { Character(UnicodeScalar(bytes.uint8(at: $0))) }))
        }
        let rig = try FunctionRig(console, joined: worker)
        try rig.driver.negotiate(kind.features.union(VirtioConsole.sizeFeature))
        var queues = [rig.queue(0, kind), rig.queue(0x1_0000, kind)]
        for (index, queue) in queues.enumerated() { rig.driver.enable(index, queue) }
        rig.driver.start()
        rig.memory.set(Array("hello".utf8), data)
        _ = queues[1].added(.init(Memory.base + UInt64(data), 2), .init(Memory.base + UInt64(data + 2), 3))
        if queues[1].publish() { rig.driver.kick(1) }
        let isSent = queues[1].awaitAnswer() != nil
        #expect(isSent && heard.all == ["hello"])

        #expect(console.input([UInt8]("abcdef".utf8).span.bytes) == 6)
        for expected in ["abcd", "ef"] {
            _ = queues[0].added(.init(Memory.base + UInt64(data), 4, writable: true))
            if queues[0].publish() { rig.driver.kick(0) }
            let answer = queues[0].awaitAnswer()
            #expect(answer?.written == UInt32(expected.count))
            #expect(rig.memory.bytes(data, expected.count) == Array(expected.utf8))
        }
        // What nobody takes is bounded.
        #expect(console.input([UInt8](repeating: 1, count: 100_000).span.bytes) == VirtioConsole.inputCapacity)
        let generation = rig.driver.read(rig.driver.common, CommonField.configGeneration, 1)
        console.resize(columns: 132, rows: 50)
        #expect(eventually { rig.driver.read(rig.driver.common, CommonField.configGeneration, 1) != generation })
        #expect(rig.driver.read(rig.driver.device, 0, 4) == 132 | 50 << 16)
        rig.driver.write(rig.driver.device, 8, 4, UInt64(UInt8(ascii: "!")))
        #expect(heard.all.last == "!")
        #expect(rig.log.all.isEmpty)
    }
}
