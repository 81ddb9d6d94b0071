// What the interpreter executes: one slot of eight bytes for one guest instruction.
//
//     byte 0   1    2    3    4 … 7
//          op  rd   rs1  rs2  immediate (signed)
//
// Operands are register numbers; `rd` 32 is a sink for results that x0 swallows. Operations that are rare keep the raw
// instruction in `immediate` and are taken apart when they execute. Offsets of branches and of `auipc` are relative to
// the *block's* first instruction, so a slot does not depend on the virtual address it runs at.

/// The interpreter's operations. An enum of contiguous cases, because a switch over it needs no range check.
enum Operation: UInt8 {
    // Register-register.
    case add, sub, sll, slt, sltu, xor, srl, sra, or, and
    case addw, subw, sllw, srlw, sraw
    // Register-immediate.
    case addi, slti, sltiu, xori, ori, andi, slli, srli, srai
    case addiw, slliw, srliw, sraiw
    /// rd = immediate (lui, c.li).
    case loadImmediate
    /// rd = rs1 (c.mv, addi with 0).
    case move
    /// rd = block's address + immediate (auipc).
    case addressOf
    case nop
    // M.
    case mul, mulh, mulhsu, mulhu, div, divu, rem, remu, mulw, divw, divuw, remw, remuw
    // Memory: x[rs1] + immediate.
    case lb, lh, lw, ld, lbu, lhu, lwu
    case sb, sh, sw, sd
    case flw, fld, fsw, fsd
    // Ends of blocks. Branches: rd = the block's length in halfwords, immediate = target.
    case beq, bne, blt, bge, bltu, bgeu
    /// immediate = target, rs1/rs2 unused, rd = link register, rs2 = link offset in halfwords.
    case jal
    /// A jump without link.
    case jump
    /// immediate = offset, rs2 = link offset in halfwords.
    case jalr
    /// Not an instruction: the block ends because it is full; the next one follows at `immediate`.
    case fallThrough
    /// Raw instruction in immediate: SYSTEM and MISC-MEM except FENCE. rs2 = the block's length in halfwords.
    case system
    case illegal
    // Raw instruction in immediate; do not end the block.
    case fence, atomic, float
    // Zba.
    case sh1add, sh2add, sh3add, addUW, sh1addUW, sh2addUW, sh3addUW, slliUW
    // Zbb.
    case andn, orn, xnor, clz, ctz, cpop, clzw, ctzw, cpopw, max, maxu, min, minu
    case sextB, sextH, zextH, rol, ror, rori, rolw, rorw, roriw, orcB, rev8
    // Zbs.
    case bclr, bclri, bext, bexti, binv, binvi, bset, bseti

    /// Whether control leaves the block here.
    var endsBlock: Bool {
        switch self {
        case .beq, .bne, .blt, .bge, .bltu, .bgeu, .jal, .jump, .jalr, .system, .illegal, .fallThrough: true
        default: false
        }
    }
}

/// One guest instruction, decoded.
struct Slot {
    var op: Operation
    var rd: UInt8 = 0
    var rs1: UInt8 = 0
    var rs2: UInt8 = 0
    var immediate: Int32 = 0

    /// The register number that swallows results for x0.
    static let sink: UInt8 = 32
    /// Bytes of a slot.
    static let stride = 8
}
