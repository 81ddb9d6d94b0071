/// A few RV64 instructions as words, for programs of a test: labels are instruction indexes, patched at the end.
struct Assembler {
    enum Register: UInt32 {
        case zero = 0, ra, sp, gp, tp, t0, t1, t2, s0, s1, a0, a1, a2, a3, a4, a5, a6, a7, s2, s3, s4, s5, s6, s7, s8
        case s9, s10, s11, t3, t4, t5, t6
    }

    struct Label { fileprivate var number: Int }

    var words: [UInt32] = []
    private var labels: [Int?] = []
    private var fixes: [(word: Int, label: Int, encode: (Int32) -> UInt32)] = []

    mutating func label() -> Label {
        labels.append(nil)
        return Label(number: labels.count - 1)
    }

    mutating func place(_ label: Label) { labels[label.number] = words.count }

    mutating func here() -> Label {
        let label = label()
        place(label)
        return label
    }

    /// The program's bytes; every label is placed.
    var bytes: [UInt8] {
        var words = words
        for fix in fixes { words[fix.word] = fix.encode(Int32(labels[fix.label]! - fix.word) * 4) }
        return words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
    }

    mutating func i(_ opcode: UInt32, _ funct: UInt32, _ rd: Register, _ rs: Register, _ immediate: Int32) {
        precondition(-2048...2047 ~= immediate)
        words.append(
            UInt32(bitPattern: immediate) << 20 | rs.rawValue << 15 | funct << 12 | rd.rawValue << 7 | opcode)
    }

    mutating func store(_ funct: UInt32, _ value: Register, _ offset: Int32, _ base: Register) {
        let bits = UInt32(bitPattern: offset)
        words.append(
            (bits >> 5 & 0x7F) << 25 | value.rawValue << 20 | base.rawValue << 15 | funct << 12
                | (bits & 0x1F) << 7 | 0x23)
    }

    private mutating func branch(_ funct: UInt32, _ a: Register, _ b: Register, _ label: Label) {
        fixes.append(
            (
                words.count, label.number,
                { offset in
                    let bits = UInt32(bitPattern: offset)
                    return (bits >> 12 & 1) << 31 | (bits >> 5 & 0x3F) << 25 | b.rawValue << 20 | a.rawValue << 15
                        | funct << 12 | (bits >> 1 & 0xF) << 8 | (bits >> 11 & 1) << 7 | 0x63
                }
            ))
        words.append(0)
    }

    mutating func addi(_ rd: Register, _ rs: Register, _ immediate: Int32) { i(0x13, 0, rd, rs, immediate) }
    mutating func slli(_ rd: Register, _ rs: Register, _ shift: Int32) { i(0x13, 1, rd, rs, shift) }
    mutating func srli(_ rd: Register, _ rs: Register, _ shift: Int32) { i(0x13, 5, rd, rs, shift) }
    mutating func ld(_ rd: Register, _ offset: Int32, _ base: Register) { i(0x03, 3, rd, base, offset) }
    mutating func lw(_ rd: Register, _ offset: Int32, _ base: Register) { i(0x03, 2, rd, base, offset) }
    mutating func lbu(_ rd: Register, _ offset: Int32, _ base: Register) { i(0x03, 4, rd, base, offset) }
    mutating func sd(_ value: Register, _ offset: Int32, _ base: Register) { store(3, value, offset, base) }
    mutating func sw(_ value: Register, _ offset: Int32, _ base: Register) { store(2, value, offset, base) }
    mutating func sb(_ value: Register, _ offset: Int32, _ base: Register) { store(0, value, offset, base) }
    mutating func beq(_ a: Register, _ b: Register, _ label: Label) { branch(0, a, b, label) }
    mutating func bne(_ a: Register, _ b: Register, _ label: Label) { branch(1, a, b, label) }
    mutating func bltu(_ a: Register, _ b: Register, _ label: Label) { branch(6, a, b, label) }
    mutating func blt(_ a: Register, _ b: Register, _ label: Label) { branch(4, a, b, label) }
    mutating func j(_ label: Label) { beq(.zero, .zero, label) }
    mutating func jr(_ register: Register) { i(0x67, 0, .zero, register, 0) }
    mutating func csrw(_ csr: UInt32, _ register: Register) {
        words.append(csr << 20 | register.rawValue << 15 | 1 << 12 | 0x73)
    }
    mutating func csrs(_ csr: UInt32, _ register: Register) {
        words.append(csr << 20 | register.rawValue << 15 | 2 << 12 | 0x73)
    }
    mutating func csrr(_ rd: Register, _ csr: UInt32) { words.append(csr << 20 | 2 << 12 | rd.rawValue << 7 | 0x73) }
    mutating func amoaddD(_ rd: Register, _ value: Register, _ base: Register) {
        words.append(value.rawValue << 20 | base.rawValue << 15 | 3 << 12 | rd.rawValue << 7 | 0x2F)
    }
    mutating func lrD(_ rd: Register, _ base: Register) {
        words.append(0x1000_302F | base.rawValue << 15 | rd.rawValue << 7)
    }
    /// Jumps to an address, the return address in ra.
    mutating func fetch(_ base: Register) { i(0x67, 0, .ra, base, 0) }
    mutating func mret() { words.append(0x3020_0073) }
    mutating func csrrsi(_ csr: UInt32, _ bits: UInt32) { words.append(csr << 20 | bits << 15 | 6 << 12 | 0x73) }
    mutating func fence() { words.append(0x0FF0_000F) }
    mutating func fencei() { words.append(0x0000_100F) }
    mutating func wfi() { words.append(0x1050_0073) }
    mutating func ecall() { words.append(0x73) }

    mutating func add(_ rd: Register, _ a: Register, _ b: Register) { r(0, rd, a, b) }
    mutating func xor(_ rd: Register, _ a: Register, _ b: Register) { r(4, rd, a, b) }
    mutating func or(_ rd: Register, _ a: Register, _ b: Register) { r(6, rd, a, b) }
    mutating func remu(_ rd: Register, _ a: Register, _ b: Register) {
        r(7, rd, a, b)
        words[words.count - 1] |= 1 << 25
    }
    mutating func and(_ rd: Register, _ a: Register, _ b: Register) { r(7, rd, a, b) }
    mutating func andi(_ rd: Register, _ a: Register, _ immediate: Int32) { i(0x13, 7, rd, a, immediate) }
    mutating func auipc(_ rd: Register) { words.append(rd.rawValue << 7 | 0x17) }

    private mutating func r(_ funct: UInt32, _ rd: Register, _ a: Register, _ b: Register) {
        words.append(b.rawValue << 20 | a.rawValue << 15 | funct << 12 | rd.rawValue << 7 | 0x33)
    }

    /// Any constant of 64 bits, eleven at a time from the top; short for small ones.
    mutating func li(_ rd: Register, _ value: UInt64) {
        if value < 2048 {
            addi(rd, .zero, Int32(value))
            return
        }
        li(rd, value >> 11)
        slli(rd, rd, 11)
        if value & 0x7FF != 0 { addi(rd, rd, Int32(value & 0x7FF)) }
    }
}
