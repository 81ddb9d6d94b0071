/// Feature bits of virtio's network device. Spec: virtio 1.2 §5.1.3.
public enum VirtioNetFeature {
    public static let checksum = VirtioFeatures(bit: 0)
    public static let guestChecksum = VirtioFeatures(bit: 1)
    public static let mac = VirtioFeatures(bit: 5)
    public static let mergeableBuffers = VirtioFeatures(bit: 15)
    public static let status = VirtioFeatures(bit: 16)
    public static let controlQueue = VirtioFeatures(bit: 17)
    public static let controlReceive = VirtioFeatures(bit: 18)
    public static let controlVLAN = VirtioFeatures(bit: 19)
    public static let controlReceiveExtra = VirtioFeatures(bit: 20)
    public static let multiqueue = VirtioFeatures(bit: 22)
    public static let controlMACAddress = VirtioFeatures(bit: 23)
    public static let speedDuplex = VirtioFeatures(bit: 63)

    /// What makes no sense without the control queue.
    static let needControlQueue: VirtioFeatures = [
        controlReceive, controlVLAN, controlReceiveExtra, multiqueue, controlMACAddress,
    ]
}

/// The header in front of each frame.
///
/// ```
/// 0 flags u8, 1 gso_type u8, 2 hdr_len u16, 4 gso_size u16, 6 csum_start u16, 8 csum_offset u16, 10 num_buffers u16
/// ```
///
/// Spec: virtio 1.2 §5.1.6.
public enum VirtioNetHeader {
    public static let size = 12
    /// The device completes the checksum at csum_start + csum_offset.
    public static let needsChecksum: UInt8 = 1
    /// The checksums of a received frame are right.
    public static let dataValid: UInt8 = 2
    public static let noSegmentation: UInt8 = 0
}

/// Offsets in the device configuration. Spec: virtio 1.2 §5.1.4 struct virtio_net_config.
public enum NetConfigurationField {
    public static let mac = 0
    public static let status = 6
    public static let maximumQueuePairs = 8
    public static let mtu = 10
    public static let speed = 12
    public static let duplex = 16
    public static let linkUp: UInt16 = 1
}

/// Classes and commands of the control queue. Spec: virtio 1.2 §5.1.6.5.
public enum NetControl {
    public static let receive: UInt8 = 0
    public static let promiscuous: UInt8 = 0
    public static let allMulticast: UInt8 = 1
    public static let allUnicast: UInt8 = 2
    public static let noMulticast: UInt8 = 3
    public static let noUnicast: UInt8 = 4
    public static let noBroadcast: UInt8 = 5

    public static let macAddress: UInt8 = 1
    public static let setTable: UInt8 = 0
    public static let setAddress: UInt8 = 1

    public static let vlan: UInt8 = 2
    public static let addVLAN: UInt8 = 0
    public static let removeVLAN: UInt8 = 1

    public static let multiqueue: UInt8 = 4
    public static let setQueuePairs: UInt8 = 0

    public static let success: UInt8 = 0
    public static let error: UInt8 = 1
}
