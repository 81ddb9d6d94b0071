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
}
