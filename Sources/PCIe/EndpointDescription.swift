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
    /// Express, MSI-X if there is one, and the vendor's capabilities.
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
        space.addPowerManagement()
        space.addExpress(type: ExpressRegister.typeEndpoint)
        if let msix {
            space.addMSIX(
                vectors: msix.vectors, tableBAR: msix.tableBAR, tableOffset: msix.tableOffset, pbaBAR: msix.pbaBAR,
                pbaOffset: msix.pbaOffset)
        }
        for capability in vendorCapabilities {
            let place = space.addCapability(CapabilityID.vendorSpecific, size: capability.size)
            for (index, byte) in capability.bytes.enumerated() { space.set8(place + 2 + index, byte) }
        }
        return space
    }
}
