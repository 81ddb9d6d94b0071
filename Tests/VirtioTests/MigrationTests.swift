import BlockStore
import Ethernet
import Foundation
import PCIe
import TestKit
import Testing
import VFIOUser
import Virtio
import Wire

/// The state of a function goes to another one that shares its driver's memory, and the driver's rings go on.
struct MigrationTests {
    /// A second disk on the same store and the same memory.
    private func disk(_ store: BlockStore, _ memory: Memory) throws -> FunctionRig {
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        WorkerThread("virtio") { worker.run() }
        return try FunctionRig(VirtioBlock(store, serial: "BB-0001", loop: loop), memory: memory, joined: worker)
    }

    /// Puts a write of one sector into the ring without waiting for it.
    private func add(_ number: Int, _ source: BlockRig, _ queue: inout DriverQueue) {
        let place = 0x30_0000 + number * 0x1000
        source.rig.memory.store(UInt32(1), place)
        source.rig.memory.store(UInt64(number), place + 8)
        source.rig.memory.store(UInt8(0xAA), place + 16)
        source.rig.memory.set([UInt8](repeating: UInt8(number + 1), count: 512), place + 512)
        let base = Memory.base + UInt64(place)
        _ = queue.added(.init(base, 16), .init(base + 512, 512), .init(base + 16, 1, writable: true))
    }

    @Test(arguments: RingKind.all)
    func `a disk's driver goes on with another disk, and no request is lost or done twice`(_ kind: RingKind) throws {
        let source = try BlockRig(kind)
        // Some way into the ring, so that the places and the wrap counters matter.
        for round in 0..<50 {
            #expect(source.request(1, sector: 100, out: [UInt8](repeating: UInt8(round), count: 512))?.status == 0)
        }
        var queue = source.queue
        var state: [UInt8] = []
        let target = try disk(source.store, source.rig.memory)
        // Requests are added on both sides of the move; some are done here, some there.
        for number in 0..<4 { add(number, source, &queue) }
        if queue.publish() { source.rig.driver.kick(0) }
        state = try source.rig.saveState()
        for number in 4..<8 { add(number, source, &queue) }
        _ = queue.publish()
        try target.restore(state)
        for _ in 0..<8 {
            let answer1 = queue.awaitAnswer()
            #expect(answer1?.written == 1)
        }
        let answer2 = queue.take()
        #expect(answer2 == nil)
        for number in 0..<8 {
            #expect(source.rig.memory.load(UInt8.self, 0x30_0000 + number * 0x1000 + 16) == 0)
        }
        // The source does nothing any more, the target does all.
        for number in 8..<12 { add(number, source, &queue) }
        if queue.publish() {
            source.rig.driver.kick(0)
            target.driver.kick(0)
        }
        for _ in 0..<4 {
            let answer = queue.awaitAnswer()
            #expect(answer?.written == 1)
        }
        let answer3 = queue.take()
        #expect(answer3 == nil)
        #expect(source.store.statistics.values.writes == 62)
        var sectors = [UInt8](repeating: 0, count: 12 * 512)
        try sectors.withUnsafeMutableBytes { try source.store.read(at: 0, into: $0) }
        #expect(sectors == (0..<12).flatMap { [UInt8](repeating: UInt8($0 + 1), count: 512) })
        #expect(source.rig.log.all.isEmpty && target.log.all.isEmpty)
        // And back again, to the one that was stopped.
        let back = try target.saveState()
        try source.rig.restore(back)
        add(12, source, &queue)
        if queue.publish() { source.rig.driver.kick(0) }
        let answer4 = queue.awaitAnswer()
        #expect(answer4 != nil)
    }

    @Test func `a request that a fault holds back is done before the disk's state is taken`() throws {
        let source = try BlockRig(RingKind.all[1])
        _ = source.store.faults.add(BlockFault(.delay(.seconds(3600)), operations: [.write], remaining: 1))
        var queue = source.queue
        add(0, source, &queue)
        if queue.publish() { source.rig.driver.kick(0) }
        #expect(eventually { source.store.faults.entries.allSatisfy { $0.hits == 1 } })
        _ = try source.rig.saveState()
        #expect(queue.hasUsed && source.rig.memory.load(UInt8.self, 0x30_0000 + 16) == 0)
    }

    @Test func `a stopped function serves nothing, and what came meanwhile when it goes on`() throws {
        let source = try BlockRig(RingKind.all[3])
        try source.rig.client.setMigrationState(.stop)
        var queue = source.queue
        add(0, source, &queue)
        if queue.publish() { source.rig.driver.kick(0) }
        // The worker has looked: it answers this before.
        #expect(source.rig.driver.status.contains(.driverOK))
        _ = try source.rig.saveState()
        #expect(!queue.hasUsed)
        try source.rig.client.setMigrationState(.running)
        let answer5 = queue.awaitAnswer()
        #expect(answer5 != nil)
    }

    @Test func `a network function's address, filters and traffic move`() throws {
        let rig = try NetRig(RingKind.all[3])
        let source = rig.nodes[0]
        #expect(source.command([1, 1, 0x52, 0x54, 0, 0, 0, 9]) == NetControl.success)
        #expect(source.command([0, 0, 0]) == NetControl.success)
        let state = try source.rig.saveState()
        let port = SwitchFabric(ports: [], functions: ["f"], loop: rig.loop).functions[0]
        let target = try FunctionRig(
            VirtioNet.joined(to: port, address: NetRig.addresses[1]), memory: source.rig.memory, joined: rig.worker)
        try target.restore(state)
        let driver = target.driver
        #expect((0..<6).map { driver.read(driver.device, $0, 1) } == [0x52, 0x54, 0, 0, 0, 9])
        #expect(driver.status.contains(.driverOK))
        // The transmit queue goes on here.
        source.rig.memory.set([UInt8](repeating: 0, count: 12) + NetRig.frame(0, 1, [1, 2, 3]), 0x20_0000)
        _ = source.transmit.added(.init(Memory.base + 0x20_0000, 12 + 17))
        if source.transmit.publish() { driver.kick(1) }
        let sent = source.transmit.awaitAnswer()
        #expect(sent != nil)
        #expect(target.log.all.isEmpty)
    }

    @Test func `a console's input that waits moves`() throws {
        func console() throws -> (VirtioConsole, FunctionRig, Memory) {
            let memory = try Memory()
            let loop = try EventLoop()
            let worker = VirtioWorker(loop: loop)
            WorkerThread("virtio") { worker.run() }
            let device = VirtioConsole(loop: loop) { _ in }
            return (device, try FunctionRig(device, memory: memory, joined: worker), memory)
        }
        let (device, source, memory) = try console()
        try source.driver.negotiate(RingKind.all[0].features)
        source.driver.enable(0, source.queue(0, RingKind.all[0]))
        source.driver.start()
        #expect(device.input(Array("hello".utf8).span.bytes) == 5)
        let (_, target, other) = try console()
        let state = try source.saveState()
        try target.restore(state)
        var queue = DriverQueue(
            other.mapping, offset: 0, base: Memory.base, size: 16, packed: false, eventIndex: false)
        _ = queue.added(.init(Memory.base + 0x1_0000, 64, writable: true))
        if queue.publish() { target.driver.kick(0) }
        let answer6 = queue.awaitAnswer()
        #expect(answer6?.written == 5)
        #expect(other.bytes(0x1_0000, 5) == Array("hello".utf8))
        withExtendedLifetime(memory) {}
    }

    @Test func `a source of random bytes goes on`() throws {
        let source = try FunctionRig(VirtioEntropy())
        try source.driver.negotiate(RingKind.all[2].features)
        var queue = source.queue(0, RingKind.all[2])
        source.driver.enable(0, queue)
        source.driver.start()
        for _ in 0..<20 {
            _ = queue.added(.init(Memory.base + 0x1_0000, 64, writable: true))
            if queue.publish() { source.driver.kick(0) }
            let answer7 = queue.awaitAnswer()
            #expect(answer7?.written == 64)
        }
        let target = try FunctionRig(VirtioEntropy(), memory: source.memory)
        try target.restore(source.saveState())
        _ = queue.added(.init(Memory.base + 0x1_0000, 32, writable: true))
        if queue.publish() { target.driver.kick(0) }
        let answer8 = queue.awaitAnswer()
        #expect(answer8?.written == 32)
    }

    // MARK: Refusals

    private func refuses(_ state: [UInt8], _ rig: FunctionRig) throws {
        try rig.load(state)
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try rig.client.setMigrationState(.stop) }
        try rig.client.reset()
        #expect(try rig.client.migrationState() == .running)
    }

    @Test func `another kind of device, a larger disk and other blocks are refused`() throws {
        let source = try BlockRig(RingKind.all[1])
        let state = try source.rig.saveState()
        try refuses(state, try FunctionRig(VirtioEntropy()))
        try refuses(state, try disk(BlockStore(memory: 1 << 19), try Memory()))
        try refuses(state, try disk(BlockStore(memory: 1 << 20, blockSize: 4096), try Memory()))
        // A larger one stands in.
        try disk(BlockStore(memory: 1 << 21), source.rig.memory).restore(state)
    }

    @Test func `no state that was cut or changed makes a function trap, and it works after a reset`() throws {
        let seed = ProcessInfo.processInfo.environment["BASEBOARD_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...9999)
        var random = FuzzTests.Random(state: seed)
        for kind in [RingKind.all[1], RingKind.all[3]] {
            let source = try BlockRig(kind)
            #expect(source.request(1, sector: 1, out: [UInt8](repeating: 1, count: 512))?.status == 0)
            let state = try source.rig.saveState()
            let net = try NetRig(kind, queuePairs: 2)
            let network = try net.nodes[0].rig.saveState()
            let targets = [
                (try disk(source.store, source.rig.memory), state),
                (
                    try FunctionRig(
                        VirtioNet(address: NetRig.addresses[0], queuePairs: 2, wire: .init { _ in }),
                        memory: net.nodes[0].rig.memory),
                    network
                ),
            ]
            for round in 0..<400 {
                let (target, good) = targets[round % 2]
                var bad = good
                // The transport's and the device's part are behind the configuration space.
                for _ in 0..<1 + random.below(4) {
                    let start = random.below(8) == 0 ? 0 : 12 + 1 + 4096
                    bad[start + random.below(bad.count - start)] =
                        random.below(3) == 0 ? 0xFF : UInt8(random.below(256))
                }
                if random.below(4) == 0 { bad.removeLast(random.below(200)) }
                try target.load(bad)
                if (try? target.client.setMigrationState(.running)) != nil { target.driver.kick(0) }
                try target.client.reset()
                #expect(!target.client.isGone, "seed \(seed), round \(round)")
            }
            for (target, _) in targets {
                target.client.write(region: Endpoint.configurationRegion, offset: 4, width: 2, value: 6)
                try target.driver.negotiate(kind.features)
                #expect(target.driver.status.contains(.featuresOK), "seed \(seed)")
            }
        }
    }
}
