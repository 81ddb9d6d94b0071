internal import CPCI

/// The names of configuration space, from libpci's header: the one file that sees it.
///
/// Spec: PCI Local Bus 3.0 §6, PCI Express Base §7; the header is <pci/header.h> of pciutils.
public enum ConfigurationRegister {
    public static let vendorID = Int(PCI_VENDOR_ID)
    public static let deviceID = Int(PCI_DEVICE_ID)
    public static let command = Int(PCI_COMMAND)
    public static let status = Int(PCI_STATUS)
    public static let revisionID = Int(PCI_REVISION_ID)
    public static let classProgrammingInterface = Int(PCI_CLASS_PROG)
    public static let classDevice = Int(PCI_CLASS_DEVICE)
    public static let cacheLineSize = Int(PCI_CACHE_LINE_SIZE)
    public static let latencyTimer = Int(PCI_LATENCY_TIMER)
    public static let headerType = Int(PCI_HEADER_TYPE)
    public static let baseAddress0 = Int(PCI_BASE_ADDRESS_0)
    public static let capabilityList = Int(PCI_CAPABILITY_LIST)
    public static let interruptLine = Int(PCI_INTERRUPT_LINE)
    public static let interruptPin = Int(PCI_INTERRUPT_PIN)

    // Type 0.
    public static let subsystemVendorID = Int(PCI_SUBSYSTEM_VENDOR_ID)
    public static let subsystemID = Int(PCI_SUBSYSTEM_ID)
    public static let romAddress = Int(PCI_ROM_ADDRESS)

    // Type 1.
    public static let primaryBus = Int(PCI_PRIMARY_BUS)
    public static let secondaryBus = Int(PCI_SECONDARY_BUS)
    public static let subordinateBus = Int(PCI_SUBORDINATE_BUS)
    public static let secondaryLatencyTimer = Int(PCI_SEC_LATENCY_TIMER)
    public static let ioBase = Int(PCI_IO_BASE)
    public static let ioLimit = Int(PCI_IO_LIMIT)
    public static let secondaryStatus = Int(PCI_SEC_STATUS)
    public static let memoryBase = Int(PCI_MEMORY_BASE)
    public static let memoryLimit = Int(PCI_MEMORY_LIMIT)
    public static let prefetchableBase = Int(PCI_PREF_MEMORY_BASE)
    public static let prefetchableLimit = Int(PCI_PREF_MEMORY_LIMIT)
    public static let prefetchableBaseUpper = Int(PCI_PREF_BASE_UPPER32)
    public static let prefetchableLimitUpper = Int(PCI_PREF_LIMIT_UPPER32)
    public static let bridgeControl = Int(PCI_BRIDGE_CONTROL)

    /// Bytes before the first capability can lie.
    public static let headerSize = 0x40
    /// Bytes of the configuration space that PCI had; extended capabilities begin here.
    public static let conventionalSize = 0x100
    /// Bytes of a function's configuration space.
    public static let size = 0x1000
}

/// Bits of the command register. Spec: PCI Express Base §7.5.1.1.3.
public enum CommandBits {
    public static let io = UInt16(PCI_COMMAND_IO)
    public static let memory = UInt16(PCI_COMMAND_MEMORY)
    public static let master = UInt16(PCI_COMMAND_MASTER)
    public static let parity = UInt16(PCI_COMMAND_PARITY)
    public static let serr = UInt16(PCI_COMMAND_SERR)
    public static let disableINTx = UInt16(PCI_COMMAND_DISABLE_INTx)
    /// What software may write in a PCI Express function without I/O space.
    public static let writable = memory | master | parity | serr | disableINTx
}

/// Bits of the status register. Spec: PCI Express Base §7.5.1.1.4.
public enum StatusBits {
    public static let interrupt = UInt16(PCI_STATUS_INTx)
    public static let capabilityList = UInt16(PCI_STATUS_CAP_LIST)
    /// The error bits, which software clears by writing ones.
    public static let writeOneToClear =
        UInt16(PCI_STATUS_PARITY) | UInt16(PCI_STATUS_SIG_TARGET_ABORT) | UInt16(PCI_STATUS_REC_TARGET_ABORT)
        | UInt16(PCI_STATUS_REC_MASTER_ABORT) | UInt16(PCI_STATUS_SIG_SYSTEM_ERROR) | UInt16(PCI_STATUS_DETECTED_PARITY)
}

/// Bits of base address registers. Spec: PCI Express Base §7.5.1.2.1.
public enum BaseAddressBits {
    public static let memory64 = UInt32(PCI_BASE_ADDRESS_MEM_TYPE_64)
    public static let prefetchable = UInt32(PCI_BASE_ADDRESS_MEM_PREFETCH)
    public static let space = UInt32(PCI_BASE_ADDRESS_SPACE)
    /// Bits that are flags, not address.
    public static let memoryFlags: UInt32 = 0xF
    public static let ioFlags: UInt32 = 0x3
    public static let romEnable = UInt32(PCI_ROM_ADDRESS_ENABLE)
}

public enum HeaderType {
    public static let normal = UInt8(PCI_HEADER_TYPE_NORMAL)
    public static let bridge = UInt8(PCI_HEADER_TYPE_BRIDGE)
    /// The device has functions besides function 0.
    public static let multipleFunctions: UInt8 = 0x80
}

/// Bits of a bridge's control register. Spec: PCI Express Base §7.5.1.3.13.
public enum BridgeControlBits {
    public static let parity = UInt16(PCI_BRIDGE_CTL_PARITY)
    public static let serr = UInt16(PCI_BRIDGE_CTL_SERR)
    public static let busReset = UInt16(PCI_BRIDGE_CTL_BUS_RESET)
}

/// Identifiers in the list of capabilities.
public enum CapabilityID {
    public static let powerManagement = UInt8(PCI_CAP_ID_PM)
    public static let msi = UInt8(PCI_CAP_ID_MSI)
    public static let express = UInt8(PCI_CAP_ID_EXP)
    public static let msix = UInt8(PCI_CAP_ID_MSIX)
    public static let vendorSpecific = UInt8(PCI_CAP_ID_VNDR)
    public static let bridgeSubsystem = UInt8(PCI_CAP_ID_SSVID)
}

/// Offsets and bits of the MSI-X capability and of a table entry. Spec: PCI Express Base §7.7.2.
public enum MSIXRegister {
    public static let control = Int(PCI_CAP_FLAGS)
    public static let table = Int(PCI_MSIX_TABLE)
    public static let pendingBits = Int(PCI_MSIX_PBA)
    public static let enable = UInt16(PCI_MSIX_ENABLE)
    public static let functionMask = UInt16(PCI_MSIX_MASK)
    public static let tableSize = UInt16(PCI_MSIX_TABSIZE)
    public static let barMask = UInt32(PCI_MSIX_BIR)
    /// Bytes of the capability.
    public static let capabilitySize = 12
    /// Bytes of a table entry: address u64, data u32, control u32.
    public static let entrySize = 16
    /// Bit 0 of an entry's control word.
    public static let entryMask: UInt32 = 1
}

/// Offsets and bits of the PCI Express capability. Spec: PCI Express Base §7.5.3.
public enum ExpressRegister {
    public static let flags = Int(PCI_EXP_FLAGS)
    public static let deviceCapabilities = Int(PCI_EXP_DEVCAP)
    public static let deviceControl = Int(PCI_EXP_DEVCTL)
    public static let deviceStatus = Int(PCI_EXP_DEVSTA)
    public static let linkCapabilities = Int(PCI_EXP_LNKCAP)
    public static let linkControl = Int(PCI_EXP_LNKCTL)
    public static let linkStatus = Int(PCI_EXP_LNKSTA)
    public static let slotCapabilities = Int(PCI_EXP_SLTCAP)
    public static let slotControl = Int(PCI_EXP_SLTCTL)
    public static let slotStatus = Int(PCI_EXP_SLTSTA)
    public static let rootControl = Int(PCI_EXP_RTCTL)
    public static let rootStatus = Int(PCI_EXP_RTSTA)
    public static let deviceControl2 = Int(PCI_EXP_DEVCTL2)
    public static let linkCapabilities2 = Int(PCI_EXP_LNKCAP2)
    public static let linkControl2 = Int(PCI_EXP_LNKCTL2)

    public static let typeEndpoint = UInt16(PCI_EXP_TYPE_ENDPOINT)
    public static let typeRootPort = UInt16(PCI_EXP_TYPE_ROOT_PORT)
    public static let slotImplemented = UInt16(PCI_EXP_FLAGS_SLOT)
    public static let functionLevelResetCapable = UInt32(PCI_EXP_DEVCAP_FLRESET)
    public static let roleBasedErrors = UInt32(PCI_EXP_DEVCAP_RBE)
    public static let functionLevelReset = UInt16(PCI_EXP_DEVCTL_FLRESET)
    public static let linkActiveReporting = UInt32(PCI_EXP_LNKCAP_DLLA)
    public static let linkActive = UInt16(PCI_EXP_LNKSTA_DL_ACT)
    public static let linkDisable = UInt16(PCI_EXP_LNKCTL_DISABLE)
    public static let presenceDetected = UInt16(PCI_EXP_SLTSTA_PRES)
    /// Bytes of the capability's second version.
    public static let capabilitySize = 0x3C
}

/// Offsets and bits of the power management capability. Spec: PCI Express Base §7.5.2.
public enum PowerManagementRegister {
    public static let capabilities = Int(PCI_CAP_FLAGS)
    public static let control = Int(PCI_PM_CTRL)
    public static let stateMask = UInt16(PCI_PM_CTRL_STATE_MASK)
    public static let noSoftReset = UInt16(PCI_PM_CTRL_NO_SOFT_RST)
    /// The state D3hot.
    public static let d3: UInt16 = 3
    public static let pmeEnable = UInt16(PCI_PM_CTRL_PME_ENABLE)
    public static let pmeStatus = UInt16(PCI_PM_CTRL_PME_STATUS)
    /// In `capabilities`: an event can come from D0, from D3hot.
    public static let pmeFromD0 = UInt16(PCI_PM_CAP_PME_D0)
    public static let pmeFromD3 = UInt16(PCI_PM_CAP_PME_D3_HOT)
    /// Bytes of the capability.
    public static let capabilitySize = 8
}

/// Base class and subclass, as `ClassCode`'s upper 16 bits. Spec: PCI Code and ID Assignment 1.11.
public enum ClassID {
    public static let hostBridge = UInt16(PCI_CLASS_BRIDGE_HOST)
    public static let pciBridge = UInt16(PCI_CLASS_BRIDGE_PCI)
    public static let ethernet = UInt16(PCI_CLASS_NETWORK_ETHERNET)
    /// Processing accelerators; libpci's header of Debian 12 has no name for it.
    public static let processingAccelerator: UInt16 = 0x1200
}

/// Vendors that this board uses.
public enum VendorID {
    /// Red Hat, whose range QEMU and this board use for virtual devices.
    public static let redHat: UInt16 = 0x1B36
}
