// Where a virtio function's structures lie, and the fields of the common configuration.

/// The structures of virtio over PCI and their places. Spec: virtio 1.2 §4.1.4.
public enum TransportLayout {
    /// The base address register of all structures.
    public static let bar = 2
    public static let barSize: UInt64 = 0x4000
    /// The base address register of the MSI-X table and the pending bits.
    public static let msixBAR = 1

    public static let common = Structure(type: 1, offset: 0x0000, length: CommonField.length)
    public static let interruptStatus = Structure(type: 3, offset: 0x1000, length: 4)
    public static let device = Structure(type: 4, offset: 0x2000, length: 0x1000)
    /// Queue n is notified at 4 × n.
    public static let notify = Structure(type: 2, offset: 0x3000, length: 0x1000)
    public static let notifyMultiplier: UInt32 = 4
    /// The window in configuration space. Spec: virtio 1.2 §4.1.4.9 VIRTIO_PCI_CAP_PCI_CFG.
    public static let windowType: UInt8 = 5

    /// The most queues of a function: one bit each in a word.
    public static let maximumQueues = 64
    /// Spec: virtio 1.2 §4.1.5.1.2 VIRTIO_MSI_NO_VECTOR.
    public static let noVector: UInt16 = 0xFFFF

    public struct Structure: Sendable {
        /// cfg_type of its capability.
        public var type: UInt8
        public var offset: UInt32
        public var length: UInt32

        /// Where an access lies in the structure, or nil.
        func place(of access: UInt64, count: Int) -> Int? {
            guard access >= UInt64(offset) else { return nil }
            let inside = access - UInt64(offset)
            guard inside < UInt64(length), UInt64(count) <= UInt64(length) - inside else { return nil }
            return Int(inside)
        }

        /// The capability from its fourth byte on: type, register, id, padding, offset, length.
        /// Spec: virtio 1.2 §4.1.4 struct virtio_pci_cap.
        var capability: [UInt8] {
            [type, UInt8(TransportLayout.bar), 0, 0, 0] + Self.bytes(offset) + Self.bytes(length)
        }

        static func bytes(_ value: UInt32) -> [UInt8] {
            (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32($0 * 8)) }
        }
    }
}

/// Offsets in the common configuration. Spec: virtio 1.2 §4.1.4.3 struct virtio_pci_common_cfg.
public enum CommonField {
    public static let deviceFeatureSelect = 0
    public static let deviceFeature = 4
    public static let driverFeatureSelect = 8
    public static let driverFeature = 12
    public static let configVector = 16
    public static let queueCount = 18
    public static let deviceStatus = 20
    public static let configGeneration = 21
    public static let queueSelect = 22
    public static let queueSize = 24
    public static let queueVector = 26
    public static let queueEnable = 28
    public static let queueNotifyOffset = 30
    public static let queueDescriptors = 32
    public static let queueDriver = 40
    public static let queueDevice = 48
    public static let queueNotifyData = 56
    public static let queueReset = 58
    /// Bytes of the structure, filled up to a multiple of four.
    public static let length: UInt32 = 60
}
