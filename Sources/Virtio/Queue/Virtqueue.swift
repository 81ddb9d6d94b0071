public import VFIOUser

/// The device's side of a virtqueue, split or packed as was negotiated.
///
/// All methods are for one thread, inside a hold of the driver's memory. A request is taken by `next`, its segments are
/// in `chain` until the next one is taken, and it is given back by `complete` with its token, in any order. What was
/// completed becomes visible together, when the batch ends.
public struct Virtqueue: Sendable {

    /// Where `rewind` comes back to.
    public struct Position: Sendable {
        var split: UInt16 = 0
        var packed = PackedRing.Place()
    }

    /// How far driver and device have come: what a migrated queue goes on from. Split: the two indices; packed: the two
    /// places, with the wrap counter in bit 15.
    public struct Progress: Hashable, Sendable {
        public var available: UInt16
        public var used: UInt16

        public init(available: UInt16, used: UInt16) {
            self.available = available
            self.used = used
        }
    }

    // Not an enum: a switch that changes its payload in place copies it there and back.
    private var split: SplitRing?
    private var packed: PackedRing?
    private let isPacked: Bool
    /// The request that `next` took last.
    public internal(set) var chain = DescriptorChain()
    public let size: UInt16
    /// The driver has been told that it need not notify.
    private var isQuiet = false
    /// Where the request was that was taken last, until one is completed.
    private var taken: Position?

    /// A queue as the driver has set it up. Refused: areas that are not aligned.
    public init(_ settings: CommonConfiguration.Queue, features: VirtioFeatures) throws(RingFault) {
        size = settings.size
        isPacked = features.contains(.packedRing)
        if isPacked {
            packed = try PackedRing(settings, features)
        } else {
            split = try SplitRing(settings, features)
        }
    }

    /// Between two batches: everything that was completed has been published.
    public var progress: Progress { isPacked ? packed!.progress : split!.progress }

    /// Goes on where another device stopped. False where no queue of this size can have stopped there.
    mutating func resume(at progress: Progress) -> Bool {
        if isPacked { return packed!.resume(at: progress) }
        split!.progress = progress
        return true
    }

    /// True when a request waits.
    @inline(__always)
    public mutating func hasNext(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        isPacked ? try packed!.hasNext(&memory) : try split!.hasNext(&memory)
    }

    /// Takes the next request into `chain`; false when none waits. Throws when it makes no sense.
    @inline(__always)
    public mutating func next(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        let place = position
        let isThere = isPacked ? try packed!.next(&chain, &memory) : try split!.next(&chain, &memory)
        taken = isThere ? place : nil
        return isThere
    }

    /// Gives a request back, with so many bytes written to its writable segments.
    @inline(__always)
    public mutating func complete(
        _ token: DescriptorChain.Token, written: Int, _ memory: inout HeldMemory
    ) throws(RingFault) {
        let written = UInt32(clamping: written)
        taken = nil
        if isPacked {
            try packed!.complete(token, written: written, &memory)
        } else {
            try split!.complete(token, written: written, &memory)
        }
    }

    /// Where the next request is taken from.
    public var position: Position {
        isPacked ? Position(packed: packed!.position) : Position(split: split!.position)
    }

    /// Offers the request again that was taken last, unless one was completed since.
    mutating func offerAgain() {
        if let taken { rewind(to: taken) }
        taken = nil
    }

    /// Offers again what was taken since, none of which was completed.
    public mutating func rewind(to position: Position) {
        taken = nil
        if isPacked { packed!.rewind(to: position.packed) } else { split!.rewind(to: position.split) }
    }

    /// Shows the driver what was completed. True when it wants an interrupt.
    mutating func publish(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        isPacked ? try packed!.publish(&memory) : try split!.publish(&memory)
    }

    /// Asks the driver to notify of the next request. True when one waits already, and then nothing is asked for.
    mutating func enableNotifications(_ memory: inout HeldMemory) throws(RingFault) -> Bool {
        isQuiet = false
        return isPacked ? try packed!.enableNotifications(&memory) : try split!.enableNotifications(&memory)
    }

    /// Tells the driver that the device looks by itself.
    mutating func disableNotifications(_ memory: inout HeldMemory) throws(RingFault) {
        guard !isQuiet else { return }
        isQuiet = true
        if isPacked {
            try packed!.disableNotifications(&memory)
        } else {
            try split!.disableNotifications(&memory)
        }
    }
}
