public import VFIOUser
public import Wire

/// Who is behind a transaction: bus, device and function as PCI Express puts them on the wire.
public struct RequesterID: RawRepresentable, Hashable, Sendable {
    /// Bits 15–8 bus, 7–3 device, 2–0 function.
    public var rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public init(bus: UInt8, device: UInt8, function: UInt8 = 0) {
        rawValue = UInt16(bus) << 8 | UInt16(device & 0x1F) << 3 | UInt16(function & 7)
    }
}

/// A range of the bus through which a device reaches memory directly.
///
/// The root complex asks for a device's windows when it is attached and whenever `refreshDMA` is called: that is where
/// an IOMMU comes in. Without one, RAM is one window at its own address.
public struct DMAWindow: Sendable {
    public var address: IOVirtualAddress
    public var length: UInt64
    public var memory: SharedMemory
    /// In the memory.
    public var offset: UInt64
    public var isWritable: Bool

    public init(
        address: IOVirtualAddress, length: UInt64, memory: SharedMemory, offset: UInt64 = 0, isWritable: Bool = true
    ) {
        self.address = address
        self.length = length
        self.memory = memory
        self.offset = offset
        self.isWritable = isWritable
    }

    func isSame(as other: DMAWindow) -> Bool {
        address == other.address && length == other.length && offset == other.offset
            && isWritable == other.isWritable && memory === other.memory
    }
}

/// Memory for devices that reach it by messages: the same windows.
final class WindowMemory: ClientMemory {
    private let windows: @Sendable () -> [DMAWindow]

    init(_ windows: @escaping @Sendable () -> [DMAWindow]) { self.windows = windows }

    private func place(
        _ address: IOVirtualAddress, _ count: Int, write: Bool
    ) throws(ErrorNumber) -> UnsafeMutableRawBufferPointer {
        for window in windows() {
            guard address >= window.address else { continue }
            let inside = address.rawValue - window.address.rawValue
            guard inside <= window.length, UInt64(count) <= window.length - inside else { continue }
            guard window.isWritable || !write else { throw .notPermitted }
            let (start, overflow) = window.offset.addingReportingOverflow(inside)
            guard !overflow, window.memory.mapping.contains(offset: start, count: UInt64(count)) else { continue }
            // Safety: the range lies inside the mapping, which lives as long as the window's memory.
            return unsafe UnsafeMutableRawBufferPointer(
                start: window.memory.mapping.baseAddress + Int(start), count: count)
        }
        throw .badAddress
    }

    func read(_ address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        let there = unsafe try place(address, bytes.byteCount, write: false)
        // Safety: both hold the span's count.
        unsafe bytes.withUnsafeMutableBytes { unsafe $0.copyMemory(from: UnsafeRawBufferPointer(there)) }
    }

    func write(_ address: IOVirtualAddress, from bytes: RawSpan) throws(ErrorNumber) {
        let there = unsafe try place(address, bytes.byteCount, write: true)
        // Safety: both hold the span's count.
        unsafe bytes.withUnsafeBytes { unsafe there.copyMemory(from: $0) }
    }
}
