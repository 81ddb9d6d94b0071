/// The one's complement sum that protects IPv4, ICMP and UDP. Spec: RFC 1071 §1.
///
/// A range that contains its own checksum field sums to 0xFFFF when intact, so its `value` is 0.
struct InternetChecksum {
    private var sum: UInt64 = 0

    /// Adds bytes that begin at an even offset of what is summed; an odd last byte is followed by a zero.
    mutating func add(_ bytes: Span<UInt8>) {
        var index = 0
        while index + 1 < bytes.count {
            sum &+= UInt64(bytes[index]) << 8 | UInt64(bytes[index + 1])
            index += 2
        }
        if index < bytes.count { sum &+= UInt64(bytes[index]) << 8 }
    }

    mutating func add(_ word: UInt16) { sum &+= UInt64(word) }

    mutating func add(_ word: UInt32) { sum &+= UInt64(word >> 16) &+ UInt64(word & 0xFFFF) }

    /// The complement of the folded sum.
    var value: UInt16 {
        var folded = sum
        while folded >> 16 != 0 { folded = folded >> 16 + folded & 0xFFFF }
        return ~UInt16(truncatingIfNeeded: folded)
    }
}
