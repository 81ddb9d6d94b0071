/// DEVICE_GET_REGION_INFO: size and access of one region, and which parts of it may be mapped.
///
///     0   argsz      u32   request: the most the reply may have; reply: what a full reply needs
///     4   flags      u32   reply: bit 0 read, 1 write, 2 mmap (a descriptor is passed), 3 capabilities follow
///     8   index      u32
///     12  cap_offset u32   reply: of the first capability, from the start of this structure
///     16  size       u64   reply
///     24  offset     u64   reply: in the passed file
///     32  capabilities; a sparse mmap capability is
///         0 id u16 = 1, 2 version u16 = 1, 4 next u32, 8 nr_areas u32, 12 reserved u32, 16 (offset u64, size u64) …
///
/// A reply that does not fit the request's argsz carries only the first 32 bytes.
/// Spec: vfio-user VFIO_USER_DEVICE_GET_REGION_INFO.
public struct RegionInfo: Hashable, Sendable {
    public static let size = 32

    /// A part of the region that the client may map: offsets within the region.
    public struct Area: Hashable, Sendable {
        public var offset: UInt64
        public var length: UInt64

        public init(offset: UInt64, length: UInt64) {
            self.offset = offset
            self.length = length
        }
    }

    public var index: UInt32
    public var flags: UInt32
    public var length: UInt64
    public var fileOffset: UInt64
    public var areas: [Area]

    public static let read: UInt32 = 1 << 0
    public static let write: UInt32 = 1 << 1
    public static let mmap: UInt32 = 1 << 2
    public static let capabilities: UInt32 = 1 << 3

    static let sparseMmapIdentifier: UInt16 = 1
    static let sparseMmapHeader = 16
    static let areaSize = 16
    /// The most areas and chained capabilities that are read from a peer: a bound on work, far above any use.
    static let maximumAreas = 256
    static let maximumCapabilities = 16

    public init(index: UInt32, flags: UInt32, length: UInt64, fileOffset: UInt64 = 0, areas: [Area] = []) {
        self.index = index
        self.flags = flags
        self.length = length
        self.fileOffset = fileOffset
        self.areas = areas
    }

    /// The bytes of a full reply.
    public var replySize: Int {
        areas.isEmpty
            ? RegionInfo.size : RegionInfo.size + RegionInfo.sparseMmapHeader + areas.count * RegionInfo.areaSize
    }

    /// Reads a request. Refused: a payload or argsz below 32 bytes.
    public static func request(_ payload: RawSpan) throws(ErrorNumber) -> (index: UInt32, room: UInt32) {
        guard payload.byteCount >= size, payload.uint32(at: 0) >= UInt32(size) else { throw .invalid }
        return (payload.uint32(at: 8), payload.uint32(at: 0))
    }

    /// Writes a request.
    public static func encodeRequest(index: UInt32, room: UInt32, into payload: inout MutableRawSpan) {
        for offset in stride(from: 0, to: size, by: 4) {
            payload.storeBytes(of: 0, toByteOffset: offset, as: UInt32.self)
        }
        payload.storeBytes(of: room, toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: index, toByteOffset: 8, as: UInt32.self)
    }

    /// Writes a reply into a client's room of so many bytes and returns the payload's size.
    /// Precondition: the span has `min(room, replySize)` bytes and room is 32 or more.
    public func encode(into payload: inout MutableRawSpan, room: UInt32) -> Int {
        let fits = !areas.isEmpty && UInt64(replySize) <= UInt64(room)
        payload.storeBytes(of: UInt32(truncatingIfNeeded: replySize), toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags | (fits ? RegionInfo.capabilities : 0), toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: index, toByteOffset: 8, as: UInt32.self)
        payload.storeBytes(of: fits ? UInt32(RegionInfo.size) : 0, toByteOffset: 12, as: UInt32.self)
        payload.storeBytes(of: length, toByteOffset: 16, as: UInt64.self)
        payload.storeBytes(of: fileOffset, toByteOffset: 24, as: UInt64.self)
        guard fits else { return RegionInfo.size }
        payload.storeBytes(of: RegionInfo.sparseMmapIdentifier, toByteOffset: 32, as: UInt16.self)
        payload.storeBytes(of: 1, toByteOffset: 34, as: UInt16.self)
        payload.storeBytes(of: 0, toByteOffset: 36, as: UInt32.self)
        payload.storeBytes(of: UInt32(areas.count), toByteOffset: 40, as: UInt32.self)
        payload.storeBytes(of: 0, toByteOffset: 44, as: UInt32.self)
        for (number, area) in areas.enumerated() {
            let place = RegionInfo.size + RegionInfo.sparseMmapHeader + number * RegionInfo.areaSize
            payload.storeBytes(of: area.offset, toByteOffset: place, as: UInt64.self)
            payload.storeBytes(of: area.length, toByteOffset: place + 8, as: UInt64.self)
        }
        return replySize
    }

    /// Reads a reply, and what a full reply would need. Refused: a payload below 32 bytes, a capability chain that
    /// leaves the payload or does not end, an area outside the region.
    public static func reply(_ payload: RawSpan) throws(ErrorNumber) -> (info: RegionInfo, needs: UInt32) {
        guard payload.byteCount >= size else { throw .invalid }
        var info = RegionInfo(
            index: payload.uint32(at: 8), flags: payload.uint32(at: 4), length: payload.uint64(at: 16),
            fileOffset: payload.uint64(at: 24))
        if info.flags & capabilities != 0 { try info.readCapabilities(payload) }
        return (info, payload.uint32(at: 0))
    }

    private mutating func readCapabilities(_ payload: RawSpan) throws(ErrorNumber) {
        var place = Int(payload.uint32(at: 12))
        var left = RegionInfo.maximumCapabilities
        while place != 0 {
            guard left > 0, place >= RegionInfo.size, place <= payload.byteCount - 8 else { throw .invalid }
            left -= 1
            if payload.uint16(at: place) == RegionInfo.sparseMmapIdentifier {
                guard place <= payload.byteCount - RegionInfo.sparseMmapHeader else { throw .invalid }
                let count = Int(payload.uint32(at: place + 8))
                let room = (payload.byteCount - place - RegionInfo.sparseMmapHeader) / RegionInfo.areaSize
                guard count <= room, count <= RegionInfo.maximumAreas else { throw .invalid }
                for number in 0..<count {
                    let at = place + RegionInfo.sparseMmapHeader + number * RegionInfo.areaSize
                    let area = Area(offset: payload.uint64(at: at), length: payload.uint64(at: at + 8))
                    guard area.offset <= length, area.length <= length - area.offset else { throw .invalid }
                    areas.append(area)
                }
            }
            place = Int(payload.uint32(at: place + 4))
        }
    }
}
