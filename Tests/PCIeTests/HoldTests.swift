import PCIe
import Synchronization
import Testing
import VFIOUser
import Wire

/// Functions whose PERST# is asserted: what a client and a root port see of them, and that nothing leaves them.
struct HoldTests {
    private func config(_ client: VFIOUserClient, _ offset: Int, width: Int) -> UInt64 {
        client.read(region: Endpoint.configurationRegion, offset: UInt64(offset), width: width)
    }

    private func setConfig(_ client: VFIOUserClient, _ offset: Int, width: Int, _ value: UInt64) {
        client.write(region: Endpoint.configurationRegion, offset: UInt64(offset), width: width, value: value)
    }

    @Test func `a held function reads as ones everywhere and takes no write, and comes back as after power-on`() throws
    {
        let served = try ServedCard()
        let client = try served.client()
        let fresh = (0..<1024).map { config(client, $0 * 4, width: 4) }
        setConfig(client, 4, width: 2, 6)
        setConfig(client, 0x10, width: 4, 0x4000_0000)
        client.write(region: 0, offset: 8, width: 4, value: 5)
        client.write(region: 2, offset: 0x1000, width: 8, value: 0x1234_5678)
        served.endpoint.hold()
        #expect(served.endpoint.isHeld && served.card.resets == 1)
        for place in stride(from: 0, to: 4096, by: 4) { #expect(config(client, place, width: 4) == 0xFFFF_FFFF) }
        for (region, places) in [(UInt32(0), [UInt64(0), 8, 0x18]), (2, [0, 0x1000, 0x2000])] {
            for place in places {
                #expect(client.read(region: region, offset: place, width: 4) == 0xFFFF_FFFF)
                client.write(region: region, offset: place, width: 4, value: 0)
            }
        }
        for place in stride(from: 0, to: 4096, by: 4) { setConfig(client, place, width: 4, 0xFFFF_FFFF) }
        // The link's own commands are answered, and reset nothing that is reset.
        try client.reset()
        try client.mapDMA(
            address: IOVirtualAddress(0x8000_0000), length: 4096,
            descriptor: SharedMemory(create: "ram", size: 4096).descriptor)
        #expect(client.regions.map(\.length) == [4096, 0, 65536, 0, 0, 0, 0, 4096, 0])
        #expect(served.card.resets == 1 && served.card.capability.index == -1 && served.card.accessesOfBAR2 == 0)
        served.endpoint.hold()
        #expect(served.card.resets == 1, "it is held already")

        served.endpoint.release()
        #expect((0..<1024).map { config(client, $0 * 4, width: 4) } == fresh)
        setConfig(client, 4, width: 2, 6)
        #expect(client.read(region: 0, offset: 0, width: 4) == 0x4442_464F)
        #expect(client.read(region: 0, offset: 8, width: 4) == 0)
        #expect(client.read(region: 2, offset: 0x1000, width: 8) == 0)
        served.endpoint.release()
        #expect(config(client, 4, width: 2) == 6, "a second release is none")
    }

    @Test func `what a function raised and could not send is forgotten`() throws {
        let served = try ServedCard()
        let client = try served.client()
        let vectors = try (0..<3).map { _ in try EventNotifier() }
        let pin = try EventNotifier()
        try client.setInterrupts(.intx, notifiers: [pin])
        try client.setInterrupts(.msix, notifiers: vectors)
        setConfig(client, 4, width: 2, 2)
        let bus = served.endpoint.bus
        #expect(bus.raise(vector: 1), "it waits for bus mastering")
        bus.setINTx(true)
        #expect(pin.drain())
        try client.act(.unmask, on: .intx)
        #expect(pin.drain(), "still asserted")
        served.endpoint.hold()
        try client.act(.unmask, on: .intx)
        #expect(!pin.drain())
        served.endpoint.release()
        setConfig(client, 4, width: 2, 6)
        #expect(!vectors[1].drain() && !pin.drain())
        #expect(bus.raise(vector: 1) && vectors[1].drain(), "the eventfds are the client's and stay")
    }

    /// Accesses and DMA on one side, resets on the other: whatever the order, a held function does nothing, and after
    /// each reset it is as new.
    @Test func `resets under load leave nothing behind`() throws {
        let served = try ServedCard()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try client.mapDMA(address: IOVirtualAddress(0x8000_0000), length: 4096, descriptor: ram.descriptor)
        let isOver = Atomic<Bool>(false)
        let rounds = Atomic<Int>(0)
        do {
            let loader = WorkerThread("load") {
                while !isOver.load(ordering: .acquiring) {
                    setConfig(client, 4, width: 2, 6)
                    client.write(region: 0, offset: 8, width: 4, value: 77)
                    client.write(region: 0, offset: 0x10, width: 8, value: 0x8000_0010)
                    client.write(region: 0, offset: 0x18, width: 4, value: 0)
                    client.write(region: 2, offset: 0x1000, width: 4, value: 77)
                    rounds.add(1, ordering: .relaxed)
                }
            }
            defer {
                isOver.store(true, ordering: .releasing)
                loader.join()
            }
            func count() -> UInt32 { ram.mapping.bytes.load(fromByteOffset: 0x10, as: UInt32.self) }
            for _ in 0..<200 {
                let before = rounds.load(ordering: .relaxed)
                #expect(eventually { rounds.load(ordering: .relaxed) > before + 3 })
                served.endpoint.hold()
                let (held, counted) = (rounds.load(ordering: .relaxed), count())
                #expect(eventually { rounds.load(ordering: .relaxed) > held + 1 })
                #expect(count() == counted, "no DMA while it is held")
                // Nothing of what was written is there, neither before nor while it was held.
                var bytes: [UInt8] = Array(repeating: 9, count: 4)
                var span = bytes.mutableSpan
                var raw = span.mutableBytes
                served.endpoint.model.readBAR(0, offset: 8, into: &raw)
                #expect(bytes == [0, 0, 0, 0])
                served.endpoint.release()
            }
        }
    }

    // MARK: Behind a root port

    private let slotStatus = 0x48 + 0x1A

    private func link(_ board: Board, port: Int = 0) -> [Bool] {
        let slot = board.root.slot(port: port)
        return [slot.isPresent, slot.isLinkActive]
    }

    @Test func `a card in reset is a slot without a link, and is found when it leaves reset`() throws {
        let board = try Board()
        let served = try ServedCard()
        served.endpoint.hold()
        try board.root.attach(port: 0, client: served.client())
        #expect(link(board) == [true, false] && !board.root.isLinkUp(port: 0))
        let bridges = board.enumerate()
        #expect(bridges.count == 3 && bridges.allSatisfy { $0.bus == 0 }, "host bridge and two root ports")
        #expect(board.read(1, 0, 0) == 0xFFFF_FFFF)
        #expect(board.root.functions().allSatisfy { $0.port == nil })
        #expect(throws: RootComplexError.self) { try board.root.requestService(at: FunctionPlace(port: 0)) }
        // No attention is paid to it while it waits: what looks finds it.
        board.write(0, 1, slotStatus, width: 2, 0xFFFF)
        served.endpoint.release()
        #expect(board.read(1, 0, 0) == 0x0B0A_1B36)
        // Presence, and the link's change, which is an event for software.
        #expect(board.read(0, 1, slotStatus, width: 2) == 0x140)
        #expect(link(board) == [true, true])
        let found = board.enumerate().first { $0.bus != 0 }
        let base = try #require(found?.bars[0])
        board.root.memoryWrite(base + 8, width: 4, value: 5)
        #expect(board.root.memoryRead(base + 8, width: 4) == 5)
        #expect(board.log.all.isEmpty && board.events.all.isEmpty, "\(board.log.all) \(board.events.all)")
    }

    @Test func `a root port hears of a reset's end without looking, and of a reset`() throws {
        let board = try Board()
        let served = try ServedCard()
        served.endpoint.hold()
        try board.root.attach(port: 0, client: served.client())
        for round in 0..<3 {
            served.endpoint.release()
            #expect(eventually { link(board) == [true, true] })
            let base = try #require(board.enumerate().first { $0.bus != 0 }?.bars[0])
            board.root.memoryWrite(base + 8, width: 4, value: 5)
            #expect(board.root.memoryRead(base + 8, width: 4) == 5)
            #expect(served.endpoint.dma.ranges.count == 1)
            served.endpoint.hold()
            #expect(eventually { link(board) == [true, false] }, "round \(round)")
            #expect(board.root.memoryRead(base + 8, width: 4) == 0xFFFF_FFFF)
            #expect(eventually { served.endpoint.dma.ranges.isEmpty })
            #expect(board.read(1, 0, 0) == 0xFFFF_FFFF)
        }
        #expect(board.events.all.isEmpty, "the card is in its slot")
        served.die()
        #expect(eventually { board.events.all == ["lost rp0"] })
        #expect(link(board) == [false, false])
    }

    @Test func `interrupts reach the host after the card was reset and set up again`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        for round in 1...3 {
            let base = try #require(board.enumerate().first { $0.bus != 0 }?.bars)
            let (registers, table) = try (#require(base[0]), #require(base[2]))
            board.root.memoryWrite(table + 0x1000, width: 8, value: 0x1000_0000)
            board.root.memoryWrite(table + 0x1008, width: 4, value: UInt64(round))
            board.root.memoryWrite(table + 0x100C, width: 4, value: 0)
            let capability = try #require(
                TestCard.description.makeConfigurationSpace().capability(CapabilityID.msix))
            board.write(1, 0, capability + 2, width: 2, 0x8000)
            board.root.memoryWrite(registers + 0x10, width: 8, value: Board.ramBase)
            board.root.memoryWrite(registers + 0x18, width: 4, value: 0)
            #expect(eventually { board.outputs.messages.last?.data == UInt32(round) }, "round \(round)")
            served.endpoint.hold()
            #expect(eventually { link(board) == [true, false] })
            served.endpoint.release()
            #expect(eventually { link(board) == [true, true] })
        }
        #expect(board.outputs.messages.count == 3)
    }

    @Test func `a reset that nobody noticed is noticed afterwards`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        let base = try #require(board.enumerate().first { $0.bus != 0 }?.bars[0])
        board.write(0, 1, slotStatus, width: 2, 0xFFFF)
        served.endpoint.hold()
        served.endpoint.release()
        // The way to its registers is gone, as its addresses are, and software is told of the link.
        #expect(eventually { board.read(1, 0, 4, width: 2) == 0 && board.read(1, 0, 0x10) == 0 })
        #expect(board.root.memoryRead(base, width: 4) == 0xFFFF_FFFF)
        #expect(eventually { board.read(0, 1, slotStatus, width: 2) == 0x140 })
        #expect(link(board) == [true, true])
    }

    @Test func `every function of a card is dead and comes back, function 0 last`() throws {
        let board = try Board()
        let cards = try (0..<3).map { _ in try ServedCard() }
        let functions = CardFunctions(isHeld: true)
        for card in cards { functions.add(card.endpoint) }
        for (index, card) in cards.enumerated() {
            #expect(card.endpoint.isHeld)
            try board.root.attach(port: 0, function: index, client: card.client())
        }
        _ = board.enumerate()
        for round in 0..<3 {
            for number in 0..<3 { #expect(board.read(1, 0, 0, function: number) == 0xFFFF_FFFF) }
            functions.release()
            #expect(!functions.isHeld)
            #expect(eventually { link(board) == [true, true] })
            let found = board.enumerate().filter { $0.bus == 1 }
            #expect(found.map(\.function) == [0, 1, 2], "round \(round)")
            functions.hold()
            #expect(eventually { link(board) == [true, false] })
            #expect(eventually { cards.allSatisfy { $0.endpoint.dma.ranges.isEmpty } })
        }
        board.root.detach(port: 0, function: 1)
        #expect(throws: RootComplexError.self) {
            try board.root.attach(port: 0, function: 2, client: ServedCard().client())
        }
        let next = try ServedCard()
        try board.root.attach(port: 0, function: 1, client: next.client())
    }

    @Test func `a function that is held gives and takes no state`() throws {
        let served = try ServedCard()
        let migration = try #require(served.endpoint.migration)
        let state = try migration.save()
        served.endpoint.hold()
        #expect(throws: ErrorNumber.inputOutput) { try migration.save() }
        #expect(throws: ErrorNumber.inputOutput) { try migration.restore(state, isFinal: true) }
        served.endpoint.release()
        try migration.restore(state, isFinal: true)
    }
}
