public import Trust

/// The writing of a slot from golden.
public enum SlotRestoration {
    /// Writes `slot` from golden, block by block; what is the same already is left alone. The block with the manifest comes
    /// last: whenever the power goes, the slot is refused or is what golden is.
    ///
    /// - Parameter isWanted: asked before each block.
    /// - Returns: nil, or why it failed.
    public static func restore<Medium: SlotMedium>(
        _ slot: FirmwareSlot, _ medium: inout Medium, _ layout: ChipLayout, isWanted: () -> Bool
    ) -> String? {
        let block = SlotGeometry.blockSize
        do throws(ImageReadError) {
            let (source, target) = (layout.base(of: .golden), layout.base(of: slot))
            let manifest = SlotGeometry.manifestBlock
            func bytes(_ address: UInt64, _ medium: inout Medium) throws(ImageReadError) -> [UInt8] {
                try medium.read(offset: address, count: Int(block))
            }
            // A slot without manifest from the first change on.
            if try bytes(source + manifest, &medium) != (try bytes(target + manifest, &medium)) {
                try medium.erase(block: target + manifest)
            }
            let places = Array(stride(from: UInt64(0), to: layout.slotSize, by: Int(block))).filter { $0 != manifest }
            for place in places + [manifest] {
                guard isWanted() else { return "it was given up" }
                let wanted = try bytes(source + place, &medium)
                let found = try bytes(target + place, &medium)
                guard wanted != found else { continue }
                // From the first change of a block on, the manifest must be gone.
                if place != manifest, !isErased(try bytes(target + manifest, &medium)) {
                    try medium.erase(block: target + manifest)
                }
                if !isErased(found) { try medium.erase(block: target + place) }
                for page in stride(from: 0, to: wanted.count, by: Int(SlotGeometry.pageSize)) {
                    let piece = wanted[page..<page + Int(SlotGeometry.pageSize)]
                    if !isErased(piece) { try medium.program(target + place + UInt64(page), piece) }
                }
                guard try bytes(target + place, &medium) == wanted else {
                    return "the block at 0x\(String(target + place, radix: 16)) does not keep what is written"
                }
            }
            return nil
        } catch {
            return error.description
        }
    }

    private static func isErased(_ bytes: some Sequence<UInt8>) -> Bool { bytes.allSatisfy { $0 == 0xFF } }
}
