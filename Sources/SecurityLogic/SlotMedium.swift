internal import Serprog
public import Trust

/// A chip whose slots are written; addresses are the chip's.
public protocol SlotMedium: ImageReader {
    /// Sets the bits of a block of 64 KiB.
    mutating func erase(block address: UInt64) throws(ImageReadError)
    /// Programs bytes within one page of 256.
    mutating func program(_ address: UInt64, _ bytes: ArraySlice<UInt8>) throws(ImageReadError)
}

/// In what pieces slots are written.
enum SlotGeometry {
    static let blockSize: UInt64 = 64 * 1024
    static let pageSize = UInt64(FlashInstruction.pageSize)
    /// The block that holds the manifest, from the slot's first byte. Erased first and written last: a slot that is written
    /// in part has no manifest, and is refused.
    static let manifestBlock = FlashLayout.manifest.offset / blockSize * blockSize
}

/// The board's chip as slots are written; calls wait for it.
struct FlashChipMedium: SlotMedium {
    let chip: FlashChip
    var reader: FlashChipReader

    init(_ chip: FlashChip) throws(ImageReadError) {
        self.chip = chip
        reader = try FlashChipReader(chip, recording: false)
    }

    var byteCount: UInt64 { reader.byteCount }

    mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
        try reader.read(offset: offset, count: count, body)
    }

    mutating func erase(block address: UInt64) throws(ImageReadError) {
        try change { () throws(SPITargetError) in try chip.erase(address, count: SlotGeometry.blockSize) }
    }

    mutating func program(_ address: UInt64, _ bytes: ArraySlice<UInt8>) throws(ImageReadError) {
        try change { () throws(SPITargetError) in try chip.program(address, bytes) }
    }

    private func change(_ body: () throws(SPITargetError) -> Void) throws(ImageReadError) {
        do throws(SPITargetError) { try body() } catch { throw ImageReadError(error.description) }
    }
}
