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

    // MARK: Idle links

    @Test func `a server that dies while nobody asks it anything is gone at once`() throws {
        let served = try ServedDevice()
        let reasons = LogLines()
        let client = try VFIOUserClient(socket: served.socket, onGone: { reasons.add($0) })
        #expect(client.read(region: 0, offset: 0, width: 4) == 0)
        served.stop()
        #expect(eventually { reasons.all == ["it closed the link"] })
        #expect(client.isGone && client.read(region: 0, offset: 0, width: 4) == 0xFFFF_FFFF)
        #expect(reasons.all.count == 1)
    }

    @Test func `a client that is let go of hears nothing of its server's end`() throws {
        let reasons = LogLines()
        for _ in 0..<50 {
            let served = try ServedDevice()
            _ = try VFIOUserClient(socket: served.socket, onGone: { reasons.add($0) })
            #expect(eventually { served.ended.load(ordering: .acquiring) })
        }
        #expect(reasons.all.isEmpty)
    }

    /// libvfio-user's servers, and QEMU's, may have no twin socket.
    @Test func `a server without a twin socket reaches memory at any time`() throws {
        let (questions, ask) = try Socket.pair()
        let memory = ScratchMemory(base: 0x1000, count: 4096)
        let server = Peer()
        let client = try VFIOUserClient(
            socket: scripted { peer, header in
                if header.command == .dmaMap {
                    server.socket.withLock { $0 = peer.socket }
                    return false
                }
                guard header.command == .regionRead else { return false }
                // Two commands behind a reply, in one send.
                let read = MessageHeader.command(.dmaRead, id: 7, payload: 16)
                let access = bytes([u64(0x1000), u64(2)])
                let reply = encoded(16) { header.reply(payload: 20).encode(into: &$0) }
                let command = encoded(16) { read.encode(into: &$0) } + access
                try peer.socket.send(
                    reply + bytes([u64(0), u32(0), u32(4), u32(9)]) + command + command, descriptors: [])
                for _ in 0..<2 {
                    let (answer, payload) = try peer.reply()
                    #expect(answer.id == 7 && answer.isReply && payload == access + [0, 5])
                }
                try ask.send([1], descriptors: [])
                return true
            }, memory: memory)
        #expect(client.capabilities.twinSocket != true)
        memory.bytes.withLock { $0[1] = 5 }
        try client.mapDMA(address: IOVirtualAddress(0x1000), length: 4096, descriptor: nil)
        #expect(client.read(region: 0, offset: 0, width: 4) == 9)
        try questions.wait(for: .readable, until: .after(.seconds(10)))
        // Now the link is idle; the script's thread waits for the next command, so this thread speaks for it.
        let socket = try #require(server.socket.withLock { $0 })
        let write = MessageHeader.command(.dmaWrite, id: 8, payload: 17)
        try socket.send(
            encoded(16) { write.encode(into: &$0) } + bytes([u64(0x1FFF), u64(1)]) + [0xAB], descriptors: [])
        #expect(eventually { memory.bytes.withLock { $0[4095] } == 0xAB })
        withExtendedLifetime(client) {}
    }

    @Test func `DMA messages reach what was exported and nothing else`() throws {
        let memory = ScratchMemory(base: 0, count: 0x10000)
        let answers = LogLines()
        let client = try VFIOUserClient(
            socket: scripted { peer, header in
                guard header.command == .regionRead else { return false }
                for (command, address, count) in [
                    (VFIOUserCommand.dmaRead, 0x1000, 0x2000), (.dmaRead, 0x0FFF, 2), (.dmaRead, 0x2FFF, 2),
                    (.dmaRead, 0x8000, 1), (.dmaWrite, 0x1000, 1), (.dmaWrite, 0x2000, 1), (.dmaRead, 0x1000, 0),
                ] {
                    let data = command == .dmaWrite ? [UInt8](repeating: 1, count: count) : []
                    try peer.send(
                        .command(command, id: 1, payload: 16 + data.count),
                        bytes([u64(UInt64(address)), u64(UInt64(count))]) + data)
                    let answer = try peer.reply().header
                    answers.add(answer.refusal.map { "\($0)" } ?? "done")
                }
                try peer.send(header.reply(payload: 20), bytes([u64(0), u32(0), u32(4), u32(9)]))
                return true
            }, memory: memory)
        try client.mapDMA(address: IOVirtualAddress(0x1000), length: 0x1000, descriptor: nil)
        try client.mapDMA(address: IOVirtualAddress(0x2000), length: 0x1000, descriptor: nil, writable: false)
        try client.mapDMA(address: IOVirtualAddress(0x8000), length: 0x1000, descriptor: nil)
        try client.unmapDMA(address: IOVirtualAddress(0x8000), length: 0x1000)
        #expect(client.read(region: 0, offset: 0, width: 4) == 9)
        #expect(answers.all == ["done", "EFAULT", "EFAULT", "EFAULT", "done", "EPERM", "done"])
    }

    // MARK: Interrupts

    @Test(arguments: [InterruptTable.Kind.intx, .msix, .error, .request])
    func `every kind is triggered, by none, bool and eventfd`(kind: InterruptTable.Kind) throws {
        let served = try ServedDevice()
        let client = try served.client()
        let notifier = try EventNotifier()
        try client.setInterrupts(kind, notifiers: [notifier])
        #expect(served.device.interrupts.isSet(kind))
        #expect(served.device.interrupts.raise(kind) && notifier.drain())
        try client.act(.trigger, on: kind)
        #expect(notifier.drain())
        try client.act(.trigger, on: kind, which: [false])
        #expect(!notifier.drain())
        try client.act(.trigger, on: kind, which: [true])
        #expect(notifier.drain())
        try client.clearInterrupts(kind, count: 1)
        #expect(!served.device.interrupts.raise(kind) && !notifier.drain())
        let isMaskable = kind == .intx || kind == .msix
        #expect(client.interrupts[Int(kind.rawValue)].flags & IRQInfo.maskable != 0 || !isMaskable)
        if !isMaskable {
            for action in [IRQSet.Action.mask, .unmask] {
                #expect(throws: VFIOUserError.refused(.deviceSetIRQs, .invalid)) { try client.act(action, on: kind) }
                #expect(throws: VFIOUserError.refused(.deviceSetIRQs, .invalid)) {
                    try client.setInterrupts(kind, notifiers: [notifier], for: action)
                }
            }
        }
    }

    @Test func `masking and unmasking signal the eventfds set for them, once each`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let (masked, unmasked, trigger) = (try EventNotifier(), try EventNotifier(), try EventNotifier())
        try client.setInterrupts(.msix, start: 2, notifiers: [masked], for: .mask)
        try client.setInterrupts(.msix, start: 2, notifiers: [unmasked], for: .unmask)
        try client.act(.mask, on: .msix, count: 4)
        #expect(masked.drain() && !unmasked.drain())
        try client.act(.mask, on: .msix, start: 2)
        #expect(!masked.drain())
        try client.act(.unmask, on: .msix, start: 1, which: [true, false])
        #expect(!unmasked.drain())
        try client.act(.unmask, on: .msix, start: 1, which: [true, true])
        #expect(unmasked.drain() && !masked.drain())
        // INTx masks itself when it fires.
        try client.setInterrupts(.intx, notifiers: [masked], for: .mask)
        try client.setInterrupts(.intx, notifiers: [trigger])
        served.device.interrupts.setINTx(true)
        #expect(trigger.drain() && masked.drain())
    }

    /// Waits until a notifier is raised, and takes it; false when that does not come.
    private func awaits(_ notifier: EventNotifier) throws -> Bool {
        let eventfd = Socket(adopting: try notifier.descriptor.duplicate(), kind: .stream)
        try? eventfd.wait(for: .readable, until: .after(.seconds(20)))
        return notifier.drain()
    }

    @Test func `a signal of INTx's unmask eventfd lets the next interrupt through, as KVM does it`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let (unmask, trigger, masked) = (try EventNotifier(), try EventNotifier(), try EventNotifier())
        try client.setInterrupts(.intx, notifiers: [trigger])
        try client.setInterrupts(.intx, notifiers: [masked], for: .mask)
        try client.setInterrupts(.intx, notifiers: [unmask], for: .unmask)
        let interrupts = served.device.interrupts
        interrupts.setINTx(true)
        #expect(trigger.drain() && masked.drain())
        // Still asserted: each unmasking brings it again, though nobody drains the eventfd.
        for _ in 0..<3 {
            unmask.signal()
            #expect(try awaits(trigger))
            #expect(masked.drain())
        }
        // Asserted while masked waits for the unmasking.
        interrupts.setINTx(false)
        interrupts.setINTx(true)
        #expect(!trigger.drain())
        unmask.signal()
        #expect(try awaits(trigger))
        // Replaced: the old one means nothing any more, the new one unmasks.
        let other = try EventNotifier()
        try client.setInterrupts(.intx, notifiers: [other], for: .unmask)
        unmask.signal()
        #expect(!trigger.drain())
        other.signal()
        #expect(try awaits(trigger))
        // Taken away: by messages only.
        try client.clearInterrupts(.intx, count: 1, for: .unmask)
        other.signal()
        #expect(!trigger.drain())
        try client.act(.unmask, on: .intx)
        #expect(trigger.drain())
    }

    @Test func `disabling a kind takes every eventfd and mask of it`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let notifiers = try (0..<4).map { _ in try EventNotifier() }
        try client.setInterrupts(.msix, notifiers: notifiers)
        try client.act(.mask, on: .msix, count: 4)
        try client.disableInterrupts(.msix)
        try client.setInterrupts(.msix, notifiers: notifiers)
        #expect(served.device.interrupts.raise(.msix, vector: 3) && notifiers[3].drain())
    }

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

private final class Peer: Sendable {
    let socket = Mutex<Socket?>(nil)
}
