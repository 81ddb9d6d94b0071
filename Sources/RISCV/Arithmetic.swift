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
