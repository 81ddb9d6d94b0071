import BlockStore
import Ethernet
import Foundation
import Synchronization
import Testing
import VFIOUser
import Virtio
import Wire

/// Seeded hostility: rings and registers of random content. A device may stop with a reason; nothing may trap or hang, and
/// after a reset the device works. BASEBOARD_FUZZ multiplies the rounds.
struct FuzzTests {
    private static let rounds = (ProcessInfo.processInfo.environment["BASEBOARD_FUZZ"].flatMap { Int($0) } ?? 1) * 100

    /// SplitMix64.
    struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = state
            value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
            return value ^ (value >> 31)
        }

        mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
    }

    private func seed() -> UInt64 {
        ProcessInfo.processInfo.environment["BASEBOARD_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 32)
    }

    /// A number that often lies at an edge.
    private func edge(_ random: inout Random) -> UInt64 {
        switch random.below(8) {
        case 0: 0
        case 1: .max
        case 2: Memory.base &+ UInt64(random.below(4 << 20))
        case 3: Memory.base &+ 4 << 20 &- UInt64(random.below(64))
        case 4: UInt64(random.below(70_000))
        case 5: 1 << UInt64(random.below(64))
        case 6: UInt64.max - UInt64(random.below(64))
        default: random.next()
        }
    }

    /// A descriptor that is sometimes sensible.
    private func descriptor(_ random: inout Random, packed: Bool, size: Int) -> (UInt64, UInt64) {
        let isSane = random.below(4) > 0
        let address = isSane ? Memory.base &+ 0x10_0000 &+ UInt64(random.below(1 << 20)) : edge(&random)
        let length = isSane ? UInt64(random.below(3000)) : edge(&random) & 0xFFFF_FFFF
        let flags = UInt64(random.below(10) > 0 ? random.below(4) : random.below(1 << 16))
        let next = UInt64(random.below(isSane ? size : 1 << 16))
        return packed
            ? (
                address,
                length | next << 32 | (flags | UInt64(random.below(2) << 7) | UInt64(random.below(2) << 15)) << 48
            )
            : (address, length | flags << 32 | next << 48)
    }

    @Test(arguments: RingKind.all)
    func `no ring makes a queue trap or loop`(_ kind: RingKind) throws {
        let seed = seed()
        var random = Random(state: seed)
        var faults: Set<String> = []
        for round in 0..<Self.rounds * 4 {
            let rig = try QueueRig(kind, size: 16)
            for place in 0..<16 {
                let (first, second) = descriptor(&random, packed: kind.isPacked, size: 16)
                rig.memory.store(first, rig.driver.descriptorArea + place * 16)
                rig.memory.store(second, rig.driver.descriptorArea + place * 16 + 8)
            }
            // An indirect table, where descriptors often point.
            for place in 0..<64 {
                let (first, second) = descriptor(&random, packed: kind.isPacked, size: 64)
                rig.memory.store(first, 0x10_0000 + place * 16)
                rig.memory.store(second, 0x10_0000 + place * 16 + 8)
            }
            for offset in stride(from: 0, to: 64, by: 2) {
                rig.memory.store(UInt16(truncatingIfNeeded: random.below(18)), rig.driver.driverArea + offset)
            }
            if !kind.isPacked {
                let index = random.below(8) == 0 ? random.below(65536) : random.below(17)
                rig.memory.store(UInt16(index), rig.driver.driverArea + 2)
            }
            // A packed ring that is not answered offers its requests again and again only if flags say so.
            for _ in 0..<40 where rig.echo(limit: 4) == 0 { break }
            if let failure = rig.failure { faults.insert("\(failure)".components(separatedBy: " ").first ?? "") }
            withExtendedLifetime((seed, round)) {}
        }
        // The generator reaches the checks.
        #expect(faults.count >= 3, "seed \(seed): only \(faults)")
    }

    @Test(arguments: ["network", "block", "console", "entropy"])
    func `no register access or ring makes a function trap, and it works after a reset`(_ type: String) throws {
        let seed = seed()
        var random = Random(state: seed)
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        let thread = WorkerThread("virtio") { worker.run() }
        defer {
            loop.stop()
            thread.join()
        }
        let device: any VirtioDevice
        switch type {
        case "network":
            device = VirtioNet(address: MACAddress(rawValue: 0x5254_0000_0001), queuePairs: 2, wire: .init { _ in })
        case "block": device = VirtioBlock(try BlockStore(memory: 1 << 20), serial: "x", loop: loop)
        case "console": device = VirtioConsole(loop: loop) { _ in }
        default: device = VirtioEntropy()
        }
        let rig = try FunctionRig(device, joined: worker)
        let driver = rig.driver
        let queues = device.queueSizes.count
        for round in 0..<Self.rounds {
            let kind = RingKind.all[random.below(4)]
            let own = driver.offered.subtracting(.transport)
            _ = try? driver.negotiate(kind.features.union(own))
            var rings: [DriverQueue] = []
            for index in 0..<queues {
                let ring = rig.queue(index * 0x2000, size: 16, kind)
                driver.enable(index, ring)
                rings.append(ring)
            }
            driver.start()
            for _ in 0..<random.below(12) {
                switch random.below(8) {
                case 0...3:
                    // A request of random segments, or a descriptor of garbage.
                    let index = random.below(queues)
                    var segments: [DriverQueue.Segment] = []
                    let readable = random.below(4)
                    for number in 0..<(readable + random.below(3) + 1) {
                        let isSane = random.below(8) > 0
                        segments.append(
                            .init(
                                isSane ? Memory.base + 0x10_0000 + UInt64(random.below(1 << 20)) : edge(&random),
                                random.below(3) == 0 ? random.below(20) : random.below(5000),
                                writable: number >= readable))
                    }
                    for _ in 0..<4 { rig.memory.store(random.next(), 0x10_0000 + random.below(1 << 20)) }
                    if random.below(2) == 0, let first = segments.first, first.address >= Memory.base,
                        first.address < Memory.base + 0x30_0000
                    {
                        rig.memory.store(UInt64(random.below(16)), Int(first.address - Memory.base))
                    }
                    _ = rings[index].add(segments)
                    if rings[index].publish() || random.below(2) == 0 { driver.kick(index) }
                case 4:
                    let width = [1, 2, 4, 8][random.below(4)]
                    driver.write(driver.common, random.below(64), width, edge(&random))
                case 5:
                    let width = [1, 2, 4, 8][random.below(4)]
                    _ = rig.client.read(region: 2, offset: UInt64(random.below(0x4000)), width: width)
                case 6: driver.write(driver.device, random.below(0x1000), 4, edge(&random))
                default: driver.kick(random.below(80))
                }
            }
            try #require(!rig.client.isGone, "seed \(seed), round \(round)")
        }
        // Alive, and not the next device's affair.
        driver.reset()
        try driver.negotiate(RingKind.all[0].features)
        #expect(driver.status.contains(.featuresOK), "seed \(seed)")
    }

    @Test func `a guest that goes on writing while the device reads makes it fail at worst`() throws {
        let seed = seed()
        let rig = try FunctionRig(EchoDevice())
        let flag = Flag()
        let memory = rig.memory
        let thread = WorkerThread("scribble") {
            var random = Random(state: seed)
            while !flag.isSet.load(ordering: .relaxed) { memory.store(random.next(), random.below(0x400) & ~7) }
        }
        for _ in 0..<Self.rounds / 4 {
            for kind in RingKind.all {
                try rig.driver.negotiate(kind.features)
                rig.driver.enable(0, rig.queue(0, kind))
                rig.driver.start()
                rig.driver.kick(0)
            }
        }
        flag.isSet.store(true, ordering: .relaxed)
        thread.join()
        rig.driver.reset()
        #expect(rig.driver.status == [] && !rig.client.isGone, "seed \(seed)")
    }
}

private final class Flag: Sendable {
    let isSet = Atomic<Bool>(false)
}
