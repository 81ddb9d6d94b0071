// Comparison, minimum, maximum and classification.

extension FloatFormat {
    /// A signed number that orders as the (non-NaN) value does, except that −0 comes out below +0.
    @inline(__always)
    private static func order(_ bits: UInt64) -> Int64 {
        let magnitude = Int64(truncatingIfNeeded: bits & ~signBit)
        return isNegative(bits) ? ~magnitude : magnitude
    }

    /// FEQ: quiet.
    @inline(__always)
    static func equal(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> Bool {
        if isNaN(a) || isNaN(b) {
            if isSignalingNaN(a) || isSignalingNaN(b) { flags.insert(.invalid) }
            return false
        }
        return a == b || (a | b) & ~signBit == 0
    }

    /// FLT: signaling.
    @inline(__always)
    static func less(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> Bool {
        if isNaN(a) || isNaN(b) {
            flags.insert(.invalid)
            return false
        }
        return order(a) < order(b) && (a | b) & ~signBit != 0
    }

    /// FLE: signaling.
    @inline(__always)
    static func lessOrEqual(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> Bool {
        if isNaN(a) || isNaN(b) {
            flags.insert(.invalid)
            return false
        }
        return order(a) <= order(b) || (a | b) & ~signBit == 0
    }

    /// FMIN and FMAX: IEEE 754-2019 minimumNumber and maximumNumber, with −0 below +0.
    @inline(__always)
    static func extremum(_ a: UInt64, _ b: UInt64, maximum: Bool, _ flags: inout FloatFlags) -> UInt64 {
        if isNaN(a) || isNaN(b) {
            let none = nan(a, b, &flags)
            return isNaN(a) ? (isNaN(b) ? none : b) : a
        }
        return (order(a) < order(b)) != maximum ? a : b
    }

    /// FCLASS: one bit of ten.
    ///
    /// Spec: RISC-V Unprivileged 20240411 §21.9
    @inline(__always)
    static func classify(_ bits: UInt64) -> UInt64 {
        if isNaN(bits) { return isSignalingNaN(bits) ? 1 << 8 : 1 << 9 }
        let magnitude = bits & ~signBit
        let distance: UInt64
        if magnitude == infinity {
            distance = 3
        } else if magnitude > fractionMask {
            distance = 2
        } else {
            distance = magnitude != 0 ? 1 : 0
        }
        return isNegative(bits) ? 1 << (3 &- distance) : 1 << (4 &+ distance)
    }
}

extension SoftFloat {
    /// FEQ.S: quiet, only a signaling NaN sets NV.
    public static func eq32(_ a: UInt32, _ b: UInt32, _ flags: inout FloatFlags) -> Bool {
        Binary32.equal(UInt64(a), UInt64(b), &flags)
    }

    /// FLT.S: any NaN sets NV.
    public static func lt32(_ a: UInt32, _ b: UInt32, _ flags: inout FloatFlags) -> Bool {
        Binary32.less(UInt64(a), UInt64(b), &flags)
    }

    /// FLE.S: any NaN sets NV.
    public static func le32(_ a: UInt32, _ b: UInt32, _ flags: inout FloatFlags) -> Bool {
        Binary32.lessOrEqual(UInt64(a), UInt64(b), &flags)
    }

    public static func min32(_ a: UInt32, _ b: UInt32, _ flags: inout FloatFlags) -> UInt32 {
        UInt32(truncatingIfNeeded: Binary32.extremum(UInt64(a), UInt64(b), maximum: false, &flags))
    }

    public static func max32(_ a: UInt32, _ b: UInt32, _ flags: inout FloatFlags) -> UInt32 {
        UInt32(truncatingIfNeeded: Binary32.extremum(UInt64(a), UInt64(b), maximum: true, &flags))
    }

    /// The FCLASS.S mask.
    public static func classify32(_ a: UInt32) -> UInt64 { Binary32.classify(UInt64(a)) }

    /// FEQ.D: quiet, only a signaling NaN sets NV.
    public static func eq64(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> Bool {
        Binary64.equal(a, b, &flags)
    }

    /// FLT.D: any NaN sets NV.
    public static func lt64(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> Bool {
        Binary64.less(a, b, &flags)
    }

    /// FLE.D: any NaN sets NV.
    public static func le64(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> Bool {
        Binary64.lessOrEqual(a, b, &flags)
    }

    public static func min64(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> UInt64 {
        Binary64.extremum(a, b, maximum: false, &flags)
    }

    public static func max64(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> UInt64 {
        Binary64.extremum(a, b, maximum: true, &flags)
    }

    /// The FCLASS.D mask.
    public static func classify64(_ a: UInt64) -> UInt64 { Binary64.classify(a) }
}
