// Instruction words to slots. Pure: bits in, slot out, nothing of the hart's state is looked at.
//
// Spec: RISC-V Unprivileged 20240411 chapter 34 (instruction listings), Bit-manipulation 1.0.0.

/// Takes 32-bit instructions apart.
enum Decoder {
    /// Decodes one instruction.
    ///
    /// `word` is a 32-bit instruction (a compressed one already expanded), `offset` its distance from the block's
    /// start and `length` its size, both in bytes.
    static func decode(_ word: UInt32, offset: Int32, length: Int32) -> Slot {
        let rd = UInt8(word >> 7 & 31)
        let rs1 = UInt8(word >> 15 & 31)
        let rs2 = UInt8(word >> 20 & 31)
        let target = rd == 0 ? Slot.sink : rd
        let end = UInt8(truncatingIfNeeded: (offset + length) / 2)
        let signed = Int32(bitPattern: word)
        switch word & 0x7F {
        case 0x37:
            return rd == 0 ? Slot(op: .nop) : Slot(op: .loadImmediate, rd: rd, immediate: signed & ~0xFFF)
        case 0x17:
            return rd == 0
                ? Slot(op: .nop) : Slot(op: .addressOf, rd: rd, immediate: (signed & ~0xFFF) &+ offset)
        case 0x6F:
            let distance =
                (signed >> 31) << 20 | Int32(bitPattern: word & 0xFF000)
                | Int32(word >> 20 & 1) << 11 | Int32(word >> 21 & 0x3FF) << 1
            if rd == 0 { return Slot(op: .jump, immediate: distance &+ offset) }
            return Slot(op: .jal, rd: rd, rs2: end, immediate: distance &+ offset)
        case 0x67 where word >> 12 & 7 == 0:
            return Slot(op: .jalr, rd: target, rs1: rs1, rs2: end, immediate: signed >> 20)
        case 0x63:
            guard let op = branch(word >> 12 & 7) else { return illegal(word) }
            let distance =
                (signed >> 31) << 12 | Int32(word >> 7 & 1) << 11
                | Int32(word >> 25 & 0x3F) << 5 | Int32(word >> 8 & 0xF) << 1
            return Slot(op: op, rd: end, rs1: rs1, rs2: rs2, immediate: distance &+ offset)
        case 0x03:
            guard let op = load(word >> 12 & 7) else { return illegal(word) }
            return Slot(op: op, rd: target, rs1: rs1, immediate: signed >> 20)
        case 0x23:
            guard let op = store(word >> 12 & 7) else { return illegal(word) }
            return Slot(op: op, rs1: rs1, rs2: rs2, immediate: storeOffset(word))
        case 0x07:
            switch word >> 12 & 7 {
            case 2: return Slot(op: .flw, rd: rd, rs1: rs1, immediate: signed >> 20)
            case 3: return Slot(op: .fld, rd: rd, rs1: rs1, immediate: signed >> 20)
            default: return illegal(word)
            }
        case 0x27:
            switch word >> 12 & 7 {
            case 2: return Slot(op: .fsw, rs1: rs1, rs2: rs2, immediate: storeOffset(word))
            case 3: return Slot(op: .fsd, rs1: rs1, rs2: rs2, immediate: storeOffset(word))
            default: return illegal(word)
            }
        case 0x13: return decodeImmediate(word, rd: rd, rs1: rs1)
        case 0x1B: return decodeImmediateWord(word, rd: rd, rs1: rs1)
        case 0x33:
            guard let op = register(word >> 25, word >> 12 & 7) else { return illegal(word) }
            return rd == 0 ? Slot(op: .nop) : Slot(op: op, rd: rd, rs1: rs1, rs2: rs2)
        case 0x3B:
            guard let op = registerWord(word >> 25, word >> 12 & 7, rs2) else { return illegal(word) }
            return rd == 0 ? Slot(op: .nop) : Slot(op: op, rd: rd, rs1: rs1, rs2: rs2)
        case 0x0F:
            // FENCE and FENCE.TSO, with PAUSE among them; reserved fields are to be ignored.
            if word >> 12 & 7 == 0 { return Slot(op: .fence, immediate: signed) }
            return Slot(op: .system, rd: target, rs1: rs1, rs2: end, immediate: signed)
        case 0x73: return Slot(op: .system, rd: target, rs1: rs1, rs2: end, immediate: signed)
        case 0x2F:
            return isAtomic(word) ? Slot(op: .atomic, rd: target, rs1: rs1, rs2: rs2, immediate: signed) : illegal(word)
        case 0x43, 0x47, 0x4B, 0x4F, 0x53:
            return Slot(op: .float, rd: rd, rs1: rs1, rs2: rs2, immediate: signed)
        default: return illegal(word)
        }
    }

    static func illegal(_ word: UInt32) -> Slot {
        Slot(op: .illegal, immediate: Int32(bitPattern: word))
    }

    private static func storeOffset(_ word: UInt32) -> Int32 {
        (Int32(bitPattern: word) >> 25) << 5 | Int32(word >> 7 & 31)
    }

    private static func branch(_ function: UInt32) -> Operation? {
        switch function {
        case 0: .beq
        case 1: .bne
        case 4: .blt
        case 5: .bge
        case 6: .bltu
        case 7: .bgeu
        default: nil
        }
    }

    private static func load(_ function: UInt32) -> Operation? {
        switch function {
        case 0: .lb
        case 1: .lh
        case 2: .lw
        case 3: .ld
        case 4: .lbu
        case 5: .lhu
        case 6: .lwu
        default: nil
        }
    }

    private static func store(_ function: UInt32) -> Operation? {
        switch function {
        case 0: .sb
        case 1: .sh
        case 2: .sw
        case 3: .sd
        default: nil
        }
    }

    private static func isAtomic(_ word: UInt32) -> Bool {
        guard word >> 12 & 7 == 2 || word >> 12 & 7 == 3 else { return false }
        switch word >> 27 {
        case 0x02: return word >> 20 & 31 == 0
        case 0x00, 0x01, 0x03, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C: return true
        default: return false
        }
    }

    /// OP: register-register.
    private static func register(_ function7: UInt32, _ function3: UInt32) -> Operation? {
        switch (function7, function3) {
        case (0x00, 0): .add
        case (0x20, 0): .sub
        case (0x00, 1): .sll
        case (0x00, 2): .slt
        case (0x00, 3): .sltu
        case (0x00, 4): .xor
        case (0x00, 5): .srl
        case (0x20, 5): .sra
        case (0x00, 6): .or
        case (0x00, 7): .and
        case (0x01, 0): .mul
        case (0x01, 1): .mulh
        case (0x01, 2): .mulhsu
        case (0x01, 3): .mulhu
        case (0x01, 4): .div
        case (0x01, 5): .divu
        case (0x01, 6): .rem
        case (0x01, 7): .remu
        case (0x10, 2): .sh1add
        case (0x10, 4): .sh2add
        case (0x10, 6): .sh3add
        case (0x20, 7): .andn
        case (0x20, 6): .orn
        case (0x20, 4): .xnor
        case (0x05, 4): .min
        case (0x05, 5): .minu
        case (0x05, 6): .max
        case (0x05, 7): .maxu
        case (0x30, 1): .rol
        case (0x30, 5): .ror
        case (0x24, 1): .bclr
        case (0x24, 5): .bext
        case (0x34, 1): .binv
        case (0x14, 1): .bset
        default: nil
        }
    }

    /// OP-32: register-register on words.
    private static func registerWord(_ function7: UInt32, _ function3: UInt32, _ rs2: UInt8) -> Operation? {
        switch (function7, function3) {
        case (0x00, 0): .addw
        case (0x20, 0): .subw
        case (0x00, 1): .sllw
        case (0x00, 5): .srlw
        case (0x20, 5): .sraw
        case (0x01, 0): .mulw
        case (0x01, 4): .divw
        case (0x01, 5): .divuw
        case (0x01, 6): .remw
        case (0x01, 7): .remuw
        case (0x04, 0): .addUW
        case (0x04, 4): rs2 == 0 ? .zextH : nil
        case (0x10, 2): .sh1addUW
        case (0x10, 4): .sh2addUW
        case (0x10, 6): .sh3addUW
        case (0x30, 1): .rolw
        case (0x30, 5): .rorw
        default: nil
        }
    }

    /// OP-IMM.
    private static func decodeImmediate(_ word: UInt32, rd: UInt8, rs1: UInt8) -> Slot {
        let immediate = Int32(bitPattern: word) >> 20
        let amount = Int32(word >> 20 & 63)
        let op: Operation
        var operand = immediate
        switch word >> 12 & 7 {
        case 0: op = immediate == 0 ? .move : .addi
        case 2: op = .slti
        case 3: op = .sltiu
        case 4: op = .xori
        case 6: op = .ori
        case 7: op = .andi
        case 1:
            operand = amount
            switch word >> 26 {
            case 0x00: op = .slli
            case 0x12: op = .bclri
            case 0x1A: op = .binvi
            case 0x0A: op = .bseti
            case 0x18:
                switch amount {
                case 0: op = .clz
                case 1: op = .ctz
                case 2: op = .cpop
                case 4: op = .sextB
                case 5: op = .sextH
                default: return illegal(word)
                }
            default: return illegal(word)
            }
        default:
            operand = amount
            switch word >> 26 {
            case 0x00: op = .srli
            case 0x10: op = .srai
            case 0x18: op = .rori
            case 0x12: op = .bexti
            case 0x0A where amount == 7: op = .orcB
            case 0x1A where amount == 0x38: op = .rev8
            default: return illegal(word)
            }
        }
        if rd == 0 { return Slot(op: .nop) }
        if rs1 == 0 && (op == .addi || op == .move) { return Slot(op: .loadImmediate, rd: rd, immediate: immediate) }
        return Slot(op: op, rd: rd, rs1: rs1, immediate: operand)
    }

    /// OP-IMM-32.
    private static func decodeImmediateWord(_ word: UInt32, rd: UInt8, rs1: UInt8) -> Slot {
        let immediate = Int32(bitPattern: word) >> 20
        let amount = Int32(word >> 20 & 31)
        let op: Operation
        var operand = amount
        switch (word >> 12 & 7, word >> 25) {
        case (0, _):
            op = .addiw
            operand = immediate
        case (1, 0x00): op = .slliw
        case (1, 0x04), (1, 0x05):
            op = .slliUW
            operand = Int32(word >> 20 & 63)
        case (1, 0x30):
            switch amount {
            case 0: op = .clzw
            case 1: op = .ctzw
            case 2: op = .cpopw
            default: return illegal(word)
            }
        case (5, 0x00): op = .srliw
        case (5, 0x20): op = .sraiw
        case (5, 0x30): op = .roriw
        default: return illegal(word)
        }
        return rd == 0 ? Slot(op: .nop) : Slot(op: op, rd: rd, rs1: rs1, immediate: operand)
    }
}
