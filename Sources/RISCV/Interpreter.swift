// The interpreter: decoded blocks in, retired instructions out. Long because its one switch must be one function.
//
// Model: three nested loops. `find` looks up the block for `pc`; `chain` enters blocks, counting their instructions and
// looking once at the attention word; `body` runs slots. A branch inside a page continues `chain` with the block it
// led to last time, everything else goes through `find`. Leaving happens only between blocks, so nothing in a slot
// looks at the clock, at interrupts or at the budget. How fast it is, and why: docs/hart-performance.md.
//
// What surprised us: a switch over an enum of contiguous cases costs no range check.

import CSystem

extension HartState {
    /// How control left a block.
    private enum Exit {
        /// The slot before `next` failed; the trap is recorded.
        case trapped
        case taken, notTaken, indirect, system
    }

    /// What follows a SYSTEM instruction.
    enum SystemEnd {
        /// Execution, at `pc`.
        case continues
        /// A look at the hart by its owner; the instruction retired, or did not.
        case leaves, leavesUnretired
    }

    /// Runs blocks until `limit` instructions retired, attention is raised, a trap was taken or an interrupt can be.
    /// Returns the instructions retired, at most `limit`.
    @inline(never)
    mutating func interpret(_ limit: Int) -> Int {
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
            if usesTranslator {
                if isTranslated(block, remaining) {
                    self.pc = pc
                    translated = block
                    return retire(limit - remaining)
                }
            } else if let from = source {
                link(from, taken: exit == .taken, to: block)
            }
            source = nil
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
                        } else if !execute(slot) {
                            break body
                        }
                    case .lh:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 2, context) {
                            x[slot.rd] = UInt64(bitPattern: Int64(Int16(bitPattern: entry.load16(address))))
                        } else if !execute(slot) {
                            break body
                        }
                    case .lw:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 4, context) {
                            x[slot.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: entry.load32(address))))
                        } else if !execute(slot) {
                            break body
                        }
                    case .ld:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 8, context) {
                            x[slot.rd] = entry.load64(address)
                        } else if !execute(slot) {
                            break body
                        }
                    case .lbu:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 1, context) {
                            x[slot.rd] = UInt64(entry.load8(address))
                        } else if !execute(slot) {
                            break body
                        }
                    case .lhu:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 2, context) {
                            x[slot.rd] = UInt64(entry.load16(address))
                        } else if !execute(slot) {
                            break body
                        }
                    case .lwu:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.reading(address)
                        if entry.matches(address, 4, context) {
                            x[slot.rd] = UInt64(entry.load32(address))
                        } else if !execute(slot) {
                            break body
                        }
                    case .sb:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 1, context) {
                            entry.store8(address, x[slot.rs2])
                        } else if !execute(slot) {
                            break body
                        }
                    case .sh:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 2, context) {
                            entry.store16(address, x[slot.rs2])
                        } else if !execute(slot) {
                            break body
                        }
                    case .sw:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 4, context) {
                            entry.store32(address, x[slot.rs2])
                        } else if !execute(slot) {
                            break body
                        }
                    case .sd:
                        let address = x[slot.rs1] &+ slot.immediate
                        let entry = translations.writing(address)
                        if entry.matches(address, 8, context) {
                            entry.store64(address, x[slot.rs2])
                        } else if !execute(slot) {
                            break body
                        }
                    case .flw, .fld, .fsw, .fsd, .atomic, .float:
                        if !execute(slot) { break body }
                    case .beq:
                        exit = x[slot.rs1] == x[slot.rs2] ? .taken : .notTaken
                        break body
                    case .bne:
                        exit = x[slot.rs1] != x[slot.rs2] ? .taken : .notTaken
                        break body
                    case .blt:
                        exit = isLess(x[slot.rs1], x[slot.rs2]) ? .taken : .notTaken
                        break body
                    case .bge:
                        exit = isLess(x[slot.rs1], x[slot.rs2]) ? .notTaken : .taken
                        break body
                    case .bltu:
                        exit = x[slot.rs1] < x[slot.rs2] ? .taken : .notTaken
                        break body
                    case .bgeu:
                        exit = x[slot.rs1] < x[slot.rs2] ? .notTaken : .taken
                        break body
                    case .jal:
                        x[slot.rd] = pc &+ UInt64(slot.rs2) &<< 1
                        exit = .taken
                        break body
                    case .jump, .fallThrough:
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
                    case .fence: if Self.needsHostFence(slot.word) { cs_fence() }
                    case .sh1add: x[slot.rd] = x[slot.rs2] &+ x[slot.rs1] &<< 1
                    case .sh2add: x[slot.rd] = x[slot.rs2] &+ x[slot.rs1] &<< 2
                    case .sh3add: x[slot.rd] = x[slot.rs2] &+ x[slot.rs1] &<< 3
                    case .addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1]))
                    case .sh1addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< 1
                    case .sh2addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< 2
                    case .sh3addUW: x[slot.rd] = x[slot.rs2] &+ UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< 3
                    case .slliUW: x[slot.rd] = UInt64(UInt32(truncatingIfNeeded: x[slot.rs1])) &<< slot.immediate
                    case .mulhsu, .andn, .orn, .xnor, .clz, .ctz, .cpop, .clzw, .ctzw, .cpopw, .max, .maxu, .min, .minu,
                        .sextB,
                        .sextH, .zextH, .rol, .ror, .rori, .rolw, .rorw, .roriw, .orcB, .rev8, .bclr, .bclri, .bext,
                        .bexti, .binv, .binvi, .bset, .bseti:
                        x[slot.rd] = bitManipulation(slot.op, x[slot.rs1], x[slot.rs2], slot.immediate)
                    }
                }
                switch exit {
                case .taken:
                    pc &+= next.previous.immediate
                    if let next = block.taken {
                        block = next
                        continue chain
                    }
                    source = block
                    continue find
                case .notTaken:
                    // A branch's rd is the block's length.
                    pc &+= UInt64(next.previous.rd) &<< 1
                    if let next = block.notTaken {
                        block = next
                        continue chain
                    }
                    source = block
                    continue find
                case .indirect: continue find
                case .trapped:
                    let index = next.index(in: block) - 1
                    remaining &+= block.count - index
                    trap(in: block, at: index, pc)
                    return retire(limit - remaining)
                case .system:
                    switch completeSystem(block, pc, retiredBefore: limit - remaining - 1) {
                    case .continues:
                        pc = self.pc
                        context = dataContext
                        continue find
                    case .leaves: return retire(limit - remaining)
                    case .leavesUnretired: return retire(limit - remaining - 1)
                    }
                }
            }
        }
    }

    /// Takes the recorded trap of slot `index` of a block that runs at `pc`. That slot did not retire.
    mutating func trap(in block: BlockPointer, at index: Int, _ pc: UInt64) {
        let (offset, word) = block.instruction(at: index)
        self.pc = pc &+ offset
        // No trap: the instruction is executed again, alone.
        if wantsExact { return }
        if trapCause == .illegalInstruction { trapValue = UInt64(word) }
        takeException()
    }

    /// Executes the SYSTEM instruction that ends a block that runs at `pc`. `retiredBefore`: what retired since the
    /// last change of `retired`, without it.
    mutating func completeSystem(_ block: BlockPointer, _ pc: UInt64, retiredBefore: Int) -> SystemEnd {
        let last = block.count - 1
        let slot = block.slots.advanced(by: last)
        // All are four bytes long, but for C.EBREAK.
        self.pc = slot.word == 0x0010_0073 ? pc &+ block.instruction(at: last).offset : pc &+ block.length &- 4
        retired &+= UInt64(truncatingIfNeeded: retiredBefore)
        let result = executeSystem(slot.word, rd: slot.rd, rs1: slot.rs1)
        retired &-= UInt64(truncatingIfNeeded: retiredBefore)
        switch result {
        case .next: self.pc = pc &+ block.length
        case .jumped: break
        case .left:
            self.pc = pc &+ block.length
            return .leaves
        case .halted:
            isHalted = true
            return .leavesUnretired
        case .trapped:
            if trapCause == .illegalInstruction { trapValue = UInt64(block.instruction(at: last).word) }
            takeException()
            return .leavesUnretired
        }
        return interruptToTake == nil ? .continues : .leaves
    }

    /// Adds to the count of retired instructions and returns it.
    mutating func retire(_ count: Int) -> Int {
        retired &+= UInt64(truncatingIfNeeded: count)
        return count
    }

    /// Lets `block` remember where it leads, if both are in the same page: then the way stays right whatever happens
    /// to translations, because whoever got into the page by a valid translation stays in it.
    @inline(never)
    mutating func link(_ block: BlockPointer, taken: Bool, to successor: BlockPointer) {
        guard block.physicalAddress >> 12 == successor.physicalAddress >> 12,
            block != blocks.scratch && successor != blocks.scratch
        else { return }
        blocks.link(block, taken: taken, to: successor)
    }

    /// The block at virtual address `pc`, decoded if need be. `nil`: the trap is recorded.
    @inline(never)
    mutating func findBlock(_ pc: UInt64) -> BlockPointer? {
        if let page = fetches.page(pc, fetchContext) {
            return findBlock(pc, page)
        }
        if let page = walkedPage(pc) {
            fetches.insert(page)
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
        noteWalk(page)
        return findBlock(pc, page)
    }

    private mutating func findBlock(_ pc: UInt64, _ page: FetchCache.Page) -> BlockPointer? {
        let offset = Int(pc & 0xFFF)
        let epoch = blocks.epoch
        // After FENCE.I the jump cache mostly still knows the block.
        if let block = fetches.staleJump(pc), block.physicalAddress == page.physicalPage | pc & 0xFFF,
            blocks.isValid(block)
        {
            fetches.insert(pc, fetchContext, block, code: blocks.codeAddress(of: block))
            return block
        }
        // Safety: the page's 4096 bytes are memory of a region; offset + available is its end.
        let block = unsafe blocks.block(
            at: page.physicalPage | pc & 0xFFF, source: page.host + offset, available: 4096 - offset)
        if epoch != blocks.epoch { forgetBlocks() }
        // A 4-byte instruction across the end of the page.
        guard let block else { return fetchOne(pc) }
        fetches.insert(pc, fetchContext, block, code: blocks.codeAddress(of: block))
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
