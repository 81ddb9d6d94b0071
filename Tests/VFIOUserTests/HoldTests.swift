import Synchronization
import Testing
import VFIOUser
import Wire

/// Many copies under one hold of the table of DMA maps.
struct HoldTests {
    private let base = IOVirtualAddress(0x8000_0000)

    private func at(_ offset: UInt64) -> IOVirtualAddress { IOVirtualAddress(base.rawValue + offset) }

    @Test func `integers of every size go both ways inside a hold, aligned or not`() throws {
        let space = DMAAddressSpace()
        let ram = try SharedMemory(create: "ram", size: 8192)
        try space.insert(DMAMap(address: base.rawValue, length: 8192, flags: 3), descriptor: ram.descriptor)
        try space.hold { (memory) throws(DMAError) in
            for offset in [0, 1, 2, 3, 4, 7, 8, 100, 4091, 8184] as [UInt64] {
                try memory.store(0x1122_3344_5566_7788 &+ offset, at: at(offset))
                #expect(try memory.load(UInt64.self, at: at(offset)) == 0x1122_3344_5566_7788 &+ offset)
                try memory.store(UInt32(0xA1B2_C3D4), at: at(offset))
                #expect(try memory.load(UInt32.self, at: at(offset)) == 0xA1B2_C3D4)
                try memory.store(Int16(-2), at: at(offset))
                #expect(try memory.load(Int16.self, at: at(offset)) == -2)
                try memory.store(UInt8(offset & 0x7F), at: at(offset))
                #expect(try memory.load(UInt8.self, at: at(offset)) == UInt8(offset & 0x7F))
            }
        }
        #expect(ram.mapping.bytes.load(fromByteOffset: 100, as: UInt32.self) == 0xA1B2_FF64)
    }

    @Test func `what leaves the maps is refused inside a hold, at either end of the window`() throws {
        let space = DMAAddressSpace()
        let ram = try SharedMemory(create: "ram", size: 8192)
        try space.insert(DMAMap(address: base.rawValue, length: 4096, flags: 3), descriptor: ram.descriptor)
        space.hold { memory in
            #expect(throws: Never.self) { try memory.store(UInt32(1), at: at(0)) }
            for offset in [4093, 4094, 4095] as [UInt64] {
                #expect(throws: DMAError.notMapped(at(4096))) { try memory.load(UInt32.self, at: at(offset)) }
                #expect(throws: DMAError.notMapped(at(4096))) { try memory.store(UInt32(1), at: at(offset)) }
            }
            #expect(throws: DMAError.notMapped(at(4096))) { try memory.load(UInt8.self, at: at(4096)) }
            let before = IOVirtualAddress(base.rawValue - 1)
            #expect(throws: DMAError.notMapped(before)) { try memory.load(UInt16.self, at: before) }
            let last = IOVirtualAddress(UInt64.max - 2)
            #expect(throws: DMAError.notMapped(last)) { try memory.load(UInt32.self, at: last) }
        }
    }

    @Test func `a hold copies across maps that touch, and to files and read-only memory as they allow`() throws {
        let space = DMAAddressSpace()
        let ram = try SharedMemory(create: "ram", size: 8192)
        let path = "/tmp/vu-hold-\(MonotonicTime.now.nanoseconds)"
        let file = try Descriptor.open(path, flags: 0x42 /* O_RDWR | O_CREAT */)
        defer { removeFile(path) }
        try file.writeAll([UInt8](repeating: 7, count: 4096))
        try space.insert(DMAMap(address: 0x1000, length: 0x1000, flags: 3), descriptor: ram.descriptor)
        try space.insert(DMAMap(address: 0x2000, length: 0x1000, flags: 3), descriptor: file)
        try space.insert(
            DMAMap(address: 0x3000, length: 0x1000, offset: 0x1000, flags: 1), descriptor: ram.descriptor)
        space.hold { memory in
            let data = (0..<4098).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            #expect(throws: DMAError.notPermitted(IOVirtualAddress(0x3000))) {
                try memory.write(data, at: IOVirtualAddress(0x1FFF))
            }
            #expect(throws: Never.self) {
                let copied = try memory.read(at: IOVirtualAddress(0x1FFF), count: 4098)
                #expect(copied == data[..<4097] + [0])
            }
            #expect(memory.pointer(at: IOVirtualAddress(0x1000), count: 0x1000, writing: true) != nil)
            #expect(memory.pointer(at: IOVirtualAddress(0x1FFF), count: 2, writing: false) == nil)
            #expect(memory.pointer(at: IOVirtualAddress(0x2000), count: 1, writing: false) == nil)
            #expect(memory.pointer(at: IOVirtualAddress(0x3000), count: 0x1000, writing: false) != nil)
            #expect(memory.pointer(at: IOVirtualAddress(0x3000), count: 1, writing: true) == nil)
            #expect(memory.pointer(at: IOVirtualAddress(0x4000), count: 1, writing: false) == nil)
            #expect(memory.pointer(at: IOVirtualAddress(0x1000), count: 0, writing: false) == nil)
            #expect(memory.pointer(at: IOVirtualAddress(.max), count: .max, writing: false) == nil)
        }
    }

    @Test func `a pointer is the client's memory itself`() throws {
        let space = DMAAddressSpace()
        let ram = try SharedMemory(create: "ram", size: 8192)
        // A map whose file offset is no multiple of the page size.
        try space.insert(DMAMap(address: 0x1000, length: 4096, offset: 100, flags: 3), descriptor: ram.descriptor)
        space.hold { memory in
            memory.pointer(at: IOVirtualAddress(0x1008), count: 4, writing: true)?
                .storeBytes(of: 0x0102_0304, as: UInt32.self)
        }
        #expect(ram.mapping.bytes.loadUnaligned(fromByteOffset: 108, as: UInt32.self) == 0x0102_0304)
    }

    @Test func `bus mastering that goes off in the middle of a hold ends its accesses`() throws {
        let space = DMAAddressSpace()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try space.insert(DMAMap(address: base.rawValue, length: 4096, flags: 3), descriptor: ram.descriptor)
        space.hold { memory in
            #expect(throws: Never.self) { try memory.store(UInt32(1), at: at(0)) }
            space.isEnabled = false
            #expect(throws: DMAError.disabled) { try memory.store(UInt32(2), at: at(0)) }
            #expect(throws: DMAError.disabled) { try memory.load(UInt32.self, at: at(0)) }
            #expect(throws: DMAError.disabled) { try memory.read(at: at(0), count: 3) }
            #expect(memory.pointer(at: at(0), count: 4, writing: false) == nil)
        }
        #expect(ram.mapping.bytes.load(as: UInt32.self) == 1)
    }

    @Test func `a map is added while the memory is held, and seen by the next hold`() throws {
        let space = DMAAddressSpace()
        let ram = try SharedMemory(create: "ram", size: 8192)
        try space.insert(DMAMap(address: 0x1000, length: 4096, flags: 3), descriptor: ram.descriptor)
        try space.hold { (memory) throws(ErrorNumber) in
            try space.insert(DMAMap(address: 0x2000, length: 4096, flags: 3), descriptor: ram.descriptor)
            #expect(throws: DMAError.notMapped(IOVirtualAddress(0x2000))) {
                try memory.load(UInt8.self, at: IOVirtualAddress(0x2000))
            }
            space.hold { inner in
                #expect(throws: Never.self) { try inner.load(UInt8.self, at: IOVirtualAddress(0x2000)) }
            }
        }
        #expect(space.ranges == [0x1000...0x1FFF, 0x2000...0x2FFF])
    }

    @Test func `an unmap is answered when the hold ends, not before`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try client.mapDMA(address: base, length: 4096, descriptor: ram.descriptor)
        let answered = Flag()
        let dma = served.device.dma
        dma.hold { memory in
            let pointer = memory.pointer(at: base, count: 4, writing: true)
            #expect(pointer != nil)
            WorkerThread("client") {
                try? client.unmapDMA(address: IOVirtualAddress(0x8000_0000), length: 4096)
                answered.set(true)
            }
            // The server has taken the map away, and waits.
            #expect(eventually { dma.ranges.isEmpty })
            for number in 0..<1000 as Range<UInt32> {
                pointer?.storeBytes(of: number, as: UInt32.self)
                #expect(throws: Never.self) { try memory.store(number, at: base) }
            }
            #expect(!answered.isSet)
        }
        #expect(eventually { answered.isSet })
        #expect(throws: DMAError.notMapped(base)) { try dma.load(UInt8.self, at: base) }
        #expect(ram.mapping.bytes.load(as: UInt32.self) == 999)
    }

    /// The client here answers DMA_READ only after its unmap is answered.
    @Test func `a hold that waits for a message does not keep an unmap waiting`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        for address in [0x1000, 0x8000] as [UInt64] {
            try peer.command(.dmaMap, bytes([u32(32), u32(3), u64(0), u64(address), u64(0x1000)]))
            #expect(try peer.reply().header.refusal == nil)
        }
        let dma = served.device.dma
        let done = Flag()
        let thread = WorkerThread("device") {
            dma.hold { memory in
                let first = (try? memory.read(at: IOVirtualAddress(0x1000), count: 2)) ?? []
                let gone = (try? memory.read(at: IOVirtualAddress(0x8000), count: 2)) ?? [0xEE]
                done.bytes.withLock { $0 = first + gone }
            }
            done.set(true)
        }
        let (request, payload) = try peer.reply()
        #expect(request.command == .dmaRead)
        try peer.command(.dmaUnmap, bytes([u32(24), u32(0), u64(0x8000), u64(0x1000)]))
        #expect(try peer.reply().header.command == .dmaUnmap)
        try peer.send(request.reply(payload: 18), payload + [5, 6])
        thread.join()
        #expect(done.bytes.withLock { $0 } == [5, 6, 0xEE])
    }

    @Test func `nothing is written after an unmap was answered`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        let stop = Flag()
        let wrote = Flag()
        let dma = served.device.dma
        let threads = (0..<2).map { _ in
            WorkerThread("device") {
                var number: UInt64 = 0
                while !stop.isSet {
                    dma.hold { memory in
                        guard let place = memory.pointer(at: IOVirtualAddress(0x8000_0000), count: 8, writing: true)
                        else { return }
                        for _ in 0..<50 {
                            number &+= 1
                            place.storeBytes(of: number, as: UInt64.self)
                        }
                        wrote.set(true)
                    }
                }
            }
        }
        for _ in 0..<200 {
            wrote.set(false)
            try client.mapDMA(address: base, length: 4096, descriptor: ram.descriptor)
            #expect(eventually { wrote.isSet })
            try client.unmapDMA(address: base, length: 4096)
            ram.mapping.bytes.storeBytes(of: 0, as: UInt64.self)
            for _ in 0..<2000 where ram.mapping.bytes.load(as: UInt64.self) != 0 {
                Issue.record("the device wrote after the unmap")
            }
        }
        stop.set(true)
        for thread in threads { thread.join() }
    }

    @Test func `draining waits for the holds that began before`() throws {
        let space = DMAAddressSpace()
        space.drain()
        let began = Flag()
        let drained = Flag()
        let thread = space.hold { _ in
            let thread = WorkerThread("drain") {
                began.set(true)
                space.drain()
                drained.set(true)
            }
            #expect(eventually { began.isSet })
            #expect(!drained.isSet)
            return thread
        }
        thread.join()
        #expect(drained.isSet)
    }
}

private final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    let bytes = Mutex<[UInt8]>([])

    var isSet: Bool { value.load(ordering: .acquiring) }
    func set(_ on: Bool) { value.store(on, ordering: .releasing) }
}
