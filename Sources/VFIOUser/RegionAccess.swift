/// REGION_READ and REGION_WRITE: bytes of a region.
///
///     0   offset u64   in the region
///     8   region u32
///     12  count  u32   at most the negotiated max_data_xfer_size
///     16  data         in a write's request and a read's reply
///
/// Spec: vfio-user VFIO_USER_REGION_READ, VFIO_USER_REGION_WRITE.
public struct RegionAccess: Hashable, Sendable {
    public static let size = 16

    public var offset: UInt64
    public var region: UInt32
    public var count: UInt32

    @inlinable
    public init(offset: UInt64, region: UInt32, count: UInt32) {
        self.offset = offset
        self.region = region
        self.count = count
    }

    /// Reads the fixed part. Refused: a payload below 16 bytes, a range that wraps.
    @inlinable
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= RegionAccess.size else { throw .invalid }
        offset = payload.uint64(at: 0)
        region = payload.uint32(at: 8)
        count = payload.uint32(at: 12)
        guard !offset.addingReportingOverflow(UInt64(count)).overflow else { throw .invalid }
    }

    /// Reads a write's request. Refused besides: data of another length than the count.
    @inlinable
    public init(write payload: RawSpan) throws(ErrorNumber) {
        try self.init(payload)
        guard UInt64(payload.byteCount - RegionAccess.size) == UInt64(count) else { throw .invalid }
    }

    @inlinable
    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: offset, toByteOffset: 0, as: UInt64.self)
        payload.storeBytes(of: region, toByteOffset: 8, as: UInt32.self)
        payload.storeBytes(of: count, toByteOffset: 12, as: UInt32.self)
    }
}
