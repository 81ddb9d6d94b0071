/// A device whose firmware comes out of the board's flash, beside the host's. Numbers as in a manifest's components
/// (docs/wiring.md, "Flash layout") and in a package.
public enum DeviceTarget: UInt64, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case bmc = 1
    case adapter = 2
    case offload = 3

    public var description: String {
        switch self {
        case .bmc: "bmc"
        case .adapter: "adapter"
        case .offload: "offload"
        }
    }

    public init?(named name: String) {
        guard let target = Self.allCases.first(where: { $0.description == name }) else { return nil }
        self = target
    }

    /// Where the package lies: bytes from the slot's first one, whole blocks of 64 KiB.
    public var place: Range<UInt32> {
        switch self {
        case .bmc: 0x20_0000..<0x30_0000
        case .adapter: 0x30_0000..<0x38_0000
        case .offload: 0x38_0000..<0x40_0000
        }
    }

    /// Bytes that a package may have.
    public var capacity: Int { place.count }

    /// The settings that there are: every other one is refused.
    public var settings: [FirmwareSetting] {
        switch self {
        case .bmc:
            [
                FirmwareSetting(
                    "boot-line", .text(maximum: 80),
                    help: "the line on the host's console that means that it has booted"),
                FirmwareSetting("device-id", .unsigned(0...0xFF), help: "Device ID of IPMI's Get Device ID"),
                FirmwareSetting(
                    "manufacturer-id", .unsigned(0...0xF_FFFF), help: "Manufacturer ID of IPMI's Get Device ID"),
                FirmwareSetting("product-id", .unsigned(0...0xFFFF), help: "Product ID of IPMI's Get Device ID"),
                FirmwareSetting("rmcp", .boolean, help: "whether RMCP presence pings are answered"),
            ]
        case .adapter:
            [
                FirmwareSetting(
                    "forwarding", .choice(["permit-all", "deny-all"]), help: "which frames the switch lets through")
            ]
        case .offload:
            [
                FirmwareSetting(
                    "maximum-instances", .unsigned(0...UInt64(UInt32.max)), help: "instances that IDENTIFY offers")
            ]
        }
    }

    public func setting(named name: String) -> FirmwareSetting? { settings.first { $0.name == name } }
}
