internal import CSystem

/// A mapping of a file into this process, unmapped when its last owner lets go.
///
/// Another process may write the same bytes at any time: single accesses go through the atomic accessors, and a copy
/// taken twice may differ.
@safe public final class MappedMemory: @unchecked Sendable {
    /// The first byte. Valid as long as this object lives.
    public let baseAddress: UnsafeMutableRawPointer
    /// The mapping's length in bytes.
    public let count: Int
    public let isWritable: Bool

    /// Maps `count` bytes of `descriptor` from `offset` (a multiple of the page size), shared with its other users.
    ///
    /// Throws `.outOfRange` when the file is shorter: an access beyond its end would raise SIGBUS.
    public init(_ descriptor: Descriptor, offset: UInt64 = 0, count: Int, writable: Bool = true) throws(WireError) {
        let limit = descriptor.fileSize ?? 0
        let (end, overflow) = offset.addingReportingOverflow(UInt64(clamping: count))
        guard count > 0, !overflow, end <= limit, let fileOffset = Int(exactly: offset) else {
            throw .outOfRange(offset: offset, count: UInt64(clamping: count), limit: limit)
        }
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        // Safety: a fresh mapping at an address of the kernel's choice.
        let address = unsafe mmap(nil, count, protection, MAP_SHARED, descriptor.rawValue, fileOffset)
        // MAP_FAILED is all ones.
        guard let address = unsafe address, UInt(bitPattern: address) != .max else {
            throw .last("mmap", "descriptor \(descriptor.rawValue)")
        }
        unsafe baseAddress = unsafe address
        self.count = count
        isWritable = writable
    }

    deinit { unsafe munmap(baseAddress, count) }

    /// The whole mapping.
    public var bytes: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(start: baseAddress, count: count)
    }

    /// Makes the pages of a range present, because all of it is about to be written: half the time of a fault each.
    public func populate(offset: UInt64, count: UInt64) {
        guard isWritable, contains(offset: offset, count: count) else { return }
        let first = offset & ~4095
        // Safety: the range lies in the mapping, which begins at a page.
        unsafe cs_populate(baseAddress + Int(first), Int(offset - first + count))
    }

    private static let guardsBusErrors = cs_guard_bus_errors() == 0

    /// Copies bytes from `offset` on out of the mapping of a file that others may shorten, or whose disk may fail. False
    /// where a page cannot be had, or the range is not inside; part of the buffer is then written.
    public func copyGuarded(from offset: UInt64, to buffer: UnsafeMutableRawBufferPointer) -> Bool {
        guard Self.guardsBusErrors, contains(offset: offset, count: UInt64(buffer.count)) else { return false }
        guard let room = buffer.baseAddress else { return true }
        // Safety: the range lies in the mapping, and a page that is not there ends the copy instead of the process.
        return unsafe cs_copy_guarded(room, baseAddress + Int(offset), buffer.count)
    }

    /// True when `count` bytes at `offset` lie inside.
    public func contains(offset: UInt64, count: UInt64) -> Bool {
        offset <= UInt64(self.count) && count <= UInt64(self.count) - offset
    }
}

/// Anonymous memory that can be passed to other processes: guest RAM, rings.
public final class SharedMemory: Sendable {
    public let descriptor: Descriptor
    public let mapping: MappedMemory

    /// Makes `size` bytes of zeroes named `name` (as /proc shows it), sealed against shrinking and growing.
    public init(create name: String, size: Int) throws(WireError) {
        // Safety: the string lives through the call.
        let number = unsafe cs_memfd(name)
        guard number >= 0 else { throw .last("memfd_create", name) }
        descriptor = Descriptor(adopting: number)
        guard ftruncate(number, size) == 0 else { throw .last("ftruncate", name) }
        guard cs_seal_size(number) == 0 else { throw .last("fcntl(F_ADD_SEALS)", name) }
        mapping = try MappedMemory(descriptor, count: size)
    }

    /// The memory's length in bytes.
    public var size: Int { mapping.count }
}
