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

    public init(
        vendor: UInt16, device: UInt16, classCode: UInt32, subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0,
        revision: UInt8 = 0, bars: [BAR] = [], msix: MSIX? = nil, interruptPin: UInt8 = 0
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
    }

    /// The configuration space after reset: a type 0 header, the base address registers, power management, PCI
    /// Express and, if there is one, MSI-X.
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
        return space
    }
}
