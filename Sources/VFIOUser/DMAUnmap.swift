/// DMA_UNMAP: the client takes a range of its memory back; the reply repeats the request.
///
///     0   argsz   u32   the most the reply may have; 24 or more
///     4   flags   u32   0, or bit 1: everything (address and size are then 0)
///     8   address u64   exactly that of a DMA_MAP
///     16  size    u64   exactly that of a DMA_MAP
///
/// Bit 0 (dirty bitmap wanted) is of an older draft and refused. Spec: vfio-user VFIO_USER_DMA_UNMAP; bit 1 is
/// VFIO_DMA_UNMAP_FLAG_ALL of <linux/vfio.h>, which QEMU and libvfio-user use.
public struct DMAUnmap: Hashable, Sendable {
    public static let size = 24

    public var flags: UInt32
    public var address: UInt64
    public var length: UInt64

    public static let dirtyBitmap: UInt32 = 1 << 0
    public static let all: UInt32 = 1 << 1

    public init(address: UInt64, length: UInt64, flags: UInt32 = 0) {
        self.flags = flags
        self.address = address
        self.length = length
    }

    /// Refused: a payload or argsz below 24 bytes, unknown flags, "everything" with a range.
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
        case DMAUnmap.dirtyBitmap: throw .notSupported
        default: throw .invalid
        }
    }

    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: UInt32(DMAUnmap.size), toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags, toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: address, toByteOffset: 8, as: UInt64.self)
        payload.storeBytes(of: length, toByteOffset: 16, as: UInt64.self)
    }
}
