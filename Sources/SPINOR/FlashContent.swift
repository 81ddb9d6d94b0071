internal import Glibc
internal import Wire

/// Why a flash image cannot be the content of a chip.
public enum FlashContentError: Error, Equatable, Sendable, CustomStringConvertible {
    case unreadable(path: String, reason: String)
    case notAFile(path: String)
    case wrongSize(path: String, size: UInt64, expected: UInt64)
    case inUse(path: String)
    case notKept(path: String, reason: String)

    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "\(path): cannot open the flash image: \(reason)"
        case .notAFile(let path): "\(path): the flash image is not a regular file"
        case .wrongSize(let path, let size, let expected):
            "\(path): the flash image has \(size) bytes, the chip has \(expected): "
                + (size < expected ? "is it truncated?" : "is it for another chip?")
        case .notKept(let path, let reason): "\(path): cannot keep the chip's status registers: \(reason)"
        case .inUse(let path):
            "\(path): another chip has this flash image writable: give each board a copy, or do not ask for writable"
        }
    }
}

/// The memory array of a chip: a mapping of its image file.
///
/// Writable, what is programmed goes to the file and stays; one chip at a time may have a file so. Otherwise writes
/// go to private copies of the pages written, and the file stays as it was built. The file must not shrink while a
/// chip has it: as with any mapping, that would end the process.
@safe public final class FlashContent: @unchecked Sendable {
    // Safety: the chip that owns the content serialises accesses; the mapping lives as long as this object.
    private let base: UnsafeMutableRawPointer
    /// Length in bytes.
    public let count: Int
    /// Whether writes reach the file.
    public let isPersistent: Bool
    /// Held for its lock; nil in memory.
    private let file: Descriptor?

    /// Maps the file at `path`, which must have exactly `count` bytes.
    public init(path: String, count: Int, writable: Bool) throws(FlashContentError) {
        let file: Descriptor
        do throws(WireError) {
            file = try Descriptor.open(path, flags: writable ? O_RDWR : O_RDONLY)
        } catch {
            guard case .system(_, _, let code) = error else {
                throw .unreadable(path: path, reason: error.description)
            }
            throw .unreadable(path: path, reason: systemErrorText(code))
        }
        var information = stat()
        guard unsafe fstat(file.rawValue, &information) == 0, information.st_mode & S_IFMT == S_IFREG else {
            throw .notAFile(path: path)
        }
        guard information.st_size == count else {
            throw .wrongSize(path: path, size: UInt64(clamping: information.st_size), expected: UInt64(count))
        }
        if writable, flock(file.rawValue, LOCK_EX | LOCK_NB) != 0 { throw .inUse(path: path) }
        // Safety: a fresh mapping at an address of the kernel's choice.
        let address = unsafe mmap(
            nil, count, PROT_READ | PROT_WRITE, writable ? MAP_SHARED : MAP_PRIVATE, file.rawValue, 0)
        guard let address = unsafe address, UInt(bitPattern: address) != .max else {
            throw .unreadable(path: path, reason: systemErrorText(errno))
        }
        unsafe base = unsafe address
        self.file = file
        self.count = count
        isPersistent = writable
    }

    /// An erased array of `count` bytes in memory.
    package init(erased count: Int) {
        // Safety: a fresh mapping at an address of the kernel's choice.
        let address = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let address = unsafe address, UInt(bitPattern: address) != .max else {
            preconditionFailure("no memory for a chip of \(count) bytes")
        }
        unsafe base = unsafe address
        file = nil
        self.count = count
        isPersistent = false
        erase(0..<count)
    }

    deinit {
        // Safety: mapped in init with this length, unmapped nowhere else.
        unsafe munmap(base, count)
    }

    /// Copies `length` bytes from `offset` to the front of `buffer`, going on at 0 behind the last byte.
    func read(_ offset: Int, _ length: Int, into buffer: inout [UInt8], at position: Int) {
        precondition(offset >= 0 && offset < count && length >= 0 && position >= 0, "a chip's address is in range")
        precondition(length <= buffer.count - position, "the buffer holds what is asked for")
        // Safety: each piece ends at the array's or the buffer's end at the latest.
        unsafe buffer.withUnsafeMutableBytes { bytes in
            var source = offset
            var done = 0
            while done < length {
                let piece = min(length - done, count - source)
                unsafe memcpy(bytes.baseAddress! + position + done, base + source, piece)
                done += piece
                source = 0
            }
        }
    }

    /// Clears the bits at `offset` that are clear in `value`.
    func program(_ offset: Int, _ value: UInt8) {
        precondition(offset >= 0 && offset < count, "a chip's address is in range")
        // Safety: the offset was just checked.
        let place = unsafe base + offset
        unsafe place.storeBytes(of: place.load(as: UInt8.self) & value, as: UInt8.self)
    }

    /// Sets every bit of `range`.
    func erase(_ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "a chip's address is in range")
        // Safety: the range was just checked.
        unsafe memset(base + range.lowerBound, 0xFF, range.count)
    }

    /// Sets, of every bit of `range`, those that `pattern` says. The range begins and ends at a multiple of 8.
    func set(_ range: Range<Int>, _ pattern: () -> UInt64) {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "a chip's address is in range")
        precondition(range.lowerBound % 8 == 0 && range.upperBound % 8 == 0, "an erase block is made of words")
        for offset in stride(from: range.lowerBound, to: range.upperBound, by: 8) {
            // Safety: the range was just checked, and the mapping is aligned to a page.
            let place = unsafe base + offset
            unsafe place.storeBytes(of: place.load(as: UInt64.self) | pattern(), as: UInt64.self)
        }
    }

    /// One byte.
    subscript(_ offset: Int) -> UInt8 {
        get {
            precondition(offset >= 0 && offset < count, "a chip's address is in range")
            // Safety: the offset was just checked.
            return unsafe base.load(fromByteOffset: offset, as: UInt8.self)
        }
        set {
            precondition(offset >= 0 && offset < count, "a chip's address is in range")
            // Safety: the offset was just checked.
            unsafe base.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self)
        }
    }
}
