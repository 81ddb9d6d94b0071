/// One range of bus addresses, handed out from the start.
struct Window {
    /// Bus address of the next free byte, and of the byte behind the window.
    private(set) var next: UInt64 = 0
    let end: UInt64
    /// What is added to a bus address to reach it from the hart.
    let cpuOffset: UInt64

    static let none = Window(base: 0, size: 0, cpuOffset: 0)

    init(base: UInt64, size: UInt64, cpuOffset: UInt64) {
        next = base
        end = base &+ size
        self.cpuOffset = cpuOffset
    }

    /// Naturally aligned space, or nil when none is left. `size` is a power of two.
    mutating func take(_ size: UInt64) -> UInt64? {
        guard size != 0, let start = aligned(size), size <= end &- start else { return nil }
        next = start &+ size
        return start
    }

    /// Moves the start up to a multiple of `granule`; false when that is beyond the window.
    mutating func align(_ granule: UInt64) -> Bool {
        guard let start = aligned(granule) else { return false }
        next = start
        return true
    }

    private func aligned(_ granule: UInt64) -> UInt64? {
        let (sum, overflow) = next.addingReportingOverflow(granule &- 1)
        let start = sum & ~(granule &- 1)
        return overflow || start > end ? nil : start
    }
}

/// The host bridge's windows into I/O space, memory below 4 GiB and memory above, as `ranges` gives them.
///
/// Spec: IEEE 1275 PCI bus binding §2.2.1.1 (phys.hi), devicetree `pci-host-ecam-generic`.
struct Windows {
    var io = Window.none
    var memory32 = Window.none
    var memory64 = Window.none

    init(ranges: Bytes?, parentAddressCells: UInt32) {
        guard let ranges, parentAddressCells >= 1, parentAddressCells <= 2 else { return }
        let parent = UInt(parentAddressCells) &* 4
        let stride = 12 &+ parent &+ 8
        var offset: UInt = 0
        while let space = ranges.big32(at: offset), let bus = ranges.big64(at: offset &+ 4),
            let cpu = ranges.number(at: offset &+ 12, cells: parentAddressCells),
            let size = ranges.big64(at: offset &+ 12 &+ parent)
        {
            offset &+= stride
            // Windows that wrap, or reach into the upper half of the address space, are not used.
            guard size != 0, bus < 1 << 63, size < 1 << 63, bus &+ size <= 1 << 63 else { continue }
            let cpuOffset = cpu &- bus
            switch space >> 24 & 3 {
            case 1:
                // Address 0 is no address: a base address register that holds it looks unassigned.
                if bus &+ size <= 1 << 32, size > 0x1000 {
                    let skipped: UInt64 = bus == 0 ? 0x1000 : 0
                    io = Window(base: bus &+ skipped, size: size &- skipped, cpuOffset: cpuOffset)
                }
            case 2:
                if bus &+ size <= 1 << 32, bus != 0 { memory32 = Window(base: bus, size: size, cpuOffset: cpuOffset) }
            case 3:
                if bus != 0 { memory64 = Window(base: bus, size: size, cpuOffset: cpuOffset) }
            default:
                break
            }
        }
    }
}
