// PMP: sixteen entries with OFF, TOR, NA4 and NAPOT matching, granularity four bytes.
//
// Spec: RISC-V Privileged 20240411 §3.7.

/// The PMP registers of a hart and the checks they define. Not copyable, so that no check copies it by accident.
struct PhysicalMemoryProtection: ~Copyable {
    static let count = 16

    /// pmp0cfg … pmp15cfg: L at bit 7, A at bits 4:3, X W R at bits 2:0.
    private var configuration = InlineArray<16, UInt8>(repeating: 0)
    private var address = InlineArray<16, UInt64>(repeating: 0)
    /// What an entry covers, as [start, end): derived from the two above. Equal ends: nothing.
    private var start = InlineArray<16, UInt64>(repeating: 0)
    private var end = InlineArray<16, UInt64>(repeating: 0)
    /// Entries from this one on are OFF.
    private var used = 0
    /// Pages (addresses, hashed) that supervisor loads may read anywhere: page walks ask again and again.
    private var readablePages = InlineArray<64, UInt64>(repeating: .max)

    /// pmpcfg0 or pmpcfg2 (`group` 0 or 1): eight entries.
    mutating func configurationRegister(_ group: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<8 { value |= UInt64(configuration[group * 8 + index]) << UInt64(index * 8) }
        return value
    }

    mutating func setConfigurationRegister(_ group: Int, _ value: UInt64) {
        for index in 0..<8 {
            let entry = group * 8 + index
            if configuration[entry] & 0x80 != 0 { continue }
            var new = UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) & 0x9F
            // R=0 W=1 is reserved: such a write leaves the permissions as they were (WARL).
            if new & 3 == 2 { new = new & ~7 | configuration[entry] & 7 }
            configuration[entry] = new
        }
        update()
    }

    mutating func addressRegister(_ entry: Int) -> UInt64 { address[entry] }

    mutating func setAddressRegister(_ entry: Int, _ value: UInt64) {
        if configuration[entry] & 0x80 != 0 { return }
        // A locked TOR entry locks its lower bound as well.
        if entry + 1 < Self.count && configuration[entry + 1] & 0x98 == 0x88 { return }
        address[entry] = value & ((1 << 54) - 1)
        update()
    }

    private mutating func update() {
        used = 0
        readablePages = InlineArray(repeating: .max)
        for entry in 0..<Self.count {
            switch configuration[entry] >> 3 & 3 {
            case 1:
                start[entry] = entry == 0 ? 0 : address[entry - 1] << 2
                end[entry] = address[entry] << 2
                if end[entry] <= start[entry] { (start[entry], end[entry]) = (0, 0) }
            case 2:
                start[entry] = address[entry] << 2
                end[entry] = start[entry] + 4
            case 3:
                let ones = UInt64((~address[entry]).trailingZeroBitCount)
                // All 54 bits set: the whole address space.
                let size: UInt64 = ones >= 54 ? 1 << 57 : 8 << ones
                start[entry] = (address[entry] << 2) & ~(size - 1)
                end[entry] = start[entry] + size
            default:
                start[entry] = 0
                end[entry] = 0
            }
            if configuration[entry] & 0x18 != 0 { used = entry + 1 }
        }
    }

    /// Whether `count` bytes at `physicalAddress` may be accessed.
    mutating func allows(_ access: Access, _ physicalAddress: UInt64, count: UInt64, _ privilege: Privilege) -> Bool {
        let last = physicalAddress &+ count
        for entry in 0..<used where start[entry] < last && physicalAddress < end[entry] {
            if physicalAddress < start[entry] || end[entry] < last { return false }
            return permits(entry, access, privilege)
        }
        return privilege == .machine
    }

    /// Whether a page walk may read the page table entry at `physicalAddress`.
    mutating func allowsWalk(_ physicalAddress: UInt64) -> Bool {
        let page = physicalAddress & ~0xFFF
        let index = Int(truncatingIfNeeded: page >> 12 & 63)
        if readablePages[index] == page { return true }
        guard allows(.load, physicalAddress, count: 8, .supervisor) else { return false }
        if isUniform(page: page) { readablePages[index] = page }
        return true
    }

    /// Whether the page's bytes all have the same permissions, so that the answer for one holds for all.
    mutating func isUniform(page: UInt64) -> Bool {
        let last = page &+ 4096
        for entry in 0..<used where start[entry] < last && page < end[entry] {
            return start[entry] <= page && last <= end[entry]
        }
        return true
    }

    private mutating func permits(_ entry: Int, _ access: Access, _ privilege: Privilege) -> Bool {
        let bits = configuration[entry]
        if privilege == .machine && bits & 0x80 == 0 { return true }
        switch access {
        case .load, .cacheBlock: return bits & 1 != 0
        case .store: return bits & 2 != 0
        case .fetch: return bits & 4 != 0
        }
    }
}
