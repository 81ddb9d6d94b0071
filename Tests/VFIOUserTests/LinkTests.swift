import Synchronization
import Testing
import VFIOUser
import Wire

/// A server and a client over a socket pair.
struct LinkTests {
    @Test func `a client learns what the device is`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        #expect(client.information == DeviceInfo(flags: DeviceInfo.reset, regionCount: 4, irqCount: 5))
        #expect(client.regions.map(\.length) == [4096, 8, 16384, 16])
        #expect(client.regions[1].flags == RegionInfo.write && client.regions[3].flags == RegionInfo.read)
        #expect(client.regions[2].areas.map(\.offset) == [0, 8192])
        #expect(client.interrupts.map(\.count) == [1, 0, 4, 1, 1])
        #expect(client.capabilities.maximumTransfer == 1 << 20)
    }

    @Test(arguments: [1, 2, 4, 8]) func `registers are read and written in every width`(width: Int) throws {
        let served = try ServedDevice()
        let client = try served.client()
        let value: UInt64 = 0x8877_6655_4433_2211
        #expect(client.write(region: 0, offset: 16, width: width, value: value))
        let mask = width == 8 ? UInt64.max : (1 << UInt64(width * 8)) - 1
        #expect(client.read(region: 0, offset: 16, width: width) == value & mask)
        #expect(client.read(region: 0, offset: 16, width: 8) == value & mask)
        #expect(client.post(region: 0, offset: 24, width: width, value: value))
        #expect(client.read(region: 0, offset: 24, width: width) == value & mask)
    }

    @Test func `bytes are read and written in any number`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let data = (0..<3001).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        try client.write(region: 0, offset: 5, from: data.span.bytes)
        #expect(served.device.registers.withLock { Array($0[5..<3006]) } == data)
        var back = [UInt8](repeating: 0, count: 3001)
        do {
            var span = back.mutableSpan
            var raw = span.mutableBytes
            try client.read(region: 0, offset: 5, into: &raw)
        }
        #expect(back == data)
    }

    @Test func `an access outside a region, or against it, is refused and the link stays`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        #expect(client.read(region: 0, offset: 4093, width: 4) == 0xFFFF_FFFF)
        #expect(client.read(region: 0, offset: .max - 1, width: 1) == 0xFF)
        #expect(client.read(region: 9, offset: 0, width: 4) == 0xFFFF_FFFF)
        #expect(client.read(region: 1, offset: 0, width: 8) == .max)
        #expect(!client.write(region: 3, offset: 0, width: 4, value: 0))
        #expect(throws: VFIOUserError.refused(.regionWrite, .invalid)) {
            try client.write(region: 3, offset: 0, from: ([1] as [UInt8]).span.bytes)
        }
        #expect(client.read(region: 0, offset: 0, width: 4) == 0)
        #expect(!client.isGone && served.log.all.isEmpty)
    }

    @Test func `a region's shared memory is mapped where the server allows it`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let window = try #require(client.map(region: 2, offset: 8192, count: 4096))
        window.bytes.storeBytes(of: 0x1234, toByteOffset: 8, as: UInt32.self)
        #expect(served.device.shared.mapping.bytes.load(fromByteOffset: 8200, as: UInt32.self) == 0x1234)
        #expect(client.map(region: 2, offset: 4096, count: 4096) == nil)
        #expect(client.map(region: 2, offset: 8192, count: 8192) == nil)
        #expect(client.map(region: 0, offset: 0, count: 4096) == nil)
    }

    @Test func `reset reaches the device`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        client.write(region: 0, offset: 0, width: 4, value: 1)
        try client.reset()
        #expect(client.read(region: 0, offset: 0, width: 4) == 0)
        #expect(served.device.resets.load(ordering: .relaxed) == 1)
    }

    @Test func `a client that leaves takes its maps and eventfds along and the device is reset`() throws {
        let served = try ServedDevice()
        let memory = try SharedMemory(create: "ram", size: 4096)
        let notifier = try EventNotifier()
        do {
            let client = try served.client()
            try client.mapDMA(address: IOVirtualAddress(0), length: 4096, descriptor: memory.descriptor)
            try client.setInterrupts(.msix, notifiers: [notifier])
            #expect(served.device.interrupts.raise(.msix))
        }
        #expect(eventually { served.ended.load(ordering: .acquiring) })
        #expect(served.device.dma.ranges.isEmpty)
        #expect(!served.device.interrupts.raise(.msix))
        #expect(served.device.resets.load(ordering: .relaxed) == 1)
        #expect(served.log.all.isEmpty)
    }

    @Test func `a server serves one client after another and stops when told`() throws {
        let path = "/tmp/vu-\(MonotonicTime.now.nanoseconds).sock"
        let device = try ScratchDevice()
        let log = LogLines()
        let server = VFIOUserServer(listener: try Listener(path: path), device: device) { log.add($0) }
        server.start()
        for round in 0..<3 {
            let client = try VFIOUserClient.connect(to: path)
            #expect(client.read(region: 0, offset: 0, width: 4) == 0)
            client.write(region: 0, offset: 0, width: 4, value: UInt64(round) + 1)
        }
        let last = try VFIOUserClient.connect(to: path)
        #expect(server.hasClient)
        server.stop()
        #expect(last.read(region: 0, offset: 0, width: 4) == 0xFFFF_FFFF && last.isGone)
        #expect(log.all.isEmpty)
    }

    // MARK: Interrupts

    @Test func `MSI-X vectors signal the eventfds they were given`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let notifiers = try (0..<4).map { _ in try EventNotifier() }
        try client.setInterrupts(.msix, notifiers: notifiers)
        #expect(served.device.interrupts.raise(.msix, vector: 2))
        #expect(raised(notifiers[2]))
        #expect(!notifiers[0].drain() && !notifiers[3].drain())
        #expect(!served.device.interrupts.raise(.msix, vector: 4))
        try client.disableInterrupts(.msix)
        #expect(!served.device.interrupts.raise(.msix, vector: 2))
    }

    @Test func `a masked vector is pending until it is unmasked`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let notifier = try EventNotifier()
        try client.setInterrupts(.msix, start: 1, notifiers: [notifier])
        try client.act(.mask, on: .msix, start: 1)
        #expect(served.device.interrupts.raise(.msix, vector: 1))
        #expect(served.device.interrupts.isPending(.msix, vector: 1) && !notifier.drain())
        try client.act(.unmask, on: .msix, start: 1)
        #expect(notifier.drain() && !served.device.interrupts.isPending(.msix, vector: 1))
        try client.act(.trigger, on: .msix, start: 1)
        #expect(notifier.drain())
    }

    @Test func `INTx masks itself and signals again while it is asserted`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let notifier = try EventNotifier()
        try client.setInterrupts(.intx, notifiers: [notifier])
        served.device.interrupts.setINTx(true)
        #expect(notifier.drain())
        served.device.interrupts.setINTx(true)
        #expect(!notifier.drain())
        try client.act(.unmask, on: .intx)
        #expect(notifier.drain())
        served.device.interrupts.setINTx(false)
        try client.act(.unmask, on: .intx)
        #expect(!notifier.drain())
    }

    @Test func `something that is not an eventfd is refused as one`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let file = try SharedMemory(create: "file", size: 4096)
        #expect(throws: VFIOUserError.refused(.deviceSetIRQs, .invalid)) {
            try client.setInterrupts(.msix, notifiers: [EventNotifier(adopting: file.descriptor.duplicate())])
        }
        #expect(throws: VFIOUserError.refused(.deviceSetIRQs, .invalid)) {
            try client.setInterrupts(.msix, start: 4, notifiers: [EventNotifier()])
        }
        #expect(throws: VFIOUserError.refused(.deviceSetIRQs, .invalid)) {
            try client.act(.mask, on: .error)
        }
    }
}
