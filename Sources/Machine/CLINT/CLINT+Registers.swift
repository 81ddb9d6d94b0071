// Spec: RISC-V ACLINT 1.0-rc4 §2 (MTIMER), §3 (MSWI), at the offsets of the SiFive CLINT.

extension CLINT {
    /// A decoded offset.
    enum Register: Equatable {
        /// Bit 0 is the hart's MSIP.
        case msip(hart: Int)
        /// 64 bits; `high`: the upper word of it.
        case mtimecmp(hart: Int, high: Bool)
        case mtime(high: Bool)
        /// Reads as zero, ignores writes.
        case reserved

        init(offset: UInt64) {
            switch offset {
            case 0..<0x4000: self = .msip(hart: Int(offset / 4))
            case 0x4000..<0xBFF8: self = .mtimecmp(hart: Int((offset - 0x4000) / 8), high: offset & 4 != 0)
            case 0xBFF8..<0xC000: self = .mtime(high: offset & 4 != 0)
            default: self = .reserved
            }
        }
    }
}
