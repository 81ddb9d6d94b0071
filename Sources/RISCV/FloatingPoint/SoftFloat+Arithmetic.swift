// Sum, product, quotient, root and fused multiply-add, once for both formats.

extension FloatFormat {
    @inline(__always)
    static func add(_ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        if !isFinite(a) || !isFinite(b) {
            if isNaN(a) || isNaN(b) { return nan(a, b, &flags) }
            if isInfinity(a) && isInfinity(b) && a != b { return invalid(&flags) }
            return isInfinity(a) ? a : b
        }
        if isZero(a) {
            guard isZero(b) else { return b }
            return a == b ? a : cancelledZero(rounding)
        }
        if isZero(b) { return a }
        var large = unpack(a)
        var small = unpack(b)
        if small.exponent > large.exponent
            || (small.exponent == large.exponent && small.significand > large.significand)
        {
            swap(&large, &small)
        }
        // One bit of room for the carry: both formats leave the lowest bits zero.
        let aligned = (small.significand >> 1).shiftedRightJamming(large.exponent &- small.exponent)
        let wide = large.significand >> 1
        let sum = large.negative == small.negative ? wide &+ aligned : wide &- aligned
        if sum == 0 { return cancelledZero(rounding) }
        let shift = sum.leadingZeroBitCount
        let result = Unpacked(
            negative: large.negative, exponent: large.exponent &+ 1 &- shift,
            significand: sum &<< UInt64(truncatingIfNeeded: shift))
        return round(result, rounding, &flags)
    }

    @inline(__always)
    static func multiply(_ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        let negative = isNegative(a) != isNegative(b)
        if !isFinite(a) || !isFinite(b) {
            if isNaN(a) || isNaN(b) { return nan(a, b, &flags) }
            if isZero(a) || isZero(b) { return invalid(&flags) }
            return sign(negative) | infinity
        }
        if isZero(a) || isZero(b) { return sign(negative) }
        let left = unpack(a)
        let right = unpack(b)
        let product = left.significand.multipliedFullWidth(by: right.significand)
        let significand = product.high | (product.low != 0 ? 1 : 0)
        // The product of two numbers in 1..<2 is in 1..<4.
        let shift = significand.leadingZeroBitCount
        let result = Unpacked(
            negative: negative, exponent: left.exponent &+ right.exponent &+ 1 &- shift,
            significand: significand &<< UInt64(truncatingIfNeeded: shift))
        return round(result, rounding, &flags)
    }

    @inline(__always)
    static func divide(_ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        let negative = isNegative(a) != isNegative(b)
        if !isFinite(a) || !isFinite(b) {
            if isNaN(a) || isNaN(b) { return nan(a, b, &flags) }
            if isInfinity(a) {
                return isInfinity(b) ? invalid(&flags) : sign(negative) | infinity
            }
            return sign(negative)
        }
        if isZero(b) {
            if isZero(a) { return invalid(&flags) }
            flags.insert(.divideByZero)
            return sign(negative) | infinity
        }
        if isZero(a) { return sign(negative) }
        let left = unpack(a)
        let right = unpack(b)
        // The dividend's high half is below the divisor, so the quotient fits; it is in 2^62 ..< 2^64.
        let (quotient, remainder) = right.significand.dividingFullWidth((left.significand >> 1, 0))
        let shift = quotient.leadingZeroBitCount
        let jammed = quotient | (remainder != 0 ? 1 : 0)
        let result = Unpacked(
            negative: negative, exponent: left.exponent &- right.exponent &- shift,
            significand: jammed &<< UInt64(truncatingIfNeeded: shift))
        return round(result, rounding, &flags)
    }

    @inline(__always)
    static func squareRoot(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        if isNaN(a) { return nan(a, a, &flags) }
        if isZero(a) { return a }
        if isNegative(a) { return invalid(&flags) }
        if isInfinity(a) { return a }
        let value = unpack(a)
        // The radicand is m × 2^(even), m in 1..<4 held as m × 2^126; its root is in 2^63 ..< 2^64.
        let odd = value.exponent & 1
        let radicand = UInt128(value.significand) &<< UInt128(truncatingIfNeeded: 63 &+ odd)
        let (root, exact) = squareRoot(radicand)
        let result = Unpacked(
            negative: false, exponent: (value.exponent &- odd) >> 1, significand: exact ? root : root | 1)
        return round(result, rounding, &flags)
    }

    /// The floor of the root of `radicand` in 2^126 ..< 2^128, and whether it is the root.
    @inline(__always)
    private static func squareRoot(_ radicand: UInt128) -> (root: UInt64, exact: Bool) {
        // The host's root is good to 52 bits; one Newton step squares the error and never lands below the floor by more
        // than rounding, which the comparisons put right.
        let high = UInt64(truncatingIfNeeded: radicand >> 64)
        let estimate = Double(high).squareRoot() * 0x1p32
        var root = estimate >= 0x1p64 ? UInt64.max : UInt64(estimate)
        if root <= high {
            // Only next to 2^64, where the root is within one of the high half.
            root = high == .max ? .max : high &+ 1
        }
        if root > high {
            let (quotient, _) = root.dividingFullWidth((high, UInt64(truncatingIfNeeded: radicand)))
            root = UInt64(truncatingIfNeeded: (UInt128(root) + UInt128(quotient)) >> 1)
        }
        while UInt128(root) * UInt128(root) > radicand { root &-= 1 }
        while root != .max && (UInt128(root) + 1) * (UInt128(root) + 1) <= radicand { root &+= 1 }
        return (root, UInt128(root) * UInt128(root) == radicand)
    }

    /// `a × b + c`, rounded once.
    @inline(__always)
    static func fusedMultiplyAdd(
        _ a: UInt64, _ b: UInt64, _ c: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        let negative = isNegative(a) != isNegative(b)
        if !isFinite(a) || !isFinite(b) || !isFinite(c) {
            // Spec: RISC-V Unprivileged §21.6: infinity times zero is invalid even when the addend is a quiet NaN.
            if (isInfinity(a) && isZero(b)) || (isZero(a) && isInfinity(b)) { return invalid(&flags) }
            if isNaN(a) || isNaN(b) || isNaN(c) {
                if isSignalingNaN(c) { flags.insert(.invalid) }
                return nan(a, b, &flags)
            }
            guard isInfinity(a) || isInfinity(b) else { return c }
            if isInfinity(c) && isNegative(c) != negative { return invalid(&flags) }
            return sign(negative) | infinity
        }
        if isZero(a) || isZero(b) {
            guard isZero(c) else { return c }
            return isNegative(c) == negative ? c : cancelledZero(rounding)
        }
        let left = unpack(a)
        let right = unpack(b)
        // Both terms with their leading bit at 126 or 125; the product has at least 22 zero bits at its end.
        let product = left.significand.multipliedFullWidth(by: right.significand)
        var term = (UInt128(product.high) << 64 | UInt128(product.low)) >> 1
        let exponent = left.exponent &+ right.exponent &+ 1
        var result = Unpacked(negative: negative, exponent: exponent, significand: 0)
        if !isZero(c) {
            let addend = unpack(c)
            let other = UInt128(addend.significand) << 63
            let distance = exponent &- addend.exponent
            if distance >= 0 {
                combine(&term, &result.negative, other.shiftedRightJamming(distance), addend.negative)
            } else {
                result.exponent = addend.exponent
                term = term.shiftedRightJamming(0 &- distance)
                combine(&term, &result.negative, other, addend.negative)
            }
            if term == 0 { return cancelledZero(rounding) }
        }
        let shift = term.leadingZeroBitCount
        term &<<= UInt128(truncatingIfNeeded: shift)
        result.exponent &+= 1 &- shift
        result.significand =
            UInt64(truncatingIfNeeded: term >> 64) | (UInt64(truncatingIfNeeded: term) != 0 ? 1 : 0)
        return round(result, rounding, &flags)
    }

    /// Adds two signed magnitudes below 2^127.
    @inline(__always)
    private static func combine(
        _ magnitude: inout UInt128, _ negative: inout Bool, _ other: UInt128, _ otherNegative: Bool
    ) {
        if negative == otherNegative {
            magnitude &+= other
        } else if magnitude >= other {
            magnitude &-= other
        } else {
            magnitude = other &- magnitude
            negative = otherNegative
        }
    }
}

extension SoftFloat {
    public static func add32(
        _ a: UInt32, _ b: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt32 {
        UInt32(
            truncatingIfNeeded: Binary32.onHost(UInt64(a), UInt64(b), rounding, flags, +)
                ?? Binary32.add(UInt64(a), UInt64(b), rounding, &flags))
    }

    public static func sub32(
        _ a: UInt32, _ b: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt32 {
        add32(a, b ^ 0x8000_0000, rounding, &flags)
    }

    public static func mul32(
        _ a: UInt32, _ b: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt32 {
        UInt32(
            truncatingIfNeeded: Binary32.onHost(UInt64(a), UInt64(b), rounding, flags, *)
                ?? Binary32.multiply(UInt64(a), UInt64(b), rounding, &flags))
    }

    public static func div32(
        _ a: UInt32, _ b: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt32 {
        UInt32(
            truncatingIfNeeded: Binary32.onHost(UInt64(a), UInt64(b), rounding, flags, /)
                ?? Binary32.divide(UInt64(a), UInt64(b), rounding, &flags))
    }

    public static func sqrt32(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        UInt32(
            truncatingIfNeeded: Binary32.rootOnHost(UInt64(a), rounding, flags)
                ?? Binary32.squareRoot(UInt64(a), rounding, &flags))
    }

    /// `a × b + c` with one rounding; the other fused instructions negate `a` or `c` first.
    public static func fma32(
        _ a: UInt32, _ b: UInt32, _ c: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt32 {
        UInt32(
            truncatingIfNeeded: Binary32.fusedOnHost(UInt64(a), UInt64(b), UInt64(c), rounding, flags)
                ?? Binary32.fusedMultiplyAdd(UInt64(a), UInt64(b), UInt64(c), rounding, &flags))
    }

    public static func add64(
        _ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        Binary64.onHost(a, b, rounding, flags, +) ?? Binary64.add(a, b, rounding, &flags)
    }

    public static func sub64(
        _ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        add64(a, b ^ Binary64.signBit, rounding, &flags)
    }

    public static func mul64(
        _ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        Binary64.onHost(a, b, rounding, flags, *) ?? Binary64.multiply(a, b, rounding, &flags)
    }

    public static func div64(
        _ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        Binary64.onHost(a, b, rounding, flags, /) ?? Binary64.divide(a, b, rounding, &flags)
    }

    public static func sqrt64(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        Binary64.rootOnHost(a, rounding, flags) ?? Binary64.squareRoot(a, rounding, &flags)
    }

    /// `a × b + c` with one rounding; the other fused instructions negate `a` or `c` first.
    public static func fma64(
        _ a: UInt64, _ b: UInt64, _ c: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        Binary64.fusedOnHost(a, b, c, rounding, flags) ?? Binary64.fusedMultiplyAdd(a, b, c, rounding, &flags)
    }
}
