// x86-64 instructions, as bytes. Only what the translator needs, in its terms: guest registers are operands.
//
// Which host register holds what while translated code runs:
//
//     rbx        the core, plus 128: x0…x31 are a signed byte away
//     rbp        virtual address of the block's first instruction
//     rsi rdi    x1 (ra), x2 (sp)
//     r8 … r15   x8 … x15 (s0, s1, a0 … a5), those that compressed instructions name
//     rax rcx rdx  scratch
//
// Other guest registers are memory operands. x0's place in memory always holds zero, so it needs no case of its own.
//
// Spec: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapters 2 and 3.

#if arch(x86_64)
    /// A host register by its number.
    struct HostRegister: Equatable {
        let number: UInt8
        static let rax = HostRegister(number: 0)
        static let rcx = HostRegister(number: 1)
        static let rdx = HostRegister(number: 2)
        static let rbx = HostRegister(number: 3)
        static let rsp = HostRegister(number: 4)
        static let rbp = HostRegister(number: 5)
        static let rsi = HostRegister(number: 6)
        static let rdi = HostRegister(number: 7)

        /// The register that holds a guest's, if one does.
        @inline(__always) init?(holding guest: UInt8) {
            switch guest {
            case 1: number = 6
            case 2: number = 7
            case 8...15: number = guest
            default: return nil
            }
        }

        init(number: UInt8) { self.number = number }
    }

    /// Conditions as in the low bits of Jcc and SETcc.
    enum HostCondition: UInt8 {
        case below = 2
        case notBelow = 3
        case equal = 4
        case notEqual = 5
        case negative = 8
        case less = 12
        case notLess = 13
    }

    /// Operations of two operands, by the opcode of their `r, r/m` form.
    enum HostOperation: UInt8 {
        case add = 0x03
        case or = 0x0B
        case and = 0x23
        case sub = 0x2B
        case xor = 0x33
        case compare = 0x3B
        case move = 0x8B

        /// The /digit of the form with an immediate.
        var digit: UInt8 { (rawValue - 3) >> 3 }
    }

    /// Writes instructions one behind the other.
    @safe struct HostEmitter {
        private let base: UnsafeMutableRawPointer
        /// Bytes from the start of the code memory.
        private(set) var offset: Int

        init(base: UnsafeMutableRawPointer, offset: Int) {
            unsafe self.base = base
            self.offset = offset
        }

        /// How far the core's register points beyond its start.
        static let bias = 128
        private static let held: InlineArray<10, UInt8> = [1, 2, 8, 9, 10, 11, 12, 13, 14, 15]

        // MARK: bytes

        @inline(__always) mutating func byte(_ value: UInt8) {
            // Safety (this and `word`): the translator asks for room for the whole block before it begins.
            unsafe base.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
            offset += 1
        }

        @inline(__always) mutating func word(_ value: Int32) {
            unsafe base.storeBytes(of: value, toByteOffset: offset, as: Int32.self)
            offset += 4
        }

        /// REX (left out where it says nothing), opcode, and operands: `reg` and another register.
        @inline(__always)
        mutating func registers(_ opcode: UInt8, _ reg: UInt8, _ rm: UInt8, wide: Bool = true) {
            prefix(wide: wide, reg, 0, rm)
            byte(opcode)
            byte(0xC0 | (reg & 7) << 3 | rm & 7)
        }

        /// As `registers` with a two-byte opcode.
        @inline(__always)
        mutating func registers0F(_ opcode: UInt8, _ reg: UInt8, _ rm: UInt8, wide: Bool = true) {
            prefix(wide: wide, reg, 0, rm)
            byte(0x0F)
            byte(opcode)
            byte(0xC0 | (reg & 7) << 3 | rm & 7)
        }

        @inline(__always)
        private mutating func prefix(wide: Bool, _ reg: UInt8, _ index: UInt8, _ rm: UInt8, forced: Bool = false) {
            var rex: UInt8 = wide ? 0x48 : 0x40
            rex |= (reg >> 3) << 2
            rex |= (index >> 3) << 1
            rex |= rm >> 3
            if rex != 0x40 || forced { byte(rex) }
        }

        /// ModRM and displacement for memory at [rbx + displacement].
        @inline(__always)
        private mutating func core(_ reg: UInt8, _ displacement: Int) {
            if -128...127 ~= displacement {
                byte(0x43 | (reg & 7) << 3)
                byte(UInt8(truncatingIfNeeded: displacement))
            } else {
                byte(0x83 | (reg & 7) << 3)
                word(Int32(truncatingIfNeeded: displacement))
            }
        }

        /// An instruction of `reg` and a field of the core.
        mutating func field(_ opcode: UInt8, _ reg: UInt8, _ field: HartCore.Field, wide: Bool = true) {
            prefix(wide: wide, reg, 0, 3)
            byte(opcode)
            core(reg, field.rawValue - Self.bias)
        }

        /// A field of the core is changed by a constant.
        mutating func field(_ operation: HostOperation, _ field: HartCore.Field, _ value: Int8) {
            prefix(wide: true, 0, 0, 3)
            byte(0x83)
            core(operation.digit, field.rawValue - Self.bias)
            byte(UInt8(bitPattern: value))
        }

        /// An instruction of `reg` and memory at [rbx + index + offset in the core].
        mutating func indexed(_ opcode: UInt8, _ reg: UInt8, index: HostRegister, _ offset: Int) {
            prefix(wide: true, reg, index.number, 3)
            byte(opcode)
            byte(0x84 | (reg & 7) << 3)
            byte((index.number & 7) << 3 | 3)
            word(Int32(offset - Self.bias))
        }

        /// ModRM for memory at [rax].
        @inline(__always)
        mutating func atRAX(_ reg: UInt8) { byte((reg & 7) << 3) }

        /// An instruction of `reg` and memory at [rax], with the prefixes that `width` and `extended` opcodes need.
        mutating func memory(
            _ opcode: UInt8, _ reg: UInt8, wide: Bool, escape: Bool = false, operandSize: Bool = false,
            forced: Bool = false
        ) {
            if operandSize { byte(0x66) }
            prefix(wide: wide, reg, 0, 0, forced: forced)
            if escape { byte(0x0F) }
            byte(opcode)
            atRAX(reg)
        }

        // MARK: guest registers

        private static func displacement(_ guest: UInt8) -> Int { Int(guest) * 8 - bias }

        /// An instruction of `reg` and a guest register, wherever it is.
        @inline(__always)
        mutating func guest(_ opcode: UInt8, _ reg: UInt8, _ guest: UInt8, wide: Bool = true) {
            if let host = HostRegister(holding: guest) {
                registers(opcode, reg, host.number, wide: wide)
            } else {
                prefix(wide: wide, reg, 0, 3)
                byte(opcode)
                core(reg, Self.displacement(guest))
            }
        }

        /// As `guest` with a two-byte opcode.
        mutating func guest0F(_ opcode: UInt8, _ reg: UInt8, _ guest: UInt8, wide: Bool = true) {
            if let host = HostRegister(holding: guest) {
                registers0F(opcode, reg, host.number, wide: wide)
            } else {
                prefix(wide: wide, reg, 0, 3)
                byte(0x0F)
                byte(opcode)
                core(reg, Self.displacement(guest))
            }
        }

        mutating func operate(_ operation: HostOperation, _ reg: HostRegister, _ guest: UInt8, wide: Bool = true) {
            self.guest(operation.rawValue, reg.number, guest, wide: wide)
        }

        mutating func load(_ reg: HostRegister, _ guest: UInt8, wide: Bool = true) {
            operate(.move, reg, guest, wide: wide)
        }

        mutating func store(_ guest: UInt8, _ reg: HostRegister) {
            if HostRegister(holding: guest) != reg { self.guest(0x89, reg.number, guest) }
        }

        /// The register that holds `guest`, or `scratch` loaded with it.
        mutating func source(_ guest: UInt8, _ scratch: HostRegister) -> HostRegister {
            if let host = HostRegister(holding: guest) { return host }
            load(scratch, guest)
            return scratch
        }

        /// An instruction of `reg` and a floating-point register.
        mutating func float(_ opcode: UInt8, _ reg: UInt8, _ number: UInt8) {
            prefix(wide: true, reg, 0, 3)
            byte(opcode)
            core(reg, HartCore.floatsOffset + Int(number) * 8 - Self.bias)
        }

        /// Ones above the single in a floating-point register.
        mutating func box(_ number: UInt8) {
            byte(0xC7)
            core(0, HartCore.floatsOffset + Int(number) * 8 + 4 - Self.bias)
            word(-1)
        }

        // MARK: operations

        mutating func move(_ to: HostRegister, _ from: HostRegister) {
            if to != from { registers(0x8B, to.number, from.number) }
        }

        mutating func immediate(_ operation: HostOperation, _ reg: HostRegister, _ value: Int32, wide: Bool = true) {
            prefix(wide: wide, 0, 0, reg.number)
            if -128...127 ~= value {
                byte(0x83)
                byte(0xC0 | operation.digit << 3 | reg.number & 7)
                byte(UInt8(truncatingIfNeeded: value))
            } else {
                byte(0x81)
                byte(0xC0 | operation.digit << 3 | reg.number & 7)
                word(value)
            }
        }

        /// reg = value, sign-extended.
        mutating func constant(_ reg: HostRegister, _ value: Int32) {
            if value >= 0 {
                prefix(wide: false, 0, 0, reg.number)
                byte(0xB8 | reg.number & 7)
            } else {
                prefix(wide: true, 0, 0, reg.number)
                byte(0xC7)
                byte(0xC0 | reg.number & 7)
            }
            word(value)
        }

        /// A guest register that is a memory operand becomes a constant.
        mutating func storeConstant(_ guest: UInt8, _ value: Int32) {
            prefix(wide: true, 0, 0, 3)
            byte(0xC7)
            core(0, Self.displacement(guest))
            word(value)
        }

        /// Shifts: /4 left, /5 right, /7 arithmetically right.
        mutating func shift(_ digit: UInt8, _ reg: HostRegister, by amount: UInt8, wide: Bool = true) {
            prefix(wide: wide, 0, 0, reg.number)
            byte(0xC1)
            byte(0xC0 | digit << 3 | reg.number & 7)
            byte(amount)
        }

        /// As `shift`, by cl.
        mutating func shiftByCL(_ digit: UInt8, _ reg: HostRegister, wide: Bool = true) {
            prefix(wide: wide, 0, 0, reg.number)
            byte(0xD3)
            byte(0xC0 | digit << 3 | reg.number & 7)
        }

        /// to = base + displacement.
        mutating func address(_ to: HostRegister, _ base: HostRegister, _ displacement: Int32) {
            prefix(wide: true, to.number, 0, base.number)
            byte(0x8D)
            let short = -128...127 ~= displacement
            byte((short ? 0x40 : 0x80) | (to.number & 7) << 3 | base.number & 7)
            // rsp and r12 as bases need a second byte.
            if base.number & 7 == 4 { byte(0x24) }
            if short { byte(UInt8(truncatingIfNeeded: displacement)) } else { word(displacement) }
        }

        /// to = base + index * scale; `scale` is a power of two as its exponent.
        mutating func sum(_ to: HostRegister, _ base: HostRegister, _ index: HostRegister, scale: UInt8 = 0) {
            prefix(wide: true, to.number, index.number, base.number)
            byte(0x8D)
            // With a displacement, since rbp and r13 have no form without.
            byte(0x44 | (to.number & 7) << 3)
            byte(scale << 6 | (index.number & 7) << 3 | base.number & 7)
            byte(0)
        }

        /// movsxd to, from: the sign-extended low word.
        mutating func signExtendWord(_ to: HostRegister, _ from: HostRegister) {
            registers(0x63, to.number, from.number)
        }

        mutating func setCondition(_ condition: HostCondition, _ reg: HostRegister) {
            prefix(wide: false, 0, 0, reg.number, forced: true)
            byte(0x0F)
            byte(0x90 | condition.rawValue)
            byte(0xC0 | reg.number & 7)
        }

        /// cqo, cdq: the sign of rax in all bits of rdx.
        mutating func signExtendIntoRDX(wide: Bool) {
            prefix(wide: wide, 0, 0, 0)
            byte(0x99)
        }

        // MARK: jumps

        /// A conditional jump; returns where its distance is, for `land`.
        mutating func jump(if condition: HostCondition) -> Int {
            byte(0x0F)
            byte(0x80 | condition.rawValue)
            word(0)
            return offset - 4
        }

        /// A jump that goes to the next instruction until it is patched.
        mutating func jump() -> Int {
            byte(0xE9)
            word(0)
            return offset - 4
        }

        /// Lets a jump end here.
        func land(_ site: Int) {
            // Safety: `site` was emitted above.
            unsafe base.storeBytes(of: Int32(offset - (site + 4)), toByteOffset: site, as: Int32.self)
        }

        mutating func jump(to target: Int) {
            byte(0xE9)
            word(Int32(target - (offset + 4)))
        }

        mutating func call(_ target: Int) {
            byte(0xE8)
            word(Int32(target - (offset + 4)))
        }

        // MARK: shared pieces

        private mutating func push(_ number: UInt8) {
            prefix(wide: false, 0, 0, number)
            byte(0x50 | number & 7)
        }

        private mutating func pop(_ number: UInt8) {
            prefix(wide: false, 0, 0, number)
            byte(0x58 | number & 7)
        }

        private mutating func syncRegisters(_ opcode: UInt8) {
            for index in Self.held.indices {
                let guest = Self.held[index]
                let host = unsafe HostRegister(holding: guest).unsafelyUnwrapped  // Safety: `held` lists them.
                prefix(wide: true, host.number, 0, 3)
                byte(opcode)
                core(host.number, Self.displacement(guest))
            }
        }

        /// void enter(core, code)
        mutating func enter() {
            for number: UInt8 in [3, 5, 12, 13, 14, 15] { push(number) }
            immediate(.sub, .rsp, 8)
            registers(0x8B, 0, 6)  // rax = code
            address(.rbx, .rdi, Int32(Self.bias))
            field(0x8B, 5, .pc)
            syncRegisters(0x8B)
            byte(0xFF)
            byte(0xE0)  // jmp rax
        }

        /// Where blocks go to leave, with the exit's kind in ecx and the block in edx.
        mutating func exit() {
            field(0x89, 1, .exitKind)
            field(0x89, 2, .exitBlock)
            syncRegisters(0x89)
            leave()
        }

        private mutating func leave() {
            field(0x89, 5, .pc)
            immediate(.add, .rsp, 8)
            for number: UInt8 in [15, 14, 13, 12, 5, 3] { pop(number) }
            byte(0xC3)
        }

        /// Calls `slotHelper(state, block, index)` with the block in edx and the slot's index in ecx; if it fails, leaves
        /// as the helper has written into the core.
        mutating func callHelper() {
            immediate(.sub, .rsp, 8)
            syncRegisters(0x89)
            field(0x8B, 7, .state)
            registers(0x8B, 6, 2, wide: false)
            registers(0x8B, 2, 1, wide: false)
            field(0xFF, 2, .slotHelper, wide: false)  // call
            registers(0x85, 0, 0, wide: false)  // test eax, eax
            let failed = jump(if: .notEqual)
            syncRegisters(0x8B)
            immediate(.add, .rsp, 8)
            byte(0xC3)
            land(failed)
            immediate(.add, .rsp, 16)
            leave()
        }
    }
#endif
