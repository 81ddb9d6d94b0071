// The physical address map that harts (and later an IOMMU) see: memory with a host pointer behind it, and devices.
//
// Model: regions are added while the machine is built and never change afterwards, so each hart takes a snapshot at
// reset and looks things up without a lock. What surprised us: flash is *memory* here (harts fetch from it), filled
// page by page over a slow wire the first time a hart touches a page.
import Synchronization

/// What a memory-mapped access asks for, in bytes.
public enum AccessWidth: UInt8, Sendable {
    case byte = 1
    case half = 2
    case word = 4
    case double = 8

    /// The width as a count of bytes.
    public var bytes: UInt64 { UInt64(rawValue) }
}

/// A device behind physical addresses. Called on hart threads, possibly several at once: devices lock for themselves.
///
/// Accesses are naturally aligned and never cross the end of the device's region.
public protocol MemoryMappedDevice: AnyObject, Sendable {
    /// The value read, in the low bits; `nil` becomes an access fault in the guest.
    func read(offset: UInt64, width: AccessWidth) -> UInt64?
    /// False becomes an access fault in the guest. Bits above `width` in `value` are zero.
    func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool
}

/// Everything at a physical address. Build it completely before the first hart is made.
public final class PhysicalAddressSpace: Sendable {
    /// What harts may do to a memory region (the physical memory attributes; PMP comes on top of it).
    public struct Permissions: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let read = Permissions(rawValue: 1)
        public static let write = Permissions(rawValue: 2)
        public static let execute = Permissions(rawValue: 4)
        /// RAM.
        public static let all: Permissions = [.read, .write, .execute]
        /// ROM and flash: a store is an access fault.
        public static let readOnly: Permissions = [.read, .execute]
    }

    /// Pages of regions and of translations are 4 KiB.
    public static let pageSize: UInt64 = 4096

    private let regions = Mutex<[PhysicalRegion]>([])
    /// Who reserved what, among the harts on this space.
    let reservations = ReservationTable()

    public init() {}

    /// Adds RAM, ROM or demand-filled memory.
    ///
    /// `base` and `size` are multiples of 4096 and the region overlaps no other. `host` points at `size` bytes, aligned
    /// to 4096, that stay mapped as long as any hart lives. With `fill`, a page's content is made by calling it once
    /// with the page's index in the region, before the first access of any hart; false makes that access an access
    /// fault, and the next access asks again. `fill` is called by one hart at a time.
    public func addMemory(
        base: UInt64, size: UInt64, host: UnsafeMutableRawPointer, permissions: Permissions = .all,
        fill: (@Sendable (_ pageIndex: Int) -> Bool)? = nil
    ) {
        precondition(base % Self.pageSize == 0 && size % Self.pageSize == 0, "memory regions are made of 4 KiB pages")
        let filler = fill.map { PageFiller(pageCount: Int(size / Self.pageSize), fill: $0) }
        // Safety: the caller keeps `host` mapped for `size` bytes; harts add only offsets below `size` to it.
        let region = unsafe PhysicalRegion(
            base: base, size: size, host: host, permissions: permissions, filler: filler, device: nil)
        add(region)
    }

    /// Adds a device. `base` and `size` are multiples of 4 and the region overlaps no other.
    public func addDevice(base: UInt64, size: UInt64, device: any MemoryMappedDevice) {
        precondition(base % 4 == 0 && size % 4 == 0, "device regions are made of words")
        // Safety: no host pointer.
        let region = unsafe PhysicalRegion(
            base: base, size: size, host: nil, permissions: [.read, .write], filler: nil, device: device)
        add(region)
    }

    /// Forgets the content of every demand-filled page, so that the next access fills it again. Call it while no hart
    /// runs, and reset every hart afterwards (their caches may hold old pages).
    public func invalidateFilledPages() {
        regions.withLock { list in
            for region in list { region.filler?.invalidate() }
        }
    }

    private func add(_ region: PhysicalRegion) {
        precondition(region.size > 0 && region.base <= UInt64.max - (region.size - 1), "an empty or wrapping region")
        regions.withLock { list in
            precondition(
                list.allSatisfy { $0.base + ($0.size - 1) < region.base || region.base + (region.size - 1) < $0.base },
                "regions of the physical address space overlap")
            list.append(region)
            list.sort { $0.base < $1.base }
        }
    }

    /// The regions in ascending order.
    func snapshot() -> [PhysicalRegion] {
        regions.withLock { $0 }
    }
}

/// One region of the address space: memory (`host` is set) or a device (`device` is set).
@safe struct PhysicalRegion: @unchecked Sendable {
    let base: UInt64
    let size: UInt64
    let host: UnsafeMutableRawPointer?
    let permissions: PhysicalAddressSpace.Permissions
    let filler: PageFiller?
    let device: (any MemoryMappedDevice)?

    /// Whether `count` bytes from `address` lie inside.
    func contains(_ address: UInt64, count: UInt64) -> Bool {
        let offset = address &- base
        return offset < size && size &- offset >= count
    }
}

/// Which pages of a demand-filled region have content.
final class PageFiller: Sendable {
    private let filled: Mutex<[Bool]>
    private let fill: @Sendable (Int) -> Bool

    init(pageCount: Int, fill: @escaping @Sendable (Int) -> Bool) {
        filled = Mutex(Array(repeating: false, count: pageCount))
        self.fill = fill
    }

    /// Makes sure that the page has content. False when the source failed.
    func ensure(page: Int) -> Bool {
        filled.withLock { pages in
            if pages[page] { return true }
            pages[page] = fill(page)
            return pages[page]
        }
    }

    func invalidate() {
        filled.withLock { pages in
            for page in pages.indices { pages[page] = false }
        }
    }
}
