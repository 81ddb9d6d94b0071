// An update of the slot that does not run, as a value that works on a medium.
//
//   begin → manifest … → (authentic?) → the slot's manifest is erased → data … → finish → manifest written → verified → staged
//
// Until the manifest is written again nothing in the slot can be booted, and until the whole was verified nobody is told
// to boot it: whenever the power goes, the board has the slot it ran before. The slot that runs is never touched.

public import Sideband
public import Trust

/// What the BMC's update commands do.
public struct FirmwareUpdate: Sendable {
    private static let blockSize = SlotGeometry.blockSize
    private static let pageSize = SlotGeometry.pageSize

    /// An update under way.
    private struct Progress: Sendable {
        let slot: FirmwareSlot
        /// Of the image in bytes.
        let size: UInt32
        let manifestSize: UInt32
        /// The signed manifest as far as it came.
        var message: [UInt8] = []
        /// Bytes of the image that came.
        var received: UInt32 = 0
    }

    public private(set) var state = UpdateState.idle
    /// Why the last update was refused.
    public private(set) var reason = ""
    private var progress: Progress?
    private let layout: ChipLayout

    public init(layout: ChipLayout) { self.layout = layout }

    /// The slot that is being written or was staged.
    public var slot: FirmwareSlot? { progress?.slot }

    /// The power was cycled, or the BMC went: what was not finished is gone.
    public mutating func abandon() {
        progress = nil
        state = .idle
        reason = ""
    }

    /// What was staged cannot be tried at the next power cycle.
    mutating func refuse(_ reason: String) {
        progress = nil
        state = .refused
        self.reason = reason
    }

    /// Answers a command.
    ///
    /// - Parameters:
    ///   - inactive: the slot to write; nil while none may be written.
    ///   - fuses: what the manifest must satisfy.
    ///   - medium: the whole chip.
    public mutating func handle<Medium: SlotMedium>(
        _ request: UpdateRequest, inactive: FirmwareSlot?, fuses: Fuses, medium: inout Medium
    ) -> UpdateResponse {
        if case .query = request {
            return .status(
                state, slot: progress?.slot.rawValue ?? 0xFF, received: progress?.received ?? 0,
                size: progress?.size ?? 0, reason: reason)
        }
        do throws(Refusal) {
            switch request {
            case .begin(let size, let manifestSize):
                try begin(size: size, manifestSize: manifestSize, inactive)
            case .manifest(let offset, let data): try take(manifest: data, at: offset, fuses, &medium)
            case .data(let offset, let data): try take(data, at: offset, &medium)
            case .finish: try finish(fuses, &medium)
            case .cancel: abandon()
            case .query: break
            }
            return .done(command: request.command)
        } catch {
            if error.endsUpdate { refuse(error.reason) }
            return .refused(command: request.command, error.status, reason: error.reason)
        }
    }

    private struct Refusal: Error {
        let status: SecurityStatus
        let reason: String
        /// A command out of place changes nothing; an image that is refused ends its update.
        var endsUpdate = true

        static func outOfPlace(_ reason: String) -> Refusal {
            Refusal(status: .notPermitted, reason: reason, endsUpdate: false)
        }
    }

    // MARK: Steps

    private mutating func begin(size: UInt32, manifestSize: UInt32, _ inactive: FirmwareSlot?) throws(Refusal) {
        guard let inactive else {
            throw .outOfPlace("the firmware is not running from a slot: nothing can be updated now")
        }
        let region = FlashLayout.manifest
        guard UInt64(size) <= layout.slotSize, UInt64(size) >= region.end else {
            throw Refusal(
                status: .invalidData,
                reason: "an image of \(size) bytes, a slot holds \(region.end) to \(layout.slotSize)", endsUpdate: false
            )
        }
        guard manifestSize > 0, UInt64(manifestSize) <= region.size - 4 else {
            throw Refusal(
                status: .invalidData,
                reason: "a manifest of \(manifestSize) bytes, 1 to \(region.size - 4) are allowed",
                endsUpdate: false)
        }
        progress = Progress(slot: inactive, size: size, manifestSize: manifestSize)
        state = .authenticating
        reason = ""
    }

    private mutating func take<Medium: SlotMedium>(
        manifest data: [UInt8], at offset: UInt32, _ fuses: Fuses, _ medium: inout Medium
    ) throws(Refusal) {
        guard state == .authenticating, var current = progress else {
            throw .outOfPlace("no update waits for its manifest")
        }
        guard Int(offset) == current.message.count, data.count <= Int(current.manifestSize) - current.message.count
        else {
            throw .outOfPlace(
                "manifest bytes at \(offset), \(current.message.count) of \(current.manifestSize) are here")
        }
        current.message += data
        progress = current
        guard current.message.count == Int(current.manifestSize) else { return }
        do throws(FirmwareRefusal) {
            _ = try FirmwareVerifier.authenticate(
                message: current.message, imageSize: layout.slotSize, fuses: fuses)
        } catch {
            throw Refusal(status: .refused, reason: error.description)
        }
        // From here on the slot cannot be booted.
        try write { () throws(ImageReadError) in
            try medium.erase(block: layout.base(of: current.slot) + manifestBlock)
        }
        state = .receiving
    }

    private mutating func take<Medium: SlotMedium>(
        _ data: [UInt8], at offset: UInt32, _ medium: inout Medium
    ) throws(Refusal) {
        guard state == .receiving, let current = progress else { throw .outOfPlace("no update waits for an image") }
        guard offset == current.received, data.count <= Int(current.size - current.received) else {
            throw .outOfPlace("image bytes at \(offset), \(current.received) of \(current.size) are here")
        }
        let base = layout.base(of: current.slot)
        try write { () throws(ImageReadError) in
            var place = UInt64(offset)
            let end = place + UInt64(data.count)
            while place < end {
                if place % Self.blockSize == 0, place != manifestBlock { try medium.erase(block: base + place) }
                let next = min(end, (place / Self.pageSize + 1) * Self.pageSize)
                let piece = data[Int(place - UInt64(offset))..<Int(next - UInt64(offset))]
                // The manifest comes last, and from the message that was authenticated.
                let isManifest = place >= FlashLayout.manifest.offset && place < FlashLayout.manifest.end
                if !isManifest, piece.contains(where: { $0 != 0xFF }) { try medium.program(base + place, piece) }
                place = next
            }
        }
        progress?.received += UInt32(data.count)
    }

    private mutating func finish<Medium: SlotMedium>(_ fuses: Fuses, _ medium: inout Medium) throws(Refusal) {
        guard state == .receiving, let current = progress, current.received == current.size else {
            throw .outOfPlace("the image is not complete")
        }
        let base = layout.base(of: current.slot)
        let length = current.manifestSize
        let region = (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * UInt32($0))) } + current.message
        try write { () throws(ImageReadError) in
            for start in stride(from: 0, to: region.count, by: Int(Self.pageSize)) {
                let piece = region[start..<min(start + Int(Self.pageSize), region.count)]
                try medium.program(base + FlashLayout.manifest.offset + UInt64(start), piece)
            }
        }
        var slot = SlotReader(medium, layout: layout, slot: current.slot)
        if case .refused(let refusal, _) = FirmwareVerifier.verify(&slot, fuses: fuses) {
            try write { () throws(ImageReadError) in try medium.erase(block: base + manifestBlock) }
            throw Refusal(status: .refused, reason: refusal.description)
        }
        state = .staged
    }

    private var manifestBlock: UInt64 { SlotGeometry.manifestBlock }

    private func write(_ body: () throws(ImageReadError) -> Void) throws(Refusal) {
        do throws(ImageReadError) { try body() } catch {
            throw Refusal(status: .refused, reason: "the flash: \(error)")
        }
    }
}
