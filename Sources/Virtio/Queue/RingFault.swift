public import VFIOUser

/// Why a ring or a request in it makes no sense: the device stops and asks for a reset.
public enum RingFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// An area of the queue is not aligned as the ring needs it.
    case misaligned(area: String, UInt64)
    /// The available index is further ahead of the device than the ring is long.
    case indexAhead(by: UInt16, size: UInt16)
    /// A descriptor's index is not in the table.
    case descriptor(UInt16, size: UInt16)
    /// A chain of more descriptors than there are: it loops.
    case chainTooLong(Int)
    /// A descriptor that the device writes lies before one that it reads.
    case writableBeforeReadable
    /// A range that ends beyond 2^64, or a chain of more than 2^32 - 1 bytes.
    case lengthWraps
    /// A descriptor has the indirect flag although that was not negotiated.
    case indirectNotNegotiated
    /// A descriptor with the indirect flag has the next flag too, or stands inside an indirect table.
    case indirectMisplaced
    /// The length of an indirect table is zero or not a multiple of a descriptor's, or the table is too long.
    case indirectLength(UInt32)
    /// A ring, table or buffer lies where the device cannot reach.
    case memory(DMAError)
    /// A request whose form the device's specification does not allow.
    case request(String)

    public var description: String {
        switch self {
        case .misaligned(let area, let address): "the \(area) at 0x\(String(address, radix: 16)) is not aligned"
        case .indexAhead(let lead, let size): "the available index is \(lead) ahead in a ring of \(size)"
        case .descriptor(let index, let size): "descriptor \(index) in a table of \(size)"
        case .chainTooLong(let count): "a chain of more than \(count) descriptors"
        case .writableBeforeReadable: "a readable descriptor follows a writable one"
        case .lengthWraps: "the length of a descriptor or chain wraps"
        case .indirectNotNegotiated: "an indirect descriptor, which was not negotiated"
        case .indirectMisplaced: "an indirect descriptor with a successor or inside an indirect table"
        case .indirectLength(let length): "an indirect table of \(length) bytes"
        case .memory(let error): "\(error)"
        case .request(let text): text
        }
    }

    /// Not the ring's fault: bus mastering is off.
    var isBusOff: Bool { self == .memory(.disabled) }
    /// No map covers an address.
    var isUnmapped: Bool { if case .memory(.notMapped) = self { true } else { false } }
}
