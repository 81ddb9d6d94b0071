// What PCI's numbers are called: libpci's look-ups in pci.ids, as lspci uses them.

internal import CPCI

/// The names of vendors, devices and classes. What pci.ids does not know, and everything where there is no pci.ids, is
/// called by its number.
@safe public final class PCINames {
    /// What stands in the place of a name.
    public enum Style: Int32, Sendable {
        case names = 0
        /// lspci's -n
        case numbers = 1
        /// lspci's -nn
        case both = 2
    }

    // Safety: allocated in init, freed in deinit, used by one thread at a time (the class is not Sendable).
    private let access: UnsafeMutablePointer<pci_access>

    public init(_ style: Style = .names) {
        unsafe access = cpci_names(style.rawValue)
    }

    deinit { unsafe pci_cleanup(access) }

    /// A base class and subclass, such as 0x0604.
    public func className(_ code: UInt16) -> String {
        // Safety: the buffer is what libpci is told it is; so below.
        unsafe text { unsafe cpci_lookup_1(access, $0, $1, Int32(PCI_LOOKUP_CLASS.rawValue), Int32(code)) }
    }

    /// A vendor alone.
    public func vendorName(_ vendor: UInt16) -> String {
        unsafe text { unsafe cpci_lookup_1(access, $0, $1, Int32(PCI_LOOKUP_VENDOR.rawValue), Int32(vendor)) }
    }

    /// A device alone.
    public func deviceName(vendor: UInt16, device: UInt16) -> String {
        unsafe text {
            unsafe cpci_lookup_2(access, $0, $1, Int32(PCI_LOOKUP_DEVICE.rawValue), Int32(vendor), Int32(device))
        }
    }

    /// Vendor and device in one.
    public func fullName(vendor: UInt16, device: UInt16) -> String {
        let what = Int32(PCI_LOOKUP_VENDOR.rawValue | PCI_LOOKUP_DEVICE.rawValue)
        return unsafe text { unsafe cpci_lookup_2(access, $0, $1, what, Int32(vendor), Int32(device)) }
    }

    /// The subsystem of a device.
    public func subsystemName(vendor: UInt16, device: UInt16, subsystemVendor: UInt16, subsystem: UInt16) -> String {
        let what = Int32(PCI_LOOKUP_SUBSYSTEM.rawValue | PCI_LOOKUP_VENDOR.rawValue | PCI_LOOKUP_DEVICE.rawValue)
        return unsafe text {
            unsafe cpci_lookup_4(
                access, $0, $1, what, Int32(vendor), Int32(device), Int32(subsystemVendor), Int32(subsystem))
        }
    }

    /// The longest name in pci.ids has about 150 bytes; libpci cuts what does not fit.
    private static let room = 512

    private func text(_ look: (UnsafeMutablePointer<CChar>, Int32) -> UnsafePointer<CChar>?) -> String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Self.room) { buffer in
            // Safety: libpci returns its argument, or a text that lives as long as the program.
            guard let start = buffer.baseAddress, let name = unsafe look(start, Int32(Self.room)) else { return "?" }
            return unsafe String(cString: name)
        }
    }
}
