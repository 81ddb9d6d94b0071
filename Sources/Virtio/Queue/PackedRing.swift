import Synchronization
import VFIOUser

/// The device's side of a packed virtqueue: one ring that both sides write.
///
/// ```
/// descriptor          16 bytes: address u64, length u32, id u16, flags u16
/// event suppression   off_wrap u16 (place | wrap << 15), flags u16 (0 enable, 1 disable, 2 at a place)
/// ```
///
/// A descriptor is available when its AVAIL flag is the ring's wrap counter and its USED flag is not. The flags of the
/// first answer of a batch are written last, so that the driver sees the batch whole.
///
/// Spec: virtio 1.2 §2.8.
struct PackedRing: Sendable {
    /// A place in the ring with the wrap counter there.
    struct Place: Hashable, Sendable {
        var index: UInt16 = 0
        var wrap = true

        mutating func advance(_ count: UInt16, size: UInt16) {
            // Both are at most 32768.
            let sum = UInt32(index) + UInt32(count)
            if sum >= UInt32(size) {
                index = UInt16(truncatingIfNeeded: sum - UInt32(size))
                wrap.toggle()
            } else {
                index = UInt16(truncatingIfNeeded: sum)
            }
        }
    }

    private let size: UInt16
    private let ring: UInt64
    private let driverEvent: UInt64
    private let deviceEvent: UInt64
    private let features: VirtioFeatures

    private var nextAvailable = Place()
    private var nextUsed = Place()
    /// The first answer since `publish`, whose flags are not written yet.
    private var first: (place: Place, flags: UInt16)?
    /// Places answered since `publish`.
    private var answered: UInt16 = 0

    init(_ settings: CommonConfiguration.Queue, _ features: VirtioFeatures) throws(RingFault) {
        guard settings.descriptors & 15 == 0 else { throw .misaligned(area: "packed ring", settings.descriptors) }
        guard settings.driver & 3 == 0 else { throw .misaligned(area: "driver's event suppression", settings.driver) }
        guard settings.device & 3 == 0 else { throw .misaligned(area: "device's event suppression", settings.device) }
        guard settings.size > 0, settings.size <= 32768 else { throw .descriptor(0, size: settings.size) }
        size = settings.size
        ring = settings.descriptors
        driverEvent = settings.driver
        deviceEvent = settings.device
        self.features = features
    }

    /// How far both sides have come, while nothing is answered and not published: a place, the wrap counter in bit 15.
    var progress: Virtqueue.Progress {
        func word(_ place: Place) -> UInt16 { place.index | (place.wrap ? 0x8000 : 0) }
        return Virtqueue.Progress(available: word(nextAvailable), used: word(nextUsed))
    }

    /// False when a place is outside the ring.
    mutating func resume(at progress: Virtqueue.Progress) -> Bool {
        func place(_ word: UInt16) -> Place { Place(index: word & 0x7FFF, wrap: word & 0x8000 != 0) }
        (nextAvailable, nextUsed) = (place(progress.available), place(progress.used))
        return nextAvailable.index < size && nextUsed.index < size
    }

    @inline(__always)
    private func address(_ index: UInt16, _ offset: UInt64) -> IOVirtualAddress {
        IOVirtualAddress(ring &+ UInt64(index) &* 16 &+ offset)
    }

    // MARK: Requests

    /// True when a request waits.
    @inline(__always)
    mutating func hasNext(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        let flags = try memory.ringLoad(UInt16.self, address(nextAvailable.index, 14))
        return (flags & DescriptorFlags.available != 0) == nextAvailable.wrap
            && (flags & DescriptorFlags.used != 0) != nextAvailable.wrap
    }

    /// Takes the next request.
    @inline(__always)
    mutating func next(_ chain: inout DescriptorChain, _ memory: inout HeldMemory) throws(RingFault) -> Bool {
        guard try hasNext(&memory) else { return false }
        chain.begin()
        var place = nextAvailable
        var places: UInt16 = 0
        while true {
            guard places < size else { throw .chainTooLong(Int(size)) }
            let range = try memory.ringLoad(UInt64.self, address(place.index, 0))
            let more = try memory.ringLoad(UInt64.self, address(place.index, 8))
            let length = UInt32(truncatingIfNeeded: more)
            let identifier = UInt16(truncatingIfNeeded: more &>> 32)
            let flags = UInt16(truncatingIfNeeded: more &>> 48)
            place.advance(1, size: size)
            places &+= 1
            if flags & DescriptorFlags.indirect != 0 {
                guard features.contains(.indirectDescriptors) else { throw .indirectNotNegotiated }
                guard flags & DescriptorFlags.next == 0, places == 1 else { throw .indirectMisplaced }
                try walkIndirect(range, length, &chain, &memory)
            } else {
                try chain.add(address: range, length: length, isWritable: flags & DescriptorFlags.write != 0)
            }
            // Spec: virtio 1.2 §2.8.6: the identifier is that of the chain's last descriptor.
            if flags & DescriptorFlags.next == 0 {
                chain.token = DescriptorChain.Token(identifier: identifier, places: places)
                nextAvailable = place
                return true
            }
        }
    }

    /// A table of its own, in order. Spec: virtio 1.2 §2.8.7: only the WRITE flag counts.
    private func walkIndirect(
        _ base: UInt64, _ length: UInt32, _ chain: inout DescriptorChain, _ memory: inout HeldMemory
    ) throws(RingFault) {
        let count = try DescriptorFlags.indirectCount(base, length)
        for index in 0..<count {
            let place = base &+ UInt64(index) &* 16
            let range = try memory.ringLoad(UInt64.self, IOVirtualAddress(place))
            let more = try memory.ringLoad(UInt64.self, IOVirtualAddress(place &+ 8))
            let flags = UInt16(truncatingIfNeeded: more &>> 48)
            guard flags & DescriptorFlags.indirect == 0 else { throw .indirectMisplaced }
            try chain.add(
                address: range, length: UInt32(truncatingIfNeeded: more), isWritable: flags & DescriptorFlags.write != 0
            )
        }
    }

    /// Where `rewind` comes back to.
    var position: Place { nextAvailable }
    /// Requests taken since are offered again.
    mutating func rewind(to position: Place) { nextAvailable = position }

    // MARK: Answers

    /// Answers a request; the driver sees it after `publish`.
    @inline(__always)
    mutating func complete(
        _ token: DescriptorChain.Token, written: UInt32, _ memory: inout HeldMemory
    ) throws(RingFault) {
        let place = nextUsed
        var flags: UInt16 = place.wrap ? DescriptorFlags.available | DescriptorFlags.used : 0
        // Spec: virtio 1.2 §2.8.6: the length counts when the WRITE flag is set.
        if written > 0 { flags |= DescriptorFlags.write }
        // The identifier together with the length; the flags, which make it used, after them.
        try memory.ringStore(written, address(place.index, 8))
        try memory.ringStore(token.identifier, address(place.index, 12))
        if first == nil {
            first = (place, flags)
        } else {
            try memory.ringStore(flags, address(place.index, 14))
        }
        nextUsed.advance(token.places, size: size)
        answered &+= token.places
    }

    /// Shows the driver what was answered. True when it wants an interrupt.
    mutating func publish(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        guard let (place, flags) = first else { return false }
        let count = answered
        first = nil
        answered = 0
        try memory.ringStore(flags, address(place.index, 14))
        // The answer must be visible before the driver's wish is read.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let wish = try memory.ringLoad(UInt32.self, IOVirtualAddress(driverEvent))
        switch UInt16(truncatingIfNeeded: wish >> 16) & 3 {
        case 0: return true
        case 2 where features.contains(.eventIndex):
            let offWrap = UInt16(truncatingIfNeeded: wish)
            var event = offWrap & 0x7FFF
            if (offWrap & 0x8000 != 0) != nextUsed.wrap { event &-= size }
            return nextUsed.index &- event &- 1 < count
        default: return false
        }
    }

    // MARK: Notifications

    /// Asks the driver to notify of the next request. True when one waits already.
    mutating func enableNotifications(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        if features.contains(.eventIndex) {
            let offWrap = nextAvailable.index | (nextAvailable.wrap ? 0x8000 : 0)
            try memory.ringStore(UInt32(offWrap) | 2 << 16, IOVirtualAddress(deviceEvent))
        } else {
            try memory.ringStore(UInt16(0), IOVirtualAddress(deviceEvent &+ 2))
        }
        // The wish must be visible before the ring is read.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return try hasNext(&memory)
    }

    /// Tells the driver that the device looks by itself.
    mutating func disableNotifications(_ memory: inout HeldMemory) throws(RingFault) {
        try memory.ringStore(UInt16(1), IOVirtualAddress(deviceEvent &+ 2))
    }
}
