internal import CPCI

/// Functions chosen by their address, written as for lspci's -s: [[[[domain]:]bus]:][device][.[function]].
///
/// Numbers are hexadecimal; what is left out, or a `*`, is every one.
public struct PCISlotFilter: Sendable {
    public var domain: Int32?
    public var bus: Int32?
    public var device: Int32?
    public var function: Int32?

    /// Why a text is no address.
    public struct Mistake: Error, CustomStringConvertible {
        public let description: String
    }

    public init(parsing text: String) throws(Mistake) {
        var filter = pci_filter()
        var characters = text.utf8CString
        // Safety: libpci changes the copy, which ends with a zero, and returns a text that lives as long as the program.
        let complaint: String? = unsafe characters.withUnsafeMutableBufferPointer { buffer in
            unsafe pci_filter_init(nil, &filter)
            return unsafe pci_filter_parse_slot(&filter, buffer.baseAddress).map { unsafe String(cString: $0) }
        }
        if let complaint {
            throw Mistake(
                description: "'\(text)' is no PCI address: \(complaint); write [[[domain]:]bus]:device[.function] "
                    + "in hexadecimal, as 01:00.0")
        }
        func given(_ value: Int32) -> Int32? { value < 0 ? nil : value }
        (domain, bus) = (given(filter.domain), given(filter.bus))
        (device, function) = (given(filter.slot), given(filter.func))
    }

    /// Whether a function of domain 0 is meant.
    public func matches(bus: UInt8, device: UInt8, function: UInt8) -> Bool {
        (domain ?? 0) == 0 && (self.bus ?? Int32(bus)) == Int32(bus)
            && (self.device ?? Int32(device)) == Int32(device)
            && (self.function ?? Int32(function)) == Int32(function)
    }
}
