import PCIe
import Testing
import VFIOUser
import Virtio
import Wire

/// A client that takes its memory away and gives it back, as QEMU does while firmware runs: no fault of the driver's.
struct MapExchangeTests {
    private let data = 0x10_0000

    @Test(arguments: RingKind.all)
    func `a device whose memory is taken away for a moment goes on when it is back`(_ kind: RingKind) throws {
        let rig = try FunctionRig(EchoDevice())
        try rig.driver.negotiate(kind.features)
        var queue = rig.queue(0, kind)
        rig.driver.enable(0, queue, vector: 1)
        rig.driver.start()
        for round in 0..<50 {
            try rig.client.unmapDMA(
                address: IOVirtualAddress(Memory.base), length: UInt64(rig.memory.shared.size))
            // The device is told of a request while it can see none.
            _ = queue.added(
                .init(Memory.base + UInt64(data), 8), .init(Memory.base + UInt64(data) + 64, 8, writable: true))
            rig.memory.set([UInt8](repeating: UInt8(round), count: 8), data)
            _ = queue.publish()
            rig.driver.kick(0)
            try rig.client.mapDMA(
                address: IOVirtualAddress(Memory.base), length: UInt64(rig.memory.shared.size),
                descriptor: rig.memory.shared.descriptor)
            #expect(queue.awaitAnswer()?.written == 8)
            #expect(rig.memory.bytes(data + 64, 8) == [UInt8](repeating: UInt8(round), count: 8))
        }
        #expect(rig.log.all.isEmpty)
        #expect(!rig.driver.status.contains(.deviceNeedsReset))
    }

    @Test(arguments: RingKind.all)
    func `a request whose data lie in memory that was taken away is carried out when it is back`(
        _ kind: RingKind
    ) throws {
        let rig = try QueueRig(kind)
        let other = try Memory(size: 1 << 20)
        let map = DMAMap(
            address: 0x1_0000_0000, length: UInt64(other.shared.size), offset: 0,
            flags: DMAMap.readable | DMAMap.writeable | DMAMap.mapped)
        try rig.queues.dma.insert(map, descriptor: other.shared.descriptor)
        other.set([1, 2, 3, 4], 0)
        try rig.queues.dma.remove(address: map.address, length: map.length)
        _ = rig.driver.added(.init(map.address, 4), .init(map.address + 16, 4, writable: true))
        _ = rig.driver.publish()
        for _ in 0..<3 { #expect(rig.echo() == 0 && rig.failure == nil && rig.driver.take() == nil) }
        try rig.queues.dma.insert(map, descriptor: other.shared.descriptor)
        #expect(rig.echo() == 1)
        #expect(rig.driver.take()?.written == 4)
        #expect(other.bytes(16, 4) == [1, 2, 3, 4])
        // The request was offered once and is done.
        #expect(rig.echo() == 0)
    }

    @Test func `an address that no map was ever taken from is the driver's fault at once`() throws {
        let rig = try QueueRig(RingKind.all[0])
        _ = rig.driver.added(.init(0x1_0000_0000, 4), .init(0x1_0000_0010, 4, writable: true))
        _ = rig.driver.publish()
        #expect(rig.echo() == 0)
        #expect(rig.failure == .memory(.notMapped(IOVirtualAddress(0x1_0000_0000))))
    }
}
