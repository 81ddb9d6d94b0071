/// The numbers of virtio's block device. Spec: virtio 1.2 §5.2.
public enum VirtioBlockFeature {
    public static let segmentMaximum = VirtioFeatures(bit: 2)
    public static let readOnly = VirtioFeatures(bit: 5)
    public static let blockSize = VirtioFeatures(bit: 6)
    public static let flush = VirtioFeatures(bit: 9)
    public static let discard = VirtioFeatures(bit: 13)
    public static let writeZeroes = VirtioFeatures(bit: 14)
}

/// Kinds of requests. Spec: virtio 1.2 §5.2.6.
public enum BlockRequestType {
    public static let read: UInt32 = 0
    public static let write: UInt32 = 1
    public static let flush: UInt32 = 4
    public static let identifier: UInt32 = 8
    public static let discard: UInt32 = 11
    public static let writeZeroes: UInt32 = 13
}

/// What a request ends with.
public enum BlockRequestStatus: UInt8, Sendable {
    case success = 0
    case ioError = 1
    case unsupported = 2
}

/// Offsets in the device configuration. Spec: virtio 1.2 §5.2.4 struct virtio_blk_config.
public enum BlockConfigurationField {
    public static let capacity = 0
    public static let segmentMaximum = 12
    public static let blockSize = 20
    public static let queueCount = 34
    public static let maximumDiscardSectors = 36
    public static let maximumDiscardSegments = 40
    public static let discardAlignment = 44
    public static let maximumWriteZeroesSectors = 48
    public static let maximumWriteZeroesSegments = 52
    public static let writeZeroesMayUnmap = 56
    public static let length = 60
}

/// The head of a request: type u32, reserved u32, sector u64.
struct BlockRequestHeader {
    static let size = 16
    static let sectorSize: UInt64 = 512

    var type: UInt32
    var sector: UInt64

    /// The byte that the sector begins at; nil beyond 2^64.
    var offset: UInt64? {
        let (offset, overflow) = sector.multipliedReportingOverflow(by: Self.sectorSize)
        return overflow ? nil : offset
    }
}

/// One range of a discard or write-zeroes request: sector u64, number of sectors u32, flags u32.
struct BlockRange {
    static let size = 16
    static let unmap: UInt32 = 1

    var sector: UInt64
    var count: UInt32
    var flags: UInt32
}
