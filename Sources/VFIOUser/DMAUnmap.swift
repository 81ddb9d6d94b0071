/// DMA_UNMAP: the client takes a range of its memory back; the reply repeats the request.
///
///     0   argsz   u32   the most the reply may have; 24 or more
///     4   flags   u32   0; bit 0: tell which pages the device wrote; or bit 1: everything (address and size are then 0)
///     8   address u64   exactly that of a DMA_MAP
///     16  size    u64   exactly that of a DMA_MAP
///
/// With bit 0, while DMA logging is on, a bitmap follows:
///
///     24  page size   u64   a power of two: what one bit stands for
///     32  bitmap size u64   bytes: a multiple of 8, enough for the range
///     40  bitmap      u64 … reply: bit n is the nth page of the range
///
/// Spec: vfio-user VFIO_USER_DMA_UNMAP, of its drafts bit 0 (VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP with struct
/// vfio_bitmap); bit 1 is VFIO_DMA_UNMAP_FLAG_ALL of <linux/vfio.h>, which QEMU and libvfio-user use.
public struct DMAUnmap: Hashable, Sendable {
    public static let size = 24

    public var flags: UInt32
    public var address: UInt64
    public var length: UInt64
    /// What bit 0 asks for.
    public var bitmap: Bitmap?

    public struct Bitmap: Hashable, Sendable {
        public static let size = 16

        public var pageSize: UInt64
        /// Bytes.
        public var byteCount: UInt64

        public init(pageSize: UInt64, byteCount: UInt64) {
            self.pageSize = pageSize
            self.byteCount = byteCount
        }
    }

    public static let dirtyBitmap: UInt32 = 1 << 0
    public static let all: UInt32 = 1 << 1

    public init(address: UInt64, length: UInt64, flags: UInt32 = 0, bitmap: Bitmap? = nil) {
        self.flags = bitmap == nil ? flags : flags | Self.dirtyBitmap
        self.bitmap = bitmap
        self.address = address
        self.length = length
    }

    /// Bytes of a request, and of a reply without its bitmap.
    public var fixedSize: Int { DMAUnmap.size + (bitmap == nil ? 0 : Bitmap.size) }

    /// Refused: a payload or argsz below 24 bytes, unknown flags, "everything" with a range; a bitmap whose fields are not
    /// there, whose page size is no power of two or whose size does not fit the range or the reply (`invalid`), or that
    /// is longer than any message (`tooBig`).
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DMAUnmap.size, payload.uint32(at: 0) >= UInt32(DMAUnmap.size) else {
            throw .invalid
        }
        flags = payload.uint32(at: 4)
        address = payload.uint64(at: 8)
        length = payload.uint64(at: 16)
        switch flags {
        case 0: break
        case DMAUnmap.all: guard address == 0, length == 0 else { throw .invalid }
        case DMAUnmap.dirtyBitmap: bitmap = try Self.bitmap(payload, length: length)
        default: throw .invalid
        }
    }

    private static func bitmap(_ payload: RawSpan, length: UInt64) throws(ErrorNumber) -> Bitmap {
        guard payload.byteCount >= DMAUnmap.size + Bitmap.size, length > 0 else { throw .invalid }
        let bitmap = Bitmap(pageSize: payload.uint64(at: 24), byteCount: payload.uint64(at: 32))
        guard bitmap.pageSize.nonzeroBitCount == 1, bitmap.byteCount % 8 == 0 else { throw .invalid }
        let words = ((length - 1) >> UInt64(bitmap.pageSize.trailingZeroBitCount)) / 64 + 1
        guard bitmap.byteCount / 8 >= words else { throw .invalid }
        guard bitmap.byteCount <= UInt64(MessageLink.maximumMessage - MessageHeader.size - size - Bitmap.size) else {
            throw .tooBig
        }
        guard UInt64(payload.uint32(at: 0)) >= UInt64(size + Bitmap.size) + bitmap.byteCount else { throw .invalid }
        return bitmap
    }

    /// Writes `fixedSize` bytes. Precondition: the bitmap, if there is one, fits a message.
    public func encode(into payload: inout MutableRawSpan) {
        let whole = UInt32(clamping: UInt64(fixedSize) &+ (bitmap?.byteCount ?? 0))
        payload.storeBytes(of: whole, toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags, toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: address, toByteOffset: 8, as: UInt64.self)
        payload.storeBytes(of: length, toByteOffset: 16, as: UInt64.self)
        guard let bitmap else { return }
        payload.storeBytes(of: bitmap.pageSize, toByteOffset: 24, as: UInt64.self)
        payload.storeBytes(of: bitmap.byteCount, toByteOffset: 32, as: UInt64.self)
    }
}
