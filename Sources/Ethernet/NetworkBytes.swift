// Network-order loads from a span of bytes.
//
// The one surprise: they trap out of bounds like every span does, so a parser checks the length first and says what
// was wrong; a trap here is a mistake of the parser, never of the sender.

extension Span where Element == UInt8 {
    /// The big-endian 16-bit number at `offset`.
    @inlinable
    public func networkUInt16(at offset: Int) -> UInt16 {
        UInt16(self[offset]) &<< 8 | UInt16(self[offset &+ 1])
    }

    /// The big-endian 32-bit number at `offset`.
    @inlinable
    public func networkUInt32(at offset: Int) -> UInt32 {
        UInt32(networkUInt16(at: offset)) &<< 16 | UInt32(networkUInt16(at: offset &+ 2))
    }

    /// The MAC address in the six bytes at `offset`.
    @inlinable
    public func macAddress(at offset: Int) -> MACAddress {
        MACAddress(
            rawValue: UInt64(networkUInt16(at: offset)) &<< 32 | UInt64(networkUInt32(at: offset &+ 2)))
    }
}
