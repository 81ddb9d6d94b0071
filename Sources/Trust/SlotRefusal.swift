/// Why a slot of the chip may not run.
public struct SlotRefusal: Sendable, Hashable {
    public let slot: FirmwareSlot
    /// The image's name, or that of one without.
    public let image: String
    public let reason: String

    public init(slot: FirmwareSlot, image: String, reason: String) {
        self.slot = slot
        self.image = image
        self.reason = reason
    }
}

extension [SlotRefusal] {
    /// Why none of the slots may run: the reason of each; one that all share is said once.
    public var summary: String {
        if let first, Set(map(\.reason)).count == 1 {
            return count == 1 ? "slot \(first.slot): \(first.reason)" : "every slot: \(first.reason)"
        }
        return map { "slot \($0.slot): \($0.reason)" }.joined(separator: "; ")
    }

    /// The name of the first image that has one.
    public var image: String {
        first { $0.image != FirmwareVerdict.unnamedImage }?.image ?? FirmwareVerdict.unnamedImage
    }
}
