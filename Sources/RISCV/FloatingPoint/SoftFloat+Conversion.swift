// Conversions between the formats and to and from integers.

extension FloatFormat {
    /// Rounds to an integer of `Target`; what does not fit saturates with NV and no NX, NaN becomes the maximum.
    ///
    /// Spec: RISC-V Unprivileged 20240411 §21.7
    @inline(__always)
    static func toInteger<Target: FixedWidthInteger>(
        _ bits: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> Target {
        if !isFinite(bits) {
            flags.insert(.invalid)
            return isNegative(bits) && !isNaN(bits) ? .min : .max
        }
        if isZero(bits) { return 0 }
        let value = unpack(bits)
        if value.exponent >= 64 { return saturated(value.negative, &flags) }
        // The integer part above a 64-bit fraction: 2^63 holds one unit at exponent 0.
        let fixed: (whole: UInt64, fraction: UInt64)
        if value.exponent >= 0 {
            let distance = UInt64(truncatingIfNeeded: 63 &- value.exponent)
            fixed.whole = value.significand &>> distance
            fixed.fraction = distance == 0 ? 0 : value.significand &<< (64 &- distance)
        } else {
            fixed = (0, value.significand.shiftedRightJamming(-1 &- value.exponent))
        }
        let half: UInt64 = 1 << 63
        let up: Bool
        switch rounding {
        case .nearestEven: up = fixed.fraction > half || (fixed.fraction == half && fixed.whole & 1 == 1)
        case .nearestMaxMagnitude: up = fixed.fraction >= half
        case .towardZero: up = false
        case .down: up = value.negative && fixed.fraction != 0
        case .up: up = !value.negative && fixed.fraction != 0
        }
        let (magnitude, overflow) = fixed.whole.addingReportingOverflow(up ? 1 : 0)
        let limit = value.negative ? Target.min.magnitude : Target.max.magnitude
        if overflow || magnitude > UInt64(limit) { return saturated(value.negative, &flags) }
        if fixed.fraction != 0 { flags.insert(.inexact) }
        let result = Target(truncatingIfNeeded: magnitude)
        return value.negative ? 0 &- result : result
    }

    @inline(never)
    private static func saturated<Target: FixedWidthInteger>(_ negative: Bool, _ flags: inout FloatFlags) -> Target {
        flags.insert(.invalid)
        return negative ? .min : .max
    }

    @inline(__always)
    static func fromInteger(
        _ magnitude: UInt64, negative: Bool, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        if magnitude == 0 { return 0 }
        let shift = magnitude.leadingZeroBitCount
        let value = Unpacked(
            negative: negative, exponent: 63 &- shift, significand: magnitude &<< UInt64(truncatingIfNeeded: shift))
        return round(value, rounding, &flags)
    }

    /// Converts a bit pattern of this format to one of `Target`.
    @inline(__always)
    static func convert<Target: FloatFormat>(
        _ bits: UInt64, to target: Target.Type, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        if isNaN(bits) {
            if isSignalingNaN(bits) { flags.insert(.invalid) }
            return Target.canonicalNaN
        }
        let sign = Target.sign(isNegative(bits))
        if isInfinity(bits) { return sign | Target.infinity }
        if isZero(bits) { return sign }
        return Target.round(unpack(bits), rounding, &flags)
    }
}

extension SoftFloat {
    /// FCVT.D.S: always exact; a signaling NaN sets NV.
    public static func f32ToF64(_ a: UInt32, _ flags: inout FloatFlags) -> UInt64 {
        Binary32.convert(UInt64(a), to: Binary64.self, .nearestEven, &flags)
    }

    /// FCVT.S.D
    public static func f64ToF32(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        UInt32(truncatingIfNeeded: Binary64.convert(a, to: Binary32.self, rounding, &flags))
    }

    public static func f32ToI32(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> Int32 {
        Binary32.toInteger(UInt64(a), rounding, &flags)
    }

    public static func f32ToU32(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        Binary32.toInteger(UInt64(a), rounding, &flags)
    }

    public static func f32ToI64(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> Int64 {
        Binary32.toInteger(UInt64(a), rounding, &flags)
    }

    public static func f32ToU64(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        Binary32.toInteger(UInt64(a), rounding, &flags)
    }

    public static func f64ToI32(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> Int32 {
        Binary64.toInteger(a, rounding, &flags)
    }

    public static func f64ToU32(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        Binary64.toInteger(a, rounding, &flags)
    }

    public static func f64ToI64(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> Int64 {
        Binary64.toInteger(a, rounding, &flags)
    }

    public static func f64ToU64(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        Binary64.toInteger(a, rounding, &flags)
    }

    public static func i32ToF32(_ a: Int32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        i64ToF32(Int64(a), rounding, &flags)
    }

    public static func u32ToF32(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        u64ToF32(UInt64(a), rounding, &flags)
    }

    public static func i64ToF32(_ a: Int64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        UInt32(truncatingIfNeeded: Binary32.fromInteger(a.magnitude, negative: a < 0, rounding, &flags))
    }

    public static func u64ToF32(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt32 {
        UInt32(truncatingIfNeeded: Binary32.fromInteger(a, negative: false, rounding, &flags))
    }

    public static func i32ToF64(_ a: Int32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        i64ToF64(Int64(a), rounding, &flags)
    }

    public static func u32ToF64(_ a: UInt32, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        u64ToF64(UInt64(a), rounding, &flags)
    }

    public static func i64ToF64(_ a: Int64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        Binary64.fromInteger(a.magnitude, negative: a < 0, rounding, &flags)
    }

    public static func u64ToF64(_ a: UInt64, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        Binary64.fromInteger(a, negative: false, rounding, &flags)
    }
}
