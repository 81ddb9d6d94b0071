public import Synchronization

/// The client's memory inside `DMAAddressSpace.hold`: copies that look nothing up twice and take no lock.
///
/// Everything a `DMAAddressSpace` can do with memory, cheaper: the map that was used last is remembered, and an integer
/// at an address that is a multiple of its size is one acquiring load or one releasing store (some 3 ns).
///
/// While the hold lasts a DMA_UNMAP is not answered, so pointers stay valid and no DMA happens after the answer. Memory
/// that came without a descriptor is reached by messages; for as long as one travels the hold is let go of, unless it
/// gave out pointers, so that a client may unmap meanwhile without either waiting for the other.
@safe public struct HeldMemory: ~Copyable {
    @usableFromInline let space: DMAAddressSpace
    // Safety: `table.holders` counts this hold, and a table that is held is not freed.
    @usableFromInline unowned(unsafe) var table: DMATable

    // The window: the map used last, if it is mapped memory. `readable` and `writeable` are its length where it may be
    // read and written, else 0, and `writeable` is 0 too while writes are logged.
    // Safety: `base` holds so many bytes while the table is held.
    @usableFromInline var first: UInt64 = 0
    @usableFromInline var readable: UInt64 = 0
    @usableFromInline var writeable: UInt64 = 0
    @usableFromInline var base: UnsafeMutableRawPointer
    /// Pointers were given out.
    var isPinned = false
    /// Ranges that pointers for writing were given out for, while writes are logged: marked when the hold ends.
    var lent: [(address: UInt64, count: UInt64)] = []

    @usableFromInline
    init(_ space: DMAAddressSpace) {
        self.space = space
        unsafe table = space.enter()
        unsafe base = UnsafeMutableRawPointer(bitPattern: 16)!
    }

    // MARK: Integers

    /// One little-endian integer of the client's memory: one acquiring load if the address is a multiple of its size.
    @inlinable @inline(__always)
    public mutating func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, at address: IOVirtualAddress
    ) throws(DMAError) -> Value {
        let inside = address.rawValue &- first
        guard inside < readable, readable &- inside >= UInt64(MemoryLayout<Value>.size), space.isEnabled else {
            return try loadSlowly(type, at: address)
        }
        // Safety: inside + size ≤ readable, the bytes at base.
        return unsafe Self.load(base + Int(truncatingIfNeeded: inside))
    }

    /// Stores one little-endian integer to the client's memory: one releasing store if the address is a multiple of
    /// its size.
    @inlinable @inline(__always)
    public mutating func store<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, at address: IOVirtualAddress
    ) throws(DMAError) {
        let inside = address.rawValue &- first
        guard inside < writeable, writeable &- inside >= UInt64(MemoryLayout<Value>.size), space.isEnabled else {
            return try storeSlowly(value, at: address)
        }
        // Safety: inside + size ≤ writeable, the bytes at base.
        unsafe Self.store(value, base + Int(truncatingIfNeeded: inside))
    }

    @inlinable
    mutating func loadSlowly<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, at address: IOVirtualAddress
    ) throws(DMAError) -> Value {
        var value: Value = 0
        // Safety: the bytes of a local integer.
        try unsafe withUnsafeMutableBytes(of: &value) { (raw) throws(DMAError) in
            unsafe try copy(address, raw, write: false)
        }
        return Value(littleEndian: value)
    }

    @inlinable
    mutating func storeSlowly<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, at address: IOVirtualAddress
    ) throws(DMAError) {
        var value = value.littleEndian
        // Safety: the bytes of a local integer.
        try unsafe withUnsafeMutableBytes(of: &value) { (raw) throws(DMAError) in
            unsafe try copy(address, raw, write: true)
        }
    }

    /// Precondition, of both: the bytes at `place` are the client's, for as long as the hold lasts. The client may
    /// write them at any time, so aligned integers are reached atomically and the others byte by byte.
    @inlinable @inline(__always)
    static func load<Value: FixedWidthInteger & BitwiseCopyable>(_ place: UnsafeMutableRawPointer) -> Value {
        let size = MemoryLayout<Value>.size
        guard UInt(bitPattern: place) & UInt(size - 1) == 0 else { return unsafe place.loadUnaligned(as: Value.self) }
        // Safety: an aligned integer, and an Atomic has its value's layout.
        switch size {
        case 1:
            return unsafe Value(
                truncatingIfNeeded: place.assumingMemoryBound(to: Atomic<UInt8>.self).pointee.load(ordering: .acquiring)
            )
        case 2:
            return unsafe Value(
                truncatingIfNeeded: place.assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(
                    ordering: .acquiring))
        case 4:
            return unsafe Value(
                truncatingIfNeeded: place.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(
                    ordering: .acquiring))
        case 8:
            return unsafe Value(
                truncatingIfNeeded: place.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(
                    ordering: .acquiring))
        default: return unsafe place.loadUnaligned(as: Value.self)
        }
    }

    @inlinable @inline(__always)
    static func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, _ place: UnsafeMutableRawPointer) {
        let size = MemoryLayout<Value>.size
        guard UInt(bitPattern: place) & UInt(size - 1) == 0 else {
            return unsafe place.storeBytes(of: value, as: Value.self)
        }
        // Safety: an aligned integer, and an Atomic has its value's layout.
        switch size {
        case 1:
            unsafe place.assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(
                UInt8(truncatingIfNeeded: value), ordering: .releasing)
        case 2:
            unsafe place.assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(
                UInt16(truncatingIfNeeded: value), ordering: .releasing)
        case 4:
            unsafe place.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(
                UInt32(truncatingIfNeeded: value), ordering: .releasing)
        case 8:
            unsafe place.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(
                UInt64(truncatingIfNeeded: value), ordering: .releasing)
        default: unsafe place.storeBytes(of: value, as: Value.self)
        }
    }

    // MARK: Bytes

    /// Copies from the client's memory. Ranges may span maps that touch. On an error what came before it was copied.
    public mutating func read(at address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(DMAError) {
        // Safety: the pointer is used only inside the call.
        try unsafe bytes.withUnsafeMutableBytes { (raw) throws(DMAError) in
            unsafe try copy(address, raw, write: false)
        }
    }

    /// Copies to the client's memory. Ranges may span maps that touch. On an error what came before it was copied.
    public mutating func write(_ bytes: RawSpan, at address: IOVirtualAddress) throws(DMAError) {
        // Safety: the pointer is used only inside the call, and with `write: true` only read from.
        try unsafe bytes.withUnsafeBytes { (raw) throws(DMAError) in
            unsafe try copy(address, UnsafeMutableRawBufferPointer(mutating: raw), write: true)
        }
    }

    /// `count` bytes of the client's memory.
    public mutating func read(at address: IOVirtualAddress, count: Int) throws(DMAError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        // Safety: every bit pattern is a valid byte.
        var raw = unsafe span.mutableBytes
        try read(at: address, into: &raw)
        return bytes
    }

    /// Copies an array to the client's memory.
    public mutating func write(_ bytes: [UInt8], at address: IOVirtualAddress) throws(DMAError) {
        // Safety: bytes have no padding.
        try write(unsafe bytes.span.bytes, at: address)
    }

    /// Copies from the client's memory into a buffer: `read(at:into:)` for callers that have a pointer.
    public mutating func read(at address: IOVirtualAddress, into buffer: UnsafeMutableRawBufferPointer) throws(DMAError)
    { unsafe try copy(address, buffer, write: false) }

    /// Copies a buffer to the client's memory: `write(_:at:)` for callers that have a pointer.
    public mutating func write(_ buffer: UnsafeRawBufferPointer, at address: IOVirtualAddress) throws(DMAError) {
        // Safety: with `write: true` only read from.
        unsafe try copy(address, UnsafeMutableRawBufferPointer(mutating: buffer), write: true)
    }

    // MARK: Pointers

    /// The client's memory itself, for system calls that read or write it (preadv of a file, recvmsg of frames). Valid
    /// until the hold ends, not longer.
    ///
    /// Nil where the range is not one piece of directly mapped memory, or may not be accessed so: use a buffer and
    /// copies, which also say why. With `writing` the whole range counts as written when the hold ends.
    public mutating func pointer(
        at address: IOVirtualAddress, count: Int, writing: Bool
    ) -> UnsafeMutableRawBufferPointer? {
        let inside = address.rawValue &- first
        let window = writing ? writeable : readable
        if count > 0, inside < window, window &- inside >= UInt64(count), space.isEnabled {
            isPinned = true
            // Safety: inside + count ≤ window, the bytes at base.
            return unsafe UnsafeMutableRawBufferPointer(start: base + Int(truncatingIfNeeded: inside), count: count)
        }
        guard space.isEnabled, count > 0, !address.rawValue.addingReportingOverflow(UInt64(count) - 1).overflow,
            let entry = unsafe table.entry(holding: address.rawValue), let base = unsafe entry.base,
            entry.flags & (writing ? DMAMap.writeable : DMAMap.readable) != 0,
            entry.last - address.rawValue >= UInt64(count) - 1
        else { return nil }
        isPinned = true
        look(through: entry)
        if writing, unsafe table.log != nil { lent.append((address.rawValue, UInt64(count))) }
        // Safety: the range lies in the entry, whose memory stays mapped while the table is held.
        return unsafe UnsafeMutableRawBufferPointer(start: base + Int(address.rawValue - entry.first), count: count)
    }
}
