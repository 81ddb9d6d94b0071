internal import CPCI

// Names of what root ports and errors add to configuration space, from libpci's header.

/// Bits of the slot registers. Spec: PCI Express Base §7.5.3.9 to §7.5.3.11.
public enum SlotBits {
    /// Slot Capabilities.
    public static let attentionButton = UInt32(PCI_EXP_SLTCAP_ATNB)
    public static let powerController = UInt32(PCI_EXP_SLTCAP_PWRC)
    public static let attentionIndicator = UInt32(PCI_EXP_SLTCAP_ATNI)
    public static let powerIndicator = UInt32(PCI_EXP_SLTCAP_PWRI)
    public static let hotPlugSurprise = UInt32(PCI_EXP_SLTCAP_HPS)
    public static let hotPlugCapable = UInt32(PCI_EXP_SLTCAP_HPC)

    /// Slot Control: enables, whose places are those of the events in Slot Status, but for the last.
    public static let attentionButtonEnable = UInt16(PCI_EXP_SLTCTL_ATNB)
    public static let powerFaultEnable = UInt16(PCI_EXP_SLTCTL_PWRF)
    public static let presenceEnable = UInt16(PCI_EXP_SLTCTL_PRSD)
    public static let commandCompletedEnable = UInt16(PCI_EXP_SLTCTL_CMDC)
    public static let hotPlugInterruptEnable = UInt16(PCI_EXP_SLTCTL_HPIE)
    public static let attentionIndicatorControl = UInt16(PCI_EXP_SLTCTL_ATNI)
    public static let powerIndicatorControl = UInt16(PCI_EXP_SLTCTL_PWRI)
    /// Set: the slot's power is off.
    public static let powerOff = UInt16(PCI_EXP_SLTCTL_PWRC)
    public static let linkStateEnable = UInt16(PCI_EXP_SLTCTL_LLCHG)
    /// Both indicators off.
    public static let indicatorsOff = attentionIndicatorControl | powerIndicatorControl
    public static let controlWritable =
        attentionButtonEnable | powerFaultEnable | presenceEnable | commandCompletedEnable | hotPlugInterruptEnable
        | indicatorsOff | powerOff | linkStateEnable

    /// Slot Status.
    public static let attentionButtonPressed = UInt16(PCI_EXP_SLTSTA_ATNB)
    public static let powerFault = UInt16(PCI_EXP_SLTSTA_PWRF)
    public static let presenceChanged = UInt16(PCI_EXP_SLTSTA_PRSD)
    public static let commandCompleted = UInt16(PCI_EXP_SLTSTA_CMDC)
    public static let presence = UInt16(PCI_EXP_SLTSTA_PRES)
    public static let linkStateChanged = UInt16(PCI_EXP_SLTSTA_LLCHG)
    public static let statusWriteOneToClear =
        attentionButtonPressed | powerFault | presenceChanged | commandCompleted | linkStateChanged
}

/// Bits of the root registers. Spec: PCI Express Base §7.5.3.12 to §7.5.3.14.
public enum RootBits {
    public static let pmeInterruptEnable = UInt16(PCI_EXP_RTCTL_PMEIE)
    public static let controlWritable =
        UInt16(PCI_EXP_RTCTL_SECEE) | UInt16(PCI_EXP_RTCTL_SENFEE) | UInt16(PCI_EXP_RTCTL_SEFEE) | pmeInterruptEnable
    public static let pmeStatus = UInt32(PCI_EXP_RTSTA_PME_STATUS)
    public static let pmePending = UInt32(PCI_EXP_RTSTA_PME_PENDING)
}

/// Bits of Device Control and Device Status that are of errors. Spec: PCI Express Base §7.5.3.4, §7.5.3.5.
public enum DeviceErrorBits {
    public static let correctableEnable = UInt16(PCI_EXP_DEVCTL_CERE)
    public static let nonFatalEnable = UInt16(PCI_EXP_DEVCTL_NFERE)
    public static let fatalEnable = UInt16(PCI_EXP_DEVCTL_FERE)
    public static let unsupportedRequestEnable = UInt16(PCI_EXP_DEVCTL_URRE)
    public static let enables = correctableEnable | nonFatalEnable | fatalEnable | unsupportedRequestEnable
    public static let correctableDetected = UInt16(PCI_EXP_DEVSTA_CED)
    public static let nonFatalDetected = UInt16(PCI_EXP_DEVSTA_NFED)
    public static let fatalDetected = UInt16(PCI_EXP_DEVSTA_FED)
    public static let unsupportedRequestDetected = UInt16(PCI_EXP_DEVSTA_URD)
    public static let detected =
        correctableDetected | nonFatalDetected | fatalDetected | unsupportedRequestDetected
}

/// Identifiers in the list of extended capabilities.
public enum ExtendedCapabilityID {
    public static let advancedErrorReporting = UInt16(PCI_EXT_CAP_ID_AER)
    public static let deviceSerialNumber = UInt16(PCI_EXT_CAP_ID_DSN)
    public static let dataObjectExchange = UInt16(PCI_EXT_CAP_ID_DOE)
}

/// Offsets and bits of Advanced Error Reporting. Spec: PCI Express Base §7.8.4.
public enum ErrorRegister {
    public static let uncorrectableStatus = Int(PCI_ERR_UNCOR_STATUS)
    public static let uncorrectableMask = Int(PCI_ERR_UNCOR_MASK)
    public static let uncorrectableSeverity = Int(PCI_ERR_UNCOR_SEVER)
    public static let correctableStatus = Int(PCI_ERR_COR_STATUS)
    public static let correctableMask = Int(PCI_ERR_COR_MASK)
    public static let control = Int(PCI_ERR_CAP)
    public static let headerLog = Int(PCI_ERR_HEADER_LOG)
    public static let rootCommand = Int(PCI_ERR_ROOT_COMMAND)
    public static let rootStatus = Int(PCI_ERR_ROOT_STATUS)
    public static let correctableSource = Int(PCI_ERR_ROOT_COR_SRC)
    public static let uncorrectableSource = Int(PCI_ERR_ROOT_SRC)

    /// The five bits of the First Error Pointer in `control`.
    public static let firstErrorMask: UInt32 = 0x1F

    public static let correctableReceived = UInt32(PCI_ERR_ROOT_COR_RCV)
    public static let correctableMultiple = UInt32(PCI_ERR_ROOT_MULTI_COR_RCV)
    public static let uncorrectableReceived = UInt32(PCI_ERR_ROOT_UNCOR_RCV)
    public static let uncorrectableMultiple = UInt32(PCI_ERR_ROOT_MULTI_UNCOR_RCV)
    public static let firstFatal = UInt32(PCI_ERR_ROOT_FIRST_FATAL)
    public static let nonFatalReceived = UInt32(PCI_ERR_ROOT_NONFATAL_RCV)
    public static let fatalReceived = UInt32(PCI_ERR_ROOT_FATAL_RCV)

    public static let correctableEnable = UInt32(PCI_ERR_ROOT_CMD_COR_EN)
    public static let nonFatalEnable = UInt32(PCI_ERR_ROOT_CMD_NONFATAL_EN)
    public static let fatalEnable = UInt32(PCI_ERR_ROOT_CMD_FATAL_EN)

    /// Bytes of an endpoint's capability, without TLP prefixes.
    public static let endpointSize = 0x2C
    /// Bytes of a root port's.
    public static let rootSize = 0x38
}

/// Offsets and bits of the MSI capability. Spec: PCI Express Base §7.7.1.
public enum MSIRegister {
    public static let control = Int(PCI_MSI_FLAGS)
    public static let address = Int(PCI_MSI_ADDRESS_LO)
    public static let addressUpper = Int(PCI_MSI_ADDRESS_HI)
    public static let data32 = Int(PCI_MSI_DATA_32)
    public static let data64 = Int(PCI_MSI_DATA_64)
    public static let mask32 = Int(PCI_MSI_MASK_BIT_32)
    public static let mask64 = Int(PCI_MSI_MASK_BIT_64)

    public static let enable = UInt16(PCI_MSI_FLAGS_ENABLE)
    public static let capable = UInt16(PCI_MSI_FLAGS_QMASK)
    public static let allocated = UInt16(PCI_MSI_FLAGS_QSIZE)
    public static let is64Bit = UInt16(PCI_MSI_FLAGS_64BIT)
    public static let perVectorMasking = UInt16(PCI_MSI_FLAGS_MASK_BIT)
}
