internal import Glibc
internal import Synchronization
public import Wire

/// How DMA reaches memory that came without a descriptor: DMA_READ and DMA_WRITE messages to the client.
protocol DMAMessenger: AnyObject, Sendable {
    func dmaRead(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(DMAError)
    func dmaWrite(_ address: UInt64, from bytes: UnsafeRawBufferPointer) throws(DMAError)
}

/// The client's memory as its device sees it: the table of DMA maps, and copies through it.
///
/// Any thread may read and write at any time. A copy through mapped memory holds the table's lock, and so does
/// unmapping: when DMA_UNMAP is answered, no copy is in flight in the range and none begins, as the specification
/// demands. Copies that need messages hold no lock while they wait for the client.
///
/// A map whose file is sealed against shrinking (`F_SEAL_SHRINK`: memfd of this board and of QEMU) is reached by
/// mmap. One that is not could be cut at any moment by the peer, and touching it would then raise SIGBUS; it is
/// reached by pread and pwrite instead, some 0.3 µs dearer, which fail politely.
public final class DMAAddressSpace: Sendable {
    enum Backing {
        /// Mapped memory; the map's first byte is `offset` bytes into it.
        case memory(MappedMemory, offset: Int)
        /// A file that may shrink.
        case file(Descriptor, offset: UInt64)
        case messages
    }

    struct Map {
        let first: UInt64
        let last: UInt64
        let flags: UInt32
        let backing: Backing
    }

    private struct State {
        /// Sorted by address, without overlap.
        var maps: [Map] = []
        var recent = 0
        var messenger: (any DMAMessenger)?
    }

    private let state = Mutex(State())
    private let enabled: Atomic<Bool>

    /// The most maps at one time: what VERSION promises.
    public static let maximumMaps = Capabilities.defaultDMAMaps

    /// `enabled` false: every access fails until `isEnabled` is set, as with bus mastering off.
    public init(enabled: Bool = true) { self.enabled = Atomic(enabled) }

    /// Whether the device may reach memory at all: PCI's bus master enable.
    public var isEnabled: Bool {
        get { enabled.load(ordering: .acquiring) }
        set { enabled.store(newValue, ordering: .releasing) }
    }

    /// The ranges mapped now, in order of address.
    public var ranges: [ClosedRange<UInt64>] { state.withLock { $0.maps.map { $0.first...$0.last } } }

    // MARK: The table

    /// Adds a map. Refused: `exists` where another map lies, `invalid` where the file is too short or cannot be
    /// mapped, `noSpace` when the table is full.
    public func insert(_ map: DMAMap, descriptor: Descriptor?) throws(ErrorNumber) {
        let last = map.address + (map.length - 1)
        let new = Map(first: map.address, last: last, flags: map.flags, backing: try backing(map, descriptor))
        let result: Result<Void, ErrorNumber> = state.withLock { state in
            guard state.maps.count < Self.maximumMaps else { return .failure(.noSpace) }
            let place = Self.place(of: map.address, in: state.maps)
            if place < state.maps.count, state.maps[place].first <= last { return .failure(.exists) }
            if place > 0, state.maps[place - 1].last >= map.address { return .failure(.exists) }
            state.maps.insert(new, at: place)
            return .success(())
        }
        try result.get()
    }

    private func backing(_ map: DMAMap, _ descriptor: Descriptor?) throws(ErrorNumber) -> Backing {
        guard let descriptor else {
            guard map.flags & (DMAMap.mapped | DMAMap.fileInputOutput) == 0 else { throw .invalid }
            return .messages
        }
        let (end, overflow) = map.offset.addingReportingOverflow(map.length)
        guard !overflow, end <= UInt64(Int64.max), let size = descriptor.fileSize, end <= size else { throw .invalid }
        guard descriptor.isSealedAgainstShrinking else { return .file(descriptor, offset: map.offset) }
        let slack = map.offset % UInt64(getpagesize())
        guard let count = Int(exactly: map.length + slack) else { throw .invalid }
        do throws(WireError) {
            let memory = try MappedMemory(
                descriptor, offset: map.offset - slack, count: count, writable: map.flags & DMAMap.writeable != 0)
            return .memory(memory, offset: Int(slack))
        } catch {
            throw .invalid
        }
    }

    /// Takes one map away: exactly the range of an `insert`, else `noEntry`. No copy in the range is in flight when
    /// this returns.
    public func remove(address: UInt64, length: UInt64) throws(ErrorNumber) {
        let result: Result<Void, ErrorNumber> = state.withLock { state in
            let place = Self.place(of: address, in: state.maps)
            guard length > 0, place < state.maps.count, state.maps[place].first == address,
                state.maps[place].last - address == length - 1
            else { return .failure(.noEntry) }
            state.maps.remove(at: place)
            state.recent = 0
            return .success(())
        }
        try result.get()
    }

    /// Takes every map away.
    public func removeAll() {
        state.withLock { state in
            state.maps = []
            state.recent = 0
        }
    }

    func setMessenger(_ messenger: (any DMAMessenger)?) { state.withLock { $0.messenger = messenger } }

    /// The first place whose map begins at or above an address.
    private static func place(of address: UInt64, in maps: [Map]) -> Int {
        var low = 0
        var high = maps.count
        while low < high {
            let middle = (low + high) / 2
            if maps[middle].first < address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: Copies

    /// Copies from the client's memory. Ranges may span maps that touch. On an error what came before it was copied.
    public func read(at address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(DMAError) {
        // Safety: the pointer is used only inside the call.
        try unsafe bytes.withUnsafeMutableBytes { (raw) throws(DMAError) in
            unsafe try copy(address, raw, count: raw.count, write: false)
        }
    }

    /// Copies to the client's memory. Ranges may span maps that touch. On an error what came before it was copied.
    ///
    /// A copy of 1, 2, 4 or 8 bytes at an address that is a multiple of its size is one store; two writes reach
    /// memory in the order they were made in.
    public func write(_ bytes: RawSpan, at address: IOVirtualAddress) throws(DMAError) {
        // Safety: the pointer is used only inside the call, and with `write: true` only read from.
        try unsafe bytes.withUnsafeBytes { (raw) throws(DMAError) in
            unsafe try copy(address, UnsafeMutableRawBufferPointer(mutating: raw), count: raw.count, write: true)
        }
    }

    /// `count` bytes of the client's memory.
    public func read(at address: IOVirtualAddress, count: Int) throws(DMAError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        // Safety: every bit pattern is a valid byte.
        var raw = unsafe span.mutableBytes
        try read(at: address, into: &raw)
        return bytes
    }

    /// Copies an array to the client's memory.
    public func write(_ bytes: [UInt8], at address: IOVirtualAddress) throws(DMAError) {
        // Safety: bytes have no padding.
        try write(unsafe bytes.span.bytes, at: address)
    }

    /// One little-endian integer of the client's memory.
    public func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, at address: IOVirtualAddress
    ) throws(DMAError) -> Value {
        var value: Value = 0
        // Safety: the bytes of a local integer.
        try unsafe withUnsafeMutableBytes(of: &value) { (raw) throws(DMAError) in
            unsafe try copy(address, raw, count: raw.count, write: false)
        }
        return Value(littleEndian: value)
    }

    /// Stores one little-endian integer to the client's memory: one store if the address is a multiple of its size.
    public func store<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, at address: IOVirtualAddress
    ) throws(DMAError) {
        var value = value.littleEndian
        // Safety: the bytes of a local integer.
        try unsafe withUnsafeMutableBytes(of: &value) { (raw) throws(DMAError) in
            unsafe try copy(address, raw, count: raw.count, write: true)
        }
    }

    /// What is left to do after the table's lock was let go.
    private enum Step {
        case done(Int)
        case file(Descriptor, offset: UInt64, Int)
        case messages(any DMAMessenger, Int)
        case failed(DMAError)
    }

    private func copy(
        _ address: IOVirtualAddress, _ local: UnsafeMutableRawBufferPointer, count: Int, write: Bool
    ) throws(DMAError) {
        guard isEnabled else { throw .disabled }
        guard count > 0, let base = local.baseAddress else { return }
        guard !address.rawValue.addingReportingOverflow(UInt64(count) - 1).overflow else { throw .notMapped(address) }
        var done = 0
        while done < count {
            let place = IOVirtualAddress(address.rawValue + UInt64(done))
            // Safety: done < count ≤ local.count.
            let rest = unsafe UnsafeMutableRawBufferPointer(start: base + done, count: count - done)
            switch unsafe step(place, rest, write: write) {
            case .done(let copied): done += copied
            case .failed(let error): throw error
            case .file(let descriptor, let offset, let length):
                unsafe try transfer(descriptor, offset, rest.baseAddress!, length, write: write, place)
                done += length
            case .messages(let messenger, let length):
                let part = unsafe UnsafeMutableRawBufferPointer(start: base + done, count: length)
                if write {
                    unsafe try messenger.dmaWrite(place.rawValue, from: UnsafeRawBufferPointer(part))
                } else {
                    unsafe try messenger.dmaRead(place.rawValue, into: part)
                }
                done += length
            }
        }
    }

    /// Copies what one map holds of a range, under the lock, or says how it must be copied without it.
    private func step(_ address: IOVirtualAddress, _ local: UnsafeMutableRawBufferPointer, write: Bool) -> Step {
        state.withLock { state in
            var index = state.recent
            if index >= state.maps.count || address.rawValue < state.maps[index].first
                || address.rawValue > state.maps[index].last
            {
                index = Self.place(of: address.rawValue, in: state.maps)
                if index == state.maps.count || state.maps[index].first > address.rawValue { index -= 1 }
                guard index >= 0, address.rawValue <= state.maps[index].last else {
                    return .failed(.notMapped(address))
                }
                state.recent = index
            }
            let map = state.maps[index]
            guard map.flags & (write ? DMAMap.writeable : DMAMap.readable) != 0 else {
                return .failed(.notPermitted(address))
            }
            let inside = address.rawValue - map.first
            let length = Int(min(UInt64(local.count) - 1, map.last - address.rawValue)) + 1
            switch map.backing {
            case .memory(let memory, let offset):
                // Safety: inside + length ≤ the map's length ≤ memory.count - offset; the file cannot shrink.
                let there = unsafe memory.baseAddress + offset + Int(inside)
                unsafe Self.copy(local.baseAddress!, there, length, write: write)
                return .done(length)
            case .file(let descriptor, let offset):
                return .file(descriptor, offset: offset + inside, length)
            case .messages:
                guard let messenger = state.messenger else { return .failed(.disabled) }
                return .messages(messenger, length)
            }
        }
    }

    /// Copies between local and shared memory; naturally aligned integers by one load or store.
    private static func copy(
        _ local: UnsafeMutableRawPointer, _ there: UnsafeMutableRawPointer, _ length: Int, write: Bool
    ) {
        let (from, to) = unsafe write ? (local, there) : (there, local)
        let aligned = UInt(bitPattern: there) & UInt(length - 1) == 0
        // Safety: both hold `length` bytes, by the callers.
        switch length {
        case 4 where aligned: unsafe to.storeBytes(of: from.loadUnaligned(as: UInt32.self), as: UInt32.self)
        case 8 where aligned: unsafe to.storeBytes(of: from.loadUnaligned(as: UInt64.self), as: UInt64.self)
        case 2 where aligned: unsafe to.storeBytes(of: from.loadUnaligned(as: UInt16.self), as: UInt16.self)
        case 1: unsafe to.storeBytes(of: from.loadUnaligned(as: UInt8.self), as: UInt8.self)
        default: unsafe memcpy(to, from, length)
        }
    }

    private func transfer(
        _ descriptor: Descriptor, _ offset: UInt64, _ local: UnsafeMutableRawPointer, _ length: Int, write: Bool,
        _ address: IOVirtualAddress
    ) throws(DMAError) {
        var done = 0
        while done < length {
            guard let place = Int(exactly: offset + UInt64(done)) else { throw .lost(address) }
            // Safety: done < length, and `local` holds `length` bytes by the caller.
            let count =
                unsafe write
                ? pwrite(descriptor.rawValue, local + done, length - done, place)
                : pread(descriptor.rawValue, local + done, length - done, place)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw .lost(address) }
            done += count
        }
    }
}
