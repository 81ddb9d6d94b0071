// F and D: register access, NaN boxing, rounding modes and flags around `SoftFloat`.
//
// Spec: RISC-V Unprivileged 20240411 chapters 20 (F) and 21 (D). A single in a 64-bit register is boxed in ones; a
// register that holds no boxed single reads as the canonical NaN.

extension HartState {
    // MARK: memory

    /// FLW, FLD. False: the trap is recorded.
    mutating func loadFloat(_ address: UInt64, _ width: UInt64, _ rd: UInt8) -> Bool {
        guard hasFloatState else { return fault(.illegalInstruction, 0) }
        let entry = translations.reading(address)
        let value: UInt64
        if entry.matches(address, width, dataContext) {
            value = width == 4 ? UInt64(entry.load32(address)) : entry.load64(address)
        } else {
            guard let slow = loadSlow(address, width) else { return false }
            value = slow
        }
        f[rd] = width == 4 ? FloatRegisters.boxed | value : value
        noteFloatState()
        return true
    }

    /// FSW, FSD. False: the trap is recorded.
    mutating func storeFloat(_ address: UInt64, _ width: UInt64, _ rs2: UInt8) -> Bool {
        guard hasFloatState else { return fault(.illegalInstruction, 0) }
        let entry = translations.writing(address)
        guard entry.matches(address, width, dataContext) else { return storeSlow(address, width, f[rs2]) }
        if width == 4 { entry.store32(address, f[rs2]) } else { entry.store64(address, f[rs2]) }
        return true
    }

    /// Floating-point state, which is not off, changed: a guest that saves it only when it is dirty must save it.
    @inline(__always) mutating func noteFloatState() {
        mstatus |= StatusBits.fs
        core[.floatContext] = dataContext
    }

    // MARK: arithmetic

    /// Executes a raw instruction of OP-FP or the fused multiply-add opcodes. False: the trap is recorded.
    @inline(never)
    mutating func executeFloat(_ word: UInt32) -> Bool {
        guard hasFloatState else { return fault(.illegalInstruction, 0) }
        // With what is set already: see `SoftFloat+Host`.
        var flags = FloatFlags(rawValue: fflags)
        let isDone =
            if word & 0x7F != 0x53 {
                multiplyAdd(word, &flags)
            } else if word >> 25 & 3 == 0 {
                executeSingle(word, &flags)
            } else if word >> 25 & 3 == 1 {
                executeDouble(word, &flags)
            } else {
                false
            }
        guard isDone else { return fault(.illegalInstruction, 0) }
        fflags = flags.rawValue
        noteFloatState()
        return true
    }

    /// The rounding mode of an instruction; `nil` if reserved.
    private mutating func rounding(_ word: UInt32) -> RoundingMode? {
        let field = UInt8(word >> 12 & 7)
        return RoundingMode(rawValue: field == 7 ? frm : field)
    }

    private mutating func multiplyAdd(_ word: UInt32, _ flags: inout FloatFlags) -> Bool {
        guard let mode = rounding(word) else { return false }
        let (rd, rs1) = (UInt8(word >> 7 & 31), UInt8(word >> 15 & 31))
        let (rs2, rs3) = (UInt8(word >> 20 & 31), UInt8(word >> 27))
        // FMADD ab+c, FMSUB ab-c, FNMSUB -ab+c, FNMADD -ab-c.
        let negatesProduct = word & 0x7F == 0x4B || word & 0x7F == 0x4F
        let negatesAddend = word & 0x7F == 0x47 || word & 0x7F == 0x4F
        switch word >> 25 & 3 {
        case 0:
            let a = f.single(rs1) ^ (negatesProduct ? 1 << 31 : 0)
            let c = f.single(rs3) ^ (negatesAddend ? 1 << 31 : 0)
            f.setSingle(rd, SoftFloat.fma32(a, f.single(rs2), c, mode, &flags))
        case 1:
            let a = f[rs1] ^ (negatesProduct ? 1 << 63 : 0)
            let c = f[rs3] ^ (negatesAddend ? 1 << 63 : 0)
            f[rd] = SoftFloat.fma64(a, f[rs2], c, mode, &flags)
        default: return false
        }
        return true
    }

    /// OP-FP with single-precision format (as destination, for conversions between formats).
    private mutating func executeSingle(_ word: UInt32, _ flags: inout FloatFlags) -> Bool {
        let (rd, rs1, rs2) = (UInt8(word >> 7 & 31), UInt8(word >> 15 & 31), UInt8(word >> 20 & 31))
        let function = word >> 12 & 7
        let target = rd == 0 ? Slot.sink : rd
        let a = f.single(rs1)
        switch word >> 27 {
        case 0x00, 0x01, 0x02, 0x03:
            guard let mode = rounding(word) else { return false }
            let b = f.single(rs2)
            let result =
                switch word >> 27 {
                case 0x00: SoftFloat.add32(a, b, mode, &flags)
                case 0x01: SoftFloat.sub32(a, b, mode, &flags)
                case 0x02: SoftFloat.mul32(a, b, mode, &flags)
                default: SoftFloat.div32(a, b, mode, &flags)
                }
            f.setSingle(rd, result)
        case 0x0B:
            guard let mode = rounding(word), rs2 == 0 else { return false }
            f.setSingle(rd, SoftFloat.sqrt32(a, mode, &flags))
        case 0x04:
            let b = f.single(rs2)
            switch function {
            case 0: f.setSingle(rd, a & 0x7FFF_FFFF | b & 0x8000_0000)
            case 1: f.setSingle(rd, a & 0x7FFF_FFFF | ~b & 0x8000_0000)
            case 2: f.setSingle(rd, a ^ b & 0x8000_0000)
            default: return false
            }
        case 0x05:
            switch function {
            case 0: f.setSingle(rd, SoftFloat.min32(a, f.single(rs2), &flags))
            case 1: f.setSingle(rd, SoftFloat.max32(a, f.single(rs2), &flags))
            default: return false
            }
        case 0x08:
            guard let mode = rounding(word), rs2 == 1 else { return false }
            f.setSingle(rd, SoftFloat.f64ToF32(f[rs1], mode, &flags))
        case 0x14:
            switch function {
            case 0: x[target] = SoftFloat.le32(a, f.single(rs2), &flags) ? 1 : 0
            case 1: x[target] = SoftFloat.lt32(a, f.single(rs2), &flags) ? 1 : 0
            case 2: x[target] = SoftFloat.eq32(a, f.single(rs2), &flags) ? 1 : 0
            default: return false
            }
        case 0x18:
            guard let mode = rounding(word) else { return false }
            switch rs2 {
            case 0: x[target] = UInt64(bitPattern: Int64(SoftFloat.f32ToI32(a, mode, &flags)))
            case 1: x[target] = signExtend(SoftFloat.f32ToU32(a, mode, &flags))
            case 2: x[target] = UInt64(bitPattern: SoftFloat.f32ToI64(a, mode, &flags))
            case 3: x[target] = SoftFloat.f32ToU64(a, mode, &flags)
            default: return false
            }
        case 0x1A:
            guard let mode = rounding(word) else { return false }
            switch rs2 {
            case 0: f.setSingle(rd, SoftFloat.i32ToF32(Int32(truncatingIfNeeded: x[rs1]), mode, &flags))
            case 1: f.setSingle(rd, SoftFloat.u32ToF32(UInt32(truncatingIfNeeded: x[rs1]), mode, &flags))
            case 2: f.setSingle(rd, SoftFloat.i64ToF32(Int64(bitPattern: x[rs1]), mode, &flags))
            case 3: f.setSingle(rd, SoftFloat.u64ToF32(x[rs1], mode, &flags))
            default: return false
            }
        case 0x1C where rs2 == 0 && function == 0:
            // FMV.X.W moves bits, boxed or not.
            x[target] = signExtend(UInt32(truncatingIfNeeded: f[rs1]))
        case 0x1C where rs2 == 0 && function == 1: x[target] = SoftFloat.classify32(a)
        case 0x1E where rs2 == 0 && function == 0: f.setSingle(rd, UInt32(truncatingIfNeeded: x[rs1]))
        default: return false
        }
        return true
    }

    /// OP-FP with double-precision format.
    private mutating func executeDouble(_ word: UInt32, _ flags: inout FloatFlags) -> Bool {
        let (rd, rs1, rs2) = (UInt8(word >> 7 & 31), UInt8(word >> 15 & 31), UInt8(word >> 20 & 31))
        let function = word >> 12 & 7
        let target = rd == 0 ? Slot.sink : rd
        let (a, b) = (f[rs1], f[rs2])
        let sign: UInt64 = 1 << 63
        switch word >> 27 {
        case 0x00, 0x01, 0x02, 0x03:
            guard let mode = rounding(word) else { return false }
            f[rd] =
                switch word >> 27 {
                case 0x00: SoftFloat.add64(a, b, mode, &flags)
                case 0x01: SoftFloat.sub64(a, b, mode, &flags)
                case 0x02: SoftFloat.mul64(a, b, mode, &flags)
                default: SoftFloat.div64(a, b, mode, &flags)
                }
        case 0x0B:
            guard let mode = rounding(word), rs2 == 0 else { return false }
            f[rd] = SoftFloat.sqrt64(a, mode, &flags)
        case 0x04:
            switch function {
            case 0: f[rd] = a & ~sign | b & sign
            case 1: f[rd] = a & ~sign | ~b & sign
            case 2: f[rd] = a ^ b & sign
            default: return false
            }
        case 0x05:
            switch function {
            case 0: f[rd] = SoftFloat.min64(a, b, &flags)
            case 1: f[rd] = SoftFloat.max64(a, b, &flags)
            default: return false
            }
        case 0x08:
            // Widening is exact, but its rounding mode must be valid all the same.
            guard rounding(word) != nil, rs2 == 0 else { return false }
            f[rd] = SoftFloat.f32ToF64(f.single(rs1), &flags)
        case 0x14:
            switch function {
            case 0: x[target] = SoftFloat.le64(a, b, &flags) ? 1 : 0
            case 1: x[target] = SoftFloat.lt64(a, b, &flags) ? 1 : 0
            case 2: x[target] = SoftFloat.eq64(a, b, &flags) ? 1 : 0
            default: return false
            }
        case 0x18:
            guard let mode = rounding(word) else { return false }
            switch rs2 {
            case 0: x[target] = UInt64(bitPattern: Int64(SoftFloat.f64ToI32(a, mode, &flags)))
            case 1: x[target] = signExtend(SoftFloat.f64ToU32(a, mode, &flags))
            case 2: x[target] = UInt64(bitPattern: SoftFloat.f64ToI64(a, mode, &flags))
            case 3: x[target] = SoftFloat.f64ToU64(a, mode, &flags)
            default: return false
            }
        case 0x1A:
            guard let mode = rounding(word) else { return false }
            switch rs2 {
            case 0: f[rd] = SoftFloat.i32ToF64(Int32(truncatingIfNeeded: x[rs1]), mode, &flags)
            case 1: f[rd] = SoftFloat.u32ToF64(UInt32(truncatingIfNeeded: x[rs1]), mode, &flags)
            case 2: f[rd] = SoftFloat.i64ToF64(Int64(bitPattern: x[rs1]), mode, &flags)
            case 3: f[rd] = SoftFloat.u64ToF64(x[rs1], mode, &flags)
            default: return false
            }
        case 0x1C where rs2 == 0 && function == 0: x[target] = a
        case 0x1C where rs2 == 0 && function == 1: x[target] = SoftFloat.classify64(a)
        case 0x1E where rs2 == 0 && function == 0: f[rd] = x[rs1]
        default: return false
        }
        return true
    }
}
