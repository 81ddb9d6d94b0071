public import Wire

/// One region of a device, as GET_REGION_INFO describes it.
public struct VFIORegion: Sendable {
    /// Bytes; 0 is a region that is not there.
    public var length: UInt64
    public var isReadable: Bool
    public var isWritable: Bool
    /// Memory behind the region that the client may map, or nil.
    public var shared: Shared?

    /// A file that holds a region, and which parts of it may be mapped (none listed: all of it).
    public struct Shared: Sendable {
        public var descriptor: Descriptor
        public var fileOffset: UInt64
        public var areas: [RegionInfo.Area]

        public init(descriptor: Descriptor, fileOffset: UInt64 = 0, areas: [RegionInfo.Area] = []) {
            self.descriptor = descriptor
            self.fileOffset = fileOffset
            self.areas = areas
        }
    }

    public init(length: UInt64, isReadable: Bool = true, isWritable: Bool = true, shared: Shared? = nil) {
        self.length = length
        self.isReadable = isReadable
        self.isWritable = isWritable
        self.shared = shared
    }
}

/// A doorbell: a write that the client may turn into a signal of an eventfd, without the server's thread.
///
/// The value written is lost, so a doorbell's place or `match` must say all there is to say. A client need not use it:
/// the same write may come to `writeRegion`.
public struct RegionIOEvent: Sendable {
    public var offset: UInt64
    /// Bytes of the write that counts: 1, 2, 4 or 8; 0 for any.
    public var width: UInt64
    /// Only a write of this value counts.
    public var match: UInt64?
    /// Signalled by the client; the device waits for it. Several doorbells may share one.
    public var notifier: EventNotifier

    public init(offset: UInt64, width: UInt64 = 0, match: UInt64? = nil, notifier: EventNotifier) {
        self.offset = offset
        self.width = width
        self.match = match
        self.notifier = notifier
    }
}

/// A device behind a `VFIOUserServer`.
///
/// The server calls every method on one thread, one at a time, and has checked that an access lies in the region and
/// that the region allows it. The device reaches memory through `dma` and interrupts through `interrupts`, from any
/// thread. What a client asks that the device does not do, it throws as the error number of the reply.
public protocol VFIODevice: AnyObject, Sendable {
    /// Flags and the numbers of regions and of interrupt types.
    var information: DeviceInfo { get }
    var dma: DMAAddressSpace { get }
    var interrupts: InterruptTable { get }

    /// A region below `information.regionCount`.
    func region(_ index: UInt32) -> VFIORegion
    func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber)
    func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber)
    /// Back to the state after power-on. DMA maps and eventfds stay: they are the client's.
    func reset()
    /// A DMA map came or went.
    func dmaMapsChanged()
    /// The doorbells of a region, in the order of their importance: a client may have room for some of them only.
    func ioEvents(_ region: UInt32) -> [RegionIOEvent]
    /// How the device's state is taken and given, or nil: it cannot migrate. The same as long as a client is there.
    var migration: (any DeviceMigration)? { get }
}

extension VFIODevice {
    public func dmaMapsChanged() {}
    public func ioEvents(_ region: UInt32) -> [RegionIOEvent] { [] }
    public var migration: (any DeviceMigration)? { nil }
}
