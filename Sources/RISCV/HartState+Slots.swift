// What a decoded instruction does, away from the fast ways of the interpreter and of translated code: memory accesses
// that missed the translation cache, atomics, floating point, and the rarer bit manipulation.

extension HartState {
    /// Executes a memory, atomic or floating-point slot, or one of bit manipulation. False: the trap is recorded.
    @inline(never)
    mutating func execute(_ slot: SlotPointer) -> Bool {
        let address = x[slot.rs1] &+ slot.immediate
        switch slot.op {
        case .lb:
            guard let value = loadSlow(address, 1) else { return false }
            x[slot.rd] = UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: value)))
        case .lh:
            guard let value = loadSlow(address, 2) else { return false }
            x[slot.rd] = UInt64(bitPattern: Int64(Int16(truncatingIfNeeded: value)))
        case .lw:
            guard let value = loadSlow(address, 4) else { return false }
            x[slot.rd] = signExtend(low(value))
        case .ld:
            guard let value = loadSlow(address, 8) else { return false }
            x[slot.rd] = value
        case .lbu:
            guard let value = loadSlow(address, 1) else { return false }
            x[slot.rd] = value
        case .lhu:
            guard let value = loadSlow(address, 2) else { return false }
            x[slot.rd] = value
        case .lwu:
            guard let value = loadSlow(address, 4) else { return false }
            x[slot.rd] = value
        case .sb: return storeSlow(address, 1, x[slot.rs2])
        case .sh: return storeSlow(address, 2, x[slot.rs2])
        case .sw: return storeSlow(address, 4, x[slot.rs2])
        case .sd: return storeSlow(address, 8, x[slot.rs2])
        case .flw: return loadFloat(address, 4, slot.rd)
        case .fld: return loadFloat(address, 8, slot.rd)
        case .fsw: return storeFloat(address, 4, slot.rs2)
        case .fsd: return storeFloat(address, 8, slot.rs2)
        case .atomic: return executeAtomic(slot.word, rd: slot.rd, rs1: slot.rs1, rs2: slot.rs2)
        case .float: return executeFloat(slot.word)
        default: x[slot.rd] = bitManipulation(slot.op, x[slot.rs1], x[slot.rs2], slot.immediate)
        }
        return true
    }
}
