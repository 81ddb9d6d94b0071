// The arithmetic of instructions whose definition differs from Swift's operators.
//
// Spec: RISC-V Unprivileged 20240411 chapters 4 (RV64I), 12 (M: division by zero and overflow do not trap), 28 (B).

@inline(__always) func signExtend(_ value: UInt32) -> UInt64 { UInt64(bitPattern: Int64(Int32(bitPattern: value))) }

@inline(__always) func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }

@inline(__always) func isLess(_ a: UInt64, _ b: UInt64) -> Bool { Int64(bitPattern: a) < Int64(bitPattern: b) }

@inline(__always) func arithmeticShift(_ a: UInt64, _ amount: UInt64) -> UInt64 {
    UInt64(bitPattern: Int64(bitPattern: a) &>> Int64(bitPattern: amount))
}

@inline(__always) func arithmeticShiftWord(_ a: UInt64, _ amount: UInt64) -> UInt64 {
    UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: a) &>> Int32(truncatingIfNeeded: amount)))
}

@inline(__always) func highProduct(_ a: UInt64, _ b: UInt64) -> UInt64 {
    UInt64(bitPattern: Int64(bitPattern: a).multipliedFullWidth(by: Int64(bitPattern: b)).high)
}

/// The high half of signed `a` times unsigned `b`.
@inline(__always) func highProductMixed(_ a: UInt64, _ b: UInt64) -> UInt64 {
    a.multipliedFullWidth(by: b).high &- (Int64(bitPattern: a) < 0 ? b : 0)
}

func quotient(_ a: UInt64, _ b: UInt64) -> UInt64 {
    if b == 0 { return .max }
    return UInt64(bitPattern: Int64(bitPattern: a).dividedReportingOverflow(by: Int64(bitPattern: b)).partialValue)
}

func remainder(_ a: UInt64, _ b: UInt64) -> UInt64 {
    if b == 0 { return a }
    if b == .max { return 0 }
    return UInt64(bitPattern: Int64(bitPattern: a) % Int64(bitPattern: b))
}

func unsignedQuotient(_ a: UInt64, _ b: UInt64) -> UInt64 { b == 0 ? .max : a / b }

func unsignedRemainder(_ a: UInt64, _ b: UInt64) -> UInt64 { b == 0 ? a : a % b }

func quotientWord(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (dividend, divisor) = (Int32(truncatingIfNeeded: a), Int32(truncatingIfNeeded: b))
    if divisor == 0 { return .max }
    return UInt64(bitPattern: Int64(dividend.dividedReportingOverflow(by: divisor).partialValue))
}

func remainderWord(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (dividend, divisor) = (Int32(truncatingIfNeeded: a), Int32(truncatingIfNeeded: b))
    if divisor == 0 { return signExtend(low(a)) }
    if divisor == -1 { return 0 }
    return UInt64(bitPattern: Int64(dividend % divisor))
}

func unsignedQuotientWord(_ a: UInt64, _ b: UInt64) -> UInt64 {
    low(b) == 0 ? .max : signExtend(low(a) / low(b))
}

func unsignedRemainderWord(_ a: UInt64, _ b: UInt64) -> UInt64 {
    low(b) == 0 ? signExtend(low(a)) : signExtend(low(a) % low(b))
}

@inline(__always) func rotateLeft(_ a: UInt64, _ amount: UInt64) -> UInt64 { a &<< amount | a &>> (0 &- amount) }

@inline(__always) func rotateRight(_ a: UInt64, _ amount: UInt64) -> UInt64 { a &>> amount | a &<< (0 &- amount) }

@inline(__always) func rotateLeftWord(_ a: UInt64, _ amount: UInt64) -> UInt64 {
    signExtend(low(a) &<< low(amount) | low(a) &>> (0 &- low(amount)))
}

@inline(__always) func rotateRightWord(_ a: UInt64, _ amount: UInt64) -> UInt64 {
    signExtend(low(a) &>> low(amount) | low(a) &<< (0 &- low(amount)))
}

/// orc.b: each byte becomes 0xFF unless it is zero.
func orCombine(_ a: UInt64) -> UInt64 {
    var result: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 64, by: 8) where a >> shift & 0xFF != 0 { result |= 0xFF << shift }
    return result
}

/// Bit manipulation and MULHSU: `a` is rs1, `b` rs2.
@inline(never)
func bitManipulation(_ operation: Operation, _ a: UInt64, _ b: UInt64, _ immediate: UInt64) -> UInt64 {
    switch operation {
    case .mulhsu: highProductMixed(a, b)
    case .andn: a & ~b
    case .orn: a | ~b
    case .xnor: ~(a ^ b)
    case .clz: UInt64(a.leadingZeroBitCount)
    case .ctz: UInt64(a.trailingZeroBitCount)
    case .cpop: UInt64(a.nonzeroBitCount)
    case .clzw: UInt64(low(a).leadingZeroBitCount)
    case .ctzw: UInt64(low(a).trailingZeroBitCount)
    case .cpopw: UInt64(low(a).nonzeroBitCount)
    case .max: isLess(a, b) ? b : a
    case .maxu: Swift.max(a, b)
    case .min: isLess(a, b) ? a : b
    case .minu: Swift.min(a, b)
    case .sextB: UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: a)))
    case .sextH: UInt64(bitPattern: Int64(Int16(truncatingIfNeeded: a)))
    case .zextH: a & 0xFFFF
    case .rol: rotateLeft(a, b)
    case .ror: rotateRight(a, b)
    case .rori: rotateRight(a, immediate)
    case .rolw: rotateLeftWord(a, b)
    case .rorw: rotateRightWord(a, b)
    case .roriw: rotateRightWord(a, immediate)
    case .orcB: orCombine(a)
    case .rev8: a.byteSwapped
    case .bclr: a & ~(1 &<< b)
    case .bclri: a & ~(1 &<< immediate)
    case .bext: a &>> b & 1
    case .bexti: a &>> immediate & 1
    case .binv: a ^ 1 &<< b
    case .binvi: a ^ 1 &<< immediate
    case .bset: a | 1 &<< b
    case .bseti: a | 1 &<< immediate
    default: preconditionFailure("\(operation) is no bit manipulation")
    }
}
