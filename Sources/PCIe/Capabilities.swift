/// The capabilities that this board's functions have.
extension ConfigurationSpace {
    /// PCI Express, version 2: an endpoint or root port at the end of a 2.5 GT/s link of one lane. A port's link is
    /// down and its slot empty.
    ///
    /// Spec: PCI Express Base §7.5.3.
    @discardableResult
    public mutating func addExpress(type: UInt16, port: UInt8 = 0, slot: UInt16? = nil) -> Int {
        let place = addCapability(CapabilityID.express, size: ExpressRegister.capabilitySize)
        let isEndpoint = type == ExpressRegister.typeEndpoint
        set16(
            place + ExpressRegister.flags, 2 | type << 4 | (slot == nil ? 0 : ExpressRegister.slotImplemented))
        set32(
            place + ExpressRegister.deviceCapabilities,
            ExpressRegister.roleBasedErrors | (isEndpoint ? ExpressRegister.functionLevelResetCapable : 0))
        // Error reporting enables, relaxed ordering, payload, extended tags, no snoop, read request size.
        set16(place + ExpressRegister.deviceControl, 0x2810, writable: isEndpoint ? 0xF8FF : 0x78FF)
        set(place + ExpressRegister.deviceStatus, UInt16(0), writeOneToClear: 0xF)
        set32(
            place + ExpressRegister.linkCapabilities,
            1 | 1 << 4 | UInt32(port) << 24 | (isEndpoint ? 0 : ExpressRegister.linkActiveReporting))
        set16(place + ExpressRegister.linkControl, 0, writable: isEndpoint ? 0x01C3 : 0x01D3)
        set16(place + ExpressRegister.linkStatus, 1 | 1 << 4)
        if let slot {
            set32(
                place + ExpressRegister.slotCapabilities,
                UInt32(slot) << 19 | SlotBits.attentionButton | SlotBits.powerController
                    | SlotBits.attentionIndicator | SlotBits.powerIndicator | SlotBits.hotPlugSurprise
                    | SlotBits.hotPlugCapable)
            // Indicators off, power on.
            set16(
                place + ExpressRegister.slotControl, SlotBits.indicatorsOff, writable: SlotBits.controlWritable)
            set(place + ExpressRegister.slotStatus, UInt16(0), writeOneToClear: SlotBits.statusWriteOneToClear)
        }
        if !isEndpoint {
            set16(place + ExpressRegister.rootControl, 0, writable: RootBits.controlWritable)
            set(place + ExpressRegister.rootStatus, UInt32(0), writeOneToClear: RootBits.pmeStatus)
        }
        set16(place + ExpressRegister.deviceControl2, 0, writable: 0x001F)
        set32(place + ExpressRegister.linkCapabilities2, 1 << 1)
        set16(place + ExpressRegister.linkControl2, 1, writable: 0x000F)
        return place
    }

    /// Power management, version 3, states D0 and D3hot; between them the function keeps its state or is reset.
    ///
    /// Spec: PCI Express Base §7.5.2.
    @discardableResult
    public mutating func addPowerManagement(keepsState: Bool = true, canRequestService: Bool = false) -> Int {
        let place = addCapability(CapabilityID.powerManagement, size: PowerManagementRegister.capabilitySize)
        let events = PowerManagementRegister.pmeFromD0 | PowerManagementRegister.pmeFromD3
        set16(place + PowerManagementRegister.capabilities, 3 | (canRequestService ? events : 0))
        let control = place + PowerManagementRegister.control
        set(
            control, keepsState ? PowerManagementRegister.noSoftReset : 0,
            writable: PowerManagementRegister.stateMask
                | (canRequestService ? PowerManagementRegister.pmeEnable : 0),
            writeOneToClear: canRequestService ? PowerManagementRegister.pmeStatus : 0)
        return place
    }

    /// MSI-X with its table and pending bits in windows of base address registers.
    ///
    /// Spec: PCI Express Base §7.7.2.
    @discardableResult
    public mutating func addMSIX(vectors: Int, tableBAR: Int, tableOffset: UInt32, pbaBAR: Int, pbaOffset: UInt32)
        -> Int
    {
        precondition((1...2048).contains(vectors) && tableOffset & 7 == 0 && pbaOffset & 7 == 0, "MSI-X capability")
        let place = addCapability(CapabilityID.msix, size: MSIXRegister.capabilitySize)
        set16(
            place + MSIXRegister.control, UInt16(vectors - 1),
            writable: MSIXRegister.enable | MSIXRegister.functionMask)
        set32(place + MSIXRegister.table, tableOffset | UInt32(tableBAR))
        set32(place + MSIXRegister.pendingBits, pbaOffset | UInt32(pbaBAR))
        return place
    }

    /// MSI with 64-bit addresses and a mask for each of so many vectors, a power of two of 1 to 32.
    ///
    /// Spec: PCI Express Base §7.7.1.
    @discardableResult
    mutating func addMSI(vectors: Int) -> MSIRegisters {
        precondition((1...32).contains(vectors) && vectors & (vectors - 1) == 0, "MSI capability")
        var registers = MSIRegisters(offset: 0, control: MSIRegister.is64Bit | MSIRegister.perVectorMasking)
        let place = addCapability(CapabilityID.msi, size: registers.size)
        registers = MSIRegisters(offset: place, control: MSIRegister.is64Bit | MSIRegister.perVectorMasking)
        registers.reset(&self, vectors: vectors)
        return registers
    }
}
