internal import Crypto
internal import Serprog
internal import Trust

/// The flash chip as the logic's own verifier reads it; whole pages, of which the gate keeps digests.
struct FlashChipReader: ImageReader {
    private let chip: FlashChip
    private let isRecording: Bool
    let byteCount: UInt64

    init(_ chip: FlashChip, recording: Bool) throws(ImageReadError) {
        self.chip = chip
        isRecording = recording
        do throws(SPITargetError) { byteCount = try chip.size() } catch { throw ImageReadError(error.description) }
    }

    mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
        guard offset <= byteCount, count <= byteCount - offset else {
            throw ImageReadError("bytes \(offset) to \(offset &+ count) of a flash chip of \(byteCount)")
        }
        guard count > 0 else { return }
        let page = UInt64(PageDigests.pageSize)
        let start = offset - offset % page
        let end = (offset + count + page - 1) / page * page
        var place = start
        do throws(SPITargetError) {
            try chip.read(start, end - start, recording: isRecording) { piece in
                // Of the first and the last page, what was asked for.
                let from = max(place, offset)
                let upTo = min(place + UInt64(piece.byteCount), offset + count)
                if from < upTo { body(piece.extracting(Int(from - place)..<Int(upTo - place))) }
                place += UInt64(piece.byteCount)
            }
        } catch {
            throw ImageReadError(error.description)
        }
    }
}

/// What the logic does with slots of the chip; each call takes its time, on a thread of its own.
enum SlotWork {
    /// Verifies a slot; everything that passes is recorded as verified.
    static func verify(_ slot: FirmwareSlot, _ chip: FlashChip, _ fuses: Fuses) -> FirmwareVerdict {
        look(slot, chip, fuses, recording: true)
    }

    private static func look(
        _ slot: FirmwareSlot, _ chip: FlashChip, _ fuses: Fuses, recording: Bool
    ) -> FirmwareVerdict {
        do throws(ImageReadError) {
            let reader = try FlashChipReader(chip, recording: recording)
            let layout: ChipLayout
            do throws(ChipLayoutError) { layout = try ChipLayout(chipSize: reader.byteCount) } catch {
                return .refused(.unreadable(error.description), imageName: nil)
            }
            var slotReader = SlotReader(reader, layout: layout, slot: slot)
            return FirmwareVerifier.verify(&slotReader, fuses: fuses)
        } catch {
            return .refused(.unreadable(error.description), imageName: nil)
        }
    }

    /// Writes `slot` from golden, block by block; what is the same already is left alone. The block with the manifest
    /// comes last: a slot that is written in part has none, and is refused.
    ///
    /// - Parameter isWanted: asked before each block.
    /// - Returns: nil, or why it failed.
    static func restore(_ slot: FirmwareSlot, _ chip: FlashChip, isWanted: () -> Bool) -> String? {
        let block: UInt64 = 64 << 10
        do throws(SPITargetError) {
            guard let layout = try? ChipLayout(chipSize: try chip.size()) else { return "the chip has no slots" }
            let (source, target) = (layout.base(of: .golden), layout.base(of: slot))
            let manifest = FlashLayout.manifest.offset / block * block
            // A slot without manifest from the first change on.
            if try bytes(chip, source + manifest, block) != (try bytes(chip, target + manifest, block)) {
                try chip.erase(target + manifest, count: block)
            }
            let places = Array(stride(from: UInt64(0), to: layout.slotSize, by: Int(block))).filter { $0 != manifest }
            for place in places + [manifest] {
                guard isWanted() else { return "it was given up" }
                let wanted = try bytes(chip, source + place, block)
                let found = try bytes(chip, target + place, block)
                guard wanted != found else { continue }
                if found.contains(where: { $0 != 0xFF }) { try chip.erase(target + place, count: block) }
                for page in stride(from: 0, to: wanted.count, by: FlashInstruction.pageSize) {
                    let piece = wanted[page..<page + FlashInstruction.pageSize]
                    if piece.contains(where: { $0 != 0xFF }) { try chip.program(target + place + UInt64(page), piece) }
                }
                guard try bytes(chip, target + place, block) == wanted else {
                    return "the block at 0x\(String(target + place, radix: 16)) does not keep what is written"
                }
            }
            return nil
        } catch {
            return error.description
        }
    }

    private static func bytes(_ chip: FlashChip, _ address: UInt64, _ count: UInt64) throws(SPITargetError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(count))
        try chip.read(address, count) { piece in
            // Safety: the buffer is valid in the closure, and copied there.
            unsafe piece.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        return bytes
    }

    /// What the fuses may be raised to.
    enum Rollback: Equatable {
        case raise(UInt32)
        case keep(why: String)
    }

    /// The rollback floor of the slot that has booted, at most the security version of golden: a board must be able to
    /// fall back. Only of the manifest that was verified.
    static func rollback(_ slot: FirmwareSlot, digest: [UInt8], _ chip: FlashChip, _ fuses: Fuses) -> Rollback {
        guard case .verified(let manifest, let found) = look(slot, chip, fuses, recording: false), found == digest
        else {
            return .keep(why: "slot \(slot) no longer holds what was verified")
        }
        let minimum = fuses.minimumSecurityVersion
        guard manifest.rollbackFloor > minimum else { return .keep(why: "") }
        guard case .verified(let golden, _) = look(.golden, chip, fuses, recording: false) else {
            return .keep(
                why: "the fuses stay at \(minimum), not \(manifest.rollbackFloor): the golden image is not verified")
        }
        let raised = min(manifest.rollbackFloor, golden.securityVersion)
        guard raised > minimum else {
            return .keep(
                why: "the fuses stay at \(minimum), not \(manifest.rollbackFloor): "
                    + "the golden image has security version \(golden.securityVersion)")
        }
        return .raise(raised)
    }
}
