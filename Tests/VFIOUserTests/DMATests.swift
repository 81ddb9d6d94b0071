import Synchronization
import Testing
import VFIOUser
import Wire

/// The device's way to the client's memory.
struct DMATests {
    private let base = IOVirtualAddress(0x8000_0000)

    @Test func `DMA through passed memory goes both ways`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 16)
        try client.mapDMA(address: base, length: 1 << 16, descriptor: ram.descriptor)
        ram.mapping.bytes.storeBytes(of: 0xDEAD_BEEF, toByteOffset: 0x123, as: UInt32.self)
        #expect(try served.device.dma.load(UInt32.self, at: IOVirtualAddress(0x8000_0123)) == 0xDEAD_BEEF)
        try served.device.dma.store(UInt64(0x1122_3344_5566_7788), at: IOVirtualAddress(0x8000_0008))
        #expect(ram.mapping.bytes.load(fromByteOffset: 8, as: UInt64.self) == 0x1122_3344_5566_7788)
        let data = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        try served.device.dma.write(data, at: IOVirtualAddress(0x8000_0FFF))
        #expect(try served.device.dma.read(at: IOVirtualAddress(0x8000_0FFF), count: 5000) == data)
        #expect(served.device.mapChanges.load(ordering: .relaxed) == 1)
    }

    @Test func `a range may span maps that touch, and nothing else`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 16)
        try client.mapDMA(address: IOVirtualAddress(0x1000), length: 0x1000, descriptor: ram.descriptor)
        try client.mapDMA(
            address: IOVirtualAddress(0x2000), length: 0x1000, descriptor: ram.descriptor, offset: 0x5000)
        try served.device.dma.write([1, 2, 3, 4], at: IOVirtualAddress(0x1FFE))
        #expect(ram.mapping.bytes.load(fromByteOffset: 0xFFE, as: UInt16.self) == 0x0201)
        #expect(ram.mapping.bytes.load(fromByteOffset: 0x5000, as: UInt16.self) == 0x0403)
        #expect(throws: DMAError.notMapped(IOVirtualAddress(0x3000))) {
            try served.device.dma.write([1, 2, 3, 4], at: IOVirtualAddress(0x2FFE))
        }
        #expect(throws: DMAError.notMapped(IOVirtualAddress(0xFFF))) {
            try served.device.dma.read(at: IOVirtualAddress(0xFFF), count: 2)
        }
        #expect(throws: DMAError.notMapped(IOVirtualAddress(.max))) {
            try served.device.dma.read(at: IOVirtualAddress(.max), count: 2)
        }
    }

    @Test func `maps may not overlap and are taken back exactly`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 16)
        try client.mapDMA(address: IOVirtualAddress(0x2000), length: 0x2000, descriptor: ram.descriptor)
        for (address, length) in [(0x2000, 0x2000), (0x1000, 0x1001), (0x3FFF, 1), (0x1000, 0x4000), (0x2800, 8)] {
            #expect(throws: VFIOUserError.refused(.dmaMap, .exists)) {
                try client.mapDMA(
                    address: IOVirtualAddress(UInt64(address)), length: UInt64(length), descriptor: ram.descriptor)
            }
        }
        for (address, length) in [(0x2000, 0x1000), (0x2001, 0x1FFF), (0x1000, 0x3000), (0x2000, 0)] {
            #expect(throws: VFIOUserError.refused(.dmaUnmap, .noEntry)) {
                try client.unmapDMA(address: IOVirtualAddress(UInt64(address)), length: UInt64(length))
            }
        }
        try client.unmapDMA(address: IOVirtualAddress(0x2000), length: 0x2000)
        #expect(served.device.dma.ranges.isEmpty)
        try client.mapDMA(address: IOVirtualAddress(0x2000), length: 0x2000, descriptor: ram.descriptor)
        try client.unmapAllDMA()
        #expect(served.device.dma.ranges.isEmpty)
    }

    @Test func `memory mapped for reading is not written`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try client.mapDMA(address: base, length: 4096, descriptor: ram.descriptor, writable: false)
        #expect(try served.device.dma.read(at: base, count: 4) == [0, 0, 0, 0])
        #expect(throws: DMAError.notPermitted(base)) { try served.device.dma.write([1], at: base) }
    }

    @Test func `a file that is shorter than the map is refused`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        for (offset, length) in [(0, 8192), (4096, 1), (4095, 2)] as [(UInt64, UInt64)] {
            #expect(throws: VFIOUserError.refused(.dmaMap, .invalid)) {
                try client.mapDMA(address: base, length: length, descriptor: ram.descriptor, offset: offset)
            }
        }
        #expect(!client.isGone)
    }

    @Test func `a file that is cut after it was mapped fails the DMA and nothing else`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let path = "/tmp/vu-file-\(MonotonicTime.now.nanoseconds)"
        let file = try Descriptor.open(path, flags: 0x42 /* O_RDWR | O_CREAT */)
        try file.writeAll([UInt8](repeating: 7, count: 8192))
        try client.mapDMA(address: base, length: 8192, descriptor: file)
        #expect(try served.device.dma.read(at: base, count: 2) == [7, 7])
        try served.device.dma.write([1, 2], at: base)
        #expect(try served.device.dma.read(at: base, count: 3) == [1, 2, 7])
        // O_TRUNC cuts it to nothing behind the server's back.
        _ = try Descriptor.open(path, flags: 0x201 | 1)
        #expect(throws: DMAError.lost(base)) { try served.device.dma.read(at: base, count: 2) }
        removeFile(path)
    }

    @Test func `a disabled device reaches no memory`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try client.mapDMA(address: base, length: 4096, descriptor: ram.descriptor)
        served.device.dma.isEnabled = false
        #expect(throws: DMAError.disabled) { try served.device.dma.read(at: base, count: 2) }
        served.device.dma.isEnabled = true
        #expect(try served.device.dma.read(at: base, count: 2) == [0, 0])
    }

    @Test func `memory without a descriptor is reached by messages on the twin socket`() throws {
        let served = try ServedDevice()
        let memory = ScratchMemory(base: base.rawValue, count: 3 << 20)
        let client = try served.client(memory: memory)
        #expect(client.capabilities.twinSocket == true)
        try client.mapDMA(address: base, length: 3 << 20, descriptor: nil)
        let data = (0..<(2 << 20) + 5).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        try served.device.dma.write(data, at: IOVirtualAddress(0x8000_0003))
        #expect(memory.bytes.withLock { Array($0[3..<3 + data.count]) } == data)
        #expect(try served.device.dma.read(at: IOVirtualAddress(0x8000_0003), count: data.count) == data)
    }

    @Test func `a doorbell's DMA by messages works inside the register write`() throws {
        let served = try ServedDevice()
        let memory = ScratchMemory(base: base.rawValue, count: 4096)
        let client = try served.client(memory: memory)
        try client.mapDMA(address: base, length: 4096, descriptor: nil)
        let device = served.device
        device.onDoorbell.withLock { closure in
            closure = { [unowned device] value in try? device.dma.store(value, at: IOVirtualAddress(0x8000_0010)) }
        }
        #expect(client.write(region: 1, offset: 0, width: 8, value: 0xABCD))
        #expect(memory.bytes.withLock { $0[16] } == 0xCD)
        device.onDoorbell.withLock { $0 = nil }
    }

    @Test func `a client that refuses a DMA message fails that DMA`() throws {
        let served = try ServedDevice()
        let memory = ScratchMemory(base: base.rawValue, count: 16)
        let client = try served.client(memory: memory)
        try client.mapDMA(address: base, length: 4096, descriptor: nil)
        #expect(throws: DMAError.refused(IOVirtualAddress(0x8000_0010), .badAddress)) {
            try served.device.dma.read(at: IOVirtualAddress(0x8000_0010), count: 1)
        }
        #expect(try served.device.dma.read(at: base, count: 1) == [0])
        withExtendedLifetime(client) {}
    }

    /// QEMU has no twin socket: DMA messages and commands cross on one. This client is written by hand.
    @Test func `DMA messages cross with commands on one socket`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.dmaMap, bytes([u32(32), u32(3), u64(0), u64(0x1000), u64(0x1000)]))
        #expect(try peer.reply().header.refusal == nil)
        let device = served.device
        let result = Result()
        // A device's thread asks; the client sends commands before it answers.
        WorkerThread("device") {
            let read = (try? device.dma.read(at: IOVirtualAddress(0x1000), count: 4)) ?? []
            result.bytes.withLock { $0 = read }
        }
        let (request, payload) = try peer.reply()
        #expect(request.command == .dmaRead && request.isCommand && payload == bytes([u64(0x1000), u64(4)]))
        try peer.command(.regionWrite, bytes([u64(0), u32(0), u32(1)]) + [0x5A])
        #expect(try peer.reply().header.command == .regionWrite)
        try peer.send(request.reply(payload: 20), payload + [1, 2, 3, 4])
        #expect(eventually { result.bytes.withLock { $0 } == [1, 2, 3, 4] })
        // The serving thread asks inside a register write; QEMU's reply to DMA_WRITE is the header alone.
        device.onDoorbell.withLock { closure in
            closure = { [unowned device] _ in try? device.dma.store(UInt8(1), at: IOVirtualAddress(0x1008)) }
        }
        try peer.command(.regionWrite, bytes([u64(0), u32(1), u32(8), u64(9)]))
        let (write, _) = try peer.reply()
        #expect(write.command == .dmaWrite)
        try peer.command(.regionRead, bytes([u64(0), u32(0), u32(1)]))
        try peer.send(write.reply(payload: 0), [])
        #expect(try peer.reply().header.command == .regionWrite)
        let (last, data) = try peer.reply()
        #expect(last.command == .regionRead && data.last == 0x5A)
        device.onDoorbell.withLock { $0 = nil }
        #expect(served.log.all.isEmpty)
    }

    @Test func `a client that leaves in the middle of a DMA message ends it`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.dmaMap, bytes([u32(32), u32(3), u64(0), u64(0x1000), u64(0x1000)]))
        _ = try peer.reply()
        let result = Result()
        let device = served.device
        WorkerThread("device") {
            do throws(DMAError) { _ = try device.dma.read(at: IOVirtualAddress(0x1000), count: 4) } catch let failed {
                result.error.withLock { $0 = failed }
            }
        }
        _ = try peer.reply()
        served.socket.shutdown()
        #expect(eventually { result.error.withLock { $0 } == .lost(IOVirtualAddress(0x1000)) })
        #expect(eventually { served.ended.load(ordering: .acquiring) })
    }

    @Test func `unmapping waits for no copy and races with none`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 20)
        let race = Race()
        let device = served.device
        for _ in 0..<2 {
            WorkerThread("device") {
                let data = [UInt8](repeating: 1, count: 1 << 19)
                while !race.stop.load(ordering: .relaxed) {
                    if (try? device.dma.write(data, at: IOVirtualAddress(0x10_0000))) != nil {
                        race.copies.add(1, ordering: .relaxed)
                    }
                }
                race.running.subtract(1, ordering: .releasing)
            }
        }
        for _ in 0..<200 {
            try client.mapDMA(address: IOVirtualAddress(0x10_0000), length: 1 << 20, descriptor: ram.descriptor)
            try client.unmapDMA(address: IOVirtualAddress(0x10_0000), length: 1 << 20)
        }
        try client.mapDMA(address: IOVirtualAddress(0x10_0000), length: 1 << 20, descriptor: ram.descriptor)
        #expect(eventually { race.copies.load(ordering: .relaxed) > 10 })
        race.stop.store(true, ordering: .relaxed)
        #expect(eventually { race.running.load(ordering: .acquiring) == 0 })
        #expect(!client.isGone)
    }
}

private final class Race: Sendable {
    let stop = Atomic<Bool>(false)
    let running = Atomic<Int>(2)
    let copies = Atomic<Int>(0)
}

private final class Result: Sendable {
    let bytes = Mutex<[UInt8]>([])
    let error = Mutex<DMAError?>(nil)
}
