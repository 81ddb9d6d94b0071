/// DEVICE_GET_REGION_IO_FDS: descriptors that stand for writes to parts of a region.
///
///     0 argsz u32, 4 flags u32 = 0, 8 index u32, 12 count u32 = 0
///
/// This side offers none: a well-formed request is answered ENOTSUP, which clients take as "use REGION_WRITE".
/// Spec: vfio-user VFIO_USER_DEVICE_GET_REGION_IO_FDS.
public enum RegionIOFDs {
    public static let size = 16

    /// Reads a request's region index. Refused: a payload or argsz below 16 bytes, flags or count that are not zero.
    public static func request(_ payload: RawSpan) throws(ErrorNumber) -> UInt32 {
        guard payload.byteCount >= size, payload.uint32(at: 0) >= UInt32(size), payload.uint32(at: 4) == 0,
            payload.uint32(at: 12) == 0
        else { throw .invalid }
        return payload.uint32(at: 8)
    }
}
