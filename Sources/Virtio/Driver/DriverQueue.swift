internal import Synchronization
public import Wire

/// The driver's side of a virtqueue, split or packed, in memory that is shared with the device: what tests, benchmarks
/// and drivers outside a guest use.
///
/// One thread uses it. The areas lie one after the other in `memory` from `offset` on; the device knows the first byte of
/// the memory by `base`. Precondition of all: the device keeps to the rules; answers that do not trap.
@safe public struct DriverQueue: Sendable {
    /// A piece of a request.
    public struct Segment: Hashable, Sendable {
        public var address: UInt64
        public var length: UInt32
        public var isWritable: Bool

        public init(_ address: UInt64, _ length: Int, writable: Bool = false) {
            self.address = address
            self.length = UInt32(length)
            isWritable = writable
        }
    }

    public let size: UInt16
    public let isPacked: Bool
    public let usesEventIndex: Bool
    private let memory: MappedMemory
    /// Offsets in the memory.
    public let descriptorArea: Int
    public let driverArea: Int
    public let deviceArea: Int
    private let base: UInt64

    // Split.
    private var freeHead: UInt16 = 0
    private var free: UInt16
    private var nextAvailable: UInt16 = 0
    private var publishedAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0
    /// Of each descriptor: its successor in the free list, or the number of descriptors of the chain it heads.
    private var links: [UInt16]
    private var counts: [UInt16]

    // Packed. `nextAvailable` and `nextUsed` are places.
    private var availableWrap = true
    private var usedWrap = true
    private var firstPlace: UInt16 = 0
    private var firstFlags: UInt16 = 0
    private var added: UInt16 = 0

    /// Bytes that a queue's areas take, rounded up to 64.
    public static func byteCount(size: Int) -> Int { (16 * size + 64 + 6 + 2 * size + 64 + 6 + 8 * size + 63) & ~63 }

    /// A queue with nothing in it; zeroes its areas.
    /// Precondition: the memory holds them; `offset` is a multiple of 64.
    public init(
        _ memory: MappedMemory, offset: Int, base: UInt64, size: UInt16, packed: Bool, eventIndex: Bool
    ) {
        precondition(
            offset & 63 == 0 && memory.contains(offset: UInt64(offset), count: UInt64(Self.byteCount(size: Int(size)))),
            "the memory holds the queue's areas")
        self.memory = memory
        self.base = base
        self.size = size
        isPacked = packed
        usesEventIndex = eventIndex
        descriptorArea = offset
        driverArea = (offset + 16 * Int(size) + 63) & ~63
        deviceArea = (driverArea + 6 + 2 * Int(size) + 63) & ~63
        free = size
        links = (0..<size).map { $0 &+ 1 }
        counts = [UInt16](repeating: 0, count: Int(size))
        // Safety: the range lies in the memory, by the precondition.
        unsafe (memory.baseAddress + offset).initializeMemory(
            as: UInt8.self, repeating: 0, count: Self.byteCount(size: Int(size)))
    }

    /// What the device is told.
    public var addresses: (descriptors: UInt64, driver: UInt64, device: UInt64) {
        (base + UInt64(descriptorArea), base + UInt64(driverArea), base + UInt64(deviceArea))
    }

    /// Descriptors that can still be added.
    public var freeDescriptors: Int { Int(free) }

    // MARK: Memory

    // Safety of all four: offsets are computed from indices that are masked or checked to lie in the areas.
    @inline(__always)
    private func load16(_ place: Int) -> UInt16 {
        unsafe (memory.baseAddress + place).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(
            ordering: .acquiring)
    }

    @inline(__always)
    private func store16(_ value: UInt16, _ place: Int) {
        unsafe (memory.baseAddress + place).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(
            value, ordering: .releasing)
    }

    @inline(__always)
    private func load32(_ place: Int) -> UInt32 {
        unsafe (memory.baseAddress + place).loadUnaligned(as: UInt32.self)
    }

    @inline(__always)
    private func storeDescriptor(_ place: Int, _ address: UInt64, _ more: UInt64) {
        unsafe (memory.baseAddress + place).storeBytes(of: address, as: UInt64.self)
        unsafe (memory.baseAddress + place + 8).storeBytes(of: more, as: UInt64.self)
    }

    // MARK: Adding

    /// Adds a request; the device sees it after `publish`. Returns the number by which it comes back, or nil when there
    /// are too few free descriptors.
    public mutating func add(_ segments: Segment...) -> UInt16? { add(segments) }

    public mutating func add(_ segments: [Segment]) -> UInt16? {
        guard !segments.isEmpty, segments.count <= Int(free) else { return nil }
        return isPacked ? addPacked(segments.count) { segments[$0] } : addSplit(segments.count) { segments[$0] }
    }

    /// Adds a request of one segment, without an array for it.
    @inline(__always)
    public mutating func add(single segment: Segment) -> UInt16? {
        guard free > 0 else { return nil }
        return isPacked ? addPacked(1) { _ in segment } : addSplit(1) { _ in segment }
    }

    @inline(__always)
    private mutating func addSplit(_ count: Int, _ segment: (Int) -> Segment) -> UInt16 {
        let head = freeHead
        var index = head
        for number in 0..<count {
            let one = segment(number)
            let isLast = number == count &- 1
            let flags: UInt16 = (isLast ? 0 : DescriptorFlags.next) | (one.isWritable ? DescriptorFlags.write : 0)
            let next = links[Int(index)]
            storeDescriptor(
                descriptorArea &+ Int(index) &* 16, one.address,
                UInt64(one.length) | UInt64(flags) &<< 32 | UInt64(isLast ? 0 : next) &<< 48)
            if isLast { freeHead = next } else { index = next }
        }
        counts[Int(head)] = UInt16(count)
        free &-= UInt16(count)
        store16(head, driverArea &+ 4 &+ 2 &* Int(nextAvailable & (size &- 1)))
        nextAvailable &+= 1
        return head
    }

    @inline(__always)
    private mutating func addPacked(_ count: Int, _ segment: (Int) -> Segment) -> UInt16 {
        let identifier = freeHead
        freeHead = links[Int(identifier)]
        for number in 0..<count {
            let one = segment(number)
            var flags: UInt16 = availableWrap ? DescriptorFlags.available : DescriptorFlags.used
            if number < count &- 1 { flags |= DescriptorFlags.next }
            if one.isWritable { flags |= DescriptorFlags.write }
            let place = descriptorArea &+ Int(nextAvailable) &* 16
            if added == 0 {
                firstPlace = nextAvailable
                firstFlags = flags
                // All but the flags, which show the batch.
                unsafe (memory.baseAddress + place).storeBytes(of: one.address, as: UInt64.self)
                unsafe (memory.baseAddress + place + 8).storeBytes(of: one.length, as: UInt32.self)
                store16(identifier, place &+ 12)
            } else {
                unsafe (memory.baseAddress + place).storeBytes(of: one.address, as: UInt64.self)
                unsafe (memory.baseAddress + place + 8).storeBytes(of: one.length, as: UInt32.self)
                store16(identifier, place &+ 12)
                store16(flags, place &+ 14)
            }
            added &+= 1
            nextAvailable &+= 1
            if nextAvailable == size {
                nextAvailable = 0
                availableWrap.toggle()
            }
        }
        counts[Int(identifier)] = UInt16(count)
        free &-= UInt16(count)
        return identifier
    }

    /// Shows the device what was added. True when it wants to be notified.
    public mutating func publish() -> Bool {
        isPacked ? publishPacked() : publishSplit()
    }

    private mutating func publishSplit() -> Bool {
        guard nextAvailable != publishedAvailable else { return false }
        let before = publishedAvailable
        publishedAvailable = nextAvailable
        store16(nextAvailable, driverArea &+ 2)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        guard usesEventIndex else { return load16(deviceArea) & 1 == 0 }
        let event = load16(deviceArea &+ 4 &+ 8 &* Int(size))
        return nextAvailable &- event &- 1 < nextAvailable &- before
    }

    private mutating func publishPacked() -> Bool {
        guard added > 0 else { return false }
        let count = added
        added = 0
        store16(firstFlags, descriptorArea &+ Int(firstPlace) &* 16 &+ 14)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let wish = load32(deviceArea)
        switch UInt16(truncatingIfNeeded: wish >> 16) & 3 {
        case 0: return true
        case 2 where usesEventIndex:
            let offWrap = UInt16(truncatingIfNeeded: wish)
            var event = offWrap & 0x7FFF
            if (offWrap & 0x8000 != 0) != availableWrap { event &-= size }
            return nextAvailable &- event &- 1 < count
        default: return false
        }
    }

    // MARK: Answers

    /// Whether an answer waits.
    public var hasUsed: Bool {
        if isPacked {
            let flags = load16(descriptorArea &+ Int(nextUsed) &* 16 &+ 14)
            return (flags & DescriptorFlags.available != 0) == usedWrap
                && (flags & DescriptorFlags.used != 0) == usedWrap
        }
        return load16(deviceArea &+ 2) != nextUsed
    }

    /// Takes the next answer: the request's number and the bytes that the device wrote.
    public mutating func take() -> (identifier: UInt16, written: UInt32)? {
        guard hasUsed else { return nil }
        return isPacked ? takePacked() : takeSplit()
    }

    private mutating func takeSplit() -> (identifier: UInt16, written: UInt32) {
        let place = deviceArea &+ 4 &+ 8 &* Int(nextUsed & (size &- 1))
        let head = UInt16(truncatingIfNeeded: load32(place)) & (size &- 1)
        let written = load32(place &+ 4)
        nextUsed &+= 1
        // The chain goes back to the free list: its last descriptor links to the old head.
        var last = head
        for _ in 1..<max(1, counts[Int(head)]) { last = links[Int(last)] }
        links[Int(last)] = freeHead
        freeHead = head
        free &+= counts[Int(head)]
        return (head, written)
    }

    private mutating func takePacked() -> (identifier: UInt16, written: UInt32) {
        let place = descriptorArea &+ Int(nextUsed) &* 16
        let identifier = min(load16(place &+ 12), size &- 1)
        let flags = load16(place &+ 14)
        let written = flags & DescriptorFlags.write == 0 ? 0 : load32(place &+ 8)
        let count = counts[Int(identifier)]
        let sum = UInt32(nextUsed) + UInt32(count)
        if sum >= UInt32(size) {
            nextUsed = UInt16(sum - UInt32(size))
            usedWrap.toggle()
        } else {
            nextUsed = UInt16(sum)
        }
        links[Int(identifier)] = freeHead
        freeHead = identifier
        free &+= count
        return (identifier, written)
    }

    // MARK: Interrupts

    /// Asks for an interrupt with the next answer. True when one waits already.
    public mutating func enableInterrupts() -> Bool {
        if isPacked {
            if usesEventIndex {
                store16(nextUsed | (usedWrap ? 0x8000 : 0), driverArea)
                store16(2, driverArea &+ 2)
            } else {
                store16(0, driverArea &+ 2)
            }
        } else if usesEventIndex {
            store16(nextUsed, driverArea &+ 4 &+ 2 &* Int(size))
        } else {
            store16(0, driverArea)
        }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return hasUsed
    }

    /// The driver looks by itself.
    public mutating func disableInterrupts() {
        if isPacked {
            store16(1, driverArea &+ 2)
        } else if usesEventIndex {
            store16(nextUsed &- 1, driverArea &+ 4 &+ 2 &* Int(size))
        } else {
            store16(1, driverArea)
        }
    }
}
