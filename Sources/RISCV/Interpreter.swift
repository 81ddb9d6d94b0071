// The interpreter: decoded blocks in, retired instructions out. Long because its one switch must be one function.
//
// Model: three nested loops. `find` looks up the block for `pc`; `chain` enters blocks, counting their instructions and
// looking once at the attention word; `body` runs slots. A branch inside a page continues `chain` with the block it
// led to last time, everything else goes through `find`. Leaving happens only between blocks, so nothing in a slot
// looks at the clock, at interrupts or at the budget. How fast it is, and why: docs/hart-performance.md.
//
// What surprised us: a switch over an enum of contiguous cases costs no range check.

extension HartState {
    /// How control left a block.
    private enum Exit {
        /// The slot before `next` failed; the trap is recorded.
        case trapped
        case taken, notTaken, indirect, system
    }

    /// Runs blocks until `limit` instructions retired, attention is raised, a trap was taken or an interrupt can be.
    /// Returns the instructions retired, at most `limit`.
    @inline(never)
    mutating func execute(_ limit: Int) -> Int {
        let x = self.x
        let translations = self.translations
        let attention = self.attention
        var context = dataContext
        var pc = self.pc
        var remaining = limit
        /// The block that led to `pc`, if it may remember the way.
        var source: BlockPointer?
        var exit = Exit.indirect
        find: while true {
            var block: BlockPointer
            if let known = fetches.jump(pc, fetchContext) {
                block = known
            } else {
                let epoch = blocks.epoch
                guard let found = findBlock(pc) else {
                    self.pc = pc
                    takeException()
                    return retire(limit - remaining)
                }
                block = found
                if epoch != blocks.epoch { source = nil }
            }
            if let from = source {
                link(from, exit, to: block)
                source = nil
            }
            chain: while true {
                if remaining < block.count || attention.isRaised {
                    guard remaining > 0 && !attention.isRaised else {
                        self.pc = pc
                        return retire(limit - remaining)
                    }
                    block = blocks.prefix(of: block, count: remaining)
                }
                remaining &-= block.count
                var next = block.slots
                exit = .trapped
                body: while true {
                    let slot = next
                    next.advance()
                    switch slot.op {
                    case .add: x[slot.rd] = x[slot.rs1] &+ x[slot.rs2]
                    case .sub: x[slot.rd] = x[slot.rs1] &- x[slot.rs2]
                    case .sll: x[slot.rd] = x[slot.rs1] &<< x[slot.rs2]
                    case .slt: x[slot.rd] = isLess(x[slot.rs1], x[slot.rs2]) ? 1 : 0
                    case .sltu: x[slot.rd] = x[slot.rs1] < x[slot.rs2] ? 1 : 0
                    case .xor: x[slot.rd] = x[slot.rs1] ^ x[slot.rs2]
                    case .srl: x[slot.rd] = x[slot.rs1] &>> x[slot.rs2]
                    case .sra: x[slot.rd] = arithmeticShift(x[slot.rs1], x[slot.rs2])
                    case .or: x[slot.rd] = x[slot.rs1] | x[slot.rs2]
                    case .and: x[slot.rd] = x[slot.rs1] & x[slot.rs2]
                    case .addw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &+ UInt32(truncatingIfNeeded: x[slot.rs2]))
                    case .subw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &- UInt32(truncatingIfNeeded: x[slot.rs2]))
                    case .sllw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &<< UInt32(truncatingIfNeeded: x[slot.rs2]))
                    case .srlw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &>> UInt32(truncatingIfNeeded: x[slot.rs2]))
                    case .sraw: x[slot.rd] = arithmeticShiftWord(x[slot.rs1], x[slot.rs2])
                    case .addi: x[slot.rd] = x[slot.rs1] &+ slot.immediate
                    case .slti: x[slot.rd] = isLess(x[slot.rs1], slot.immediate) ? 1 : 0
                    case .sltiu: x[slot.rd] = x[slot.rs1] < slot.immediate ? 1 : 0
                    case .xori: x[slot.rd] = x[slot.rs1] ^ slot.immediate
                    case .ori: x[slot.rd] = x[slot.rs1] | slot.immediate
                    case .andi: x[slot.rd] = x[slot.rs1] & slot.immediate
                    case .slli: x[slot.rd] = x[slot.rs1] &<< slot.immediate
                    case .srli: x[slot.rd] = x[slot.rs1] &>> slot.immediate
                    case .srai: x[slot.rd] = arithmeticShift(x[slot.rs1], slot.immediate)
                    case .addiw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &+ UInt32(truncatingIfNeeded: slot.immediate))
                    case .slliw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &<< UInt32(truncatingIfNeeded: slot.immediate))
                    case .srliw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &>> UInt32(truncatingIfNeeded: slot.immediate))
                    case .sraiw: x[slot.rd] = arithmeticShiftWord(x[slot.rs1], slot.immediate)
                    case .loadImmediate: x[slot.rd] = slot.immediate
                    case .move: x[slot.rd] = x[slot.rs1]
                    case .addressOf: x[slot.rd] = pc &+ slot.immediate
                    case .nop: break
                    case .mul: x[slot.rd] = x[slot.rs1] &* x[slot.rs2]
                    case .mulh: x[slot.rd] = highProduct(x[slot.rs1], x[slot.rs2])
                    case .mulhsu: x[slot.rd] = highProductMixed(x[slot.rs1], x[slot.rs2])
                    case .mulhu: x[slot.rd] = x[slot.rs1].multipliedFullWidth(by: x[slot.rs2]).high
                    case .div: x[slot.rd] = quotient(x[slot.rs1], x[slot.rs2])
                    case .rem: x[slot.rd] = remainder(x[slot.rs1], x[slot.rs2])
                    case .divu: x[slot.rd] = unsignedQuotient(x[slot.rs1], x[slot.rs2])
                    case .remu: x[slot.rd] = unsignedRemainder(x[slot.rs1], x[slot.rs2])
                    case .mulw:
                        x[slot.rd] = signExtend(
                            UInt32(truncatingIfNeeded: x[slot.rs1]) &* UInt32(truncatingIfNeeded: x[slot.rs2]))
                    case .divw: x[slot.rd] = quotientWord(x[slot.rs1], x[slot.rs2])
                    case .remw: x[slot.rd] = remainderWord(x[slot.rs1], x[slot.rs2])
                    case .divuw: x[slot.rd] = unsignedQuotientWord(x[slot.rs1], x[slot.rs2])
                    case .remuw: x[slot.rd] = unsignedRemainderWord(x[slot.rs1], x[slot.rs2])
                    case .lb:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 1, context) {
                            x[slot.rd] = UInt64(bitPattern: Int64(Int8(bitPattern: entry.load8(address))))
                        } else {
                            guard let value = loadSlow(address, 1) else { break body }
                            x[slot.rd] = UInt64(bitPattern: Int64(Int8(bitPattern: UInt8(truncatingIfNeeded: value))))
                        }
                    case .lh:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 2, context) {
                            x[slot.rd] = UInt64(bitPattern: Int64(Int16(bitPattern: entry.load16(address))))
                        } else {
                            guard let value = loadSlow(address, 2) else { break body }
                            x[slot.rd] = UInt64(bitPattern: Int64(Int16(bitPattern: UInt16(truncatingIfNeeded: value))))
                        }
                    case .lw:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 4, context) {
                            x[slot.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: entry.load32(address))))
                        } else {
                            guard let value = loadSlow(address, 4) else { break body }
                            x[slot.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: UInt32(truncatingIfNeeded: value))))
                        }
                    case .ld:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 8, context) {
                            x[slot.rd] = entry.load64(address)
                        } else {
                            guard let value = loadSlow(address, 8) else { break body }
                            x[slot.rd] = value
                        }
                    case .lbu:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 1, context) {
                            x[slot.rd] = UInt64(entry.load8(address))
                        } else {
                            guard let value = loadSlow(address, 1) else { break body }
                            x[slot.rd] = value
                        }
                    case .lhu:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 2, context) {
                            x[slot.rd] = UInt64(entry.load16(address))
                        } else {
                            guard let value = loadSlow(address, 2) else { break body }
                            x[slot.rd] = value
                        }
                    case .lwu:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 4, context) {
                            x[slot.rd] = UInt64(entry.load32(address))
                        } else {
                            guard let value = loadSlow(address, 4) else { break body }
                            x[slot.rd] = value
                        }
                    case .sb:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 1, context) {
                            entry.store8(address, x[slot.rs2])
                        } else if !storeSlow(address, 1, x[slot.rs2]) {
                            break body
                        }
                    case .sh:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 2, context) {
                            entry.store16(address, x[slot.rs2])
                        } else if !storeSlow(address, 2, x[slot.rs2]) {
                            break body
                        }
                    case .sw:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 4, context) {
                            entry.store32(address, x[slot.rs2])
                        } else if !storeSlow(address, 4, x[slot.rs2]) {
                            break body
                        }
                    case .sd:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 8, context) {
                            entry.store64(address, x[slot.rs2])
                        } else if !storeSlow(address, 8, x[slot.rs2]) {
                            break body
                        }
                    case .flw:
                        if !loadFloat(x[slot.rs1] &+ slot.immediate, 4, slot.rd) { break body }
                    case .fld:
                        if !loadFloat(x[slot.rs1] &+ slot.immediate, 8, slot.rd) { break body }
                    case .fsw:
                        if !storeFloat(x[slot.rs1] &+ slot.immediate, 4, slot.rs2) { break body }
                    case .fsd:
                        if !storeFloat(x[slot.rs1] &+ slot.immediate, 8, slot.rs2) { break body }
                    case .beq:
                        if x[slot.rs1] == x[slot.rs2] {
                            pc &+= slot.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(slot.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .bne:
                        if x[slot.rs1] != x[slot.rs2] {
                            pc &+= slot.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(slot.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .blt:
                        if isLess(x[slot.rs1], x[slot.rs2]) {
                            pc &+= slot.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(slot.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .bge:
                        if !isLess(x[slot.rs1], x[slot.rs2]) {
                            pc &+= slot.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(slot.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .bltu:
                        if x[slot.rs1] < x[slot.rs2] {
                            pc &+= slot.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(slot.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .bgeu:
                        if x[slot.rs1] >= x[slot.rs2] {
                            pc &+= slot.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(slot.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .jal:
                        x[slot.rd] = pc &+ UInt64(slot.rs2) &<< 1
                        pc &+= slot.immediate
                        if let next = block.taken {
                            block = next
                            continue chain
                        }
                        exit = .taken
                        break body
                    case .jump, .fallThrough:
                        pc &+= slot.immediate
                        if let next = block.taken {
                            block = next
                            continue chain
                        }
                        exit = .taken
                        break body
                    case .jalr:
                        let target = (x[slot.rs1] &+ slot.immediate) & ~1
                        x[slot.rd] = pc &+ UInt64(slot.rs2) &<< 1
                        pc = target
                        exit = .indirect
                        break body
                    case .system:
                        exit = .system
                        break body
                    case .illegal:
                        fault(.illegalInstruction, 0)
                        break body
                    case .fence: fence(slot.word)
                    case .atomic:
                        if !executeAtomic(slot.word, rd: slot.rd, rs1: slot.rs1, rs2: slot.rs2) { break body }
                    case .float:
                        if !executeFloat(slot.word) { break body }
                    case .sh1add: x[slot.rd] = x[slot.rs2] &+ x[slot.rs1] &<< 1
                    case .sh2add: x[slot.rd] = x[slot.rs2] &+ x[slot.rs1] &<< 2
                    case .sh3add: x[slot.rd] = x[slot.rs2] &+ x[slot.rs1] &<< 3
                    case .addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1]))
                    case .sh1addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< 1
                    case .sh2addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< 2
                    case .sh3addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< 3
                    case .slliUW: x[slot.rd] = UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< slot.immediate
                    case .andn: x[slot.rd] = x[slot.rs1] & ~x[slot.rs2]
                    case .orn: x[slot.rd] = x[slot.rs1] | ~x[slot.rs2]
                    case .xnor: x[slot.rd] = ~(x[slot.rs1] ^ x[slot.rs2])
                    case .clz: x[slot.rd] = UInt64(x[slot.rs1].leadingZeroBitCount)
                    case .ctz: x[slot.rd] = UInt64(x[slot.rs1].trailingZeroBitCount)
                    case .cpop: x[slot.rd] = UInt64(x[slot.rs1].nonzeroBitCount)
                    case .clzw: x[slot.rd] = UInt64(UInt32(truncatingIfNeeded: x[slot.rs1]).leadingZeroBitCount)
                    case .ctzw: x[slot.rd] = UInt64(UInt32(truncatingIfNeeded: x[slot.rs1]).trailingZeroBitCount)
                    case .cpopw: x[slot.rd] = UInt64(UInt32(truncatingIfNeeded: x[slot.rs1]).nonzeroBitCount)
                    case .max: x[slot.rd] = isLess(x[slot.rs1], x[slot.rs2]) ? x[slot.rs2] : x[slot.rs1]
                    case .maxu: x[slot.rd] = Swift.max(x[slot.rs1], x[slot.rs2])
                    case .min: x[slot.rd] = isLess(x[slot.rs1], x[slot.rs2]) ? x[slot.rs1] : x[slot.rs2]
                    case .minu: x[slot.rd] = Swift.min(x[slot.rs1], x[slot.rs2])
                    case .sextB: x[slot.rd] = UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: x[slot.rs1])))
                    case .sextH: x[slot.rd] = UInt64(bitPattern: Int64(Int16(truncatingIfNeeded: x[slot.rs1])))
                    case .zextH: x[slot.rd] = x[slot.rs1] & 0xFFFF
                    case .rol: x[slot.rd] = rotateLeft(x[slot.rs1], x[slot.rs2])
                    case .ror: x[slot.rd] = rotateRight(x[slot.rs1], x[slot.rs2])
                    case .rori: x[slot.rd] = rotateRight(x[slot.rs1], slot.immediate)
                    case .rolw: x[slot.rd] = rotateLeftWord(x[slot.rs1], x[slot.rs2])
                    case .rorw: x[slot.rd] = rotateRightWord(x[slot.rs1], x[slot.rs2])
                    case .roriw: x[slot.rd] = rotateRightWord(x[slot.rs1], slot.immediate)
                    case .orcB: x[slot.rd] = orCombine(x[slot.rs1])
                    case .rev8: x[slot.rd] = x[slot.rs1].byteSwapped
                    case .bclr: x[slot.rd] = x[slot.rs1] & ~(1 &<< x[slot.rs2])
                    case .bclri: x[slot.rd] = x[slot.rs1] & ~(1 &<< slot.immediate)
                    case .bext: x[slot.rd] = x[slot.rs1] &>> x[slot.rs2] & 1
                    case .bexti: x[slot.rd] = x[slot.rs1] &>> slot.immediate & 1
                    case .binv: x[slot.rd] = x[slot.rs1] ^ 1 &<< x[slot.rs2]
                    case .binvi: x[slot.rd] = x[slot.rs1] ^ 1 &<< slot.immediate
                    case .bset: x[slot.rd] = x[slot.rs1] | 1 &<< x[slot.rs2]
                    case .bseti: x[slot.rd] = x[slot.rs1] | 1 &<< slot.immediate
                    case .pairLoadImmediate:
                        x[slot.rd] = slot.immediate
                        next.advance()
                    case .pairAddressOf:
                        x[slot.rd] = pc &+ slot.immediate
                        next.advance()
                    case .pairShifts:
                        x[slot.rd] = (x[slot.rs1] &<< slot.immediate) &>> (slot.immediate &>> 8)
                        next.advance()
                    case .pairAddiEqual:
                        let value = x[slot.rs1] &+ slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiNotEqual:
                        let value = x[slot.rs1] &+ slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiLess:
                        let value = x[slot.rs1] &+ slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if isLess(value, x[second.rs2]) {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiNotLess:
                        let value = x[slot.rs1] &+ slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if !isLess(value, x[second.rs2]) {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiLessUnsigned:
                        let value = x[slot.rs1] &+ slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if value < x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiNotLessUnsigned:
                        let value = x[slot.rs1] &+ slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if value >= x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiwEqual:
                        let value = signExtend(low(x[slot.rs1]) &+ low(slot.immediate))
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiwNotEqual:
                        let value = signExtend(low(x[slot.rs1]) &+ low(slot.immediate))
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiwLess:
                        let value = signExtend(low(x[slot.rs1]) &+ low(slot.immediate))
                        x[slot.rd] = value
                        let second = next
                        if isLess(value, x[second.rs2]) {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiwNotLess:
                        let value = signExtend(low(x[slot.rs1]) &+ low(slot.immediate))
                        x[slot.rd] = value
                        let second = next
                        if !isLess(value, x[second.rs2]) {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiwLessUnsigned:
                        let value = signExtend(low(x[slot.rs1]) &+ low(slot.immediate))
                        x[slot.rd] = value
                        let second = next
                        if value < x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddiwNotLessUnsigned:
                        let value = signExtend(low(x[slot.rs1]) &+ low(slot.immediate))
                        x[slot.rd] = value
                        let second = next
                        if value >= x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAndiEqual:
                        let value = x[slot.rs1] & slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAndiNotEqual:
                        let value = x[slot.rs1] & slot.immediate
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLbuEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 1, context) {
                            value = UInt64(entry.load8(address))
                        } else {
                            guard let slow = loadSlow(address, 1) else { break body }
                            value = slow
                        }
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLbuNotEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 1, context) {
                            value = UInt64(entry.load8(address))
                        } else {
                            guard let slow = loadSlow(address, 1) else { break body }
                            value = slow
                        }
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLhuEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 2, context) {
                            value = UInt64(entry.load16(address))
                        } else {
                            guard let slow = loadSlow(address, 2) else { break body }
                            value = slow
                        }
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLhuNotEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 2, context) {
                            value = UInt64(entry.load16(address))
                        } else {
                            guard let slow = loadSlow(address, 2) else { break body }
                            value = slow
                        }
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLwEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 4, context) {
                            value = UInt64(bitPattern: Int64(Int32(bitPattern: entry.load32(address))))
                        } else {
                            guard let slow = loadSlow(address, 4) else { break body }
                            value = UInt64(bitPattern: Int64(Int32(bitPattern: UInt32(truncatingIfNeeded: slow))))
                        }
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLwNotEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 4, context) {
                            value = UInt64(bitPattern: Int64(Int32(bitPattern: entry.load32(address))))
                        } else {
                            guard let slow = loadSlow(address, 4) else { break body }
                            value = UInt64(bitPattern: Int64(Int32(bitPattern: UInt32(truncatingIfNeeded: slow))))
                        }
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLdEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 8, context) {
                            value = entry.load64(address)
                        } else {
                            guard let slow = loadSlow(address, 8) else { break body }
                            value = slow
                        }
                        x[slot.rd] = value
                        let second = next
                        if value == x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairLdNotEqual:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 8, context) {
                            value = entry.load64(address)
                        } else {
                            guard let slow = loadSlow(address, 8) else { break body }
                            value = slow
                        }
                        x[slot.rd] = value
                        let second = next
                        if value != x[second.rs2] {
                            pc &+= second.immediate
                            if let next = block.taken {
                                block = next
                                continue chain
                            }
                            exit = .taken
                            break body
                        }
                        pc &+= UInt64(second.rd) &<< 1
                        if let next = block.notTaken {
                            block = next
                            continue chain
                        }
                        exit = .notTaken
                        break body
                    case .pairAddLbu:
                        let sum = x[slot.rs1] &+ x[slot.rs2]
                        x[slot.rd] = sum
                        let second = next
                        next.advance()
                        let address = sum &+ second.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 1, context) {
                            value = UInt64(entry.load8(address))
                        } else {
                            guard let slow = loadSlow(address, 1) else { break body }
                            value = slow
                        }
                        x[second.rd] = value
                    case .pairAddLhu:
                        let sum = x[slot.rs1] &+ x[slot.rs2]
                        x[slot.rd] = sum
                        let second = next
                        next.advance()
                        let address = sum &+ second.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 2, context) {
                            value = UInt64(entry.load16(address))
                        } else {
                            guard let slow = loadSlow(address, 2) else { break body }
                            value = slow
                        }
                        x[second.rd] = value
                    case .pairAddLh:
                        let sum = x[slot.rs1] &+ x[slot.rs2]
                        x[slot.rd] = sum
                        let second = next
                        next.advance()
                        let address = sum &+ second.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 2, context) {
                            value = UInt64(bitPattern: Int64(Int16(bitPattern: entry.load16(address))))
                        } else {
                            guard let slow = loadSlow(address, 2) else { break body }
                            value = UInt64(bitPattern: Int64(Int16(bitPattern: UInt16(truncatingIfNeeded: slow))))
                        }
                        x[second.rd] = value
                    case .pairAddLw:
                        let sum = x[slot.rs1] &+ x[slot.rs2]
                        x[slot.rd] = sum
                        let second = next
                        next.advance()
                        let address = sum &+ second.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 4, context) {
                            value = UInt64(bitPattern: Int64(Int32(bitPattern: entry.load32(address))))
                        } else {
                            guard let slow = loadSlow(address, 4) else { break body }
                            value = UInt64(bitPattern: Int64(Int32(bitPattern: UInt32(truncatingIfNeeded: slow))))
                        }
                        x[second.rd] = value
                    case .pairAddLd:
                        let sum = x[slot.rs1] &+ x[slot.rs2]
                        x[slot.rd] = sum
                        let second = next
                        next.advance()
                        let address = sum &+ second.immediate
                        let entry = translations.reading(address)
                        let value: UInt64
                        if entry.matches(address, 8, context) {
                            value = entry.load64(address)
                        } else {
                            guard let slow = loadSlow(address, 8) else { break body }
                            value = slow
                        }
                        x[second.rd] = value
                    case .pairShiftAdd:
                        let value = x[slot.rs1] &<< slot.immediate
                        x[slot.rd] = value
                        x[next.rd] = value &+ x[next.rs2]
                        next.advance()
                    case .pairShiftsSigned:
                        x[slot.rd] = arithmeticShift(x[slot.rs1] &<< slot.immediate, slot.immediate &>> 8)
                        next.advance()
                    case .pairMulAdd:
                        let value = x[slot.rs1] &* x[slot.rs2]
                        x[slot.rd] = value
                        x[next.rd] = value &+ x[next.rs2]
                        next.advance()
                    case .pairMulwAddw:
                        let value = signExtend(low(x[slot.rs1]) &* low(x[slot.rs2]))
                        x[slot.rd] = value
                        x[next.rd] = signExtend(low(value) &+ low(x[next.rs2]))
                        next.advance()
                    case .pairMoves:
                        x[slot.rd] = x[slot.rs1]
                        x[next.rd] = x[next.rs1]
                        next.advance()
                    case .pairAddis:
                        x[slot.rd] = x[slot.rs1] &+ slot.immediate
                        x[next.rd] = x[next.rs1] &+ next.immediate
                        next.advance()
                    case .pairLoads:
                        var address = x[slot.rs1] &+ slot.immediate
                        var entry = translations.reading(address)
                        if entry.matches(address, 8, context) {
                            x[slot.rd] = entry.load64(address)
                        } else {
                            guard let value = loadSlow(address, 8) else { break body }
                            x[slot.rd] = value
                        }
                        let second = next
                        next.advance()
                        address = x[second.rs1] &+ second.immediate
                        entry = translations.reading(address)
                        if entry.matches(address, 8, context) {
                            x[second.rd] = entry.load64(address)
                        } else {
                            guard let value = loadSlow(address, 8) else { break body }
                            x[second.rd] = value
                        }
                    case .pairStores:
                        var address = x[slot.rs1] &+ slot.immediate
                        var entry = translations.writing(address)
                        if entry.matches(address, 8, context) {
                            entry.store64(address, x[slot.rs2])
                        } else if !storeSlow(address, 8, x[slot.rs2]) {
                            break body
                        }
                        let second = next
                        next.advance()
                        address = x[second.rs1] &+ second.immediate
                        entry = translations.writing(address)
                        if entry.matches(address, 8, context) {
                            entry.store64(address, x[second.rs2])
                        } else if !storeSlow(address, 8, x[second.rs2]) {
                            break body
                        }
                    }
                }
                switch exit {
                case .taken, .notTaken:
                    source = block
                    continue find
                case .indirect: continue find
                case .trapped:
                    // The slot before `next` did not retire, nor did those behind it.
                    let index = next.index(in: block) - 1
                    remaining &+= block.count - index
                    let (offset, word) = block.instruction(at: index)
                    self.pc = pc &+ offset
                    if trapCause == .illegalInstruction { trapValue = UInt64(word) }
                    takeException()
                    return retire(limit - remaining)
                case .system:
                    let slot = next.previous
                    // All are four bytes long, but for C.EBREAK.
                    self.pc =
                        slot.word == 0x0010_0073
                        ? pc &+ block.instruction(at: block.count - 1).offset : pc &+ block.length &- 4
                    let done = limit - remaining - 1
                    retired &+= UInt64(truncatingIfNeeded: done)
                    let result = executeSystem(slot.word, rd: slot.rd, rs1: slot.rs1)
                    retired &-= UInt64(truncatingIfNeeded: done)
                    switch result {
                    case .next: pc &+= block.length
                    case .jumped: pc = self.pc
                    case .left:
                        self.pc = pc &+ block.length
                        return retire(limit - remaining)
                    case .halted:
                        isHalted = true
                        return retire(limit - remaining - 1)
                    case .trapped:
                        remaining &+= 1
                        if trapCause == .illegalInstruction {
                            trapValue = UInt64(block.instruction(at: block.count - 1).word)
                        }
                        takeException()
                        return retire(limit - remaining)
                    }
                    context = dataContext
                    if interruptToTake != nil {
                        self.pc = pc
                        return retire(limit - remaining)
                    }
                    continue find
                }
            }
        }
    }

    /// Adds to the count of retired instructions and returns it.
    private mutating func retire(_ count: Int) -> Int {
        retired &+= UInt64(truncatingIfNeeded: count)
        return count
    }

    /// Lets `block` remember where it leads, if both are in the same page: then the way stays right whatever happens
    /// to translations, because whoever got into the page by a valid translation stays in it.
    @inline(never)
    private mutating func link(_ block: BlockPointer, _ exit: Exit, to successor: BlockPointer) {
        guard block.physicalAddress >> 12 == successor.physicalAddress >> 12,
            block != blocks.scratch && successor != blocks.scratch
        else { return }
        blocks.link(block, taken: exit == .taken, to: successor)
    }

    /// The block at virtual address `pc`, decoded if need be. `nil`: the trap is recorded.
    @inline(never)
    private mutating func findBlock(_ pc: UInt64) -> BlockPointer? {
        if let page = fetches.page(pc, fetchContext) {
            return findBlock(pc, page)
        }
        guard let physical = translate(pc, .fetch, privilege) else { return nil }
        guard let host = unsafe instruction(at: physical, pc) else { return nil }
        guard pmp.isUniform(page: physical & ~0xFFF) else { return fetchOne(pc) }
        // Safety: `host` lies in a page of a region at the same offset as `pc`.
        let page = unsafe FetchCache.Page(
            virtualPage: pc & ~0xFFF, physicalPage: physical & ~0xFFF, host: host - Int(pc & 0xFFF),
            context: fetchContext)
        fetches.insert(page)
        return findBlock(pc, page)
    }

    private mutating func findBlock(_ pc: UInt64, _ page: FetchCache.Page) -> BlockPointer? {
        let offset = Int(pc & 0xFFF)
        let epoch = blocks.epoch
        // Safety: the page's 4096 bytes are memory of a region; offset + available is its end.
        let block = unsafe blocks.block(
            at: page.physicalPage | pc & 0xFFF, source: page.host + offset, available: 4096 - offset)
        if epoch != blocks.epoch { forgetJumps() }
        // A 4-byte instruction across the end of the page.
        guard let block else { return fetchOne(pc) }
        fetches.insert(pc, fetchContext, block)
        return block
    }

    /// A block of the one instruction at `pc`, fetched halfword by halfword and kept nowhere: for instructions across
    /// two pages and for pages that PMP splits.
    private mutating func fetchOne(_ pc: UInt64) -> BlockPointer? {
        guard let low = fetchHalf(pc) else { return nil }
        var word = UInt32(low)
        if low & 3 == 3 {
            guard let high = fetchHalf(pc &+ 2) else { return nil }
            word |= UInt32(high) << 16
        }
        return blocks.scratchBlock(word: word)
    }

    private mutating func fetchHalf(_ address: UInt64) -> UInt16? {
        guard let physical = translate(address, .fetch, privilege),
            let host = unsafe instruction(at: physical, address)
        else { return nil }
        return unsafe host.loadUnaligned(as: UInt16.self)  // Safety: two aligned bytes of a region.
    }

    /// Host pointer to two bytes of code. `nil`: the access fault is recorded.
    private mutating func instruction(at physical: UInt64, _ address: UInt64) -> UnsafeRawPointer? {
        guard pmp.allows(.fetch, physical, count: 2, privilege) else {
            fault(.instructionAccessFault, address)
            return nil
        }
        if let host = unsafe mainMemory(physical, 2) { return UnsafeRawPointer(host) }
        guard let region = region(at: physical, count: 2), region.permissions.contains(.execute),
            let host = unsafe memory(region, physical)
        else {
            fault(.instructionAccessFault, address)
            return nil
        }
        return UnsafeRawPointer(host)
    }
}
