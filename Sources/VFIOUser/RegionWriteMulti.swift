/// One register write of a batch.
public struct RegionWrite: Hashable, Sendable {
    public var region: UInt32
    public var offset: UInt64
    /// 1…8 bytes.
    public var width: Int
    public var value: UInt64

    public init(region: UInt32, offset: UInt64, width: Int, value: UInt64) {
        self.region = region
        self.offset = offset
        self.width = width
        self.value = value
    }
}

/// REGION_WRITE_MULTI: several small writes in one message.
///
///     0   wr_cnt u64
///     8   wr_cnt writes of 24 bytes: offset u64, region u32, count u32 (8 or less), data 8 bytes
///
/// The reply is the number of writes done, u64. Spec: vfio-user VFIO_USER_REGION_WRITE_MULTI.
public struct RegionWriteMulti: Hashable, Sendable {
    public static let header = 8
    public static let writeSize = 24

    /// Writes in the message.
    public let count: Int

    /// Refused: a payload that is not exactly its writes.
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= RegionWriteMulti.header else { throw .invalid }
        let count = payload.uint64(at: 0)
        let room = (payload.byteCount - RegionWriteMulti.header) / RegionWriteMulti.writeSize
        guard count <= UInt64(room),
            payload.byteCount == RegionWriteMulti.header + Int(count) * RegionWriteMulti.writeSize
        else { throw .invalid }
        self.count = Int(count)
    }

    /// One write of a payload that was checked, and where its data begins. Refused: more than 8 bytes of data.
    public func write(_ number: Int, in payload: RawSpan) throws(ErrorNumber) -> (access: RegionAccess, data: Int) {
        let place = RegionWriteMulti.header + number * RegionWriteMulti.writeSize
        let access = RegionAccess(
            offset: payload.uint64(at: place), region: payload.uint32(at: place + 8),
            count: payload.uint32(at: place + 12))
        guard access.count <= 8, !access.offset.addingReportingOverflow(UInt64(access.count)).overflow else {
            throw .invalid
        }
        return (access, place + RegionAccess.size)
    }

    /// Writes a request. Precondition: the span has `header + writes.count * writeSize` bytes.
    public static func encode(_ writes: some Collection<RegionWrite>, into payload: inout MutableRawSpan) {
        payload.storeBytes(of: UInt64(writes.count), toByteOffset: 0, as: UInt64.self)
        for (number, write) in writes.enumerated() {
            let place = header + number * writeSize
            payload.storeBytes(of: write.offset, toByteOffset: place, as: UInt64.self)
            payload.storeBytes(of: write.region, toByteOffset: place + 8, as: UInt32.self)
            payload.storeBytes(of: UInt32(min(max(write.width, 1), 8)), toByteOffset: place + 12, as: UInt32.self)
            payload.storeBytes(of: write.value, toByteOffset: place + 16, as: UInt64.self)
        }
    }
}
