/// DMA_MAP: the client lets the device reach a range of its memory.
///
///     0   argsz   u32   32
///     4   flags   u32   bit 0 readable, 1 writeable
///     8   offset  u64   in the passed file, 0 without one
///     16  address u64   where the device sees the range
///     24  size    u64
///
/// At most one descriptor is passed along; without one the range is reached by DMA_READ and DMA_WRITE messages.
/// The reply has no payload. Spec: vfio-user VFIO_USER_DMA_MAP.
public struct DMAMap: Hashable, Sendable {
    public static let size = 32

    public var flags: UInt32
    public var offset: UInt64
    public var address: UInt64
    public var length: UInt64

    public static let readable: UInt32 = 1 << 0
    public static let writeable: UInt32 = 1 << 1
    /// libvfio-user's extensions: how the server shall reach a passed descriptor. Both mean a descriptor is passed.
    public static let mapped: UInt32 = 1 << 2
    public static let fileInputOutput: UInt32 = 1 << 3
    static let known = readable | writeable | mapped | fileInputOutput

    public init(address: UInt64, length: UInt64, offset: UInt64 = 0, flags: UInt32) {
        self.flags = flags
        self.offset = offset
        self.address = address
        self.length = length
    }

    /// Refused: a payload or argsz below 32 bytes, unknown flags, an empty range, a range that wraps.
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DMAMap.size, payload.uint32(at: 0) >= UInt32(DMAMap.size) else { throw .invalid }
        flags = payload.uint32(at: 4)
        offset = payload.uint64(at: 8)
        address = payload.uint64(at: 16)
        length = payload.uint64(at: 24)
        guard flags & ~DMAMap.known == 0, length > 0 else { throw .invalid }
        // The last byte must be addressable; a range may end at the top of the address space.
        guard !address.addingReportingOverflow(length - 1).overflow,
            !offset.addingReportingOverflow(length).overflow
        else { throw .invalid }
    }

    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: UInt32(DMAMap.size), toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags, toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: offset, toByteOffset: 8, as: UInt64.self)
        payload.storeBytes(of: address, toByteOffset: 16, as: UInt64.self)
        payload.storeBytes(of: length, toByteOffset: 24, as: UInt64.self)
    }
}
