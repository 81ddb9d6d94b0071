/// An address as a device puts it on the bus: translated by the client's DMA maps, not a host address.
public struct IOVirtualAddress: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64

    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    public static func < (left: IOVirtualAddress, right: IOVirtualAddress) -> Bool { left.rawValue < right.rawValue }

    /// The address so many bytes further on, or nil where the address space ends before it.
    @inlinable
    public func advanced(by bytes: UInt64) -> IOVirtualAddress? {
        let (sum, overflow) = rawValue.addingReportingOverflow(bytes)
        return overflow ? nil : IOVirtualAddress(sum)
    }

    public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// Why a device's DMA did not happen. A guest causes these (a ring that points nowhere, bus mastering off), so a
/// device answers them as its specification says; they are not failures of this process.
public enum DMAError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No map covers the address.
    case notMapped(IOVirtualAddress)
    /// The map does not allow it: a write to memory mapped for reading, or the reverse.
    case notPermitted(IOVirtualAddress)
    /// Bus mastering is off, or no client is there.
    case disabled
    /// The client refused the DMA_READ or DMA_WRITE message.
    case refused(IOVirtualAddress, ErrorNumber)
    /// The file behind the map is shorter than it was when it was mapped, or the client left.
    case lost(IOVirtualAddress)

    public var description: String {
        switch self {
        case .notMapped(let address): "no DMA map covers \(address)"
        case .notPermitted(let address): "the DMA map at \(address) does not allow this access"
        case .disabled: "bus mastering is off"
        case .refused(let address, let error): "the client refused DMA at \(address): \(error)"
        case .lost(let address): "the memory behind \(address) is gone"
        }
    }
}
