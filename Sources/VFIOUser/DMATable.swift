internal import Glibc
internal import Synchronization
internal import Wire

/// One version of the table of DMA maps: what a hold looks addresses up in.
///
/// A table that is held does not change. Whoever changes the map of the world while a table is held publishes a copy
/// and retires the old one, which lives on until its last hold ends; a table that nobody holds is changed in place.
/// `holders` grows only under the address space's lock and only in the current table, so a retired table's only falls.
@safe @usableFromInline final class DMATable: @unchecked Sendable {
    /// A map as the copies need it: plain data, so that a table is copied without touching its owners.
    @safe struct Entry {
        var first: UInt64
        var last: UInt64
        var flags: UInt32
        /// The file of a map that may shrink, -1 without one.
        var descriptor: Int32
        /// The map's first byte in this process; nil where the file or messages lead to it.
        // Safety: valid while the map is in a table that is current or held.
        var base: UnsafeMutableRawPointer?
        /// The map's first byte in the file.
        var fileOffset: UInt64

        var isMessages: Bool { unsafe descriptor < 0 && base == nil }
    }

    // Safety: `capacity` entries, the first `count` initialised; allocated in init and `reserve`, freed in deinit.
    // Changed only by a writer that holds the address space's lock while nobody holds the table.
    private(set) var entries: UnsafeMutablePointer<Entry>
    private(set) var count: Int
    private var capacity: Int
    /// Where writes are recorded, while the client logs them.
    let log: DirtyLog?

    /// How many holds there are, and `retired`.
    let holders = Atomic<Int>(0)
    static let retired = 1 << 62

    init(log: DirtyLog? = nil) {
        unsafe entries = .allocate(capacity: 16)
        count = 0
        capacity = 16
        self.log = log
    }

    /// A copy, without the holders.
    init(_ other: DMATable, log: DirtyLog?) {
        capacity = max(16, other.count + other.count / 2)
        count = other.count
        unsafe entries = .allocate(capacity: capacity)
        // Safety: both have `count` entries of plain data.
        unsafe entries.initialize(from: other.entries, count: other.count)
        self.log = log
    }

    deinit { unsafe entries.deallocate() }

    /// The first place whose map begins at or above an address.
    func place(of address: UInt64) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            // Safety: middle < high ≤ count.
            if unsafe entries[middle].first < address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The map that holds an address, or nil.
    func entry(holding address: UInt64) -> Entry? {
        var index = place(of: address)
        // Safety: every index is compared with `count` or 0 first.
        if unsafe index == count || entries[index].first > address { index -= 1 }
        guard index >= 0, unsafe address <= entries[index].last else { return nil }
        return unsafe entries[index]
    }

    /// Precondition: place ≤ count, and nobody else sees the table.
    func insert(_ entry: Entry, at place: Int) {
        precondition(place >= 0 && place <= count, "a map goes where the table is")
        if count == capacity {
            let larger = UnsafeMutablePointer<Entry>.allocate(capacity: capacity * 2)
            // Safety: the new room has twice the entries.
            unsafe larger.moveInitialize(from: entries, count: count)
            unsafe entries.deallocate()
            unsafe entries = larger
            capacity *= 2
        }
        // Safety: count < capacity, so the moved entries and the new one have room; plain data.
        unsafe memmove(entries + place + 1, entries + place, (count - place) * MemoryLayout<Entry>.stride)
        unsafe (entries + place).initialize(to: entry)
        count += 1
    }

    /// Precondition: place < count, and nobody else sees the table.
    func remove(at place: Int) {
        precondition(place >= 0 && place < count, "a map is taken from where it is")
        count -= 1
        // Safety: the moved entries lie inside; plain data.
        unsafe memmove(entries + place, entries + place + 1, (count - place) * MemoryLayout<Entry>.stride)
    }

    /// Precondition: nobody else sees the table.
    func removeAll() { count = 0 }
}
