// Software TLBs. Three caches, all direct-mapped and per hart:
//
// - `TranslationCache`: loads and stores that hit RAM or ROM, looked at inline by the interpreter.
// - `FetchCache`: virtual pages to physical pages for instruction fetch, and virtual addresses to decoded blocks.
// - `ContextTable`: numbers for "who is asking": satp, privilege, SUM, MXR (and V, VMID one day).
//
// Nothing is flushed when privilege, SUM or address space change: an entry belongs to a context number, and a context
// that is in use again gets its old number back. SFENCE.VMA forgets numbers instead of entries. Only when the numbers
// of the data side (511) are used up are its entries cleared.
import CSystem

/// Data translations: 4 KiB pages of memory with a host pointer.
///
/// An entry's tag is the virtual page's address with the context number in bits 11:3; bits 2:0 are zero, so that one
/// comparison checks page, context and alignment (the address's low bits under the access's width are compared too).
@safe struct TranslationCache {
    struct Entry {
        var tag: UInt64
        /// Host address minus virtual address, wrapping.
        var difference: UInt64
    }

    static let count = 512
    let base: UnsafeMutablePointer<Entry>

    init(_ core: HartCore) {
        // Safety: the core has room for `count` entries for loads, then as many for stores, zeroed.
        unsafe base = (core.base + HartCore.translationsOffset).bindMemory(to: Entry.self, capacity: 2 * Self.count)
    }

    func removeAll() {
        // Safety: as allocated. Tag 0 never matches: context numbers begin at 1.
        unsafe base.update(repeating: Entry(tag: 0, difference: 0), count: 2 * Self.count)
    }

    /// The entry that an access at `address` may use.
    @inline(__always) func reading(_ address: UInt64) -> EntryPointer {
        // Safety: the index is masked to the table.
        unsafe EntryPointer(raw: base + Int(truncatingIfNeeded: address >> 12 & UInt64(Self.count - 1)))
    }

    @inline(__always) func writing(_ address: UInt64) -> EntryPointer {
        // Safety: the index is masked to the table's second half.
        unsafe EntryPointer(raw: base + Self.count + Int(truncatingIfNeeded: address >> 12 & UInt64(Self.count - 1)))
    }

    /// Forgets a page in every context.
    func remove(page address: UInt64) {
        for entry in [reading(address), writing(address)] {
            // Safety: see EntryPointer.
            if unsafe entry.raw.pointee.tag & ~0xFFF == address & ~0xFFF { unsafe entry.raw.pointee.tag = 0 }
        }
    }

    /// One entry, and memory through it.
    @safe struct EntryPointer {
        let raw: UnsafeMutablePointer<Entry>

        /// Whether the entry translates a naturally aligned access of `width` bytes in `context`.
        @inline(__always) func matches(_ address: UInt64, _ width: UInt64, _ context: UInt64) -> Bool {
            // Safety: points into the table.
            unsafe (address & (~0xFFF | (width - 1))) | context == raw.pointee.tag
        }

        // Safety (all below): called after `matches`, so address + difference lies in a page of a region's host
        // memory, aligned to the access; the region outlives the hart.
        @inline(__always) func host(_ address: UInt64) -> UnsafeMutableRawPointer {
            unsafe UnsafeMutableRawPointer(bitPattern: UInt(truncatingIfNeeded: address &+ raw.pointee.difference))
                .unsafelyUnwrapped
        }
        @inline(__always) func load8(_ address: UInt64) -> UInt8 { unsafe cs_load8(host(address)) }
        @inline(__always) func load16(_ address: UInt64) -> UInt16 { unsafe cs_load16(host(address)) }
        @inline(__always) func load32(_ address: UInt64) -> UInt32 { unsafe cs_load32(host(address)) }
        @inline(__always) func load64(_ address: UInt64) -> UInt64 { unsafe cs_load64(host(address)) }
        @inline(__always) func store8(_ address: UInt64, _ value: UInt64) {
            unsafe cs_store8(host(address), UInt8(truncatingIfNeeded: value))
        }
        @inline(__always) func store16(_ address: UInt64, _ value: UInt64) {
            unsafe cs_store16(host(address), UInt16(truncatingIfNeeded: value))
        }
        @inline(__always) func store32(_ address: UInt64, _ value: UInt64) {
            unsafe cs_store32(host(address), UInt32(truncatingIfNeeded: value))
        }
        @inline(__always) func store64(_ address: UInt64, _ value: UInt64) { unsafe cs_store64(host(address), value) }
    }
}

/// Instruction translations: pages, and the blocks that jumps lead to.
@safe struct FetchCache {
    @safe struct Page {
        var virtualPage: UInt64
        var physicalPage: UInt64
        var host: UnsafeRawPointer
        var context: UInt32
    }

    struct Jump {
        var pc: UInt64
        /// 0: empty; else the context the entry belongs to.
        var context: UInt64
        var block: BlockPointer
        /// Where translated code continues: the block's code, or the way out if it has none yet.
        var code: UInt64
    }

    static let pageCount = 512
    static let jumpCount = 4096
    private let pages: UnsafeMutablePointer<Page?>
    let jumps: UnsafeMutablePointer<Jump>
    /// Which virtual pages (hashed) may be in `jumps`; a page that is not needs no flush.
    private let filter: UnsafeMutablePointer<UInt64>
    private static let filterWords = 64

    init(_ core: HartCore) {
        // Safety: freed by the HartState that made them; the block pointer of an empty jump is never followed. The core
        // has room for `jumpCount` jumps, zeroed.
        unsafe pages = .allocate(capacity: Self.pageCount)
        unsafe pages.initialize(repeating: nil, count: Self.pageCount)
        unsafe jumps = (core.base + HartCore.jumpsOffset).bindMemory(to: Jump.self, capacity: Self.jumpCount)
        unsafe filter = .allocate(capacity: Self.filterWords)
        unsafe filter.initialize(repeating: 0, count: Self.filterWords)
    }

    func deallocate() {
        // Safety: called once, by the owner's deinit.
        unsafe pages.deallocate()
        unsafe filter.deallocate()
    }

    /// The block that `pc` leads to in `context`, if known.
    @inline(__always) func jump(_ pc: UInt64, _ context: UInt32) -> BlockPointer? {
        // Safety: the index is masked to the table.
        let entry = unsafe jumps + Int(truncatingIfNeeded: pc >> 1 & UInt64(Self.jumpCount - 1))
        return unsafe entry.pointee.pc == pc && entry.pointee.context == UInt64(context) ? entry.pointee.block : nil
    }

    /// The block that `pc` led to in some context, which may not be right any more.
    func staleJump(_ pc: UInt64) -> BlockPointer? {
        // Safety: as above.
        let entry = unsafe jumps + Int(truncatingIfNeeded: pc >> 1 & UInt64(Self.jumpCount - 1))
        return unsafe entry.pointee.pc == pc && entry.pointee.context != 0 ? entry.pointee.block : nil
    }

    /// `code`: see `Jump`.
    func insert(_ pc: UInt64, _ context: UInt32, _ block: BlockPointer, code: UInt64) {
        // Safety: as above.
        unsafe jumps[Int(truncatingIfNeeded: pc >> 1 & UInt64(Self.jumpCount - 1))] = Jump(
            pc: pc, context: UInt64(context), block: block, code: code)
    }

    func page(_ pc: UInt64, _ context: UInt32) -> Page? {
        // Safety: the index is masked to the table.
        guard let page = unsafe pages[Int(truncatingIfNeeded: pc >> 12 & UInt64(Self.pageCount - 1))],
            page.virtualPage == pc & ~0xFFF && page.context == context
        else { return nil }
        return page
    }

    func insert(_ page: Page) {
        // Safety: as above; the filter's index is masked too.
        let number = page.virtualPage >> 12
        unsafe pages[Int(truncatingIfNeeded: number & UInt64(Self.pageCount - 1))] = page
        unsafe filter[Self.filterWord(number)] |= 1 << (number & 63)
    }

    /// Whether anything of the page may be cached.
    func mayHold(page address: UInt64) -> Bool {
        let number = address >> 12
        return unsafe filter[Self.filterWord(number)] & (1 << (number & 63)) != 0
    }

    /// Called when no context number in use has entries any more.
    func clearFilter() { unsafe filter.update(repeating: 0, count: Self.filterWords) }  // Safety: as allocated.

    private static func filterWord(_ number: UInt64) -> Int {
        Int(truncatingIfNeeded: (number >> 6) ^ (number >> 12) ^ (number >> 18)) & (filterWords - 1)
    }

    /// Forgets blocks, and keeps translations.
    func removeJumps() {
        // Safety: as allocated. Context 0 is nobody's.
        for index in 0..<Self.jumpCount { unsafe jumps[index].context = 0 }
    }

    func removeAll() {
        // Safety: as allocated. Context 0 is nobody's.
        unsafe pages.update(repeating: nil, count: Self.pageCount)
        for index in 0..<Self.jumpCount { unsafe jumps[index].context = 0 }
        clearFilter()
    }
}

/// Numbers for contexts, by what they stand for. Direct-mapped: a context whose place is taken gets a fresh number.
@safe struct ContextTable {
    struct Key: Equatable {
        /// Mode, ASID and root; 0 without translation.
        var satp: UInt64
        /// Privilege (with V) in bits 2:0, SUM, MXR, and whether this is the fetch side.
        var flags: UInt32
    }

    struct Slot {
        var key: Key
        /// 0: empty.
        var number: UInt32
    }

    private static let count = 64
    private let slots: UnsafeMutablePointer<Slot>

    init() {
        // Safety: freed by the HartState that made it.
        unsafe slots = .allocate(capacity: Self.count)
        unsafe slots.initialize(repeating: Slot(key: Key(satp: 0, flags: 0), number: 0), count: Self.count)
    }

    func deallocate() { unsafe slots.deallocate() }  // Safety: called once, by the owner's deinit.

    private static func index(_ key: Key) -> Int {
        let mixed = (key.satp ^ key.satp >> 44) &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(key.flags) &* 0xD1B5_4A32_D192_ED03
        return Int(truncatingIfNeeded: mixed >> 58)
    }

    func number(_ key: Key) -> UInt32? {
        // Safety: the index has 6 bits.
        let slot = unsafe slots[Self.index(key)]
        return slot.number != 0 && slot.key == key ? slot.number : nil
    }

    func insert(_ key: Key, _ number: UInt32) {
        unsafe slots[Self.index(key)] = Slot(key: key, number: number)  // Safety: the index has 6 bits.
    }

    /// Forgets the contexts that `shouldForget` names.
    func remove(where shouldForget: (Key) -> Bool) {
        for index in 0..<Self.count where unsafe shouldForget(slots[index].key) {
            unsafe slots[index].number = 0  // Safety: index < count.
        }
    }
}

/// An inclusive range of virtual addresses that large pages lie in; empty while `first > last`.
struct LargePageRange {
    var first: UInt64 = .max
    var last: UInt64 = 0

    mutating func include(_ start: UInt64, _ size: UInt64) {
        first = min(first, start)
        last = max(last, start &+ (size &- 1))
    }

    func contains(_ address: UInt64) -> Bool { first <= address && address <= last }
}
