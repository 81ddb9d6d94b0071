/// The Internet checksum of a frame whose sender left it to the device.
///
/// Spec: RFC 1071; virtio 1.2 §5.1.6.2 (the checksum field holds the pseudo header's sum).
enum FrameChecksum {
    /// Sums the bytes from `start` on and stores the checksum at `start + offset`. False when that lies outside.
    static func complete(_ frame: UnsafeMutableRawBufferPointer, start: Int, offset: Int) -> Bool {
        guard start <= frame.count, offset <= frame.count - start - 2 else { return false }
        var sum: UInt64 = 0
        var place = start
        // A ones' complement sum may be taken in any order of bytes, and in wider words.
        while frame.count &- place >= 4 {
            // Safety: four bytes inside the frame.
            sum &+= UInt64(unsafe frame.loadUnaligned(fromByteOffset: place, as: UInt32.self))
            place &+= 4
        }
        var last: UInt32 = 0
        var shift: UInt32 = 0
        while place < frame.count {
            last |= UInt32(unsafe frame[place]) << shift
            shift &+= 8
            place &+= 1
        }
        sum &+= UInt64(last)
        while sum >> 16 != 0 { sum = (sum & 0xFFFF) &+ (sum >> 16) }
        let checksum = ~UInt16(truncatingIfNeeded: sum)
        // Zero says that there is none (RFC 768); its other form is all ones.
        unsafe frame.storeBytes(of: checksum == 0 ? 0xFFFF : checksum, toByteOffset: start + offset, as: UInt16.self)
        return true
    }
}
