/// DEVICE_GET_REGION_IO_FDS: descriptors that stand for writes to parts of a region.
///
///     0   argsz u32   request: the most the reply may have; reply: of a full reply
///     4   flags u32   0
///     8   index u32   the region
///     12  count u32   request: 0; reply: how many sub-regions follow
///     16  sub-regions, (argsz - 16) / count bytes each, 40 here:
///         0 offset u64, 8 size u64, 16 fd_index u32, 20 type u32, 24 flags u32, 28 padding u32, 32 datamatch u64
///
/// A write of `size` bytes (0: of any) at `offset` signals the eventfd of type 0 instead of going to the server; with
/// flag bit 0 only one of the value `datamatch`. This side offers eventfds only; of a server it uses those and leaves
/// ioregionfds (type 1), whose messages no kernel has settled, and what it does not know to REGION_WRITE. A region
/// without any is answered ENOTSUP. Spec: vfio-user VFIO_USER_DEVICE_GET_REGION_IO_FDS.
public struct RegionIOFDs: Hashable, Sendable {
    public static let size = 16
    static let entrySize = 40
    /// The most sub-regions that are read from a peer: a bound on work, far above any use.
    static let maximumCount = 1024

    /// A part of the region, and what stands for writes to it.
    public struct Part: Hashable, Sendable {
        public var offset: UInt64
        public var length: UInt64
        /// Which of the passed descriptors.
        public var place: UInt32
        public var type: UInt32
        public var flags: UInt32
        public var match: UInt64

        public static let eventType: UInt32 = 0
        public static let matchFlag: UInt32 = 1 << 0

        public init(
            offset: UInt64, length: UInt64, place: UInt32, type: UInt32 = Part.eventType, flags: UInt32 = 0,
            match: UInt64 = 0
        ) {
            self.offset = offset
            self.length = length
            self.place = place
            self.type = type
            self.flags = flags
            self.match = match
        }
    }

    public var index: UInt32
    public var parts: [Part]

    public init(index: UInt32, parts: [Part]) {
        self.index = index
        self.parts = parts
    }

    public var replySize: Int { RegionIOFDs.size + parts.count * RegionIOFDs.entrySize }

    /// Reads a request. Refused: a payload or argsz below 16 bytes, flags or count that are not zero.
    public static func request(_ payload: RawSpan) throws(ErrorNumber) -> (index: UInt32, room: UInt32) {
        guard payload.byteCount >= size, payload.uint32(at: 0) >= UInt32(size), payload.uint32(at: 4) == 0,
            payload.uint32(at: 12) == 0
        else { throw .invalid }
        return (payload.uint32(at: 8), payload.uint32(at: 0))
    }

    /// Writes a request.
    public static func encodeRequest(index: UInt32, room: UInt32, into payload: inout MutableRawSpan) {
        for (number, field) in [room, 0, index, 0].enumerated() {
            payload.storeBytes(of: field, toByteOffset: number * 4, as: UInt32.self)
        }
    }

    /// Writes a reply into a client's room of so many bytes and returns the payload's size: without room for all of
    /// them no parts, only how many there are. Precondition: the span has `min(room, replySize)` bytes, room 16 or more.
    public func encode(into payload: inout MutableRawSpan, room: UInt32) -> Int {
        for (number, field) in [UInt32(replySize), 0, index, UInt32(parts.count)].enumerated() {
            payload.storeBytes(of: field, toByteOffset: number * 4, as: UInt32.self)
        }
        guard UInt64(replySize) <= UInt64(room) else { return RegionIOFDs.size }
        for (number, part) in parts.enumerated() {
            let place = RegionIOFDs.size + number * RegionIOFDs.entrySize
            payload.storeBytes(of: part.offset, toByteOffset: place, as: UInt64.self)
            payload.storeBytes(of: part.length, toByteOffset: place + 8, as: UInt64.self)
            payload.storeBytes(of: part.place, toByteOffset: place + 16, as: UInt32.self)
            payload.storeBytes(of: part.type, toByteOffset: place + 20, as: UInt32.self)
            payload.storeBytes(of: part.flags, toByteOffset: place + 24, as: UInt32.self)
            payload.storeBytes(of: 0, toByteOffset: place + 28, as: UInt32.self)
            payload.storeBytes(of: part.match, toByteOffset: place + 32, as: UInt64.self)
        }
        return replySize
    }

    /// Reads a reply, and what a full one would need; one that needs more than it has carries no parts. Refused: a
    /// payload below 16 bytes, entries below 40 bytes or beyond the payload, too many of them.
    ///
    /// Entries of 48 bytes or more are libvfio-user's, which has another field before the value.
    public static func reply(_ payload: RawSpan) throws(ErrorNumber) -> (reply: RegionIOFDs, needs: UInt32) {
        guard payload.byteCount >= size else { throw .invalid }
        let needs = payload.uint32(at: 0)
        let count = payload.uint32(at: 12)
        var reply = RegionIOFDs(index: payload.uint32(at: 8), parts: [])
        guard count > 0, UInt64(needs) <= UInt64(payload.byteCount) else { return (reply, needs) }
        guard count <= UInt32(maximumCount), needs >= UInt32(size) else { throw .invalid }
        let stride = (Int(needs) - size) / Int(count)
        guard stride >= entrySize else { throw .invalid }
        for number in 0..<Int(count) {
            let place = size + number * stride
            reply.parts.append(
                Part(
                    offset: payload.uint64(at: place), length: payload.uint64(at: place + 8),
                    place: payload.uint32(at: place + 16), type: payload.uint32(at: place + 20),
                    flags: payload.uint32(at: place + 24),
                    match: payload.uint64(at: place + (stride >= entrySize + 8 ? 40 : 32))))
        }
        return (reply, needs)
    }
}
