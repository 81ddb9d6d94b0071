/// What a device says of itself when it is plugged in, judged: where its base addresses, interrupts and capabilities
/// are, as far as they can be true. A pure value; what lies is left out, with a remark.
///
/// Capabilities whose registers the host keeps (MSI, MSI-X) but that cannot work are replaced by a null capability.
/// Spec: PCI Express Base §7.5.1.2, §7.5.3, §7.7, §7.8.4; PCI Code and ID Assignment §2 (identifier 0: null).
package struct FunctionProfile: Sendable {
    /// A window of memory or I/O space.
    package struct BAR: Sendable, Equatable {
        /// 0…5, or 6 for the expansion ROM: also the vfio-user region.
        package var index: Int
        /// A power of two.
        package var size: UInt64
        /// What the device answers; the rest of the window reads as zero.
        package var length: UInt64
        package var is64Bit = false
        package var isPrefetchable = false
        package var isIO = false

        package init(
            index: Int, size: UInt64, length: UInt64, is64Bit: Bool = false, isPrefetchable: Bool = false,
            isIO: Bool = false
        ) {
            self.index = index
            self.size = size
            self.length = length
            self.is64Bit = is64Bit
            self.isPrefetchable = isPrefetchable
            self.isIO = isIO
        }

        package var isROM: Bool { index == Int(Endpoint.romRegion) }
    }

    package struct MSIX: Sendable, Equatable {
        package var offset: Int
        package var vectors: Int
        package var tableBAR: Int
        package var tableOffset: UInt64
        package var pendingBAR: Int
        package var pendingOffset: UInt64
    }

    package struct MSI: Sendable, Equatable {
        package var offset: Int
        /// A power of two.
        package var vectors: Int
        var control: UInt16
    }

    package private(set) var bars: [BAR] = []
    package private(set) var msi: MSI?
    package private(set) var msix: MSIX?
    package private(set) var express: Int?
    package private(set) var powerManagement: Int?
    package private(set) var advanced: Int?
    /// 1…4, or 0.
    package private(set) var interruptPin: UInt8 = 0
    /// Capabilities that are shown as null ones.
    package private(set) var hidden: [Int] = []
    /// What was left out and why.
    package private(set) var remarks: [String] = []
    let bytes: [UInt8]

    /// Judges configuration space (64 to 4096 bytes), the lengths of regions 0 to 6 and the numbers of INTx, MSI and
    /// MSI-X interrupts. Missing numbers count as zero. Throws the reason why it cannot be an endpoint.
    package init(configuration: [UInt8], regions: [UInt64], interrupts: [UInt32]) throws(ProfileError) {
        guard configuration.count >= ConfigurationRegister.headerSize else { throw .tooShort }
        let length = configuration.count
        bytes =
            Array(configuration.prefix(ConfigurationSpace.size))
            + [UInt8](repeating: 0, count: max(0, ConfigurationSpace.size - length))
        let vendor = half(ConfigurationRegister.vendorID)
        guard vendor != 0xFFFF, vendor != 0 else { throw .noVendor(vendor) }
        let header = bytes[ConfigurationRegister.headerType] & 0x7F
        guard header == HeaderType.normal else { throw .notAnEndpoint(header) }
        func interruptCount(_ index: Int) -> Int { interrupts.indices.contains(index) ? Int(interrupts[index]) : 0 }
        readBARs(regions)
        let pin = bytes[ConfigurationRegister.interruptPin]
        if (1...4).contains(pin), interruptCount(0) > 0 {
            interruptPin = pin
        } else if pin != 0 {
            remarks.append("its interrupt pin \(pin) is of no use")
        }
        for (identifier, place) in capabilities() {
            switch identifier {
            case CapabilityID.powerManagement:
                if fits(place, PowerManagementRegister.capabilitySize) { powerManagement = powerManagement ?? place }
            case CapabilityID.express:
                // Its first version has 20 bytes for an endpoint.
                if fits(place, 20) { express = express ?? place }
            case CapabilityID.msi: readMSI(place, interruptCount(1))
            case CapabilityID.msix: readMSIX(place, interruptCount(2))
            default: break
            }
        }
        if let place = extendedCapability(ExtendedCapabilityID.advancedErrorReporting), express != nil {
            if place + ErrorRegister.endpointSize <= ConfigurationSpace.size {
                advanced = place
            } else {
                remarks.append("its error reporting capability does not fit")
            }
        }
    }

    /// Why something cannot be plugged into a slot.
    package enum ProfileError: Error, Hashable, CustomStringConvertible {
        case tooShort
        case noVendor(UInt16)
        case notAnEndpoint(UInt8)

        package var description: String {
            switch self {
            case .tooShort: "its configuration space is too short"
            case .noVendor(let value): "its vendor ID is 0x\(String(value, radix: 16)): nothing is there"
            case .notAnEndpoint(let type): "its header is of type \(type): a slot takes endpoints, type 0"
            }
        }
    }

    // MARK: Reading

    private func half(_ place: Int) -> UInt16 { UInt16(bytes[place]) | UInt16(bytes[place + 1]) << 8 }
    private func word(_ place: Int) -> UInt32 { UInt32(half(place)) | UInt32(half(place + 2)) << 16 }

    private func fits(_ place: Int, _ size: Int) -> Bool { place + size <= ConfigurationRegister.conventionalSize }

    /// The list of capabilities, cut where it leaves its room or comes back to where it was.
    private func capabilities() -> [(identifier: UInt8, place: Int)] {
        guard half(ConfigurationRegister.status) & StatusBits.capabilityList != 0 else { return [] }
        var found: [(UInt8, Int)] = []
        var place = Int(bytes[ConfigurationRegister.capabilityList] & 0xFC)
        while place >= ConfigurationRegister.headerSize, !found.contains(where: { $0.1 == place }) {
            found.append((bytes[place], place))
            place = Int(bytes[place + 1] & 0xFC)
        }
        return found
    }

    private func extendedCapability(_ identifier: UInt16) -> Int? {
        var place = ConfigurationRegister.conventionalSize
        var seen: Set<Int> = []
        while place >= ConfigurationRegister.conventionalSize, place <= ConfigurationSpace.size - 4,
            seen.insert(place).inserted
        {
            let head = word(place)
            if head == 0 || head == .max { return nil }
            if UInt16(truncatingIfNeeded: head) == identifier { return place }
            place = Int(head >> 20) & ~3
        }
        return nil
    }

    private mutating func readBARs(_ regions: [UInt64]) {
        var index = 0
        while index < 6 {
            defer { index += 1 }
            let length = regions.indices.contains(index) ? regions[index] : 0
            guard length > 0 else { continue }
            let flags = word(ConfigurationRegister.baseAddress0 + index * 4)
            if flags & BaseAddressBits.space != 0 {
                // More than the 256 bytes of the specification, because others are less strict.
                guard length <= 0x8000 else {
                    remarks.append("BAR \(index) has \(length) bytes of I/O space: left out")
                    continue
                }
                bars.append(BAR(index: index, size: Self.power(length, 4), length: length, isIO: true))
                continue
            }
            let is64Bit = flags & 6 == BaseAddressBits.memory64 && index < 5
            // No machine here has a window of more than 2^40 bytes.
            guard length <= (is64Bit ? 1 << 40 : 1 << 31) else {
                remarks.append("BAR \(index) has \(length) bytes: left out")
                continue
            }
            bars.append(
                BAR(
                    index: index, size: Self.power(length, 16), length: length, is64Bit: is64Bit,
                    isPrefetchable: flags & BaseAddressBits.prefetchable != 0))
            if is64Bit { index += 1 }
        }
        let rom = regions.indices.contains(6) ? regions[6] : 0
        if rom > 1 << 24 {
            remarks.append("its expansion ROM has \(rom) bytes: left out")
        } else if rom > 0 {
            bars.append(BAR(index: 6, size: Self.power(rom, 2048), length: rom))
        }
    }

    /// The next power of two. Precondition: length ≤ 2^40.
    private static func power(_ length: UInt64, _ least: UInt64) -> UInt64 {
        var size = least
        while size < length { size <<= 1 }
        return size
    }

    private mutating func readMSI(_ place: Int, _ available: Int) {
        guard msi == nil else { return hidden.append(place) }
        let control = half(place + MSIRegister.control)
        let registers = MSIRegisters(offset: place, control: control)
        guard available > 0, fits(place, registers.size) else {
            hidden.append(place)
            return remarks.append("its MSI capability is of no use")
        }
        var vectors = 1 << Int(min((control & MSIRegister.capable) >> 1, 5))
        while vectors > available { vectors /= 2 }
        msi = MSI(offset: place, vectors: vectors, control: control)
    }

    private mutating func readMSIX(_ place: Int, _ available: Int) {
        guard msix == nil, fits(place, MSIXRegister.capabilitySize), available > 0 else {
            hidden.append(place)
            return remarks.append("its MSI-X capability is of no use")
        }
        let control = half(place + MSIXRegister.control)
        let table = word(place + MSIXRegister.table)
        let pending = word(place + MSIXRegister.pendingBits)
        let vectors = min(Int(control & MSIXRegister.tableSize) + 1, available)
        let found = MSIX(
            offset: place, vectors: vectors, tableBAR: Int(table & MSIXRegister.barMask),
            tableOffset: UInt64(table & ~MSIXRegister.barMask), pendingBAR: Int(pending & MSIXRegister.barMask),
            pendingOffset: UInt64(pending & ~MSIXRegister.barMask))
        let tableEnd = found.tableOffset + UInt64(vectors * MSIXRegister.entrySize)
        let pendingEnd = found.pendingOffset + UInt64((vectors + 63) / 64 * 8)
        func holds(_ bar: Int, _ end: UInt64) -> Bool {
            bars.contains { $0.index == bar && !$0.isROM && !$0.isIO && end <= $0.size }
        }
        guard holds(found.tableBAR, tableEnd), holds(found.pendingBAR, pendingEnd) else {
            hidden.append(place)
            return remarks.append("its MSI-X table or pending bits lie outside its base address registers' windows")
        }
        msix = found
    }
}
