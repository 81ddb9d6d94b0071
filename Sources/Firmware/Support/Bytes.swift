/// A range of plain memory that is only read: what the devicetree and the flash directory are read through.
/// Reads beyond the end are nil.
struct Bytes {
    let base: UInt
    let count: UInt

    init(base: UInt, count: UInt) {
        self.base = base
        self.count = count
    }

    /// `count` bytes from `offset`, or nil when they do not lie within.
    func slice(_ offset: UInt, _ length: UInt) -> Bytes? {
        guard offset <= count, length <= count &- offset else { return nil }
        return Bytes(base: base &+ offset, count: length)
    }

    func byte(at offset: UInt) -> UInt8? {
        guard offset < count, let pointer = unsafe UnsafeRawPointer(bitPattern: base &+ offset) else { return nil }
        // Safety: the offset is within the range that whoever made this value vouched for.
        return unsafe pointer.load(as: UInt8.self)
    }

    /// The big-endian 32-bit word at `offset`, as devicetrees have it.
    func big32(at offset: UInt) -> UInt32? {
        little32(at: offset)?.byteSwapped
    }

    func big64(at offset: UInt) -> UInt64? {
        little64(at: offset)?.byteSwapped
    }

    func little32(at offset: UInt) -> UInt32? {
        guard let bytes = slice(offset, 4), let pointer = unsafe UnsafeRawPointer(bitPattern: bytes.base) else {
            return nil
        }
        // Safety: four bytes lie within the range.
        return unsafe pointer.loadUnaligned(as: UInt32.self)
    }

    func little64(at offset: UInt) -> UInt64? {
        guard let bytes = slice(offset, 8), let pointer = unsafe UnsafeRawPointer(bitPattern: bytes.base) else {
            return nil
        }
        // Safety: eight bytes lie within the range.
        return unsafe pointer.loadUnaligned(as: UInt64.self)
    }

    /// The bytes from `offset` to the next NUL, without it; nil when no NUL follows.
    func terminated(at offset: UInt) -> Bytes? {
        var end = offset
        while let byte = byte(at: end) {
            if byte == 0 { return slice(offset, end &- offset) }
            end &+= 1
        }
        return nil
    }

    func equals(_ text: StaticString) -> Bool {
        count == UInt(text.utf8CodeUnitCount) && starts(with: text)
    }

    func starts(with text: StaticString) -> Bool {
        let expected = text.bytes
        guard expected.count <= count else { return false }
        var index: UInt = 0
        while index < expected.count {
            if byte(at: index) != expected.byte(at: index) { return false }
            index &+= 1
        }
        return true
    }
}

extension StaticString {
    /// The literal's own bytes.
    var bytes: Bytes {
        // Safety: a literal lives as long as the program.
        unsafe Bytes(base: UInt(bitPattern: utf8Start), count: UInt(utf8CodeUnitCount))
    }
}
