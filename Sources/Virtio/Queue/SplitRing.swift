import Synchronization
import VFIOUser

/// The device's side of a split virtqueue.
///
/// ```
/// descriptor table   16 bytes each: address u64, length u32, flags u16, next u16
/// available ring     flags u16, idx u16, ring[size] u16, used_event u16      (the driver's)
/// used ring          flags u16, idx u16, ring[size] {id u32, len u32}, avail_event u16   (the device's)
/// ```
///
/// Spec: virtio 1.2 §2.7.
struct SplitRing: Sendable {
    private let size: UInt16
    private let table: UInt64
    private let available: UInt64
    private let used: UInt64
    private let features: VirtioFeatures

    /// Free running, as the indices in memory are.
    private var nextAvailable: UInt16 = 0
    private var seenAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0
    private var publishedUsed: UInt16 = 0

    init(_ settings: CommonConfiguration.Queue, _ features: VirtioFeatures) throws(RingFault) {
        guard settings.descriptors & 15 == 0 else {
            throw .misaligned(area: "descriptor table", settings.descriptors)
        }
        guard settings.driver & 1 == 0 else { throw .misaligned(area: "available ring", settings.driver) }
        guard settings.device & 3 == 0 else { throw .misaligned(area: "used ring", settings.device) }
        guard settings.size.nonzeroBitCount == 1 else { throw .descriptor(settings.size, size: settings.size) }
        size = settings.size
        table = settings.descriptors
        available = settings.driver
        used = settings.device
        self.features = features
    }

    /// How far both sides have come, while nothing is completed and not published.
    var progress: Virtqueue.Progress {
        get { Virtqueue.Progress(available: nextAvailable, used: nextUsed) }
        set {
            (nextAvailable, seenAvailable) = (newValue.available, newValue.available)
            (nextUsed, publishedUsed) = (newValue.used, newValue.used)
        }
    }

    private func address(_ base: UInt64, _ offset: Int) -> IOVirtualAddress {
        IOVirtualAddress(base &+ UInt64(truncatingIfNeeded: offset))
    }

    private var usedEvent: IOVirtualAddress { address(available, 4 &+ 2 &* Int(size)) }
    private var availableEvent: IOVirtualAddress { address(used, 4 &+ 8 &* Int(size)) }

    // MARK: Requests

    /// True when a request waits.
    @inline(__always)
    mutating func hasNext(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        if nextAvailable != seenAvailable { return true }
        let index = try memory.ringLoad(UInt16.self, address(available, 2))
        let lead = index &- nextAvailable
        guard lead <= size else { throw .indexAhead(by: lead, size: size) }
        seenAvailable = index
        return lead > 0
    }

    /// Takes the next request.
    @inline(__always)
    mutating func next(_ chain: inout DescriptorChain, _ memory: inout HeldMemory) throws(RingFault) -> Bool {
        guard try hasNext(&memory) else { return false }
        let slot = Int(nextAvailable & (size &- 1))
        let head = try memory.ringLoad(UInt16.self, address(available, 4 &+ 2 &* slot))
        chain.begin()
        chain.token = DescriptorChain.Token(identifier: head, places: 1)
        try walk(head, &chain, &memory)
        nextAvailable &+= 1
        return true
    }

    @inline(__always)
    private func walk(
        _ head: UInt16, _ chain: inout DescriptorChain, _ memory: inout HeldMemory
    ) throws(RingFault) {
        var index = head
        var rest = Int(size)
        while true {
            guard index < size else { throw .descriptor(index, size: size) }
            guard rest > 0 else { throw .chainTooLong(Int(size)) }
            rest &-= 1
            let place = table &+ UInt64(index) &* 16
            let range = try memory.ringLoad(UInt64.self, IOVirtualAddress(place))
            let more = try memory.ringLoad(UInt64.self, IOVirtualAddress(place &+ 8))
            let length = UInt32(truncatingIfNeeded: more)
            let flags = UInt16(truncatingIfNeeded: more &>> 32)
            if flags & DescriptorFlags.indirect != 0 {
                guard features.contains(.indirectDescriptors) else { throw .indirectNotNegotiated }
                guard flags & DescriptorFlags.next == 0 else { throw .indirectMisplaced }
                return try walkIndirect(range, length, &chain, &memory)
            }
            try chain.add(address: range, length: length, isWritable: flags & DescriptorFlags.write != 0)
            guard flags & DescriptorFlags.next != 0 else { return }
            index = UInt16(truncatingIfNeeded: more &>> 48)
        }
    }

    /// Walks a table of its own, linked by its next fields.
    private func walkIndirect(
        _ base: UInt64, _ length: UInt32, _ chain: inout DescriptorChain, _ memory: inout HeldMemory
    ) throws(RingFault) {
        let count = try DescriptorFlags.indirectCount(base, length)
        var index = 0
        var rest = count
        while true {
            guard index < count else { throw .descriptor(UInt16(truncatingIfNeeded: index), size: UInt16(count)) }
            guard rest > 0 else { throw .chainTooLong(count) }
            rest &-= 1
            let place = base &+ UInt64(index) &* 16
            let range = try memory.ringLoad(UInt64.self, IOVirtualAddress(place))
            let more = try memory.ringLoad(UInt64.self, IOVirtualAddress(place &+ 8))
            let flags = UInt16(truncatingIfNeeded: more &>> 32)
            guard flags & DescriptorFlags.indirect == 0 else { throw .indirectMisplaced }
            try chain.add(
                address: range, length: UInt32(truncatingIfNeeded: more), isWritable: flags & DescriptorFlags.write != 0
            )
            guard flags & DescriptorFlags.next != 0 else { return }
            index = Int(truncatingIfNeeded: more &>> 48)
        }
    }

    /// Where `rewind` comes back to.
    var position: UInt16 { nextAvailable }
    /// Requests taken since are offered again.
    mutating func rewind(to position: UInt16) { nextAvailable = position }

    // MARK: Answers

    /// Puts a request into the used ring; the driver sees it after `publish`.
    @inline(__always)
    mutating func complete(
        _ token: DescriptorChain.Token, written: UInt32, _ memory: inout HeldMemory
    ) throws(RingFault) {
        let slot = Int(nextUsed & (size &- 1))
        try memory.ringStore(UInt64(token.identifier) | UInt64(written) << 32, address(used, 4 &+ 8 &* slot))
        nextUsed &+= 1
    }

    /// Shows the driver what was completed. True when it wants an interrupt.
    mutating func publish(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        guard nextUsed != publishedUsed else { return false }
        let before = publishedUsed
        publishedUsed = nextUsed
        try memory.ringStore(nextUsed, address(used, 2))
        // The index must be visible before the driver's wish is read: it stores its wish, then reads the index.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        guard features.contains(.eventIndex) else {
            return try memory.ringLoad(UInt16.self, address(available, 0)) & 1 == 0
        }
        let event = try memory.ringLoad(UInt16.self, usedEvent)
        return nextUsed &- event &- 1 < nextUsed &- before
    }

    // MARK: Notifications

    /// Asks the driver to notify of the next request. True when one waits already.
    mutating func enableNotifications(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        if features.contains(.eventIndex) {
            try memory.ringStore(nextAvailable, availableEvent)
        } else {
            try memory.ringStore(UInt16(0), address(used, 0))
        }
        // The wish must be visible before the index is read: the driver stores the index, then reads the wish.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return try hasNext(&memory)
    }

    /// Tells the driver that the device looks by itself. With the event index that needs no word: an event that lies
    /// behind is not reached again for 65,536 requests.
    mutating func disableNotifications(_ memory: inout HeldMemory) throws(RingFault) {
        if !features.contains(.eventIndex) { try memory.ringStore(UInt16(1), address(used, 0)) }
    }
}

/// Flags of descriptors, and what both kinds of rings check of indirect ones. Spec: virtio 1.2 §2.7.5, §2.8.
enum DescriptorFlags {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
    static let available: UInt16 = 1 << 7
    static let used: UInt16 = 1 << 15

    /// The number of descriptors in an indirect table.
    static func indirectCount(_ base: UInt64, _ length: UInt32) throws(RingFault) -> Int {
        let count = Int(length) / 16
        guard length > 0, length % 16 == 0, count <= DescriptorChain.maximumSegments else {
            throw .indirectLength(length)
        }
        guard !base.addingReportingOverflow(UInt64(length) - 1).overflow else { throw .lengthWraps }
        return count
    }
}

extension HeldMemory {
    @inline(__always)
    mutating func ringLoad<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, _ address: IOVirtualAddress
    ) throws(RingFault) -> Value {
        do throws(DMAError) { return try load(type, at: address) } catch { throw .memory(error) }
    }

    @inline(__always)
    mutating func ringStore<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, _ address: IOVirtualAddress
    ) throws(RingFault) {
        do throws(DMAError) { try store(value, at: address) } catch { throw .memory(error) }
    }
}
