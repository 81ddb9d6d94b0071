internal import Glibc
public import Synchronization
public import Wire

/// How DMA reaches memory that came without a descriptor: DMA_READ and DMA_WRITE messages to the client.
protocol DMAMessenger: AnyObject, Sendable {
    func dmaRead(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(DMAError)
    func dmaWrite(_ address: UInt64, from bytes: UnsafeRawBufferPointer) throws(DMAError)
}

/// The client's memory as its device sees it: the table of DMA maps, and copies through it.
///
/// Any thread may read and write at any time, many at once. Who copies *holds* the table, for one copy or, with `hold`,
/// for many; taking a map away waits for the holds that may still use it. So when DMA_UNMAP is answered, no copy is in
/// flight in the range and none begins, as the specification demands. Adding a map waits for nobody.
///
/// A map whose file is sealed against shrinking (`F_SEAL_SHRINK`: memfd of this board and of QEMU) is reached by
/// mmap. One that is not could be cut at any moment by the peer, and touching it would then raise SIGBUS; it is
/// reached by pread and pwrite instead, some 0.3 µs dearer, which fail politely.
public final class DMAAddressSpace: Sendable {
    private struct State {
        var table = DMATable()
        /// Who keeps each map of `table` reachable: its mapping or its file, in the table's order.
        var owners: [(any AnyObject & Sendable)?] = []
        /// Tables that were replaced while they were held.
        var retired: [DMATable] = []
        var messenger: (any DMAMessenger)?
    }

    private let state = Mutex(State())
    /// Where `remove` sleeps until a retired table's last hold ends.
    private let drained = Monitor()
    @usableFromInline let enabled: Atomic<Bool>
    /// When a map was taken away last, in nanoseconds of the monotonic clock; 0 for never.
    private let lastRemoval = Atomic<UInt64>(0)

    /// How long a client may take to map again what it unmapped. QEMU takes a few messages for it, from a thread that a
    /// busy machine may keep waiting for tens of milliseconds.
    private static let exchangeTime: UInt64 = 1_000_000_000

    /// The most maps at one time: what VERSION promises.
    public static let maximumMaps = Capabilities.defaultDMAMaps

    /// `enabled` false: every access fails until `isEnabled` is set, as with bus mastering off.
    public init(enabled: Bool = true) { self.enabled = Atomic(enabled) }

    /// Whether the device may reach memory at all: PCI's bus master enable. Clearing it makes every access that begins
    /// afterwards fail, inside holds too; it does not wait for those under way (`drain` does).
    @inlinable
    public var isEnabled: Bool {
        get { enabled.load(ordering: .acquiring) }
        set { enabled.store(newValue, ordering: .releasing) }
    }

    /// True for a second after a map was taken away: an access that finds no map may then be none of the driver's
    /// faults, and a device tries again at the next change of the maps.
    ///
    /// Clients have no way to change a map but to take it away and give another one, and a device that looks at its rings
    /// between the two finds nothing: QEMU does so with all its memory when firmware shadows a ROM.
    public var isExchangingMaps: Bool {
        let last = lastRemoval.load(ordering: .acquiring)
        return last != 0 && MonotonicTime.now.nanoseconds &- last < Self.exchangeTime
    }

    /// The ranges mapped now, in order of address.
    public var ranges: [ClosedRange<UInt64>] {
        state.withLock { state in
            (0..<state.table.count).map { unsafe state.table.entries[$0].first...state.table.entries[$0].last }
        }
    }

    // MARK: Holding

    /// Runs `body` with the client's memory held: for many copies, or for pointers into it.
    ///
    /// A DMA_UNMAP of the client is answered only when the hold has ended, so keep it short (a batch of descriptors, a
    /// file access), and never wait inside it for the serving thread or for another hold's end. Holds of several
    /// threads, and one inside another, go on at the same time. With bus mastering off the accesses throw, not this.
    /// Entering and leaving cost some 30 ns.
    @inlinable
    public func hold<Result, Failure: Error>(
        _ body: (inout HeldMemory) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        var memory = HeldMemory(self)
        defer { memory.finish() }
        return try body(&memory)
    }

    /// Takes hold of the current table.
    @usableFromInline
    func enter() -> DMATable {
        state.withLock { state in
            state.table.holders.add(1, ordering: .relaxed)
            return state.table
        }
    }

    /// Lets go of a table that was taken hold of.
    @usableFromInline
    func leave(_ table: DMATable) {
        // Whoever counts a retired table down to nothing wakes those that wait for it. After that it may be freed.
        guard table.holders.subtract(1, ordering: .releasing).newValue == DMATable.retired else { return }
        drained.lock()
        drained.broadcast()
        drained.unlock()
    }

    /// Returns when every hold that began before has ended. Not to be called inside a hold.
    public func drain() {
        let replaced = state.withLock { state in
            Self.replace(&state, log: state.table.log)
            return state.retired
        }
        wait(for: replaced)
    }

    /// Makes the current table one that nobody holds: the caller then changes it in place.
    private static func replace(_ state: inout State, log: DirtyLog?) {
        let old = state.table
        state.retired.removeAll { $0.holders.load(ordering: .acquiring) == DMATable.retired }
        if old.holders.load(ordering: .acquiring) == 0, log === old.log { return }
        state.table = DMATable(old, log: log)
        if old.holders.bitwiseOr(DMATable.retired, ordering: .acquiringAndReleasing).oldValue != 0 {
            state.retired.append(old)
        }
    }

    /// Waits until nobody holds any of these tables.
    private func wait(for tables: [DMATable]) {
        for table in tables where table.holders.load(ordering: .acquiring) != DMATable.retired {
            drained.lock()
            while table.holders.load(ordering: .acquiring) != DMATable.retired { drained.wait() }
            drained.unlock()
        }
    }

    // MARK: The table

    /// Adds a map. Refused: `exists` where another map lies, `invalid` where the file is too short or cannot be
    /// mapped, `noSpace` when the table is full.
    public func insert(_ map: DMAMap, descriptor: Descriptor?) throws(ErrorNumber) {
        let (entry, owner) = try entry(map, descriptor)
        let result: Result<Void, ErrorNumber> = state.withLock { state in
            guard state.table.count < Self.maximumMaps else { return .failure(.noSpace) }
            let place = state.table.place(of: map.address)
            // Safety: both places lie in the table.
            if place < state.table.count, unsafe state.table.entries[place].first <= entry.last {
                return .failure(.exists)
            }
            if place > 0, unsafe state.table.entries[place - 1].last >= map.address { return .failure(.exists) }
            Self.replace(&state, log: state.table.log)
            state.table.insert(entry, at: place)
            state.owners.insert(owner, at: place)
            return .success(())
        }
        try result.get()
    }

    private func entry(
        _ map: DMAMap, _ descriptor: Descriptor?
    ) throws(ErrorNumber) -> (DMATable.Entry, (any AnyObject & Sendable)?) {
        var entry = unsafe DMATable.Entry(
            first: map.address, last: map.address + (map.length - 1), flags: map.flags, descriptor: -1, base: nil,
            fileOffset: map.offset)
        guard let descriptor else {
            guard map.flags & (DMAMap.mapped | DMAMap.fileInputOutput) == 0 else { throw .invalid }
            return (entry, nil)
        }
        let (end, overflow) = map.offset.addingReportingOverflow(map.length)
        guard !overflow, end <= UInt64(Int64.max), let size = descriptor.fileSize, end <= size else { throw .invalid }
        guard descriptor.isSealedAgainstShrinking else {
            entry.descriptor = descriptor.rawValue
            return (entry, descriptor)
        }
        let slack = map.offset % UInt64(getpagesize())
        guard let count = Int(exactly: map.length + slack) else { throw .invalid }
        do throws(WireError) {
            let memory = try MappedMemory(
                descriptor, offset: map.offset - slack, count: count, writable: map.flags & DMAMap.writeable != 0)
            unsafe entry.base = unsafe memory.baseAddress + Int(slack)
            return (entry, memory)
        } catch {
            throw .invalid
        }
    }

    /// Takes one map away: exactly the range of an `insert`, else `noEntry`. No copy in the range is in flight when
    /// this returns. Not to be called inside a hold.
    public func remove(address: UInt64, length: UInt64) throws(ErrorNumber) {
        var owner: (any AnyObject & Sendable)?
        let held: [DMATable]? = state.withLock { state in
            let place = state.table.place(of: address)
            // Safety: the place lies in the table.
            guard length > 0, place < state.table.count, unsafe state.table.entries[place].first == address,
                unsafe state.table.entries[place].last - address == length - 1
            else { return nil }
            Self.replace(&state, log: state.table.log)
            state.table.remove(at: place)
            lastRemoval.store(MonotonicTime.now.nanoseconds, ordering: .releasing)
            owner = state.owners.remove(at: place)
            return state.retired
        }
        guard let held else { throw .noEntry }
        wait(for: held)
        // Only now may the memory go: holds of older tables have ended.
        withExtendedLifetime(owner) {}
    }

    /// Takes every map away. Not to be called inside a hold.
    public func removeAll() {
        let (owners, held) = state.withLock { state in
            Self.replace(&state, log: state.table.log)
            state.table.removeAll()
            lastRemoval.store(MonotonicTime.now.nanoseconds, ordering: .releasing)
            let owners = state.owners
            state.owners = []
            return (owners, state.retired)
        }
        wait(for: held)
        withExtendedLifetime(owners) {}
    }

    func setMessenger(_ messenger: (any DMAMessenger)?) { state.withLock { $0.messenger = messenger } }
    var messenger: (any DMAMessenger)? { state.withLock { $0.messenger } }

    /// The log of written pages, if there is one. Setting it returns when every write that is not recorded in the new
    /// one has ended.
    var log: DirtyLog? {
        get { state.withLock { $0.table.log } }
        set {
            let held = state.withLock { state in
                Self.replace(&state, log: newValue)
                return state.retired
            }
            wait(for: held)
        }
    }

    // MARK: Single copies

    /// Copies from the client's memory. Ranges may span maps that touch. On an error what came before it was copied.
    public func read(at address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(DMAError) {
        // Safety: the pointer is used only inside the call.
        try unsafe bytes.withUnsafeMutableBytes { (raw) throws(DMAError) in
            try hold { (memory) throws(DMAError) in unsafe try memory.copy(address, raw, write: false) }
        }
    }

    /// Copies to the client's memory. Ranges may span maps that touch. On an error what came before it was copied.
    ///
    /// A copy of 1, 2, 4 or 8 bytes at an address that is a multiple of its size is one store; two writes reach
    /// memory in the order they were made in.
    public func write(_ bytes: RawSpan, at address: IOVirtualAddress) throws(DMAError) {
        try hold { (memory) throws(DMAError) in try memory.write(bytes, at: address) }
    }

    /// `count` bytes of the client's memory.
    public func read(at address: IOVirtualAddress, count: Int) throws(DMAError) -> [UInt8] {
        try hold { (memory) throws(DMAError) in try memory.read(at: address, count: count) }
    }

    /// Copies an array to the client's memory.
    public func write(_ bytes: [UInt8], at address: IOVirtualAddress) throws(DMAError) {
        try hold { (memory) throws(DMAError) in try memory.write(bytes, at: address) }
    }

    /// One little-endian integer of the client's memory.
    @inlinable
    public func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, at address: IOVirtualAddress
    ) throws(DMAError) -> Value {
        try hold { (memory) throws(DMAError) in try memory.loadSlowly(type, at: address) }
    }

    /// Stores one little-endian integer to the client's memory: one store if the address is a multiple of its size.
    @inlinable
    public func store<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, at address: IOVirtualAddress
    ) throws(DMAError) {
        try hold { (memory) throws(DMAError) in try memory.storeSlowly(value, at: address) }
    }
}
