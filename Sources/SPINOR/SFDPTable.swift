/// The chip's serial flash discoverable parameters, as far as single-lane SPI goes.
///
/// Spec: JESD216B §6. Three tables: the header with two parameter headers at 0, the basic flash parameters at 0x30,
/// the 4-byte address instructions at 0x80. What lies between is 0xFF.
enum SFDPTable {
    static func bytes(of model: SPINORModel) -> [UInt8] { tables[model] ?? [] }

    private static let tables = Dictionary(uniqueKeysWithValues: SPINORModel.all.map { ($0, make($0)) })

    private static func make(_ model: SPINORModel) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xFF, count: Offset.fourByteInstructions + 8)
        func place(_ words: [UInt32], at offset: Int) {
            for (index, word) in words.enumerated() {
                for byte in 0..<4 { bytes[offset + 4 * index + byte] = UInt8(truncatingIfNeeded: word >> (8 * byte)) }
            }
        }
        place(header, at: 0)
        place(basicParameters(model), at: Offset.basicParameters)
        place(fourByteInstructions, at: Offset.fourByteInstructions)
        return bytes
    }

    private enum Offset {
        static let basicParameters = 0x30
        static let fourByteInstructions = 0x80
    }

    /// "SFDP", revision 1.6, two parameter headers (§6.2, §6.3).
    private static let header: [UInt32] = [
        0x5044_4653, 0xFF01_0106,
        // Basic flash parameters 0xFF00, revision 1.6, 16 words.
        0x1001_0600, 0xFF00_0000 | UInt32(Offset.basicParameters),
        // 4-byte address instructions 0xFF84, revision 1.0, 2 words.
        0x0201_0084, 0xFF00_0000 | UInt32(Offset.fourByteInstructions),
    ]

    /// §6.4, words 1 to 16.
    private static func basicParameters(_ model: SPINORModel) -> [UInt32] {
        // Chip erase: 112 s in units of 4 s, or 448 s in units of 64 s.
        let chipErase: UInt32 = model.size > SPINORModel.mx25l25635f.size ? 6 | 3 << 5 : 27 | 2 << 5
        return [
            // 1: 4 KiB erase everywhere by 0x20, pages of 64 bytes and more, 3- or 4-byte addresses, no other fast reads.
            0xFF82_20E5,
            // 2: bits, less one.
            UInt32(model.size * 8 - 1),
            // 3, 4: no 1-4-4, 1-1-4, 1-1-2, 1-2-2.
            0, 0,
            // 5, 6, 7: no 2-2-2, no 4-4-4.
            0xFFFF_FFEE, 0xFF00_FFFF, 0xFF00_FFFF,
            // 8, 9: erase types 4 KiB by 0x20, 32 KiB by 0x52, 64 KiB by 0xD8.
            0x520F_200C, 0xFF00_D810,
            // 10: typically 48 ms, 192 ms, 384 ms; at most ten times that.
            4 | (2 | 1 << 5) << 4 | (11 | 1 << 5) << 11 | (2 | 2 << 5) << 18,
            // 11: page of 2^8 bytes, 512 µs; byte 16 µs, then 1 µs each; chip erase; at most twelve times that.
            5 | 8 << 4 | (7 | 1 << 5) << 8 | (1 | 1 << 4) << 14 | chipErase << 24 | 1 << 31,
            // 12, 13: no suspend.
            0x8000_0000, 0,
            // 14: deep power-down by 0xB9, left by 0xAB within 1 µs; busy is polled in the status register by 0x05.
            1 << 2 | 0xAB << 15 | 0xB9 << 23,
            // 15: no quad enable bit is needed.
            0xFF00_0000,
            // 16: status register written after 0x06; reset by 0x66, 0x99; 4-byte mode left by 0xE9, software reset or
            // power cycle, entered by 0xB7; extended address register; dedicated 4-byte opcodes.
            0x81 | 1 << 12 | (0x001 | 0x040 | 0x080) << 14 | (0x01 | 0x04 | 0x20) << 24,
        ]
    }

    /// §6.6: READ 0x13, FAST READ 0x0C, page program 0x12, erase types 1 to 3; then the erase opcodes.
    private static let fourByteInstructions: [UInt32] = [
        0xFFF0_0000 | 1 << 0 | 1 << 1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11,
        0xFFDC_5C21,
    ]
}
