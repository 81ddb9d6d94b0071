// Address translation: Sv39, Sv48 and Sv57 with hardware update of A and D (Svadu) or faults instead (Svade).
//
// Spec: RISC-V Privileged 20240411 §12.3 (Sv32's algorithm, which the others share), §12.4–12.6, §3.1.18 (menvcfg).
import CSystem

extension HartState {
    /// satp.MODE values.
    enum TranslationMode {
        static let bare: UInt64 = 0
        static let sv39: UInt64 = 8
        static let sv48: UInt64 = 9
        static let sv57: UInt64 = 10
    }

    /// Bits of a page table entry.
    private enum Entry {
        static let valid: UInt64 = 1 << 0
        static let read: UInt64 = 1 << 1
        static let write: UInt64 = 1 << 2
        static let execute: UInt64 = 1 << 3
        static let user: UInt64 = 1 << 4
        static let accessed: UInt64 = 1 << 6
        static let dirty: UInt64 = 1 << 7
        /// Reserved, PBMT and N: none of their extensions is here, so all must be zero.
        static let reserved: UInt64 = 0xFFC0_0000_0000_0000
    }

    /// Whether accesses of a privilege go through page tables.
    mutating func translates(_ privilege: Privilege) -> Bool {
        privilege != .machine && satp >> 60 != TranslationMode.bare
    }

    /// The physical address behind `address`. On `nil` the trap's cause and value (`address`) are recorded.
    mutating func translate(_ address: UInt64, _ access: Access, _ privilege: Privilege) -> UInt64? {
        guard translates(privilege) else { return address }
        var levels = satp >> 60 - 5
        // Addresses are sign-extended from the highest bit that is translated.
        let unused = 64 - (12 + 9 * levels)
        if UInt64(bitPattern: Int64(bitPattern: address << unused) >> Int64(unused)) != address {
            fault(access.pageFault, address)
            return nil
        }
        var table = (satp & ((1 << 44) - 1)) << 12
        while levels > 0 {
            levels -= 1
            let shift = 12 + 9 * levels
            let place = table + (address >> shift & 511) * 8
            guard let host = unsafe tableEntry(place, .load) else {
                fault(access.accessFault, address)
                return nil
            }
            // Safety: tableEntry gave a pointer to 8 aligned bytes of memory.
            let entry = unsafe cs_load64(host)
            if entry & Entry.valid == 0 || entry & (Entry.read | Entry.write) == Entry.write
                || entry & Entry.reserved != 0
            {
                break
            }
            if entry & (Entry.read | Entry.execute) == 0 {
                if entry & (Entry.user | Entry.accessed | Entry.dirty) != 0 { break }
                table = (entry >> 10 & ((1 << 44) - 1)) << 12
                continue
            }
            let offsetMask = (UInt64(1) << shift) - 1
            let base = (entry >> 10 & ((1 << 44) - 1)) << 12
            if base & offsetMask != 0 || !permits(entry, access, privilege) { break }
            guard unsafe update(entry, place, host, access) else {
                if trapCause == access.accessFault { return nil }
                break
            }
            if levels > 0 { noteLargePage(address & ~offsetMask, offsetMask + 1) }
            return base | address & offsetMask
        }
        fault(access.pageFault, address)
        return nil
    }

    private mutating func permits(_ entry: UInt64, _ access: Access, _ privilege: Privilege) -> Bool {
        if privilege == .user {
            if entry & Entry.user == 0 { return false }
        } else if entry & Entry.user != 0 && (access == .fetch || mstatus & StatusBits.sum == 0) {
            return false
        }
        switch access {
        case .fetch: return entry & Entry.execute != 0
        case .store: return entry & Entry.write != 0
        case .load, .cacheBlock:
            return entry & Entry.read != 0
                || (mstatus & StatusBits.mxr != 0 && entry & Entry.execute != 0)
        }
    }

    /// Sets A, and D for stores, where they are not set yet. False: a page fault; or, with `trapCause` already the
    /// access fault, the table may not be written.
    private mutating func update(
        _ entry: UInt64, _ place: UInt64, _ host: UnsafeMutableRawPointer, _ access: Access
    ) -> Bool {
        trapCause = access.pageFault
        let wanted = access == .store ? Entry.accessed | Entry.dirty : Entry.accessed
        if entry & wanted == wanted { return true }
        if menvcfg & EnvironmentBits.adue == 0 { return false }
        guard unsafe tableEntry(place, .store) != nil else { return fault(access.accessFault, trapValue) }
        var expected = entry
        // Safety: as in translate. Other harts may set A and D of the same entry at the same time; if one changes
        // anything else, the guest sees a page fault that its handler finds spurious. Bounded: a guest cannot keep us.
        for _ in 0..<8 {
            if unsafe cs_compare_exchange64(host, &expected, expected | wanted) { return true }
            if (expected ^ entry) & ~(Entry.accessed | Entry.dirty) != 0 { return false }
        }
        return false
    }

    /// Host pointer to a page table entry, or `nil` where there is no memory or PMP forbids the access.
    private mutating func tableEntry(_ physicalAddress: UInt64, _ access: Access) -> UnsafeMutableRawPointer? {
        guard
            access == .load
                ? pmp.allowsWalk(physicalAddress) : pmp.allows(access, physicalAddress, count: 8, .supervisor)
        else { return nil }
        if let host = unsafe mainMemory(physicalAddress, 8) { return unsafe host }
        guard let region = region(at: physicalAddress, count: 8),
            region.permissions.contains(access == .store ? .write : .read)
        else { return nil }
        // Safety: the region contains 8 bytes at the address.
        return unsafe memory(region, physicalAddress)
    }

    private mutating func noteLargePage(_ start: UInt64, _ size: UInt64) {
        if start >> 63 == 0 { largePages.low.include(start, size) } else { largePages.high.include(start, size) }
    }

    // MARK: regions

    /// Host pointer to `count` bytes of main memory; `nil` elsewhere. The short way for nearly every access.
    @inline(__always) mutating func mainMemory(_ physicalAddress: UInt64, _ count: UInt64) -> UnsafeMutableRawPointer? {
        let offset = physicalAddress &- main.base
        guard offset < main.size && main.size &- offset >= count else { return nil }
        // Safety: inside the region.
        return unsafe main.host.map { unsafe $0 + Int(offset) }
    }

    /// The largest region of memory that may be read, written and executed and is not filled on demand.
    @safe struct MainMemory {
        var base: UInt64 = 0
        var size: UInt64 = 0
        var host: UnsafeMutableRawPointer?

        init(_ regions: [PhysicalRegion]) {
            for region in regions
            where region.device == nil && region.filler == nil && region.permissions == .all && region.size > size {
                unsafe (base, size, host) = (region.base, region.size, region.host)
            }
        }
    }

    /// The region that holds `count` bytes at a physical address.
    mutating func region(at physicalAddress: UInt64, count: UInt64) -> PhysicalRegion? {
        for region in regions where region.contains(physicalAddress, count: count) { return region }
        return nil
    }

    /// Host pointer into a memory region, its page filled if it is made on demand. `nil` for devices and failed fills.
    mutating func memory(_ region: PhysicalRegion, _ physicalAddress: UInt64) -> UnsafeMutableRawPointer? {
        guard let host = unsafe region.host else { return nil }
        let offset = physicalAddress &- region.base
        if let filler = region.filler, !filler.ensure(page: Int(offset / PhysicalAddressSpace.pageSize)) { return nil }
        // Safety: the caller found the region by this address, so the offset is inside.
        return unsafe host + Int(offset)
    }

    // MARK: contexts

    /// Recomputes the tags after a change of privilege, mstatus or satp.
    mutating func updateContexts() {
        dataPrivilege = privilege
        if privilege == .machine && mstatus & StatusBits.mprv != 0 {
            dataPrivilege = Privilege(encoding: mstatus >> StatusBits.mppShift & 3) ?? .user
        }
        var key = ContextTable.Key(satp: 0, flags: UInt32(dataPrivilege.rawValue))
        if translates(dataPrivilege) {
            key.satp = satp
            key.flags |= mstatus & StatusBits.sum != 0 ? 8 : 0
            key.flags |= mstatus & StatusBits.mxr != 0 ? 16 : 0
        }
        dataContext = dataNumber(key) << 3
        key = ContextTable.Key(satp: translates(privilege) ? satp : 0, flags: UInt32(privilege.rawValue) | 32)
        fetchContext = fetchNumber(key)
    }

    private mutating func dataNumber(_ key: ContextTable.Key) -> UInt64 {
        if let number = contexts.number(key) { return UInt64(number) }
        if nextDataContext == 512 {
            translations.removeAll()
            contexts.remove { $0.flags & 32 == 0 }
            nextDataContext = 1
        }
        let number = nextDataContext
        nextDataContext += 1
        contexts.insert(key, UInt32(number))
        return number
    }

    private mutating func fetchNumber(_ key: ContextTable.Key) -> UInt32 {
        if let number = contexts.number(key) { return number }
        if nextFetchContext == .max {
            fetches.removeAll()
            contexts.remove { $0.flags & 32 != 0 }
            nextFetchContext = 1
        }
        let number = nextFetchContext
        nextFetchContext += 1
        contexts.insert(key, number)
        return number
    }

    /// Forgets every translation (SFENCE.VMA without operands, PMP changes, reset).
    mutating func forgetTranslations() {
        walkedPages.removeAll(keepingCapacity: true)
        contexts.remove { _ in true }
        fetches.clearFilter()
        largePages = (LargePageRange(), LargePageRange())
        updateContexts()
    }

    /// Forgets jumps to blocks that are no more. Translations stay: when blocks are forgotten depends on what else the
    /// host does, and the instruction clock's guest could tell by the A bits that another walk sets.
    mutating func forgetBlocks() { fetches.removeJumps() }

    /// Forgets what jumps lead to, after FENCE.I.
    mutating func forgetJumps() {
        walkedPages.removeAll(keepingCapacity: true)
        contexts.remove { $0.flags & 32 != 0 }
        fetches.clearFilter()
        updateContexts()
    }

    /// SFENCE.VMA with an ASID and no address.
    mutating func forgetTranslations(asid: UInt64) {
        contexts.remove { $0.satp >> 60 != TranslationMode.bare && $0.satp >> 44 & 0xFFFF == asid }
        updateContexts()
    }

    /// SFENCE.VMA with an address, for every ASID: more than was asked for, which is allowed.
    mutating func forgetTranslation(page address: UInt64) {
        let large = address >> 63 == 0 ? largePages.low : largePages.high
        if large.contains(address) { return forgetTranslations() }
        translations.remove(page: address)
        if fetches.mayHold(page: address) { forgetJumps() }
    }
}
