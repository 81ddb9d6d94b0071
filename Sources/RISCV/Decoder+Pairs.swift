// Pairs of instructions that compilers emit together, done by one slot. Chosen by how often they come up in
// compiled code and in OpenSBI, measured as a set: see docs/hart-performance.md.

extension Operation {
    /// Whether the two source registers may be exchanged.
    var commutes: Bool {
        switch self {
        case .beq, .bne, .add, .addw: true
        default: false
        }
    }

    /// Whether control leaves the block here.
    var endsBlock: Bool {
        switch self {
        case .beq, .bne, .blt, .bge, .bltu, .bgeu, .jal, .jump, .jalr, .system, .illegal, .fallThrough: true
        default: false
        }
    }
}

extension Decoder {
    /// Lets the slot before `second` do the work of both where they are a pair, with its own operands unchanged. The
    /// second keeps its own slot, from which the pair reads the second's operands and which it then skips: slots and
    /// instructions still correspond one to one, and a trap of either is found at its own slot.
    static func pair(_ first: inout Slot, _ second: inout Slot) {
        if let op = independentPair(first.op, second.op) {
            first.op = op
            return
        }
        // The rest continues with the first's result. Where operands commute, it comes first.
        if second.rs1 != first.rd && second.rs2 == first.rd && second.op.commutes { swap(&second.rs1, &second.rs2) }
        guard second.rs1 == first.rd else { return }
        if let op = dependentPair(first.op, second.op) { first.op = op }
        guard second.rd == first.rd else { return }
        switch (first.op, second.op) {
        case (.loadImmediate, .addi), (.addressOf, .addi):
            let (sum, overflow) = first.immediate.addingReportingOverflow(second.immediate)
            if overflow { return }
            first.op = first.op == .addressOf ? .pairAddressOf : .pairLoadImmediate
            first.immediate = sum
        case (.loadImmediate, .addiw):
            first.op = .pairLoadImmediate
            first.immediate = first.immediate &+ second.immediate
        case (.slli, .srli), (.slli, .srai):
            first.op = second.op == .srli ? .pairShifts : .pairShiftsSigned
            first.immediate |= second.immediate << 8
        default: break
        }
    }

    private static func independentPair(_ first: Operation, _ second: Operation) -> Operation? {
        switch (first, second) {
        case (.move, .move): .pairMoves
        case (.addi, .addi): .pairAddis
        case (.ld, .ld): .pairLoads
        case (.sd, .sd): .pairStores
        default: nil
        }
    }

    private static func dependentPair(_ first: Operation, _ second: Operation) -> Operation? {
        switch (first, second) {
        case (.addi, .beq): .pairAddiEqual
        case (.addi, .bne): .pairAddiNotEqual
        case (.addi, .blt): .pairAddiLess
        case (.addi, .bge): .pairAddiNotLess
        case (.addi, .bltu): .pairAddiLessUnsigned
        case (.addi, .bgeu): .pairAddiNotLessUnsigned
        case (.addiw, .beq): .pairAddiwEqual
        case (.addiw, .bne): .pairAddiwNotEqual
        case (.addiw, .blt): .pairAddiwLess
        case (.addiw, .bge): .pairAddiwNotLess
        case (.addiw, .bltu): .pairAddiwLessUnsigned
        case (.addiw, .bgeu): .pairAddiwNotLessUnsigned
        case (.andi, .beq): .pairAndiEqual
        case (.andi, .bne): .pairAndiNotEqual
        case (.lbu, .beq): .pairLbuEqual
        case (.lbu, .bne): .pairLbuNotEqual
        case (.lhu, .beq): .pairLhuEqual
        case (.lhu, .bne): .pairLhuNotEqual
        case (.lw, .beq): .pairLwEqual
        case (.lw, .bne): .pairLwNotEqual
        case (.ld, .beq): .pairLdEqual
        case (.ld, .bne): .pairLdNotEqual
        case (.add, .lbu): .pairAddLbu
        case (.add, .lhu): .pairAddLhu
        case (.add, .lh): .pairAddLh
        case (.add, .lw): .pairAddLw
        case (.add, .ld): .pairAddLd
        case (.slli, .add): .pairShiftAdd
        case (.mul, .add): .pairMulAdd
        case (.mulw, .addw): .pairMulwAddw
        default: nil
        }
    }
}
