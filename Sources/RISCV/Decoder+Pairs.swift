// Pairs of instructions that compilers emit together, done by one slot. Each is here because it was measured: see
// docs/hart-performance.md.

extension Operation {
    /// Whether control leaves the block here.
    var endsBlock: Bool {
        switch self {
        case .beq, .bne, .blt, .bge, .bltu, .bgeu, .jal, .jump, .jalr, .system, .illegal, .fallThrough: true
        default: false
        }
    }
}

extension Decoder {
    /// The slot that does the work of `first` and `second`, or `nil`. The second keeps its own slot, which the first
    /// skips, so that slots and instructions still correspond one to one. Only operations that cannot trap are paired.
    static func pair(_ first: Slot, _ second: Slot) -> Slot? {
        guard second.rd == first.rd && second.rs1 == first.rd else { return nil }
        switch (first.op, second.op) {
        case (.loadImmediate, .addi):
            let (sum, overflow) = first.immediate.addingReportingOverflow(second.immediate)
            return overflow ? nil : Slot(op: .pairLoadImmediate, rd: first.rd, immediate: sum)
        case (.loadImmediate, .addiw):
            return Slot(op: .pairLoadImmediate, rd: first.rd, immediate: first.immediate &+ second.immediate)
        case (.addressOf, .addi):
            let (sum, overflow) = first.immediate.addingReportingOverflow(second.immediate)
            return overflow ? nil : Slot(op: .pairAddressOf, rd: first.rd, immediate: sum)
        case (.slli, .srli):
            return Slot(
                op: .pairShifts, rd: first.rd, rs1: first.rs1, immediate: first.immediate | second.immediate << 8)
        default: return nil
        }
    }
}
