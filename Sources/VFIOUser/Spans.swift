// Little-endian fields of raw spans: what every message codec reads and writes with.
//
// The protocol's fields are in the host's byte order (Spec: vfio-user "Protocol Specification"); every host that
// Baseboard runs on is little-endian, which the compiler checks here once for all codecs.

#if _endian(big)
    #error("vfio-user fields are in host order; the codecs assume a little-endian host")
#endif

extension RawSpan {
    /// The 16-bit field at a byte offset. Precondition: the field lies inside the span.
    @inlinable @inline(__always)
    public func uint16(at offset: Int) -> UInt16 {
        // Safety: the span checks the bounds, and every bit pattern is a valid integer.
        unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self)
    }

    /// The 32-bit field at a byte offset. Precondition: the field lies inside the span.
    @inlinable @inline(__always)
    public func uint32(at offset: Int) -> UInt32 {
        // Safety: the span checks the bounds, and every bit pattern is a valid integer.
        unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self)
    }

    /// The 64-bit field at a byte offset. Precondition: the field lies inside the span.
    @inlinable @inline(__always)
    public func uint64(at offset: Int) -> UInt64 {
        // Safety: the span checks the bounds, and every bit pattern is a valid integer.
        unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }

    /// The byte at an offset. Precondition: it lies inside the span.
    @inlinable @inline(__always)
    public func uint8(at offset: Int) -> UInt8 {
        // Safety: the span checks the bounds, and every bit pattern is a valid integer.
        unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
    }

    /// The whole span as one little-endian integer, zero-extended; bytes beyond the eighth are ignored.
    @inlinable
    public var littleEndianValue: UInt64 {
        switch byteCount {
        case 4: return UInt64(uint32(at: 0))
        case 1: return UInt64(uint8(at: 0))
        case 2: return UInt64(uint16(at: 0))
        case 8...: return uint64(at: 0)
        default:
            var value: UInt64 = 0
            var index = byteCount
            while index > 0 {
                index -= 1
                value = value << 8 | UInt64(uint8(at: index))
            }
            return value
        }
    }
}

extension MutableRawSpan {
    /// Fills the whole span with a little-endian integer: low bytes first, zeros beyond the eighth byte.
    @inlinable
    public mutating func storeLittleEndian(_ value: UInt64) {
        switch byteCount {
        case 4: storeBytes(of: UInt32(truncatingIfNeeded: value), toByteOffset: 0, as: UInt32.self)
        case 1: storeBytes(of: UInt8(truncatingIfNeeded: value), toByteOffset: 0, as: UInt8.self)
        case 2: storeBytes(of: UInt16(truncatingIfNeeded: value), toByteOffset: 0, as: UInt16.self)
        case 8: storeBytes(of: value, toByteOffset: 0, as: UInt64.self)
        default:
            for index in 0..<byteCount {
                let byte = index < 8 ? UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) : 0
                storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
            }
        }
    }

    /// Fills the whole span with one byte.
    @inlinable
    public mutating func fill(with byte: UInt8) {
        for index in 0..<byteCount { storeBytes(of: byte, toByteOffset: index, as: UInt8.self) }
    }
}
