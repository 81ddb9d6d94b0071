/// What an endpoint is: everything that its configuration space says before software touches it.
public struct EndpointDescription: Sendable {
    /// A memory window of a base address register.
    public struct BAR: Sendable {
        public var index: Int
        /// A power of two, 16 or more.
        public var size: UInt64
        public var is64Bit: Bool
        public var isPrefetchable: Bool

        public init(_ index: Int, size: UInt64, is64Bit: Bool = false, isPrefetchable: Bool = false) {
            self.index = index
            self.size = size
            self.is64Bit = is64Bit
            self.isPrefetchable = isPrefetchable
        }
    }

    /// MSI-X vectors, and where their table and pending bits lie. The endpoint answers accesses there itself; the
    /// model never sees them.
    public struct MSIX: Sendable {
        public var vectors: Int
        public var tableBAR: Int
        public var tableOffset: UInt32
        public var pbaBAR: Int
        public var pbaOffset: UInt32

        public init(vectors: Int, tableBAR: Int, tableOffset: UInt32 = 0, pbaBAR: Int? = nil, pbaOffset: UInt32) {
            self.vectors = vectors
            self.tableBAR = tableBAR
            self.tableOffset = tableOffset
            self.pbaBAR = pbaBAR ?? tableBAR
            self.pbaOffset = pbaOffset
        }
    }

    /// A vendor-specific capability. Spec: PCI Express Base §7.9.4.
    public struct VendorCapability: Sendable {
        /// What follows the identifier and the link to the next capability: first the capability's length, which is
        /// filled in here, then the vendor's own bytes.
        public var bytes: [UInt8]
        /// Accesses that lie in the capability go to the model instead: registers that do something. The identifier
        /// and the link are still answered here.
        public var isLive: Bool

        /// - Parameter bytes: from the capability's fourth byte on; at most 188.
        public init(_ bytes: [UInt8], isLive: Bool = false) {
            self.bytes = [UInt8(truncatingIfNeeded: bytes.count + 3)] + bytes
            self.isLive = isLive
        }

        /// With the identifier and the link.
        var size: Int { bytes.count + 2 }
    }

    public var vendor: UInt16
    public var device: UInt16
    /// Base class, subclass and programming interface: 0x12_00_00 is a processing accelerator.
    public var classCode: UInt32
    public var subsystemVendor: UInt16
    public var subsystem: UInt16
    public var revision: UInt8
    public var bars: [BAR]
    public var msix: MSIX?
    /// 1…4 for INTA#…INTD#, 0 for none.
    public var interruptPin: UInt8
    /// In the order in which software finds them.
    public var vendorCapabilities: [VendorCapability]
    /// MSI vectors beside or instead of MSI-X: 0 for none, else a power of two up to 32.
    public var msiVectors = 0
    /// False: going from D3hot back to D0 resets the function (No_Soft_Reset clear).
    public var keepsStateInD3 = true
    /// The function may ask for service from D0 and D3hot (PME).
    public var canRequestService = false
    /// Advanced Error Reporting.
    public var hasErrorReporting = true
    /// The 64 bits of a device serial number (EUI-64), or none.
    public var serialNumber: UInt64?
    /// The protocols of a data object mailbox beside discovery; nil for no mailbox.
    public var dataObjects: [DataObjectProtocol]?
    /// The vector that the mailbox interrupts with, or nil where it is only polled.
    public var dataObjectVector: Int?

    public init(
        vendor: UInt16, device: UInt16, classCode: UInt32, subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0,
        revision: UInt8 = 0, bars: [BAR] = [], msix: MSIX? = nil, interruptPin: UInt8 = 0,
        vendorCapabilities: [VendorCapability] = []
    ) {
        self.vendor = vendor
        self.device = device
        self.classCode = classCode
        self.subsystemVendor = subsystemVendor
        self.subsystem = subsystem
        self.revision = revision
        self.bars = bars
        self.msix = msix
        self.interruptPin = interruptPin
        self.vendorCapabilities = vendorCapabilities
    }

    /// The configuration space after reset: a type 0 header, the base address registers, power management, PCI
    /// Express, MSI-X and MSI if there are any, the vendor's capabilities; then error reporting, serial number and data
    /// object mailbox.
    public func makeConfigurationSpace() -> ConfigurationSpace {
        var space = ConfigurationSpace()
        space.set16(ConfigurationRegister.vendorID, vendor)
        space.set16(ConfigurationRegister.deviceID, device)
        space.set16(ConfigurationRegister.command, 0, writable: CommandBits.writable)
        space.set(ConfigurationRegister.status, UInt16(0), writeOneToClear: StatusBits.writeOneToClear)
        space.set8(ConfigurationRegister.revisionID, revision)
        space.set8(ConfigurationRegister.classProgrammingInterface, UInt8(truncatingIfNeeded: classCode))
        space.set16(ConfigurationRegister.classDevice, UInt16(truncatingIfNeeded: classCode >> 8))
        space.set8(ConfigurationRegister.cacheLineSize, 0, writable: 0xFF)
        space.set8(ConfigurationRegister.headerType, HeaderType.normal)
        space.set16(ConfigurationRegister.subsystemVendorID, subsystemVendor)
        space.set16(ConfigurationRegister.subsystemID, subsystem)
        space.set8(ConfigurationRegister.interruptLine, 0, writable: 0xFF)
        space.set8(ConfigurationRegister.interruptPin, interruptPin)
        for bar in bars {
            space.setBaseAddress(bar.index, size: bar.size, is64Bit: bar.is64Bit, prefetchable: bar.isPrefetchable)
        }
        space.addPowerManagement(keepsState: keepsStateInD3, canRequestService: canRequestService)
        space.addExpress(type: ExpressRegister.typeEndpoint)
        if let msix {
            space.addMSIX(
                vectors: msix.vectors, tableBAR: msix.tableBAR, tableOffset: msix.tableOffset, pbaBAR: msix.pbaBAR,
                pbaOffset: msix.pbaOffset)
        }
        if msiVectors > 0 { space.addMSI(vectors: msiVectors) }
        for capability in vendorCapabilities {
            let place = space.addCapability(CapabilityID.vendorSpecific, size: capability.size)
            for (index, byte) in capability.bytes.enumerated() { space.set8(place + 2 + index, byte) }
        }
        if hasErrorReporting { _ = ErrorLog.add(to: &space, isRoot: false) }
        if let serialNumber {
            let place = space.addExtendedCapability(
                ExtendedCapabilityID.deviceSerialNumber, version: 1, size: 12)
            space.set(place + 4, serialNumber)
        }
        if dataObjects != nil {
            space.addExtendedCapability(
                ExtendedCapabilityID.dataObjectExchange, version: 2, size: DataObjectMailbox.Register.size)
        }
        return space
    }
}
