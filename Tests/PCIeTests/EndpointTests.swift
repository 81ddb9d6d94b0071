import PCIe
import Testing
import VFIOUser
import Wire

/// An endpoint as a client of its own sees it, without a root complex.
struct EndpointTests {
    private func config(_ client: VFIOUserClient, _ offset: Int, width: Int) -> UInt64 {
        client.read(region: Endpoint.configurationRegion, offset: UInt64(offset), width: width)
    }

    private func setConfig(_ client: VFIOUserClient, _ offset: Int, width: Int, _ value: UInt64) {
        client.write(region: Endpoint.configurationRegion, offset: UInt64(offset), width: width, value: value)
    }

    @Test func `regions and interrupts are those of a VFIO PCI device`() throws {
        let served = try ServedCard()
        let client = try served.client()
        #expect(client.information.flags == 3 && client.information.regionCount == 9)
        #expect(client.regions.map(\.length) == [4096, 0, 65536, 0, 0, 0, 0, 4096, 0])
        #expect(client.interrupts.map(\.count) == [1, 0, 3, 1, 1])
        #expect(config(client, 0, width: 4) == 0x0B0A_1B36)
    }

    @Test func `memory space that is disabled reads as ones and drops writes`() throws {
        let served = try ServedCard()
        let client = try served.client()
        #expect(client.read(region: 0, offset: 0, width: 4) == 0xFFFF_FFFF)
        client.write(region: 0, offset: 8, width: 4, value: 5)
        setConfig(client, 4, width: 2, 2)
        #expect(client.read(region: 0, offset: 0, width: 4) == 0x4442_464F)
        #expect(client.read(region: 0, offset: 8, width: 4) == 0)
        client.write(region: 0, offset: 8, width: 4, value: 5)
        #expect(client.read(region: 0, offset: 8, width: 4) == 5)
    }

    @Test func `DMA needs bus mastering`() throws {
        let served = try ServedCard()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try client.mapDMA(address: IOVirtualAddress(0x8000_0000), length: 4096, descriptor: ram.descriptor)
        setConfig(client, 4, width: 2, 2)
        client.write(region: 0, offset: 0x10, width: 8, value: 0x8000_0010)
        client.write(region: 0, offset: 0x18, width: 4, value: 0)
        #expect(served.card.failures == 1)
        setConfig(client, 4, width: 2, 6)
        client.write(region: 0, offset: 0x18, width: 4, value: 0)
        #expect(served.card.failures == 1)
        #expect(ram.mapping.bytes.load(fromByteOffset: 0x10, as: UInt32.self) == 1)
    }

    @Test func `the MSI-X table is the endpoint's and the model never sees it`() throws {
        let served = try ServedCard()
        let client = try served.client()
        setConfig(client, 4, width: 2, 2)
        #expect(client.read(region: 2, offset: 0x100C, width: 4) == 1)
        client.write(region: 2, offset: 0x1000, width: 8, value: 0x1234_5678)
        #expect(client.read(region: 2, offset: 0x1000, width: 8) == 0x1234_5678)
        #expect(client.read(region: 2, offset: 0x2000, width: 8) == 0)
        #expect(served.card.accessesOfBAR2 == 0)
        _ = client.read(region: 2, offset: 0x1030, width: 4)
        #expect(served.card.accessesOfBAR2 == 1)
        let notifier = try EventNotifier()
        try client.setInterrupts(.msix, start: 1, notifiers: [notifier])
        try client.act(.mask, on: .msix, start: 1)
        #expect(served.endpoint.bus.raise(vector: 1))
        #expect(client.read(region: 2, offset: 0x2000, width: 8) == 2)
    }

    @Test func `a live vendor-specific capability is the model's, all but its header`() throws {
        let served = try ServedCard()
        let client = try served.client()
        let places = TestCard.description.makeConfigurationSpace().capabilities(CapabilityID.vendorSpecific)
        try #require(places.count == 2)
        // The first is plain: identifier, link, length 8, and what follows.
        #expect(config(client, places[0], width: 4) == UInt64(9 | places[1] << 8 | 8 << 16 | 7 << 24))
        #expect(config(client, places[0] + 4, width: 4) == 0x0B0A_0908)
        setConfig(client, places[0] + 4, width: 4, 0)
        #expect(config(client, places[0] + 4, width: 4) == 0x0B0A_0908)
        // The second is live.
        #expect(config(client, places[1], width: 4) == UInt64(9 | 16 << 16 | 0x55 << 24))
        #expect(config(client, places[1] + 12, width: 4) == 1 << 16 | 12)
        #expect(config(client, places[1] + 2, width: 2) == 2)
        setConfig(client, places[1] + 14, width: 2, 0xABCD)
        #expect(served.card.capability == (1, 14, 0xABCD))
        // An access that reaches beyond it is not.
        #expect(config(client, places[1] + 14, width: 4) == 0x5555)
        setConfig(client, places[1] + 14, width: 4, 0)
        #expect(served.card.capability == (1, 14, 0xABCD))
    }

    @Test func `a function level reset resets the model and configuration space`() throws {
        let served = try ServedCard()
        let client = try served.client()
        setConfig(client, 4, width: 2, 6)
        client.write(region: 0, offset: 8, width: 4, value: 5)
        let space = TestCard.description.makeConfigurationSpace()
        let express = try #require(space.capability(CapabilityID.express))
        setConfig(client, express + ExpressRegister.deviceControl, width: 2, 0x8000)
        #expect(served.card.resets == 1 && config(client, 4, width: 2) == 0)
        #expect(!served.endpoint.bus.dma.isEnabled)
        #expect(config(client, express + ExpressRegister.deviceControl, width: 2) == 0x2810)
    }

    @Test func `a model's doorbell is rung without the server`() throws {
        let served = try ServedCard()
        let client = try served.client()
        #expect(client.doorbellCount == 1)
        setConfig(client, 4, width: 2, 2)
        client.write(region: 0, offset: 0x30, width: 4, value: 1)
        #expect(served.card.doorbell.drain())
        client.write(region: 0, offset: 0x30, width: 8, value: 1)
        #expect(!served.card.doorbell.drain())
    }

    // MARK: Migration

    /// A card with its scratch register, BAR 0, bus mastering and one MSI-X entry set, and its state as it is read.
    private func savedCard() throws -> [UInt8] {
        let served = try ServedCard()
        let client = try served.client()
        setConfig(client, 4, width: 2, 6)
        setConfig(client, 0x10, width: 4, 0x4000_0000)
        client.write(region: 0, offset: 8, width: 8, value: 0x1122_3344_5566_7788)
        client.write(region: 2, offset: 0x1010, width: 4, value: 0xFEE0_0000)
        try client.setMigrationState(.stopCopy)
        #expect(served.card.isStopped)
        return try client.readMigrationData()
    }

    @Test func `a card's configuration space, MSI-X table and model move to another card`() throws {
        let state = try savedCard()
        let served = try ServedCard()
        let client = try served.client()
        #expect(try client.migrationFlags() == MigrationFlags.stopCopy)
        try client.setMigrationState(.resuming)
        try client.writeMigrationData(state)
        #expect(!served.endpoint.dma.isEnabled)
        try client.setMigrationState(.running)
        #expect(!served.card.isStopped && served.endpoint.dma.isEnabled)
        #expect(config(client, 4, width: 2) == 6 && config(client, 0x10, width: 4) == 0x4000_0000)
        #expect(client.read(region: 0, offset: 8, width: 8) == 0x1122_3344_5566_7788)
        #expect(client.read(region: 2, offset: 0x1010, width: 4) == 0xFEE0_0000)
    }

    @Test(arguments: [(13, "the identity"), (12, "the version"), (-1, "a shorter state")])
    func `a state that is not of this card is refused, and a reset brings the card back`(
        place: Int, what: String
    ) throws {
        var state = try savedCard()
        if place < 0 { state.removeLast() } else { state[place] ^= 1 }
        let served = try ServedCard()
        let client = try served.client()
        try client.setMigrationState(.resuming)
        try client.writeMigrationData(state)
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try client.setMigrationState(.stop) }
        #expect(try client.migrationState() == .error)
        try client.reset()
        #expect(try client.migrationState() == .running)
        #expect(!served.card.isStopped)
        setConfig(client, 4, width: 2, 2)
        #expect(client.read(region: 0, offset: 8, width: 8) == 0)
    }
}
