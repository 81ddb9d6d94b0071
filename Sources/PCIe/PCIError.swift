/// An error that a function detects, by its bit in the status registers of Advanced Error Reporting.
///
/// Spec: PCI Express Base §6.2, §7.8.4.2, §7.8.4.5.
public struct PCIError: Hashable, Sendable, CustomStringConvertible {
    public var isCorrectable: Bool
    /// 0…31.
    public var bit: Int

    public static func correctable(_ bit: Int) -> PCIError { PCIError(isCorrectable: true, bit: bit) }
    public static func uncorrectable(_ bit: Int) -> PCIError { PCIError(isCorrectable: false, bit: bit) }

    public static let completionTimeout = uncorrectable(14)
    public static let unsupportedRequest = uncorrectable(20)
    public static let uncorrectableInternal = uncorrectable(22)
    public static let advisoryNonFatal = correctable(13)

    /// The names by which QEMU's `pcie_aer_inject_error` takes them.
    public static let names: [(name: String, error: PCIError)] = [
        ("DLP", uncorrectable(4)), ("SDN", uncorrectable(5)), ("POISON_TLP", uncorrectable(12)),
        ("FCP", uncorrectable(13)), ("COMP_TIME", completionTimeout), ("COMP_ABORT", uncorrectable(15)),
        ("UNX_COMP", uncorrectable(16)), ("RX_OVER", uncorrectable(17)), ("MALF_TLP", uncorrectable(18)),
        ("ECRC", uncorrectable(19)), ("UNSUP", unsupportedRequest), ("ACSV", uncorrectable(21)),
        ("INTN", uncorrectableInternal), ("MCBTLP", uncorrectable(23)), ("ATOP_EBLOCKED", uncorrectable(24)),
        ("TLP_PRF_BLOCKED", uncorrectable(25)),
        ("RCVR", correctable(0)), ("BAD_TLP", correctable(6)), ("BAD_DLLP", correctable(7)),
        ("REP_ROLL", correctable(8)), ("REP_TIMER", correctable(12)), ("ADVISORY_NONFATAL", advisoryNonFatal),
        ("INTERNAL", correctable(14)), ("HL_OVERFLOW", correctable(15)),
    ]

    /// The error of a name of the list, or the common one of a class: `correctable`, `nonfatal`, `fatal`.
    public init?(named name: String) {
        switch name {
        case "correctable": self = .correctable(0)
        case "nonfatal": self = .completionTimeout
        case "fatal": self = .uncorrectable(18)
        default:
            guard let entry = Self.names.first(where: { $0.name == name }) else { return nil }
            self = entry.error
        }
    }

    public init(isCorrectable: Bool, bit: Int) {
        self.isCorrectable = isCorrectable
        self.bit = bit
    }

    public var description: String {
        Self.names.first { $0.error == self }?.name ?? "\(isCorrectable ? "correctable" : "uncorrectable") error \(bit)"
    }

    /// The bits that an endpoint or root port without optional features may set.
    static let correctableBits: UInt32 = 0xF1C1
    static let uncorrectableBits: UInt32 = 0x03FF_F030
    /// Severity after reset: fatal are data link protocol, surprise down, flow control, receiver overflow, malformed
    /// TLP, internal. Spec: PCI Express Base §7.8.4.4.
    static let defaultSeverity: UInt32 = 0x0046_2030
    /// Mask after reset of correctable errors: advisory non-fatal, corrected internal, header log overflow.
    static let defaultCorrectableMask: UInt32 = 0xE000
    /// Mask after reset of uncorrectable errors: the internal one. Spec: PCI Express Base §7.8.4.3.
    static let defaultUncorrectableMask: UInt32 = 1 << 22
}

/// What a function sends to its root port. Spec: PCI Express Base §2.2.8.3 (message codes).
public enum ErrorMessage: UInt8, Hashable, Sendable {
    case correctable = 0x30
    case nonFatal = 0x31
    case fatal = 0x33
}

/// How an error is logged in a function's registers.
struct ErrorLog: Sendable {
    /// The PCI Express capability.
    var express: Int
    /// Advanced Error Reporting, where the function has it.
    var advanced: Int?

    /// Adds the capability, with the registers of a root port if it is one.
    static func add(to space: inout ConfigurationSpace, isRoot: Bool) -> Int {
        let size = isRoot ? ErrorRegister.rootSize : ErrorRegister.endpointSize
        let place = space.addExtendedCapability(ExtendedCapabilityID.advancedErrorReporting, version: 2, size: size)
        reset(&space, at: place, isRoot: isRoot)
        return place
    }

    /// The registers after reset.
    static func reset(_ space: inout ConfigurationSpace, at place: Int, isRoot: Bool) {
        space.set(
            place + ErrorRegister.uncorrectableStatus, UInt32(0), writeOneToClear: PCIError.uncorrectableBits)
        space.set32(
            place + ErrorRegister.uncorrectableMask, PCIError.defaultUncorrectableMask,
            writable: PCIError.uncorrectableBits)
        space.set32(
            place + ErrorRegister.uncorrectableSeverity, PCIError.defaultSeverity,
            writable: PCIError.uncorrectableBits)
        space.set(place + ErrorRegister.correctableStatus, UInt32(0), writeOneToClear: PCIError.correctableBits)
        space.set32(
            place + ErrorRegister.correctableMask, PCIError.defaultCorrectableMask, writable: PCIError.correctableBits)
        // No ECRC, one header.
        space.set32(place + ErrorRegister.control, 0)
        for word in 0..<4 { space.set32(place + ErrorRegister.headerLog + word * 4, 0) }
        guard isRoot else { return }
        space.set32(place + ErrorRegister.rootCommand, 0, writable: 7)
        space.set(place + ErrorRegister.rootStatus, UInt32(0), writeOneToClear: 0x7F)
        space.set32(place + ErrorRegister.correctableSource, 0)
    }

    /// Sets what an error sets and returns the message that it sends, if any.
    ///
    /// `isAdvisory`: a non-fatal error that another agent will handle is signalled as a correctable one.
    /// Spec: PCI Express Base §6.2.3.2.4 (advisory), §6.2.5 (sequence).
    func record(
        _ error: PCIError, header: [UInt32]?, isAdvisory: Bool = false, in space: inout ConfigurationSpace
    ) -> ErrorMessage? {
        error.isCorrectable
            ? recordCorrectable(error.bit, in: &space)
            : recordUncorrectable(error, header, isAdvisory, in: &space)
    }

    private func detect(_ bit: UInt16, in space: inout ConfigurationSpace) {
        let place = express + ExpressRegister.deviceStatus
        space.set16(place, space.get16(place) | bit)
    }

    private func enables(_ space: ConfigurationSpace) -> UInt16 {
        space.get16(express + ExpressRegister.deviceControl)
    }

    private func recordCorrectable(_ bit: Int, in space: inout ConfigurationSpace) -> ErrorMessage? {
        detect(DeviceErrorBits.correctableDetected, in: &space)
        if let advanced {
            let mask: UInt32 = 1 << UInt32(bit & 31)
            space.set32(
                advanced + ErrorRegister.correctableStatus,
                space.get32(advanced + ErrorRegister.correctableStatus) | mask)
            if space.get32(advanced + ErrorRegister.correctableMask) & mask != 0 { return nil }
        }
        return enables(space) & DeviceErrorBits.correctableEnable != 0 ? .correctable : nil
    }

    private func recordUncorrectable(
        _ error: PCIError, _ header: [UInt32]?, _ isAdvisory: Bool, in space: inout ConfigurationSpace
    ) -> ErrorMessage? {
        let mask: UInt32 = 1 << UInt32(error.bit & 31)
        let severity =
            advanced.map { space.get32($0 + ErrorRegister.uncorrectableSeverity) } ?? PCIError.defaultSeverity
        let isFatal = severity & mask != 0
        let isAdvisory = isAdvisory && !isFatal
        if error == .unsupportedRequest { detect(DeviceErrorBits.unsupportedRequestDetected, in: &space) }
        if isAdvisory {
            detect(DeviceErrorBits.correctableDetected, in: &space)
        } else {
            detect(isFatal ? DeviceErrorBits.fatalDetected : DeviceErrorBits.nonFatalDetected, in: &space)
        }
        var isMasked = false
        if let advanced {
            isMasked = space.get32(advanced + ErrorRegister.uncorrectableMask) & mask != 0
            let isSilent = isMasked
            if isAdvisory {
                let advisory: UInt32 = 1 << UInt32(PCIError.advisoryNonFatal.bit)
                space.set32(
                    advanced + ErrorRegister.correctableStatus,
                    space.get32(advanced + ErrorRegister.correctableStatus) | advisory)
                // A masked advisory error logs nothing more.
                if space.get32(advanced + ErrorRegister.correctableMask) & advisory != 0 { return nil }
            }
            log(mask, error.bit, header, isSilent: isSilent, advanced, in: &space)
        }
        if isMasked { return nil }
        return message(isFatal: isFatal, isAdvisory: isAdvisory, error, &space)
    }

    /// Status bit, and for the first error that is not masked its number and the header of its packet.
    private func log(
        _ mask: UInt32, _ bit: Int, _ header: [UInt32]?, isSilent: Bool, _ advanced: Int,
        in space: inout ConfigurationSpace
    ) {
        let status = space.get32(advanced + ErrorRegister.uncorrectableStatus)
        let control = space.get32(advanced + ErrorRegister.control)
        // The pointer is valid while the bit that it names is set.
        let isTaken = status & 1 << (control & ErrorRegister.firstErrorMask) != 0
        space.set32(advanced + ErrorRegister.uncorrectableStatus, status | mask)
        guard !isTaken, !isSilent else { return }
        space.set32(advanced + ErrorRegister.control, control & ~ErrorRegister.firstErrorMask | UInt32(bit & 31))
        for word in 0..<4 {
            let value = header.map { $0.indices.contains(word) ? $0[word] : 0 } ?? 0
            space.set32(advanced + ErrorRegister.headerLog + word * 4, value)
        }
    }

    private func message(
        isFatal: Bool, isAdvisory: Bool, _ error: PCIError, _ space: inout ConfigurationSpace
    ) -> ErrorMessage? {
        let enables = enables(space)
        let isSystemErrorOn = space.get16(ConfigurationRegister.command) & CommandBits.serr != 0
        if error == .unsupportedRequest, !isSystemErrorOn, enables & DeviceErrorBits.unsupportedRequestEnable == 0 {
            return nil
        }
        if isAdvisory { return enables & DeviceErrorBits.correctableEnable != 0 ? .correctable : nil }
        let enable = isFatal ? DeviceErrorBits.fatalEnable : DeviceErrorBits.nonFatalEnable
        guard isSystemErrorOn || enables & enable != 0 else { return nil }
        if isSystemErrorOn {
            let status = space.get16(ConfigurationRegister.status)
            space.set16(ConfigurationRegister.status, status | StatusBits.signalledSystemError)
        }
        return isFatal ? .fatal : .nonFatal
    }
}

extension StatusBits {
    /// Signaled System Error; in a bridge's secondary status Received System Error.
    static let signalledSystemError: UInt16 = 1 << 14
    static let receivedMasterAbort: UInt16 = 1 << 13
}
