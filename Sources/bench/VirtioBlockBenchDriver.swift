import Glibc
import VFIOUser
import Virtio
import Wire

/// A virtio-blk driver that polls: one packed queue, no interrupts.
///
///     the queue's areas   then a page a slot: header of 16 bytes, status at 16   then data
final class VirtioBlockBenchDriver: BlockBenchDriver {
    private static let base: UInt64 = 0x1_0000_0000
    private static let queueSize: UInt16 = 256
    private static let heads = 0x10000
    private static let slots = 32
    private static let data = heads + slots * 4096
    private static let slotSize = 128 << 10

    private let driver: VirtioDriver
    private let memory: SharedMemory
    private let start: UnsafeMutableRawPointer
    private var queue: DriverQueue
    /// Which slot a request has, by its number.
    private var slotOf = [Int](repeating: 0, count: Int(queueSize))

    init(_ client: VFIOUserClient) throws {
        memory = try SharedMemory(create: "bench-ram", size: Self.data + Self.slots * Self.slotSize)
        start = memory.mapping.baseAddress
        memset(start, 0, memory.size)
        try client.mapDMA(
            address: IOVirtualAddress(Self.base), length: UInt64(memory.size), descriptor: memory.descriptor)
        client.write(region: 7, offset: 4, width: 2, value: 6)
        driver = try VirtioDriver(client)
        let agreed = try driver.negotiate([.packedRing, .eventIndex])
        queue = DriverQueue(
            memory.mapping, offset: 0, base: Self.base, size: Self.queueSize, packed: agreed.contains(.packedRing),
            eventIndex: agreed.contains(.eventIndex))
        queue.disableInterrupts()
        driver.enable(0, queue)
        driver.start()
    }

    private func send(_ slot: Int, block: UInt64, size: Int) throws {
        let head = Self.heads + slot * 4096
        // VIRTIO_BLK_T_IN and the first sector.
        start.storeBytes(of: 0, toByteOffset: head, as: UInt64.self)
        start.storeBytes(of: block * 8, toByteOffset: head + 8, as: UInt64.self)
        start.storeBytes(of: 0xFF, toByteOffset: head + 16, as: UInt8.self)
        guard
            let identifier = queue.add(
                .init(Self.base + UInt64(head), 16),
                .init(Self.base + UInt64(Self.data + slot * Self.slotSize), size, writable: true),
                .init(Self.base + UInt64(head + 16), 1, writable: true))
        else { throw BlockBenchError.silence }
        slotOf[Int(identifier)] = slot
    }

    func read(_ count: Int, _ size: Int, _ depth: Int, _ next: () -> UInt64) throws {
        var wanted = [UInt64](repeating: 0, count: depth)
        var (sent, ended, silence) = (0, 0, 0)
        func more(_ slot: Int) throws {
            wanted[slot] = next()
            try send(slot, block: wanted[slot], size: size)
            sent += 1
        }
        for slot in 0..<min(depth, count) { try more(slot) }
        if queue.publish() { driver.kick(0) }
        while ended < count {
            var taken = 0
            while let (identifier, _) = queue.take() {
                let slot = slotOf[Int(identifier)]
                let status = start.load(fromByteOffset: Self.heads + slot * 4096 + 16, as: UInt8.self)
                guard status == 0 else { throw BlockBenchError.status(UInt32(status)) }
                let first = start.load(fromByteOffset: Self.data + slot * Self.slotSize, as: UInt32.self)
                guard UInt64(first) == wanted[slot] else { throw BlockBenchError.content(block: wanted[slot]) }
                ended += 1
                taken += 1
                if sent < count { try more(slot) }
            }
            if taken > 0 {
                silence = 0
                if queue.publish() { driver.kick(0) }
            } else {
                silence += 1
                if silence > 4_000_000_000 || silence % 1_000_000 == 0 && driver.client.isGone {
                    throw BlockBenchError.silence
                }
            }
        }
    }
}
