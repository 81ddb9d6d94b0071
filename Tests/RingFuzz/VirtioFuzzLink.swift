internal import BlockStore
internal import Ethernet
internal import PCIe
internal import VFIOUser
internal import VFIOUserFuzz
internal import Virtio
internal import Wire

/// One virtio function's life.
final class VirtioFuzzLink {
    private(set) var random: SeededRandom
    private let target: FuzzTarget
    private let driver: VirtioDriver
    private let function: VirtioFunction
    private let queues: Int
    private let loop: EventLoop
    private let thread: WorkerThread
    private var rings: [DriverQueue] = []
    /// Rings that no driver's bookkeeping holds for any more: only garbage goes into them.
    private var spoiled: Set<Int> = []
    private var count = 0

    private static let ringSize: UInt16 = 16
    private static let ringBytes = 0x1000

    init(_ number: Int, _ random: SeededRandom) throws {
        self.random = random
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        self.loop = loop
        thread = WorkerThread("fuzz-virtio") { worker.run() }
        let device: any VirtioDevice =
            switch number % 4 {
            case 0: VirtioNet(address: MACAddress(rawValue: 0x5254_0000_0001), queuePairs: 2, wire: .init { _ in })
            case 1: VirtioBlock(try BlockStore(memory: 1 << 20), serial: "fuzz", loop: loop)
            case 2: VirtioConsole(loop: loop) { _ in }
            default: VirtioEntropy()
            }
        queues = device.queueSizes.count
        var made: VirtioFunction?
        let endpoint = Endpoint(VirtioFunction.description(of: device)) { bus in
            let function = VirtioFunction(bus, device: device, worker: worker) { _ in }
            made = function
            return function
        }
        guard let made else { throw FuzzFailure(description: "the endpoint made no function") }
        function = made
        target = try FuzzTarget(endpoint)
        driver = try VirtioDriver(target.client)
    }

    func run(_ limit: Int, _ progress: (Int) -> Void) throws {
        defer {
            target.end()
            function.detach()
            loop.stop()
            thread.join()
        }
        while count < limit {
            start()
            for _ in 0..<4 + random.below(60) { step() }
            progress(count)
            guard !target.client.isGone else { throw FuzzFailure(description: target.client.goneReason ?? "gone") }
        }
        try? target.client.reset()
        target.command(6)
        driver.reset()
        guard (try? driver.negotiate(.version1)) != nil else {
            throw FuzzFailure(description: "no reset brings the function back")
        }
    }

    /// A driver that knows what it does, up to here.
    private func start() {
        target.command(6)
        // A state given to it may have put it to sleep (D3hot): it reads as all ones until it is woken or reset.
        if driver.status.rawValue == 0xFF {
            try? target.client.reset()
            target.command(6)
        }
        var features: VirtioFeatures = [.version1, .indirectDescriptors, .ringReset]
        if random.once(in: 2) { features.insert(.packedRing) }
        if random.once(in: 2) { features.insert(.eventIndex) }
        let agreed = (try? driver.negotiate(features.union(driver.offered.subtracting(.transport)))) ?? []
        rings = (0..<queues).map { index in
            DriverQueue(
                target.memory.mapping, offset: index * Self.ringBytes, base: FuzzTarget.base, size: Self.ringSize,
                packed: agreed.contains(.packedRing), eventIndex: agreed.contains(.eventIndex))
        }
        spoiled = []
        for (index, ring) in rings.enumerated() { driver.enable(index, ring) }
        driver.start()
        count += 20 + 8 * queues
    }

    private func step() {
        count += 1
        switch random.below(32) {
        case 0...15: request()
        case 16...19:
            // Any word of a ring: descriptors, indices, events.
            let place = random.below(queues) * Self.ringBytes + random.below(64) * 8
            target.store(random.once(in: 2) ? random.word() : descriptorWord(), place)
            spoiled.insert(place / Self.ringBytes)
            driver.kick(place / Self.ringBytes)
        case 20...22: target.store(descriptorWord(), 0x10_0000 + random.below(1 << 12) * 8)
        case 23:
            spoil()
            driver.write(driver.common, random.below(64), 1 << random.below(4), random.word())
        case 24: _ = target.client.read(region: 2, offset: UInt64(random.below(0x4000)), width: 1 << random.below(4))
        case 25: driver.write(driver.device, random.below(0x1000), 1 << random.below(4), random.word())
        case 26: driver.kick(random.below(80))
        case 27: if random.once(in: 8) { target.command(UInt64(random.below(8))) } else { target.command(6) }
        case 28:
            guard random.once(in: 16) else { return }
            spoil()
            try? target.client.reset()
        case 29: if random.once(in: 8) { migrate() }
        default:
            for index in rings.indices where !spoiled.contains(index) { while rings[index].take() != nil {} }
        }
    }

    /// A word of a descriptor, in a table or behind an indirect one.
    private func descriptorWord() -> UInt64 {
        random.once(in: 2)
            ? FuzzTarget.address(&random)
            : UInt64(random.below(4000)) | UInt64(random.below(8)) << 32 | UInt64(random.below(18)) << 48
    }

    private func spoil() { spoiled.formUnion(0..<queues) }

    private func request() {
        let index = random.below(queues)
        guard !spoiled.contains(index) else { return driver.kick(index) }
        let readable = random.below(4)
        let segments = (0..<readable + random.below(3) + 1).map { number in
            DriverQueue.Segment(
                random.once(in: 12)
                    ? FuzzTarget.address(&random) : FuzzTarget.base + 0x10_0000 + UInt64(random.below(1 << 20)),
                random.once(in: 3) ? random.below(20) : random.below(5000), writable: number >= readable)
        }
        // What the device writes may hit a ring.
        let end = FuzzTarget.base + UInt64(queues * Self.ringBytes)
        if segments.contains(where: { $0.isWritable && $0.address < end }) { spoil() }
        // A head that often makes sense: a block request's type and sector, a control command.
        if let first = segments.first, first.address >= FuzzTarget.base,
            first.address < FuzzTarget.base + UInt64(FuzzTarget.size - 64)
        {
            let place = Int(first.address - FuzzTarget.base)
            target.store(UInt64(random.below(16)), place)
            target.store(random.once(in: 4) ? random.word() : UInt64(random.below(2100)), place + 8)
        }
        _ = rings[index].add(segments)
        if rings[index].publish() || random.once(in: 2) { driver.kick(index) }
    }

    /// Stops, takes the state, and gives it back, changed or not.
    private func migrate() {
        guard (try? target.client.setMigrationState(.stopCopy)) != nil,
            var state = try? target.client.readMigrationData()
        else { return }
        spoil()
        if random.once(in: 2) { state[random.below(state.count)] = UInt8(random.below(256)) }
        if (try? target.client.setMigrationState(.resuming)) != nil,
            (try? target.client.writeMigrationData(state)) != nil,
            (try? target.client.setMigrationState(.running)) != nil
        {
            return
        }
        try? target.client.reset()
    }
}
