import BlockStore
import NVMe
import TestKit
import Testing
import VFIOUser
import Wire

/// NVM commands: data, refusals, faults, and queues that are garbage.
struct IOTests {
    let store: BlockStore
    let host: TestHost
    let queue: QueuePair

    init() throws {
        store = try BlockStore(memory: 4 << 20)
        host = try TestHost([store])
        queue = try host.makeQueues(1, entries: 32)
    }

    private func read(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        try bytes.withUnsafeMutableBytes { try store.read(at: offset, into: $0) }
        return bytes
    }

    private func fill(_ offset: UInt64, _ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try store.write(at: offset, from: $0) }
    }

    /// Pointers to pages in an order of the generator's, for data that begins `start` bytes inside the first.
    private func pointers(
        _ count: Int, start: Int, _ pool: UInt64, _ lists: UInt64, _ generator: inout SeededGenerator
    ) -> (prp1: UInt64, prp2: UInt64, pieces: [(UInt64, Int)]) {
        var order = Array(0..<UInt64(257)).shuffled(using: &generator)
        func next() -> UInt64 { pool + order.removeLast() * 4096 }
        var pieces: [(UInt64, Int)] = [(next() + UInt64(start), min(count, 4096 - start))]
        var left = count - pieces[0].1
        while left > 0 {
            pieces.append((next(), min(left, 4096)))
            left -= min(left, 4096)
        }
        let (prp1, rest) = (pieces[0].0, pieces.dropFirst().map(\.0))
        guard rest.count > 1 else { return (prp1, rest.first ?? 0, pieces) }
        // A list that begins late in its page and goes on in others.
        var place = lists + UInt64(Int.random(in: 500...511, using: &generator)) * 8
        let prp2 = place
        var page = lists
        for (index, address) in rest.enumerated() {
            if place & 4095 == 4088, index < rest.count - 1 {
                page += 4096
                host.store(little(page, 8), at: place)
                place = page
            }
            host.store(little(address, 8), at: place)
            place += 8
        }
        return (prp1, prp2, pieces)
    }

    @Test func `random reads, writes, compares and zeroes agree with an array`() throws {
        var generator = SeededGenerator.fresh()
        let (pool, lists) = (host.pages(257), host.pages(4))
        var model = [UInt8](repeating: 0, count: 4 << 20)
        for _ in 0..<400 {
            let blocks = Int.random(in: 1...(Bool.random(using: &generator) ? 16 : 2040), using: &generator)
            let lba = Int.random(in: 0...(8192 - blocks), using: &generator)
            let range = lba * 512..<(lba + blocks) * 512
            let start = Int.random(in: 0..<1024, using: &generator) * 4
            let data = pointers(range.count, start: start, pool, lists, &generator)
            let control = UInt32.random(in: 0...1, using: &generator) << 30
            switch Int.random(in: 0..<6, using: &generator) {
            case 0, 1:
                let bytes = generator.bytes(range.count)
                var done = 0
                for piece in data.pieces {
                    host.store(Array(bytes[done..<done + piece.1]), at: piece.0)
                    done += piece.1
                }
                let entry = Entry.io(1, UInt64(lba), blocks, data.prp1, data.prp2, control: control)
                #expect(try host.run(entry, queue).status == 0, "seed \(generator.seed)")
                model.replaceSubrange(range, with: bytes)
                #expect(
                    try host.run(.io(5, UInt64(lba), blocks, data.prp1, data.prp2), queue).status == 0,
                    "seed \(generator.seed)")
                let place = data.pieces.last!
                host.store([host.load(place.0, 1)[0] ^ 1], at: place.0)
                #expect(try host.run(.io(5, UInt64(lba), blocks, data.prp1, data.prp2), queue).status == 0x285)
            case 2:
                let deallocates: UInt32 = control == 0 ? 0 : 1 << 25
                let entry = Entry.io(8, UInt64(lba), blocks, control: deallocates)
                #expect(try host.run(entry, queue).status == 0)
                model.replaceSubrange(range, with: repeatElement(0, count: range.count))
            case 3: #expect(try host.run(.io(0x0C, UInt64(lba), blocks), queue).status == 0)
            case 4: #expect(try host.run(Entry(opcode: 0, namespace: control == 0 ? 1 : .max), queue).status == 0)
            default:
                #expect(try host.run(.io(2, UInt64(lba), blocks, data.prp1, data.prp2), queue).status == 0)
                let seen = data.pieces.flatMap { host.load($0.0, $0.1) }
                #expect(seen == Array(model[range]), "seed \(generator.seed)")
            }
        }
        #expect(try read(0, 4 << 20) == model, "seed \(generator.seed)")
    }

    @Test func `dataset management deallocates its ranges, all or none`() throws {
        try fill(0, [UInt8](repeating: 9, count: 65536))
        let page = host.pages(1)
        func ranges(_ ranges: [(UInt32, UInt64)]) {
            host.store(ranges.flatMap { little(0, 4) + little(UInt64($0.0), 4) + little($0.1, 8) }, at: page)
        }
        ranges([(8, 0), (16, 32)])
        #expect(try host.run(Entry(opcode: 9, namespace: 1, prp1: page, dwords: [1, 0]), queue).status == 0)
        #expect(try read(0, 1) == [9])
        #expect(try host.run(Entry(opcode: 9, namespace: 1, prp1: page, dwords: [1, 4]), queue).status == 0)
        #expect(try read(0, 4096).allSatisfy { $0 == 0 } && read(16384, 8192).allSatisfy { $0 == 0 })
        #expect(try read(4096, 12288).allSatisfy { $0 == 9 } && read(24576, 40960).allSatisfy { $0 == 9 })
        ranges([(8, 8), (1, 8192)])
        #expect(try host.run(Entry(opcode: 9, namespace: 1, prp1: page, dwords: [1, 4]), queue).status == 0x80)
        #expect(try read(4096, 4096).allSatisfy { $0 == 9 })
    }

    static let refusals: [(String, Entry, UInt16)] = {
        let page = TestHost.base + 0x20_0000
        return [
            ("unknown opcode", Entry.io(0x7F, 0, 1, page), 1),
            ("fused", Entry(opcode: 2, flags: 2, namespace: 1, prp1: page), 2),
            ("SGL", Entry(opcode: 2, flags: 0x80, namespace: 1, prp1: page), 2),
            ("namespace 0", .io(2, 0, 1, page, namespace: 0), 0x0B),
            ("namespace 2", .io(2, 0, 1, page, namespace: 2), 0x0B),
            ("flush of namespace 7", Entry(opcode: 0, namespace: 7), 0x0B),
            ("all namespaces", .io(2, 0, 1, page, namespace: .max), 0x0B),
            ("behind the end", .io(2, 8192, 1, page), 0x80),
            ("across the end", .io(1, 8191, 2, page), 0x80),
            ("far away", .io(2, .max, 1, page), 0x80),
            ("far away, zeroes", .io(8, 1 << 55, 8), 0x80),
            ("verify behind the end", .io(0x0C, 8190, 3), 0x80),
            ("longer than MDTS", .io(2, 0, 2049, page, page), 2),
            ("odd address", .io(2, 0, 1, page + 2), 0x13),
            ("second page inside a page", .io(2, 0, 16, page, page + 8), 0x13),
            ("list at an odd place", .io(2, 0, 64, page, page + 4), 0x13),
            ("list nowhere", .io(2, 0, 64, page, 0x8000), 4),
            ("list of zeroes: memory at 0", .io(2, 0, 64, page, TestHost.base + 0x30_0000), 4),
            ("list entry inside a page", .io(2, 0, 64, page, TestHost.base + 0x30_1000), 0x13),
            ("next list inside a page", .io(2, 0, 64, page, TestHost.base + 0x30_2FF8), 0x13),
            ("next list nowhere", .io(2, 0, 64, page, TestHost.base + 0x30_3FF8), 4),
            ("data nowhere", .io(1, 0, 1, 0x1000), 4),
            ("half of the data nowhere", .io(1, 0, 16, page, 0x2000), 4),
            ("wrapping data", .io(1, 0, 8, .max & ~3, 0x2000), 4),
            ("ranges nowhere", Entry(opcode: 9, namespace: 1, prp1: 0, dwords: [0, 4]), 4),
        ]
    }()

    @Test func `each command is refused as the specification says, and nothing is changed`() throws {
        host.store(little(1 | TestHost.base, 8), at: TestHost.base + 0x30_1000)
        host.store(little(TestHost.base + 8, 8), at: TestHost.base + 0x30_2FF8)
        host.store(little(0x7000, 8), at: TestHost.base + 0x30_3FF8)
        let before = try read(0, 4 << 20)
        for (name, entry, status) in Self.refusals {
            #expect(try host.run(entry, queue).status == status, "\(name)")
        }
        #expect(try read(0, 4 << 20) == before)
        #expect(host.status == 1 && host.log.all.isEmpty)
        #expect(host.controller.snapshot.failedCommands == UInt64(Self.refusals.count))
    }

    @Test func `a read-only namespace refuses whatever changes it`() throws {
        let folder = TemporaryFolder()
        _ = try TestKit.run("/usr/bin/truncate", ["-s", "1M", folder.file("disk")])
        let host = try TestHost([try BlockStore(path: folder.file("disk"), readOnly: true)])
        let queue = try host.makeQueues(1)
        let page = host.pages(1)
        host.store(little(0, 4) + little(8, 4) + little(0, 8), at: page)
        for entry in [
            Entry.io(1, 0, 1, page), .io(8, 0, 1), Entry(opcode: 9, namespace: 1, prp1: page, dwords: [0, 4]),
        ] { #expect(try host.run(entry, queue).status == 0x20) }
        #expect(try host.run(.io(2, 0, 8, page), queue).status == 0)
        #expect(try host.run(Entry(opcode: 0, namespace: 1), queue).status == 0)
    }

    @Test func `full queues are served whole, over many turns, with no completion lost`() throws {
        let page = host.pages(32)
        for turn in 0..<50 {
            // One more than fits would look like none.
            let count = 31
            for slot in 0..<count { host.push(.io(2, UInt64(slot + turn), 8, page + UInt64(slot) * 4096), queue) }
            host.ringTail(queue)
            var identifiers: Set<UInt16> = []
            for _ in 0..<count { identifiers.insert(try host.wait(queue).identifier) }
            #expect(identifiers.count == count)
        }
        #expect(host.vectors[1].drain())
    }

    @Test func `a full completion queue holds commands back until there is room`() throws {
        let small = QueuePair(2, submission: host.pages(1), completion: host.pages(1), entries: 4)
        #expect(try host.run(Entry(opcode: 5, prp1: small.completion, dwords: [0x0003_0002, 1])).status == 0)
        #expect(
            try host.run(Entry(opcode: 1, prp1: small.submission, dwords: [0x001F_0002, 0x0002_0001])).status == 0)
        let page = host.pages(1)
        let wide = QueuePair(2, submission: small.submission, completion: small.completion, entries: 32)
        for slot in 0..<20 { host.push(.io(2, UInt64(slot), 1, page), wide) }
        host.ring(4, 20)
        var seen = 0
        while seen < 20 {
            #expect(eventually { host.number(small.completion + UInt64(small.head) * 16 + 14, 2) & 1 == small.phase })
            while host.poll(small, ringsHead: false) != nil { seen += 1 }
            #expect(store.statistics.values.reads <= UInt64(seen + 3))
            host.ring(5, small.head)
        }
        #expect(seen == 20 && host.status == 1)
    }

    // MARK: Faults

    @Test func `injected faults end commands as a bad medium does`() throws {
        let page = host.pages(1)
        _ = store.faults.add(BlockFault(.error, operations: [.read], range: 512..<1024, remaining: 2))
        #expect(try host.run(.io(2, 0, 8, page), queue).status == 0x281)
        #expect(try host.run(.io(0x0C, 1, 1), queue).status == 0x281)
        #expect(try host.run(.io(2, 0, 8, page), queue).status == 0)
        _ = store.faults.add(BlockFault(.torn(isReported: true), remaining: 1))
        host.store([UInt8](repeating: 5, count: 4096), at: page)
        #expect(try host.run(.io(1, 0, 8, page), queue).status == 0x280)
        #expect(try read(0, 4096) == [UInt8](repeating: 5, count: 2048) + [UInt8](repeating: 0, count: 2048))
        _ = store.faults.add(BlockFault(.error, operations: [.flush], remaining: 1))
        #expect(try host.run(Entry(opcode: 0, namespace: 1), queue).status == 0x280)
        #expect(try host.run(Entry(opcode: 0, namespace: 1), queue).status == 0)
    }

    @Test func `a slow command lets others pass, can be aborted, and ends with its queue`() throws {
        let page = host.pages(1)
        let slow = BlockFault(.delay(.seconds(1000)), operations: [.read], range: 0..<512)
        _ = store.faults.add(slow)
        func startSlow() -> UInt16 {
            let identifier = host.push(.io(2, 0, 1, page), queue)
            host.ringTail(queue)
            return identifier
        }
        let first = startSlow()
        #expect(try host.run(.io(2, 1, 1, page), queue).status == 0)
        #expect(host.controller.snapshot.delayed == 1)
        #expect(try host.run(Entry(opcode: 8, dwords: [1 | UInt32(first) << 16])).result == 0)
        let aborted = try host.wait(queue)
        #expect(aborted.identifier == first && aborted.status == 7)
        #expect(try host.run(Entry(opcode: 8, dwords: [1 | UInt32(first) << 16])).result == 1)
        let second = startSlow()
        #expect(eventually { host.controller.snapshot.delayed == 1 })
        #expect(try host.run(Entry(opcode: 0, dwords: [1])).status == 0)
        let ended = try host.wait(queue)
        #expect(ended.identifier == second && ended.status == 8 && host.controller.snapshot.delayed == 0)
        #expect(try host.run(Entry(opcode: 4, dwords: [1])).status == 0)
        store.faults.removeAll()
        _ = store.faults.add(BlockFault(.delay(.milliseconds(5)), operations: [.read], remaining: 1))
        let again = try host.makeQueues(1)
        #expect(try host.run(.io(2, 0, 1, page), again).status == 0)
    }

    // MARK: Garbage

    @Test func `queues that memory does not hold stop the controller with a reason, and a reset helps`() throws {
        func check(_ reason: String) throws {
            #expect(eventually { host.status & 2 != 0 }, "\(reason)")
            #expect(host.log.all.last?.contains(reason) == true, "\(host.log.all)")
            #expect(host.controller.snapshot.state == .fatal)
            try host.disable()
            #expect(host.status == 0)
            try host.enable()
            #expect(try host.run(Entry(opcode: 10, dwords: [7])).status == 0)
        }
        // A submission queue, then a completion queue, beyond memory.
        let good = host.pages(1)
        #expect(try host.run(Entry(opcode: 1, prp1: 0x4000_0000, dwords: [0x000F_0002, 0x0001_0001])).status == 0)
        host.ring(4, 1)
        try check("submission queue 2: no DMA map covers 0x40000000")
        #expect(try host.run(Entry(opcode: 5, prp1: 0x4000_0000, dwords: [0x000F_0002, 3])).status == 0)
        #expect(try host.run(Entry(opcode: 1, prp1: good, dwords: [0x000F_0002, 0x0002_0001])).status == 0)
        host.store(Entry(opcode: 0, namespace: 1).bytes(0), at: good)
        host.ring(4, 1)
        try check("completion queue 2: no DMA map covers 0x40000000")
        // A head beyond what was posted.
        host.ring(1, 9)
        try check("completion queue 0: the host says that it read up to 9")
        host.controller.fail("told to")
        try check("told to")
    }

    @Test func `bus mastering off stops nothing for good`() throws {
        let page = host.pages(1)
        host.client.write(region: 7, offset: 4, width: 2, value: 2)
        host.push(.io(2, 0, 1, page), queue)
        host.ringTail(queue)
        #expect(host.status == 1 && host.poll(queue) == nil)
        host.client.write(region: 7, offset: 4, width: 2, value: 6)
        #expect(try host.wait(queue).status == 0)
        #expect(host.log.all.isEmpty)
    }

    @Test func `doorbells in memory are served without a register write, awake and asleep`() throws {
        let (doorbells, events) = (host.pages(1), host.pages(1))
        host.store([UInt8](repeating: 0xFF, count: 4096), at: doorbells)
        #expect(try host.run(Entry(opcode: 0x7C, prp1: doorbells, prp2: events)).status == 0)
        #expect(host.controller.snapshot.usesShadowDoorbells)
        let page = host.pages(1)
        for round in 0..<200 {
            let old = queue.tail
            host.push(.io(2, UInt64(round), 1, page), queue)
            host.store(little(UInt64(queue.tail), 4), at: doorbells + 8)
            // As Linux decides: nvme_dbbuf_need_event.
            let event = UInt32(host.number(events + 8, 4))
            if UInt16(truncatingIfNeeded: queue.tail &- event &- 1) < UInt16(truncatingIfNeeded: queue.tail &- old) {
                host.ringTail(queue)
            }
            #expect(eventually { host.number(queue.completion + UInt64(queue.head) * 16 + 14, 2) & 1 == queue.phase })
            #expect(host.poll(queue, ringsHead: false)?.status == 0)
            host.store(little(UInt64(queue.head), 4), at: doorbells + 12)
        }
        #expect(store.statistics.values.reads == 200)
        host.store(little(77, 4), at: doorbells + 8)
        host.ring(2, 0)
        #expect(eventually { host.status & 2 != 0 })
        #expect(host.log.all.last?.contains("tail 77 in memory, of 32 entries") == true)
    }
}
