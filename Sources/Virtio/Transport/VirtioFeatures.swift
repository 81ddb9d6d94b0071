/// Feature bits: what a device offers and what its driver takes.
///
/// Bits 0–23 and 50–127 belong to the device type (only 0–63 exist here), the others to the transport and the rings.
/// Spec: virtio 1.2 §2.2, §6.
public struct VirtioFeatures: OptionSet, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The feature of one bit, 0…63.
    public init(bit: Int) { rawValue = 1 << UInt64(bit) }

    public static let indirectDescriptors = VirtioFeatures(bit: 28)
    public static let eventIndex = VirtioFeatures(bit: 29)
    public static let version1 = VirtioFeatures(bit: 32)
    public static let accessPlatform = VirtioFeatures(bit: 33)
    public static let packedRing = VirtioFeatures(bit: 34)
    public static let ringReset = VirtioFeatures(bit: 40)

    /// What every device here offers beside its own.
    public static let transport: VirtioFeatures = [
        .indirectDescriptors, .eventIndex, .version1, .accessPlatform, .packedRing, .ringReset,
    ]

    public var description: String { "features 0x" + String(rawValue, radix: 16) }
}

/// Bits of the device status field. Spec: virtio 1.2 §2.1.
public struct VirtioStatus: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let acknowledge = VirtioStatus(rawValue: 1)
    public static let driver = VirtioStatus(rawValue: 2)
    public static let driverOK = VirtioStatus(rawValue: 4)
    public static let featuresOK = VirtioStatus(rawValue: 8)
    public static let deviceNeedsReset = VirtioStatus(rawValue: 64)
    public static let failed = VirtioStatus(rawValue: 128)
}

/// Kinds of devices. Spec: virtio 1.2 §5.
public enum VirtioDeviceType: UInt16, Sendable {
    case network = 1
    case block = 2
    case console = 3
    case entropy = 4

    /// Spec: virtio 1.2 §4.1.2: 0x1040 plus the type.
    public var pciDevice: UInt16 { 0x1040 + rawValue }

    /// Base class, subclass and programming interface that fit the type; the specification leaves them open.
    public var classCode: UInt32 {
        switch self {
        case .network: 0x02_00_00
        case .block: 0x01_80_00
        case .console: 0x07_80_00
        case .entropy: 0x10_80_00
        }
    }
}
