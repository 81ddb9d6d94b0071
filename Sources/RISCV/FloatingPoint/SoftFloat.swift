// IEEE 754 binary32 and binary64 in integers, with RISC-V's choices where the standard leaves one.
//
// Model: an operand is unpacked to a sign, an unbounded exponent and a 64-bit significand whose top bit is one, so both
// formats share one implementation of every operation. Bits that do not fit are or-ed into the lowest bit ("jammed"),
// which never changes how a value with at least three spare bits rounds; binary64 has eleven spare bits.
//
// The surprise: underflow is signalled only for results that are tiny *after* rounding (RISC-V's choice, x86's too), so
// a result that rounds up to the smallest normal number does not underflow.

/// IEEE 754 arithmetic on bit patterns. Every NaN result is the canonical one; flags are only ever added.
///
/// Spec: RISC-V Unprivileged 20240411 §21 ("F") and §22 ("D"), IEEE 754-2019
public enum SoftFloat {
    public static let canonicalNaN32: UInt32 = 0x7fc0_0000
    public static let canonicalNaN64: UInt64 = 0x7ff8_0000_0000_0000
}

/// The parameters of one interchange format; bit patterns are held zero-extended in 64 bits.
protocol FloatFormat {
    static var exponentBits: Int { get }
    static var fractionBits: Int { get }
}

enum Binary32: FloatFormat {
    @inline(__always) static var exponentBits: Int { 8 }
    @inline(__always) static var fractionBits: Int { 23 }
}

enum Binary64: FloatFormat {
    @inline(__always) static var exponentBits: Int { 11 }
    @inline(__always) static var fractionBits: Int { 52 }
}

extension FloatFormat {
    @inline(__always) static var bias: Int { (1 << (exponentBits - 1)) - 1 }
    /// The biased exponent of infinities and NaNs.
    @inline(__always) static var specialExponent: Int { (1 << exponentBits) - 1 }
    @inline(__always) static var fractionMask: UInt64 { (1 << UInt64(fractionBits)) - 1 }
    @inline(__always) static var signBit: UInt64 { 1 << UInt64(exponentBits + fractionBits) }
    @inline(__always) static var quietBit: UInt64 { 1 << UInt64(fractionBits - 1) }
    @inline(__always) static var infinity: UInt64 { UInt64(specialExponent) << UInt64(fractionBits) }
    @inline(__always) static var canonicalNaN: UInt64 { infinity | quietBit }
    /// Bits of an unpacked significand below the last one of the format.
    @inline(__always) static var spareBits: Int { 63 - fractionBits }

    @inline(__always) static func sign(_ negative: Bool) -> UInt64 { negative ? signBit : 0 }
    @inline(__always) static func isNaN(_ bits: UInt64) -> Bool { bits & ~signBit > infinity }
    @inline(__always) static func isSignalingNaN(_ bits: UInt64) -> Bool { isNaN(bits) && bits & quietBit == 0 }
    @inline(__always) static func isInfinity(_ bits: UInt64) -> Bool { bits & ~signBit == infinity }
    @inline(__always) static func isZero(_ bits: UInt64) -> Bool { bits & ~signBit == 0 }
    @inline(__always) static func isFinite(_ bits: UInt64) -> Bool { bits & infinity != infinity }
    @inline(__always) static func isNegative(_ bits: UInt64) -> Bool { bits & signBit != 0 }

    /// The canonical NaN, with NV if an operand is a signaling one.
    @inline(never)
    static func nan(_ a: UInt64, _ b: UInt64, _ flags: inout FloatFlags) -> UInt64 {
        if isSignalingNaN(a) || isSignalingNaN(b) {
            flags.insert(.invalid)
        }
        return canonicalNaN
    }

    /// The canonical NaN of an operation that has no result.
    @inline(never)
    static func invalid(_ flags: inout FloatFlags) -> UInt64 {
        flags.insert(.invalid)
        return canonicalNaN
    }

    /// The sign of an exact zero that is the sum of two values of different signs.
    @inline(__always)
    static func cancelledZero(_ rounding: RoundingMode) -> UInt64 { sign(rounding == .down) }
}

/// A finite nonzero number: `(-1)^negative × significand × 2^(exponent − 63)`, bit 63 of the significand set.
struct Unpacked {
    var negative: Bool
    var exponent: Int
    var significand: UInt64
}

extension FloatFormat {
    /// Unpacks a finite nonzero number; subnormal numbers come out normalised.
    @inline(__always)
    static func unpack(_ bits: UInt64) -> Unpacked {
        let biased = Int(truncatingIfNeeded: bits >> UInt64(fractionBits)) & specialExponent
        let fraction = bits & fractionMask
        if biased != 0 {
            let significand = (fraction | (fractionMask &+ 1)) << UInt64(spareBits)
            return Unpacked(negative: isNegative(bits), exponent: biased &- bias, significand: significand)
        }
        let shift = fraction.leadingZeroBitCount
        return Unpacked(
            negative: isNegative(bits), exponent: 1 &- bias &+ spareBits &- shift,
            significand: fraction &<< UInt64(truncatingIfNeeded: shift))
    }

    /// What to add to a significand with `spare` bits to drop, so that cutting them off rounds.
    @inline(__always)
    static func increment(_ rounding: RoundingMode, _ negative: Bool) -> UInt64 {
        let mask = (UInt64(1) << UInt64(spareBits)) - 1
        switch rounding {
        case .nearestEven, .nearestMaxMagnitude: return (mask >> 1) + 1
        case .towardZero: return 0
        case .down: return negative ? mask : 0
        case .up: return negative ? 0 : mask
        }
    }

    /// Rounds a number to the format and packs it.
    ///
    /// The significand has bit 63 set and stands for more digits only through its jammed lowest bit.
    @inline(__always)
    static func round(_ value: Unpacked, _ rounding: RoundingMode, _ flags: inout FloatFlags) -> UInt64 {
        let mask = (UInt64(1) << UInt64(spareBits)) - 1
        let increment = increment(rounding, value.negative)
        var biased = value.exponent &+ bias
        var significand = value.significand
        if biased <= 0 {
            return roundSubnormal(value, rounding, &flags)
        }
        let dropped = significand & mask
        let (sum, carry) = significand.addingReportingOverflow(increment)
        significand = sum >> UInt64(spareBits)
        if carry {
            // All ones rounded up: exactly the next power of two.
            significand = fractionMask &+ 1
            biased &+= 1
        } else if rounding == .nearestEven && dropped == (mask >> 1) &+ 1 {
            significand &= ~1
        }
        if biased >= specialExponent {
            return overflow(value.negative, rounding, &flags)
        }
        if dropped != 0 {
            flags.insert(.inexact)
        }
        return sign(value.negative) | UInt64(truncatingIfNeeded: biased) << UInt64(fractionBits)
            | significand & fractionMask
    }

    @inline(never)
    private static func overflow(
        _ negative: Bool, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        flags.formUnion([.overflow, .inexact])
        // The increment of a mode that rounds this sign away from zero is not zero.
        return sign(negative) | (increment(rounding, negative) == 0 ? infinity &- 1 : infinity)
    }

    @inline(never)
    private static func roundSubnormal(
        _ value: Unpacked, _ rounding: RoundingMode, _ flags: inout FloatFlags
    ) -> UInt64 {
        let mask = (UInt64(1) << UInt64(spareBits)) - 1
        let increment = increment(rounding, value.negative)
        let biased = value.exponent &+ bias
        // Tiny unless rounding with an unbounded exponent would reach the smallest normal number.
        let tiny = biased < 0 || !value.significand.addingReportingOverflow(increment).overflow
        let shifted = value.significand.shiftedRightJamming(1 &- biased)
        let dropped = shifted & mask
        var significand = (shifted &+ increment) >> UInt64(spareBits)
        if rounding == .nearestEven && dropped == (mask >> 1) &+ 1 {
            significand &= ~1
        }
        if dropped != 0 {
            flags.insert(.inexact)
            if tiny {
                flags.insert(.underflow)
            }
        }
        // A carry into the hidden bit is the exponent of the smallest normal number.
        return sign(value.negative) | significand
    }
}

extension UInt64 {
    /// Shifts right by any non-negative distance; ones that fall off are or-ed into the lowest bit.
    @inline(__always)
    func shiftedRightJamming(_ distance: Int) -> UInt64 {
        if distance == 0 { return self }
        if distance > 63 { return self != 0 ? 1 : 0 }
        let lost = self &<< UInt64(truncatingIfNeeded: 64 &- distance)
        return self &>> UInt64(truncatingIfNeeded: distance) | (lost != 0 ? 1 : 0)
    }
}

extension UInt128 {
    /// Shifts right by any non-negative distance; ones that fall off are or-ed into the lowest bit.
    @inline(__always)
    func shiftedRightJamming(_ distance: Int) -> UInt128 {
        if distance == 0 { return self }
        if distance > 127 { return self != 0 ? 1 : 0 }
        let lost = self &<< UInt128(truncatingIfNeeded: 128 &- distance)
        return self &>> UInt128(truncatingIfNeeded: distance) | (lost != 0 ? 1 : 0)
    }
}
