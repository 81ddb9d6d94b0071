// Compressed instructions, expanded to the 32-bit instructions they stand for.
//
// Spec: RISC-V Unprivileged 20240411 chapter 26 (C), tables for quadrants 0 to 2, RV64 columns.

extension Decoder {
    /// The 32-bit instruction that a compressed one stands for, or `nil` for illegal and reserved encodings.
    static func expand(_ half: UInt16) -> UInt32? {
        let word = UInt32(half)
        let function = word >> 13
        switch word & 3 {
        case 0: return quadrant0(word, function)
        case 1: return quadrant1(word, function)
        case 2: return quadrant2(word, function)
        default: return nil
        }
    }

    private static func quadrant0(_ w: UInt32, _ function: UInt32) -> UInt32? {
        let rdPrime = (w >> 2 & 7) + 8
        let rs1Prime = (w >> 7 & 7) + 8
        // Offsets of word and doubleword accesses: uimm[5:3|2|6] and uimm[5:3|7:6].
        let wordOffset = (w >> 10 & 7) << 3 | (w >> 6 & 1) << 2 | (w >> 5 & 1) << 6
        let doubleOffset = (w >> 10 & 7) << 3 | (w >> 5 & 3) << 6
        switch function {
        case 0:
            let immediate = (w >> 11 & 3) << 4 | (w >> 7 & 15) << 6 | (w >> 6 & 1) << 2 | (w >> 5 & 1) << 3
            return immediate == 0 ? nil : iType(0x13, rdPrime, 0, 2, immediate)
        case 1: return iType(0x07, rdPrime, 3, rs1Prime, doubleOffset)
        case 2: return iType(0x03, rdPrime, 2, rs1Prime, wordOffset)
        case 3: return iType(0x03, rdPrime, 3, rs1Prime, doubleOffset)
        case 5: return sType(0x27, 3, rs1Prime, rdPrime, doubleOffset)
        case 6: return sType(0x23, 2, rs1Prime, rdPrime, wordOffset)
        case 7: return sType(0x23, 3, rs1Prime, rdPrime, doubleOffset)
        default: return nil
        }
    }

    private static func quadrant1(_ w: UInt32, _ function: UInt32) -> UInt32? {
        let rd = w >> 7 & 31
        let immediate = signExtend((w >> 12 & 1) << 5 | w >> 2 & 31, 6)
        switch function {
        case 0: return iType(0x13, rd, 0, rd, immediate)
        case 1: return rd == 0 ? nil : iType(0x1B, rd, 0, rd, immediate)
        case 2: return iType(0x13, rd, 0, 0, immediate)
        case 3:
            if rd == 2 {
                let offset = signExtend(
                    (w >> 12 & 1) << 9 | (w >> 6 & 1) << 4 | (w >> 5 & 1) << 6 | (w >> 3 & 3) << 7 | (w >> 2 & 1) << 5,
                    10)
                return offset == 0 ? nil : iType(0x13, 2, 0, 2, offset)
            }
            return immediate == 0 ? nil : 0x37 | rd << 7 | immediate << 12
        case 4: return quadrant1Arithmetic(w, immediate)
        case 5:
            let offset = signExtend(
                (w >> 12 & 1) << 11 | (w >> 11 & 1) << 4 | (w >> 9 & 3) << 8 | (w >> 8 & 1) << 10 | (w >> 7 & 1) << 6
                    | (w >> 6 & 1) << 7 | (w >> 3 & 7) << 1 | (w >> 2 & 1) << 5, 12)
            // JAL x0.
            return 0x6F | (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3FF) << 21 | (offset >> 11 & 1) << 20
                | (offset >> 12 & 0xFF) << 12
        default:
            let offset = signExtend(
                (w >> 12 & 1) << 8 | (w >> 10 & 3) << 3 | (w >> 5 & 3) << 6 | (w >> 3 & 3) << 1 | (w >> 2 & 1) << 5, 9)
            return 0x63 | (function & 1) << 12 | ((w >> 7 & 7) + 8) << 15 | (offset >> 12 & 1) << 31
                | (offset >> 5 & 0x3F) << 25 | (offset >> 1 & 0xF) << 8 | (offset >> 11 & 1) << 7
        }
    }

    private static func quadrant1Arithmetic(_ w: UInt32, _ immediate: UInt32) -> UInt32? {
        let rd = (w >> 7 & 7) + 8
        let rs2 = (w >> 2 & 7) + 8
        let amount = immediate & 63
        switch w >> 10 & 3 {
        case 0: return iType(0x13, rd, 5, rd, amount)
        case 1: return iType(0x13, rd, 5, rd, amount | 0x400)
        case 2: return iType(0x13, rd, 7, rd, immediate)
        default:
            switch (w >> 12 & 1, w >> 5 & 3) {
            case (0, 0): return rType(0x33, rd, 0, rd, rs2, 0x20)
            case (0, 1): return rType(0x33, rd, 4, rd, rs2, 0)
            case (0, 2): return rType(0x33, rd, 6, rd, rs2, 0)
            case (0, 3): return rType(0x33, rd, 7, rd, rs2, 0)
            case (1, 0): return rType(0x3B, rd, 0, rd, rs2, 0x20)
            case (1, 1): return rType(0x3B, rd, 0, rd, rs2, 0)
            default: return nil
            }
        }
    }

    private static func quadrant2(_ w: UInt32, _ function: UInt32) -> UInt32? {
        let rd = w >> 7 & 31
        let rs2 = w >> 2 & 31
        let wordLoad = (w >> 12 & 1) << 5 | (w >> 4 & 7) << 2 | (w >> 2 & 3) << 6
        let doubleLoad = (w >> 12 & 1) << 5 | (w >> 5 & 3) << 3 | (w >> 2 & 7) << 6
        let wordStore = (w >> 9 & 15) << 2 | (w >> 7 & 3) << 6
        let doubleStore = (w >> 10 & 7) << 3 | (w >> 7 & 7) << 6
        switch function {
        case 0: return iType(0x13, rd, 1, rd, (w >> 12 & 1) << 5 | rs2)
        case 1: return iType(0x07, rd, 3, 2, doubleLoad)
        case 2: return rd == 0 ? nil : iType(0x03, rd, 2, 2, wordLoad)
        case 3: return rd == 0 ? nil : iType(0x03, rd, 3, 2, doubleLoad)
        case 4:
            switch (w >> 12 & 1, rs2) {
            case (0, 0): return rd == 0 ? nil : iType(0x67, 0, 0, rd, 0)
            case (0, _): return iType(0x13, rd, 0, rs2, 0)
            case (_, 0): return rd == 0 ? 0x0010_0073 : iType(0x67, 1, 0, rd, 0)
            default: return rType(0x33, rd, 0, rd, rs2, 0)
            }
        case 5: return sType(0x27, 3, 2, rs2, doubleStore)
        case 6: return sType(0x23, 2, 2, rs2, wordStore)
        default: return sType(0x23, 3, 2, rs2, doubleStore)
        }
    }

    private static func signExtend(_ value: UInt32, _ bits: UInt32) -> UInt32 {
        UInt32(bitPattern: Int32(bitPattern: value << (32 - bits)) >> Int32(32 - bits))
    }

    private static func iType(_ opcode: UInt32, _ rd: UInt32, _ function: UInt32, _ rs1: UInt32, _ immediate: UInt32)
        -> UInt32
    {
        opcode | rd << 7 | function << 12 | rs1 << 15 | immediate << 20
    }

    private static func sType(_ opcode: UInt32, _ function: UInt32, _ rs1: UInt32, _ rs2: UInt32, _ immediate: UInt32)
        -> UInt32
    {
        opcode | (immediate & 31) << 7 | function << 12 | rs1 << 15 | rs2 << 20 | (immediate >> 5) << 25
    }

    private static func rType(
        _ opcode: UInt32, _ rd: UInt32, _ function3: UInt32, _ rs1: UInt32, _ rs2: UInt32, _ function7: UInt32
    ) -> UInt32 {
        opcode | rd << 7 | function3 << 12 | rs1 << 15 | rs2 << 20 | function7 << 25
    }
}
