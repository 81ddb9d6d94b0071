import PCIe
import Testing

struct ConfigurationSpaceTests {
    private func endpoint(extended: Bool = true) -> ConfigurationSpace {
        var description = EndpointDescription(
            vendor: 0x1B36, device: 0x0B0A, classCode: 0x12_00_00, subsystemVendor: 0x1111, subsystem: 0x2222,
            revision: 3,
            bars: [
                .init(0, size: 4096), .init(2, size: 1 << 20, is64Bit: true, isPrefetchable: true),
                .init(4, size: 16),
            ], msix: .init(vectors: 2, tableBAR: 0, pbaOffset: 0x800), interruptPin: 1)
        description.hasErrorReporting = extended
        return description.makeConfigurationSpace()
    }

    @Test(
        arguments: [
            (0x00, 2, 0x1B36), (0x02, 2, 0x0B0A), (0x00, 4, 0x0B0A_1B36), (0x08, 1, 3), (0x08, 4, 0x1200_0003),
            (0x0B, 1, 0x12), (0x0E, 1, 0), (0x2C, 4, 0x2222_1111), (0x3D, 1, 1), (0x06, 2, 0x10),
            (0xFFF, 1, 0), (0xFFE, 4, 0xFFFF_0000), (0x1000, 2, 0xFFFF),
        ] as [(Int, Int, UInt64)])
    func `a register reads as the description says`(offset: Int, width: Int, value: UInt64) {
        #expect(endpoint().read(offset, width: width) == value)
    }

    /// What is written, and what is read back.
    @Test(
        arguments: [
            // Base address registers: sizing, and an address.
            (0x10, 4, 0xFFFF_FFFF, 0xFFFF_F000), (0x10, 4, 0x4123_4567, 0x4123_4000), (0x14, 4, 0xFFFF_FFFF, 0),
            (0x18, 4, 0xFFFF_FFFF, 0xFFF0_000C), (0x1C, 4, 0xFFFF_FFFF, 0xFFFF_FFFF),
            (0x20, 4, 0xFFFF_FFFF, 0xFFFF_FFF0),
            (0x24, 4, 0xFFFF_FFFF, 0), (0x30, 4, 0xFFFF_FFFF, 0),
            // Command: no I/O, no special cycles. Identity: read-only. Interrupt line: a byte of software's.
            (0x04, 2, 0xFFFF, 0x0546), (0x00, 4, 0xFFFF_FFFF, 0x0B0A_1B36), (0x3C, 2, 0xFFFF, 0x01FF),
            (0x0E, 1, 0xFF, 0),
            (0x13, 1, 0x40, 0x40), (0x10, 1, 0xFF, 0),
        ] as [(Int, Int, UInt64, UInt64)])
    func `software writes only what it may`(offset: Int, width: Int, written: UInt64, read: UInt64) {
        var space = endpoint()
        space.write(offset, width: width, value: written)
        #expect(space.read(offset, width: width) == read)
    }

    @Test func `status bits are cleared by writing ones, and only by that`() {
        var space = endpoint()
        let status = space.get16(ConfigurationRegister.status)
        space.set16(ConfigurationRegister.status, status | 0x3000)
        space.write(ConfigurationRegister.status, width: 2, value: 0x1000)
        #expect(space.get16(ConfigurationRegister.status) == status | 0x2000)
        space.write(ConfigurationRegister.status, width: 2, value: 0)
        #expect(space.get16(ConfigurationRegister.status) == status | 0x2000)
        space.write(ConfigurationRegister.command, width: 4, value: 0xFFFF_0002)
        #expect(space.get16(ConfigurationRegister.status) == status)
        #expect(space.get16(ConfigurationRegister.command) == 2)
    }

    @Test func `the capability list leads to power management, PCI Express and MSI-X`() throws {
        var space = endpoint()
        var found: [UInt8] = []
        var place = Int(space.get8(ConfigurationRegister.capabilityList))
        while place != 0 {
            #expect(place & 3 == 0 && place >= 0x40)
            found.append(space.get8(place))
            place = Int(space.get8(place + 1))
        }
        #expect(found == [1, 0x10, 0x11])
        let msix = try #require(space.capability(CapabilityID.msix))
        #expect(space.get16(msix + 2) == 1 && space.get32(msix + 4) == 0 && space.get32(msix + 8) == 0x800)
        space.write(msix + 2, width: 2, value: 0xFFFF)
        #expect(space.get16(msix + 2) == 0xC001)
        let express = try #require(space.capability(CapabilityID.express))
        #expect(space.get16(express + 2) == 0x0002)
        #expect(space.capability(0x55) == nil)
    }

    @Test func `extended capabilities chain from 0x100`() {
        var space = endpoint(extended: false)
        #expect(space.addExtendedCapability(0x0001, version: 2, size: 0x48) == 0x100)
        #expect(space.addExtendedCapability(0x000D, version: 1, size: 8) == 0x148)
        #expect(space.get32(0x100) == 0x1482_0001 && space.get32(0x148) == 0x0001_000D)
        #expect(space.extendedCapability(0x000D) == 0x148 && space.extendedCapability(0x0002) == nil)
        #expect(endpoint().extendedCapability(ExtendedCapabilityID.advancedErrorReporting) == 0x100)
    }

    @Test func `a 64-bit base address is two registers`() {
        var space = endpoint()
        space.write(0x18, width: 4, value: 0x1234_5678)
        space.write(0x1C, width: 4, value: 4)
        #expect(space.baseAddress(2, is64Bit: true) == 0x4_1230_0000)
    }
}
