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
        var pages = WholePages(around: offset, count: count)
        do throws(SPITargetError) {
            try chip.read(pages.start, pages.end - pages.start, recording: isRecording) { piece in
                pages.take(piece, body)
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

    /// Writes `slot` from golden; nil, or why it failed.
    static func restore(_ slot: FirmwareSlot, _ chip: FlashChip, isWanted: () -> Bool) -> String? {
        do throws(ImageReadError) {
            var medium = try FlashChipMedium(chip)
            guard let layout = try? ChipLayout(chipSize: medium.byteCount) else { return "the chip has no slots" }
            return SlotRestoration.restore(slot, &medium, layout, isWanted: isWanted)
        } catch {
            return error.description
        }
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
