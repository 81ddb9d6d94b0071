// From a decoded block to code of the host.
//
// Model: one pass, slot by slot. Every block begins with the budget and the attention word, as in the interpreter, and
// ends in jumps: inside the page to a place that is patched once the successor has code too, otherwise through the jump
// cache. What misses the translation cache, and what is rare, calls `slotHelper`, which executes the slot on the state
// in memory. Registers stay where `HostEmitter` says all the time, so blocks join without moves.
//
// What surprised us: nothing has to be undone at a trap. A slot that fails has changed nothing, and everything before it
// is complete.

#if arch(x86_64)
    @safe struct BlockTranslator: ~Copyable {
        private var emit: HostEmitter
        private let block: BlockPointer
        /// The block's offset in the arena, by which code names it.
        private let number: Int32
        private let exitOffset: Int
        private let helperOffset: Int
        /// Accesses whose slow way is still to be written: the jump to it, the way back, and the slot.
        private var slow: [(site: Int, back: Int, index: Int)] = []
        private(set) var takenSite = 0
        private(set) var notTakenSite = 0

        /// Bytes that the largest block may take. A load of a single with its base in memory takes the most, 80 and 20
        /// for the slow way; a block's begin, and a branch as its end, 220 together.
        static let largest = BlockCache.maximumCount * 104 + 256

        init(_ block: BlockPointer, number: Int, emitter: HostEmitter, exit: Int, helper: Int) {
            self.block = block
            self.number = Int32(number)
            emit = emitter
            exitOffset = exit
            helperOffset = helper
        }

        /// Writes the block's code; the emitter behind it.
        mutating func translate() -> HostEmitter {
            let count = block.count
            let tooFew = begin(count)
            var index = 0
            var slot = block.slots
            while index < count {
                translate(slot, index)
                slot.advance()
                index += 1
            }
            // Here is `fallThrough`.
            if !slot.previous.op.endsBlock { translate(slot, count) }
            for access in slow {
                emit.land(access.site)
                callHelper(access.index)
                emit.jump(to: access.back)
            }
            for site in tooFew { emit.land(site) }
            emit.field(.add, .remaining, Int8(count))
            exit(.attention)
            return emit
        }

        /// Takes the block's instructions from the budget and looks at the attention word; the jumps for too little
        /// of the one, or the other.
        private mutating func begin(_ count: Int) -> [Int] {
            emit.field(.sub, .remaining, Int8(count))
            let budget = emit.jump(if: .negative)
            emit.field(0x8B, HostRegister.rax.number, .attention)
            emit.byte(0x83)  // cmp dword [rax], 0
            emit.byte(0x38)
            emit.byte(0)
            return [budget, emit.jump(if: .notEqual)]
        }

        // MARK: ways out

        private mutating func exit(_ kind: HostExit) {
            emit.constant(.rcx, Int32(kind.rawValue))
            emit.constant(.rdx, number)
            emit.jump(to: exitOffset)
        }

        /// Goes on at a place known by its distance from the block's start.
        private mutating func leave(_ kind: HostExit, by distance: Int32) {
            if distance != 0 { emit.immediate(.add, .rbp, distance) }
            let target = Int(block.physicalAddress & 0xFFF) + Int(distance)
            guard 0..<4096 ~= target else { return leaveByJumpCache() }
            let site = emit.jump()
            if kind == .taken { takenSite = site } else { notTakenSite = site }
            exit(kind)
        }

        /// Goes on at rbp.
        private mutating func leaveByJumpCache() {
            let base = HartCore.jumpsOffset
            emit.registers(0x8B, 0, 5, wide: false)
            emit.shift(4, .rax, by: 4, wide: false)
            emit.immediate(.and, .rax, Int32((FetchCache.jumpCount - 1) << 5), wide: false)
            emit.indexed(0x3B, 5, index: .rax, base)
            let otherPlace = emit.jump(if: .notEqual)
            emit.field(0x8B, 1, .fetchContext)
            emit.indexed(0x3B, 1, index: .rax, base + 8)
            let otherContext = emit.jump(if: .notEqual)
            emit.indexed(0xFF, 4, index: .rax, base + 24)
            emit.land(otherPlace)
            emit.land(otherContext)
            exit(.indirect)
        }

        private mutating func callHelper(_ index: Int) {
            emit.constant(.rcx, Int32(index))
            emit.constant(.rdx, number)
            emit.call(helperOffset)
        }

        // MARK: slots

        private mutating func translate(_ slot: SlotPointer, _ index: Int) {
            let immediate = Int32(truncatingIfNeeded: slot.immediate)
            switch slot.op {
            case .add: operate(.add, slot)
            case .sub: operate(.sub, slot)
            case .xor: operate(.xor, slot)
            case .or: operate(.or, slot)
            case .and: operate(.and, slot)
            case .addw: operateWord(.add, slot)
            case .subw: operateWord(.sub, slot)
            case .sll: shift(4, slot)
            case .srl: shift(5, slot)
            case .sra: shift(7, slot)
            case .sllw: shift(4, slot, wide: false)
            case .srlw: shift(5, slot, wide: false)
            case .sraw: shift(7, slot, wide: false)
            case .rol: shift(0, slot)
            case .ror: shift(1, slot)
            case .rolw: shift(0, slot, wide: false)
            case .rorw: shift(1, slot, wide: false)
            case .slli: shiftImmediate(4, slot)
            case .srli: shiftImmediate(5, slot)
            case .srai: shiftImmediate(7, slot)
            case .rori: shiftImmediate(1, slot)
            case .slliw: shiftImmediate(4, slot, wide: false)
            case .srliw: shiftImmediate(5, slot, wide: false)
            case .sraiw: shiftImmediate(7, slot, wide: false)
            case .roriw: shiftImmediate(1, slot, wide: false)
            case .addi: addImmediate(slot, immediate)
            case .xori: operateImmediate(.xor, slot, immediate)
            case .ori: operateImmediate(.or, slot, immediate)
            case .andi: operateImmediate(.and, slot, immediate)
            case .addiw:
                emit.load(.rax, slot.rs1, wide: false)
                if immediate != 0 { emit.immediate(.add, .rax, immediate, wide: false) }
                storeWord(slot.rd)
            case .slt: set(slot, if: .less)
            case .sltu: set(slot, if: .below)
            case .slti: setImmediate(slot, immediate, if: .less)
            case .sltiu: setImmediate(slot, immediate, if: .below)
            case .loadImmediate:
                if let target = HostRegister(holding: slot.rd) {
                    emit.constant(target, immediate)
                } else {
                    emit.storeConstant(slot.rd, immediate)
                }
            case .move:
                let source = emit.source(slot.rs1, .rax)
                if let target = HostRegister(holding: slot.rd) {
                    emit.move(target, source)
                } else {
                    emit.store(slot.rd, source)
                }
            case .addressOf:
                let target = target(slot.rd)
                emit.address(target, .rbp, immediate)
                emit.store(slot.rd, target)
            case .nop: break
            case .mul: multiply(slot, wide: true)
            case .mulw: multiply(slot, wide: false)
            case .mulh: multiplyHigh(5, slot)
            case .mulhu: multiplyHigh(4, slot)
            case .div: divide(slot, signed: true)
            case .divu: divide(slot, signed: false)
            case .rem: divide(slot, signed: true, remainder: true)
            case .remu: divide(slot, signed: false, remainder: true)
            case .divw: divide(slot, signed: true, wide: false)
            case .divuw: divide(slot, signed: false, wide: false)
            case .remw: divide(slot, signed: true, remainder: true, wide: false)
            case .remuw: divide(slot, signed: false, remainder: true, wide: false)
            case .lb, .lh, .lw, .ld, .lbu, .lhu, .lwu: load(slot, immediate, index)
            case .sb, .sh, .sw, .sd: store(slot, immediate, index)
            case .flw: loadFloat(slot, immediate, index, width: 4)
            case .fld: loadFloat(slot, immediate, index, width: 8)
            case .fsw: storeFloat(slot, immediate, index, width: 4)
            case .fsd: storeFloat(slot, immediate, index, width: 8)
            case .beq: branch(slot, immediate, if: .equal)
            case .bne: branch(slot, immediate, if: .notEqual)
            case .blt: branch(slot, immediate, if: .less)
            case .bge: branch(slot, immediate, if: .notLess)
            case .bltu: branch(slot, immediate, if: .below)
            case .bgeu: branch(slot, immediate, if: .notBelow)
            case .jal:
                linkRegister(slot)
                leave(.taken, by: immediate)
            case .jump, .fallThrough: leave(.taken, by: immediate)
            case .jalr:
                let base = emit.source(slot.rs1, .rax)
                emit.address(.rax, base, immediate)
                emit.immediate(.and, .rax, -2)
                if slot.rd != Slot.sink { linkRegister(slot) }
                emit.move(.rbp, .rax)
                leaveByJumpCache()
            case .system: exit(.system)
            case .illegal:
                emit.constant(.rax, Int32(index))
                emit.field(0x89, 0, .exitIndex)
                exit(.illegal)
            case .fence:
                // lock or dword [rsp], 0
                if HartState.needsHostFence(slot.word) {
                    for byte: UInt8 in [0xF0, 0x83, 0x0C, 0x24, 0x00] { emit.byte(byte) }
                }
            case .sh1add: shiftAdd(slot, 1)
            case .sh2add: shiftAdd(slot, 2)
            case .sh3add: shiftAdd(slot, 3)
            case .addUW: shiftAdd(slot, 0, word: true)
            case .sh1addUW: shiftAdd(slot, 1, word: true)
            case .sh2addUW: shiftAdd(slot, 2, word: true)
            case .sh3addUW: shiftAdd(slot, 3, word: true)
            case .slliUW:
                emit.load(.rax, slot.rs1, wide: false)
                emit.shift(4, .rax, by: UInt8(truncatingIfNeeded: immediate & 63))
                emit.store(slot.rd, .rax)
            case .sextB: extend(0xBE, slot)
            case .sextH: extend(0xBF, slot)
            case .zextH: extend(0xB7, slot)
            case .max: choose(slot, 0x4C)
            case .min: choose(slot, 0x4F)
            case .maxu: choose(slot, 0x42)
            case .minu: choose(slot, 0x47)
            case .atomic, .float, .mulhsu, .andn, .orn, .xnor, .clz, .ctz, .cpop, .clzw, .ctzw,
                .cpopw, .orcB, .rev8, .bclr, .bclri, .bext, .bexti, .binv, .binvi, .bset, .bseti:
                callHelper(index)
            }
        }

        /// Where a result for `guest` is made: its register, or rax.
        private func target(_ guest: UInt8) -> HostRegister { HostRegister(holding: guest) ?? .rax }

        /// The word in eax, sign-extended, becomes the result.
        private mutating func storeWord(_ guest: UInt8) {
            let target = target(guest)
            emit.signExtendWord(target, .rax)
            emit.store(guest, target)
        }

        // MARK: integer

        private mutating func operate(_ operation: HostOperation, _ slot: SlotPointer) {
            let target = target(slot.rd)
            if slot.rs1 == slot.rd && target != .rax {
                emit.operate(operation, target, slot.rs2)
            } else if slot.rs2 == slot.rd && target != .rax {
                if operation != .sub {
                    emit.operate(operation, target, slot.rs1)
                } else {
                    emit.load(.rax, slot.rs1)
                    emit.operate(.sub, .rax, slot.rs2)
                    emit.move(target, .rax)
                }
            } else {
                emit.load(target, slot.rs1)
                emit.operate(operation, target, slot.rs2)
                emit.store(slot.rd, target)
            }
        }

        private mutating func operateWord(_ operation: HostOperation, _ slot: SlotPointer) {
            emit.load(.rax, slot.rs1, wide: false)
            emit.operate(operation, .rax, slot.rs2, wide: false)
            storeWord(slot.rd)
        }

        private mutating func addImmediate(_ slot: SlotPointer, _ immediate: Int32) {
            let target = target(slot.rd)
            if let source = HostRegister(holding: slot.rs1), source != target {
                emit.address(target, source, immediate)
                emit.store(slot.rd, target)
            } else {
                operateImmediate(.add, slot, immediate)
            }
        }

        private mutating func operateImmediate(_ operation: HostOperation, _ slot: SlotPointer, _ immediate: Int32) {
            let target = target(slot.rd)
            if slot.rs1 != slot.rd || target == .rax { emit.load(target, slot.rs1) }
            emit.immediate(operation, target, immediate)
            emit.store(slot.rd, target)
        }

        /// Shifts and rotations by a register; digits as in `HostEmitter.shift`.
        private mutating func shift(_ digit: UInt8, _ slot: SlotPointer, wide: Bool = true) {
            emit.load(.rcx, slot.rs2, wide: false)
            emit.load(.rax, slot.rs1, wide: wide)
            emit.shiftByCL(digit, .rax, wide: wide)
            if wide { emit.store(slot.rd, .rax) } else { storeWord(slot.rd) }
        }

        private mutating func shiftImmediate(_ digit: UInt8, _ slot: SlotPointer, wide: Bool = true) {
            let amount = UInt8(truncatingIfNeeded: slot.immediate & (wide ? 63 : 31))
            if wide {
                let target = target(slot.rd)
                if slot.rs1 != slot.rd || target == .rax { emit.load(target, slot.rs1) }
                emit.shift(digit, target, by: amount)
                emit.store(slot.rd, target)
            } else {
                emit.load(.rax, slot.rs1, wide: false)
                emit.shift(digit, .rax, by: amount, wide: false)
                storeWord(slot.rd)
            }
        }

        /// Compares x[rs1] with x[rs2].
        private mutating func compare(_ rs1: UInt8, _ rs2: UInt8) {
            if HostRegister(holding: rs1) == nil, let second = HostRegister(holding: rs2) {
                emit.guest(0x39, second.number, rs1)
            } else {
                let first = emit.source(rs1, .rax)
                if rs2 == 0 {
                    emit.registers(0x85, first.number, first.number)  // test: as a comparison with zero
                } else {
                    emit.operate(.compare, first, rs2)
                }
            }
        }

        private mutating func set(_ slot: SlotPointer, if condition: HostCondition) {
            compare(slot.rs1, slot.rs2)
            setResult(slot.rd, condition)
        }

        private mutating func setImmediate(_ slot: SlotPointer, _ immediate: Int32, if condition: HostCondition) {
            let source = emit.source(slot.rs1, .rax)
            emit.immediate(.compare, source, immediate)
            setResult(slot.rd, condition)
        }

        private mutating func setResult(_ rd: UInt8, _ condition: HostCondition) {
            emit.setCondition(condition, .rax)
            let target = target(rd)
            emit.registers0F(0xB6, target.number, 0, wide: false)
            emit.store(rd, target)
        }

        private mutating func extend(_ opcode: UInt8, _ slot: SlotPointer) {
            let target = target(slot.rd)
            emit.guest0F(opcode, target.number, slot.rs1)
            emit.store(slot.rd, target)
        }

        /// rd = rs1, or rs2 under the condition of a CMOV after comparing them.
        private mutating func choose(_ slot: SlotPointer, _ opcode: UInt8) {
            emit.load(.rax, slot.rs1)
            emit.operate(.compare, .rax, slot.rs2)
            emit.guest0F(opcode, 0, slot.rs2)
            emit.store(slot.rd, .rax)
        }

        private mutating func shiftAdd(_ slot: SlotPointer, _ amount: UInt8, word: Bool = false) {
            var index = HostRegister.rax
            if word { emit.load(.rax, slot.rs1, wide: false) } else { index = emit.source(slot.rs1, .rax) }
            let base = emit.source(slot.rs2, .rcx)
            let target = target(slot.rd)
            emit.sum(target, base, index, scale: amount)
            emit.store(slot.rd, target)
        }

        // MARK: multiplication and division

        private mutating func multiply(_ slot: SlotPointer, wide: Bool) {
            emit.load(.rax, slot.rs1, wide: wide)
            emit.guest0F(0xAF, 0, slot.rs2, wide: wide)
            if wide { emit.store(slot.rd, .rax) } else { storeWord(slot.rd) }
        }

        /// The high half: /5 signed, /4 unsigned.
        private mutating func multiplyHigh(_ digit: UInt8, _ slot: SlotPointer) {
            emit.load(.rax, slot.rs1)
            emit.guest(0xF7, digit, slot.rs2)
            emit.store(slot.rd, .rdx)
        }

        /// Spec: RISC-V Unprivileged 20240411 §12.2: by zero and on overflow there is a result and no trap.
        private mutating func divide(_ slot: SlotPointer, signed: Bool, remainder: Bool = false, wide: Bool = true) {
            emit.load(.rcx, slot.rs2, wide: wide)
            emit.load(.rax, slot.rs1, wide: wide)
            emit.registers(0x85, 1, 1, wide: wide)
            let byZero = emit.jump(if: .equal)
            var isMinusOne: Int?
            if signed {
                emit.immediate(.compare, .rcx, -1, wide: wide)
                isMinusOne = emit.jump(if: .equal)
                emit.signExtendIntoRDX(wide: wide)
            } else {
                emit.registers(0x33, 2, 2, wide: false)
            }
            emit.registers(0xF7, signed ? 7 : 6, 1, wide: wide)
            if remainder { emit.move(.rax, .rdx) }
            let done = emit.jump()
            var alsoDone: Int?
            if let isMinusOne {
                emit.land(isMinusOne)
                if remainder {
                    emit.registers(0x33, 0, 0, wide: false)
                } else {
                    emit.registers(0xF7, 3, 0, wide: wide)  // neg
                }
                alsoDone = emit.jump()
            }
            emit.land(byZero)
            if !remainder { emit.constant(.rax, -1) }
            emit.land(done)
            if let alsoDone { emit.land(alsoDone) }
            if wide { emit.store(slot.rd, .rax) } else { storeWord(slot.rd) }
        }

        // MARK: memory

        /// rax = host address of x[rs1] + immediate, or a jump to the slow way; `width` bytes, aligned.
        private mutating func translateAddress(
            _ slot: SlotPointer, _ immediate: Int32, _ index: Int, width: Int32, table: Int,
            context: HartCore.Field = .dataContext
        ) -> Int {
            if let base = HostRegister(holding: slot.rs1) {
                if immediate == 0 { emit.move(.rax, base) } else { emit.address(.rax, base, immediate) }
            } else {
                emit.load(.rax, slot.rs1)
                if immediate != 0 { emit.immediate(.add, .rax, immediate) }
            }
            // The entry's offset in the table: address bits 20:12, 16 bytes each.
            emit.registers(0x8B, 1, 0, wide: false)
            emit.shift(5, .rcx, by: 8, wide: false)
            emit.immediate(.and, .rcx, Int32((TranslationCache.count - 1) << 4), wide: false)
            // The tag: page, alignment and context.
            emit.registers(0x8B, 2, 0)
            emit.immediate(.and, .rdx, ~0xFFF | (width - 1))
            emit.field(HostOperation.or.rawValue, 2, context)
            emit.indexed(HostOperation.compare.rawValue, 2, index: .rcx, table)
            let miss = emit.jump(if: .notEqual)
            emit.indexed(HostOperation.add.rawValue, 0, index: .rcx, table + 8)
            return miss
        }

        private mutating func load(_ slot: SlotPointer, _ immediate: Int32, _ index: Int) {
            let width: Int32 =
                switch slot.op {
                case .lb, .lbu: 1
                case .lh, .lhu: 2
                case .lw, .lwu: 4
                default: 8
                }
            let miss = translateAddress(slot, immediate, index, width: width, table: HartCore.translationsOffset)
            let target = slot.rd == Slot.sink ? HostRegister.rax : target(slot.rd)
            switch slot.op {
            case .lb: emit.memory(0xBE, target.number, wide: true, escape: true)
            case .lh: emit.memory(0xBF, target.number, wide: true, escape: true)
            case .lw: emit.memory(0x63, target.number, wide: true)
            case .lbu: emit.memory(0xB6, target.number, wide: false, escape: true)
            case .lhu: emit.memory(0xB7, target.number, wide: false, escape: true)
            case .lwu: emit.memory(0x8B, target.number, wide: false)
            default: emit.memory(0x8B, target.number, wide: true)
            }
            if slot.rd != Slot.sink { emit.store(slot.rd, target) }
            slow.append((site: miss, back: emit.offset, index: index))
        }

        private mutating func store(_ slot: SlotPointer, _ immediate: Int32, _ index: Int) {
            let width: Int32 =
                switch slot.op {
                case .sb: 1
                case .sh: 2
                case .sw: 4
                default: 8
                }
            let miss = translateAddress(slot, immediate, index, width: width, table: HartCore.storeTranslationsOffset)
            let source = emit.source(slot.rs2, .rcx)
            switch slot.op {
            case .sb: emit.memory(0x88, source.number, wide: false, forced: true)
            case .sh: emit.memory(0x89, source.number, wide: false, operandSize: true)
            case .sw: emit.memory(0x89, source.number, wide: false)
            default: emit.memory(0x89, source.number, wide: true)
            }
            slow.append((site: miss, back: emit.offset, index: index))
        }

        /// A floating-point load, fast while floating-point state is dirty.
        private mutating func loadFloat(_ slot: SlotPointer, _ immediate: Int32, _ index: Int, width: Int32) {
            let miss = translateAddress(
                slot, immediate, index, width: width, table: HartCore.translationsOffset, context: .floatContext)
            emit.memory(0x8B, 0, wide: width == 8)
            emit.float(0x89, 0, slot.rd)
            if width == 4 { emit.box(slot.rd) }
            slow.append((site: miss, back: emit.offset, index: index))
        }

        private mutating func storeFloat(_ slot: SlotPointer, _ immediate: Int32, _ index: Int, width: Int32) {
            let miss = translateAddress(
                slot, immediate, index, width: width, table: HartCore.storeTranslationsOffset, context: .floatContext)
            emit.float(0x8B, 1, slot.rs2)
            emit.memory(0x89, 1, wide: width == 8)
            slow.append((site: miss, back: emit.offset, index: index))
        }

        // MARK: control

        /// x[rd] = address behind the block.
        private mutating func linkRegister(_ slot: SlotPointer) {
            let target = HostRegister(holding: slot.rd) ?? .rcx
            emit.address(target, .rbp, Int32(slot.rs2) * 2)
            emit.store(slot.rd, target)
        }

        private mutating func branch(_ slot: SlotPointer, _ immediate: Int32, if condition: HostCondition) {
            compare(slot.rs1, slot.rs2)
            let isTaken = emit.jump(if: condition)
            // A branch's rd is the block's length.
            leave(.notTaken, by: Int32(slot.rd) * 2)
            emit.land(isTaken)
            leave(.taken, by: immediate)
        }
    }
#endif
