internal import Wire

/// The eventfds that a server offered for writes to parts of its regions: what a doorbell is written to instead of
/// being sent.
struct ClientIOEvents: Sendable {
    private struct Doorbell: Sendable {
        let region: UInt32
        let offset: UInt64
        /// 0: any.
        let width: UInt64
        let match: UInt64?
        let event: PeerEvent
    }

    private var doorbells: [Doorbell] = []
    var isEmpty: Bool { doorbells.isEmpty }
    var count: Int { doorbells.count }

    /// Takes over what a server offered for a region of so many bytes. False for an offer that cannot be: a part that
    /// leaves the region, a descriptor that was not passed or is no eventfd. Parts of other types are left alone.
    mutating func add(_ offer: RegionIOFDs, length: UInt64, descriptors: [Descriptor]) -> Bool {
        for part in offer.parts {
            guard part.offset < length, part.length <= length - part.offset, Int(part.place) < descriptors.count else {
                return false
            }
            // What is not understood, or would need more than a match of the value, goes by message.
            guard part.type == RegionIOFDs.Part.eventType, part.flags & ~RegionIOFDs.Part.matchFlag == 0,
                part.length <= 8
            else { continue }
            guard let event = PeerEvent(descriptors[Int(part.place)]) else { return false }
            doorbells.append(
                Doorbell(
                    region: offer.index, offset: part.offset, width: part.length,
                    match: part.flags & RegionIOFDs.Part.matchFlag != 0 ? part.match : nil, event: event))
        }
        return true
    }

    /// Signals the eventfd that stands for a write. False if none does.
    func ring(region: UInt32, offset: UInt64, width: Int, value: UInt64) -> Bool {
        for doorbell in doorbells where doorbell.offset == offset && doorbell.region == region {
            guard doorbell.width == 0 || doorbell.width == UInt64(width) else { continue }
            if let match = doorbell.match {
                let mask: UInt64 = width >= 8 ? .max : (1 << UInt64(width * 8)) - 1
                guard value & mask == match & mask else { continue }
            }
            doorbell.event.signal()
            return true
        }
        return false
    }
}
