// Decoded blocks and the bounded cache that holds them.
//
// A block is the straight-line code from one physical address to the first jump, branch or SYSTEM instruction, to the
// end of the page, or to 64 instructions. Layout in the arena:
//
//     +0   header (80 bytes, `Block`)
//     +80  slots, 8 bytes each, one an instruction
//     +…   the instruction bytes that were decoded, 2 or 4 an instruction
//
// Keeping the bytes has two uses. After FENCE.I a block is believed again only when memory still holds the same bytes,
// whoever wrote there (this hart, another, a DMA): no store ever has to look for code, and a kernel that runs FENCE.I
// for every fresh page does not lose what was decoded. And the address of an instruction that traps is found by
// walking its predecessors' lengths, so that slots need no address.

import CSystem

/// The head of a decoded block.
@safe struct Block {
    /// Where the block's last branch goes when taken, once known and in the same page; else `nil`.
    var taken: BlockPointer?
    /// Where it goes when not taken, likewise.
    var notTaken: BlockPointer?
    /// Physical address of the first instruction.
    var physicalAddress: UInt64
    /// Host address of the first instruction's bytes.
    var source: UnsafeRawPointer
    /// Next block in the same hash bucket.
    var next: BlockPointer?
    /// The FENCE.I count at which the bytes were last compared.
    var generation: UInt64
    /// Instructions.
    var count: UInt16
    /// Bytes of instructions.
    var length: UInt16
    /// Whether `taken` or `notTaken` is set and the block is in the cache's list of linked blocks.
    var isLinked: Bool
    /// How often the interpreter met the block; see `BlockCache.heat`.
    var heat: UInt8 = 0
    /// Offset of its translation in the hart's code; 0: none.
    var hostCode: UInt32 = 0
    /// Offsets of the jumps that leave the translation by the taken and the other way, to be patched; 0: none.
    var takenSite: UInt32 = 0
    var notTakenSite: UInt32 = 0
}

/// A pointer into the arena. Valid until the cache is emptied, which only happens between blocks.
@safe struct BlockPointer: Equatable {
    let raw: UnsafeMutablePointer<Block>

    static func == (a: BlockPointer, b: BlockPointer) -> Bool { unsafe a.raw == b.raw }

    /// Bytes of a header; slots follow.
    static let headerSize = 80

    // Safety (all accessors): `raw` points at a header in the arena with `count` slots and `length` bytes behind it.
    // BlockCache made it so, and the interpreter drops its pointers whenever the cache was emptied.
    @inline(__always) var slots: SlotPointer {
        unsafe SlotPointer(
            raw: UnsafeRawPointer(raw).advanced(by: Self.headerSize).assumingMemoryBound(to: Slot.self))
    }
    @inline(__always) var count: Int { unsafe Int(raw.pointee.count) }
    @inline(__always) var length: UInt64 { unsafe UInt64(raw.pointee.length) }
    @inline(__always) var taken: BlockPointer? { unsafe raw.pointee.taken }
    @inline(__always) var notTaken: BlockPointer? { unsafe raw.pointee.notTaken }
    @inline(__always) var hostCode: UInt32 { unsafe raw.pointee.hostCode }
    var physicalAddress: UInt64 { unsafe raw.pointee.physicalAddress }

    /// The instruction bytes.
    var bytes: UnsafeMutableRawPointer {
        unsafe UnsafeMutableRawPointer(raw).advanced(
            by: Self.headerSize + (Int(raw.pointee.count) + 1) * Slot.stride)
    }

    /// Bytes from the block's start to instruction `index`, and the raw instruction there.
    func instruction(at index: Int) -> (offset: UInt64, word: UInt32) {
        var offset = 0
        // Safety: index < count, so every step stays inside the block's `length` bytes.
        let start = unsafe bytes
        for _ in 0..<index {
            let low = unsafe start.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
            offset += low & 3 == 3 ? 4 : 2
        }
        let low = unsafe start.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
        if low & 3 != 3 { return (UInt64(offset), UInt32(low)) }
        let high = unsafe start.loadUnaligned(fromByteOffset: offset + 2, as: UInt16.self)
        return (UInt64(offset), UInt32(high) << 16 | UInt32(low))
    }
}

/// A pointer to a slot; the interpreter's instruction pointer.
@safe struct SlotPointer {
    var raw: UnsafePointer<Slot>

    // Safety (all accessors): the interpreter steps only to slots of its block; every block ends with an operation
    // that leaves it.
    @inline(__always) var op: Operation { unsafe raw.pointee.op }
    @inline(__always) var rd: UInt8 { unsafe raw.pointee.rd }
    @inline(__always) var rs1: UInt8 { unsafe raw.pointee.rs1 }
    @inline(__always) var rs2: UInt8 { unsafe raw.pointee.rs2 }
    /// The immediate, sign-extended.
    @inline(__always) var immediate: UInt64 { unsafe UInt64(bitPattern: Int64(raw.pointee.immediate)) }
    /// The raw instruction that rare operations keep.
    @inline(__always) var word: UInt32 { unsafe UInt32(bitPattern: raw.pointee.immediate) }

    @inline(__always) mutating func advance(_ count: Int = 1) { unsafe raw += count }
    func advanced(by count: Int) -> SlotPointer { unsafe SlotPointer(raw: raw + count) }
    /// The slot before this one.
    @inline(__always) var previous: SlotPointer { unsafe SlotPointer(raw: raw - 1) }
    /// Slots since the block's first.
    func index(in block: BlockPointer) -> Int { unsafe raw - block.slots.raw }
}

/// The decoded blocks of one hart, by physical address, in an arena of fixed size: when it is full everything is
/// forgotten, which costs less than deciding what to keep.
@safe struct BlockCache: ~Copyable {
    /// Bytes of the arena. 4 MiB hold some 300 000 instructions, several times what a kernel's boot keeps hot; pages
    /// of it that were never needed are never resident.
    static let arenaSize = 4 << 20
    /// The most instructions in a block.
    static let maximumCount = 64
    private static let bucketCount = 32768
    /// A block at its largest: header, slots (one more for `fallThrough`), bytes.
    private static let largestBlock = BlockPointer.headerSize + (maximumCount + 1) * Slot.stride + maximumCount * 4 + 16

    let arena: UnsafeMutableRawPointer
    private let buckets: UnsafeMutablePointer<BlockPointer?>
    private var used = 0
    private var linked: [BlockPointer] = []
    /// Counts FENCE.I; blocks with another generation compare their bytes before they run again.
    private(set) var generation: UInt64 = 1
    /// Counts how often everything was forgotten.
    private(set) var epoch: UInt64 = 0
    /// One block outside the cache, for code that must be looked at anew each time.
    let scratch: BlockPointer
    #if arch(x86_64)
        var hostCode = HostCode()
    #endif

    init() {
        precondition(MemoryLayout<Block>.size <= BlockPointer.headerSize && MemoryLayout<Slot>.stride == Slot.stride)
        // Safety: three allocations, freed in deinit. malloc takes the arena from mmap, zeroed and not yet resident.
        unsafe arena = .allocate(byteCount: Self.arenaSize, alignment: 64)
        unsafe buckets = .allocate(capacity: Self.bucketCount)
        unsafe buckets.initialize(repeating: nil, count: Self.bucketCount)
        let spare = UnsafeMutableRawPointer.allocate(byteCount: Self.largestBlock, alignment: 64)
        unsafe scratch = BlockPointer(raw: spare.bindMemory(to: Block.self, capacity: 1))
    }

    deinit {
        // Safety: made in init.
        unsafe scratch.raw.deallocate()
        unsafe buckets.deallocate()
        unsafe arena.deallocate()
    }

    /// FENCE.I: nothing that was decoded may run again without a look at memory.
    mutating func fence() {
        generation &+= 1
        unlink()
    }

    /// Forgets everything.
    mutating func removeAll() {
        // Safety: the table's own count.
        unsafe buckets.update(repeating: nil, count: Self.bucketCount)
        linked.removeAll(keepingCapacity: true)
        used = 0
        epoch &+= 1
        #if arch(x86_64)
            hostCode.removeAll()
        #endif
    }

    /// Lets `block` continue with `successor` without a look-up. Both are in the same page, and both are translated or
    /// neither is.
    mutating func link(_ block: BlockPointer, taken: Bool, to successor: BlockPointer) {
        #if arch(x86_64)
            if block.hostCode != 0 {
                // Safety: see BlockPointer.
                let site = unsafe taken ? block.raw.pointee.takenSite : block.raw.pointee.notTakenSite
                if site == 0 { return }
                hostCode.patch(site, to: successor.hostCode)
            }
        #endif
        // Safety: both point into the arena (see BlockPointer).
        if taken { unsafe block.raw.pointee.taken = successor } else { unsafe block.raw.pointee.notTaken = successor }
        if unsafe !block.raw.pointee.isLinked {
            unsafe block.raw.pointee.isLinked = true
            linked.append(block)
        }
    }

    private mutating func unlink() {
        for block in linked {
            // Safety: see BlockPointer.
            #if arch(x86_64)
                let (takenSite, notTakenSite) = unsafe (block.raw.pointee.takenSite, block.raw.pointee.notTakenSite)
                if takenSite != 0 { hostCode.patch(takenSite, to: takenSite + 4) }
                if notTakenSite != 0 { hostCode.patch(notTakenSite, to: notTakenSite + 4) }
            #endif
            unsafe block.raw.pointee.taken = nil
            unsafe block.raw.pointee.notTaken = nil
            unsafe block.raw.pointee.isLinked = false
        }
        linked.removeAll(keepingCapacity: true)
    }

    private static func bucket(_ physicalAddress: UInt64) -> Int {
        Int(truncatingIfNeeded: (physicalAddress >> 1) ^ (physicalAddress >> 13)) & (bucketCount - 1)
    }

    /// Whether a block that was found without a look-up, but lies in the arena, may run.
    mutating func isValid(_ block: BlockPointer) -> Bool {
        // Safety: see BlockPointer; `source` is memory of a region, which stays.
        if unsafe block.raw.pointee.generation == generation { return true }
        guard unsafe Self.isCurrent(block, block.raw.pointee.source) else { return false }
        unsafe block.raw.pointee.generation = generation
        return true
    }

    /// The block at a physical address, decoded now if need be. `source` are its bytes, `available` how many of them
    /// may be used (to the end of the page, at least 2). `nil`: the first instruction is not complete in there.
    mutating func block(at physicalAddress: UInt64, source: UnsafeRawPointer, available: Int) -> BlockPointer? {
        let bucket = Self.bucket(physicalAddress)
        // Safety: bucket < bucketCount; list elements are blocks of the arena.
        var previous: BlockPointer?
        var candidate = unsafe buckets[bucket]
        while let block = candidate {
            if block.physicalAddress == physicalAddress {
                if unsafe block.raw.pointee.generation == generation { return block }
                if unsafe Self.isCurrent(block, source) {
                    unsafe block.raw.pointee.generation = generation
                    return block
                }
                // Memory holds something else now: the block is lost to the arena until everything is forgotten.
                let next = unsafe block.raw.pointee.next
                if let previous { unsafe previous.raw.pointee.next = next } else { unsafe buckets[bucket] = next }
                break
            }
            previous = block
            candidate = unsafe block.raw.pointee.next
        }
        if Self.arenaSize - used < Self.largestBlock { removeAll() }
        let place = unsafe BlockPointer(raw: arena.advanced(by: used).assumingMemoryBound(to: Block.self))
        guard unsafe Self.decode(into: place, physicalAddress, source, available, generation) else { return nil }
        unsafe place.raw.pointee.next = buckets[bucket]
        unsafe buckets[bucket] = place
        let size = BlockPointer.headerSize + (place.count + 1) * Slot.stride + Int(place.length)
        used += (size + 63) & ~63
        return place
    }

    /// Decodes a single instruction outside the cache.
    func scratchBlock(word: UInt32) -> BlockPointer {
        var bytes = word.littleEndian
        // Safety: `bytes` is a local of 4 bytes; `scratch` has room for the largest block.
        _ = unsafe withUnsafeBytes(of: &bytes) { buffer in
            unsafe Self.decode(
                into: scratch, 0, buffer.baseAddress!, word & 3 == 3 ? 4 : 2, generation)
        }
        return scratch
    }

    /// The first `count` instructions of a block (1 up to all of them), outside the cache.
    func prefix(of block: BlockPointer, count: Int) -> BlockPointer {
        if block.count <= count { return block }
        // Safety: a block's bytes are `length` long and `scratch` has room for the largest block; a block of the cache
        // is never `scratch`, and one of `scratch` with more than one instruction is never cut again.
        _ = unsafe Self.decode(into: scratch, 0, block.bytes, Int(block.length), generation, maximum: count)
        return scratch
    }

    private static func isCurrent(_ block: BlockPointer, _ source: UnsafeRawPointer) -> Bool {
        // Safety: `source` has at least the block's length before the end of its page, as when it was decoded.
        unsafe memcmp(source, block.bytes, Int(block.length)) == 0
    }

    /// Decodes at most `available` bytes. The source may change while we look (another hart stores): every byte is
    /// read once, into a copy that decides.
    private static func decode(
        into block: BlockPointer, _ physicalAddress: UInt64, _ source: UnsafeRawPointer, _ available: Int,
        _ generation: UInt64, maximum: Int = maximumCount
    ) -> Bool {
        // Safety: `block` has room for maximumCount + 1 slots and maximumCount * 4 bytes; the loop adds no more.
        let slots = unsafe UnsafeMutableRawPointer(block.raw).advanced(by: BlockPointer.headerSize)
            .assumingMemoryBound(to: Slot.self)
        return unsafe withUnsafeTemporaryAllocation(of: UInt16.self, capacity: maximumCount * 2) { copy in
            var halves = 0
            var count = 0
            while count < maximum && halves * 2 + 2 <= available {
                let low = unsafe source.loadUnaligned(fromByteOffset: halves * 2, as: UInt16.self)
                let slot: Slot
                let offset = Int32(halves * 2)
                unsafe copy[halves] = low
                if low & 3 == 3 {
                    guard halves * 2 + 4 <= available else { break }
                    let high = unsafe source.loadUnaligned(fromByteOffset: halves * 2 + 2, as: UInt16.self)
                    unsafe copy[halves + 1] = high
                    halves += 2
                    slot = Decoder.decode(UInt32(high) << 16 | UInt32(low), offset: offset, length: 4)
                } else {
                    halves += 1
                    if let word = Decoder.expand(low) {
                        slot = Decoder.decode(word, offset: offset, length: 2)
                    } else {
                        slot = Decoder.illegal(UInt32(low))
                    }
                }
                unsafe slots[count] = slot
                count += 1
                if slot.op.endsBlock { break }
            }
            guard count > 0 else { return false }
            unsafe slots[count] = Slot(op: .fallThrough, immediate: Int32(halves * 2))
            unsafe block.raw.initialize(
                to: Block(
                    taken: nil, notTaken: nil, physicalAddress: physicalAddress, source: source, next: nil,
                    generation: generation, count: UInt16(count), length: UInt16(halves * 2), isLinked: false))
            // `fallThrough` occupies a slot behind the last one, so the bytes begin after it.
            unsafe block.bytes.copyMemory(from: copy.baseAddress!, byteCount: halves * 2)
            return true
        }
    }
}
