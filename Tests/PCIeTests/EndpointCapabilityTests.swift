import PCIe
import Testing
import VFIOUser
import Wire

/// Messages, power states, errors and serial numbers of endpoints, as software behind a root complex sees them.
struct EndpointCapabilityTests {
    /// A card with MSI instead of MSI-X, behind root port 0 and enumerated.
    private func messaging(vectors: Int = 4) throws -> (Board, ServedCard, msi: Int) {
        var description = TestCard.description
        description.msix = nil
        description.msiVectors = vectors
        let served = try ServedCard(description)
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        let msi = try #require(description.makeConfigurationSpace().capability(CapabilityID.msi))
        return (board, served, msi)
    }

    private func enable(_ board: Board, _ msi: Int, allocated: UInt64) {
        board.write(1, 0, msi + 4, 0x2800_0000)
        board.write(1, 0, msi + 12, width: 2, 0x1230)
        board.write(1, 0, msi + 2, width: 2, 1 | allocated << 4)
    }

    @Test func `an MSI vector is a message with its number in the data`() throws {
        let (board, served, msi) = try messaging()
        #expect(board.read(1, 0, msi + 2, width: 2) == 0x0184)
        #expect(!served.endpoint.bus.raise(vector: 0))
        enable(board, msi, allocated: 2)
        for vector in 0..<4 { #expect(served.endpoint.bus.raise(vector: vector)) }
        #expect(eventually { Set(board.outputs.messages.map(\.data)) == [0x1230, 0x1231, 0x1232, 0x1233] })
        #expect(board.outputs.messages.allSatisfy { $0.address == 0x2800_0000 })
    }

    @Test func `with fewer vectors than asked for several share one`() throws {
        let (board, served, msi) = try messaging()
        enable(board, msi, allocated: 1)
        #expect(served.endpoint.bus.raise(vector: 3))
        #expect(eventually { board.outputs.messages.map(\.data) == [0x1231] })
        // More than it has cannot be given.
        board.write(1, 0, msi + 2, width: 2, 0)
        enable(board, msi, allocated: 5)
        #expect(served.endpoint.bus.raise(vector: 3))
        #expect(eventually { board.outputs.messages.map(\.data) == [0x1231, 0x1233] })
    }

    @Test func `a masked MSI vector is pending and goes out when the mask goes`() throws {
        let (board, served, msi) = try messaging()
        enable(board, msi, allocated: 2)
        board.write(1, 0, msi + 16, 0b0100)
        #expect(served.endpoint.bus.raise(vector: 2))
        #expect(eventually { board.read(1, 0, msi + 20) == 0b0100 })
        #expect(board.outputs.messages.isEmpty)
        board.write(1, 0, msi + 16, 0)
        #expect(board.outputs.messages.map(\.data) == [0x1232] && board.read(1, 0, msi + 20) == 0)
    }

    @Test func `without bus mastering neither DMA nor messages get out, whoever asks`() throws {
        let (board, served, msi) = try messaging()
        enable(board, msi, allocated: 2)
        board.root.memoryWrite(0x4000_0010, width: 8, value: Board.ramBase)
        board.write(1, 0, 4, width: 2, 2)
        board.root.memoryWrite(0x4000_0018, width: 4, value: 1)
        #expect(served.card.failures == 1)
        // The message waits in the card: it is a memory write like any other.
        #expect(served.endpoint.bus.raise(vector: 1))
        // A card that does not keep to it finds no memory either.
        served.endpoint.bus.dma.isEnabled = true
        #expect(throws: DMAError.self) {
            try served.endpoint.bus.dma.load(UInt32.self, at: IOVirtualAddress(Board.ramBase))
        }
        #expect(served.endpoint.interrupts.raise(.msi, vector: 2))
        #expect(eventually { board.read(1, 0, msi + 20) == 0b0100 })
        #expect(board.outputs.messages.isEmpty)
        board.write(1, 0, 4, width: 2, 6)
        #expect(eventually { Set(board.outputs.messages.map(\.data)) == [0x1231, 0x1232] })
        // The port's own bus mastering is what lets its card's requests upstream.
        board.write(0, 1, 4, width: 2, 2)
        #expect(served.endpoint.dma.ranges.isEmpty)
        #expect(served.endpoint.bus.raise(vector: 0))
        #expect(eventually { board.read(1, 0, msi + 20) == 0b0001 })
        board.write(0, 1, 4, width: 2, 6)
        #expect(eventually { board.outputs.messages.count == 3 })
    }

    // MARK: Power

    @Test(arguments: [true, false])
    func `in D3hot only configuration space answers, and D0 brings back what the function keeps`(_ keeps: Bool) throws {
        var description = TestCard.description
        description.keepsStateInD3 = keeps
        let served = try ServedCard(description)
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        let place = try #require(description.makeConfigurationSpace().capability(CapabilityID.powerManagement)) + 4
        #expect(board.read(1, 0, place, width: 2) == (keeps ? 8 : 0))
        board.root.memoryWrite(0x4000_0008, width: 4, value: 77)
        board.write(1, 0, place, width: 2, 3)
        #expect(board.read(1, 0, place, width: 2) & 3 == 3 && board.read(1, 0, 0) == 0x0B0A_1B36)
        #expect(board.root.memoryRead(0x4000_0008, width: 4) == 0xFFFF_FFFF)
        #expect(served.endpoint.dma.ranges.isEmpty && !served.endpoint.dma.isEnabled)
        board.write(1, 0, place, width: 2, 0)
        #expect(board.read(1, 0, 4, width: 2) == (keeps ? 6 : 0))
        #expect(board.read(1, 0, 0x10) == (keeps ? 0x4000_0000 : 0))
        #expect(served.card.resets == (keeps ? 0 : 1))
        if keeps { #expect(board.root.memoryRead(0x4000_0008, width: 4) == 77) }
        #expect(served.endpoint.dma.ranges.count == (keeps ? 1 : 0))
    }

    @Test func `a function that asks for service is in Root Status, if software wants it`() throws {
        var description = TestCard.description
        description.canRequestService = true
        let served = try ServedCard(description)
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        let place = try #require(description.makeConfigurationSpace().capability(CapabilityID.powerManagement))
        #expect(board.read(1, 0, place + 2, width: 2) & 0xC800 == 0x4800)
        #expect(try board.root.requestService(at: FunctionPlace(port: 0)) == false)
        #expect(board.read(1, 0, place + 4, width: 2) == 0x8008)
        board.write(1, 0, place + 4, width: 2, 0x8100)
        #expect(board.read(1, 0, place + 4, width: 2) == 0x0108)
        #expect(try board.root.requestService(at: FunctionPlace(port: 0)))
        #expect(board.read(0, 1, 0x48 + 0x20) == 0x1_0100)
        #expect(throws: RootComplexError.self) { try board.root.requestService(at: FunctionPlace(port: 1)) }
    }

    // MARK: INTx, errors, serial number

    @Test func `a pin that software disables is low and still pending`() throws {
        let served = try ServedCard()
        let client = try served.client()
        let notifier = try EventNotifier()
        try client.setInterrupts(.intx, notifiers: [notifier])
        client.write(region: 7, offset: 4, width: 2, value: 0x402)
        served.endpoint.bus.setINTx(true)
        #expect(client.read(region: 7, offset: 6, width: 2) == 0x18 && !notifier.drain())
        client.write(region: 7, offset: 4, width: 2, value: 2)
        #expect(notifier.drain())
        served.endpoint.bus.setINTx(false)
        #expect(client.read(region: 7, offset: 6, width: 2) == 0x10)
    }

    @Test func `a reported error is in the function's own registers and raises the error interrupt`() throws {
        let served = try ServedCard()
        let client = try served.client()
        let notifier = try EventNotifier()
        try client.setInterrupts(.error, notifiers: [notifier])
        served.endpoint.bus.report(.correctable(6))
        #expect(client.read(region: 7, offset: 0x110, width: 4) == 0x40 && !notifier.drain())
        served.endpoint.bus.report(.uncorrectable(18), header: [1, 2])
        #expect(client.read(region: 7, offset: 0x104, width: 4) == 0x4_0000 && notifier.drain())
        #expect(client.read(region: 7, offset: 0x11C, width: 8) == 0x2_0000_0001)
        client.write(region: 7, offset: 0x104, width: 4, value: 0x4_0000)
        #expect(client.read(region: 7, offset: 0x104, width: 4) == 0)
    }

    @Test func `a serial number is the capability's two words`() throws {
        var description = TestCard.description
        description.serialNumber = 0x1122_3344_5566_7788
        let space = description.makeConfigurationSpace()
        let place = try #require(space.extendedCapability(ExtendedCapabilityID.deviceSerialNumber))
        #expect(space.read(place + 4, width: 8) == 0x1122_3344_5566_7788)
    }
}
