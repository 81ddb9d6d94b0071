// Arithmetic by the host's unit, where it gives the same bits and raises nothing new.
//
// Model: reading the host's flags costs more than arithmetic in integers. But when NX is set already and everything is
// normal, no flag can change: inexact is known, and what raises the others is not normal. Most arithmetic is like that
// soon after a program cleared its flags. (QEMU does the same.)
//
// Rounding is to nearest even on both sides, as no thread changes the host's mode. Operands that are zero, subnormal,
// infinite or NaN, and results that are or may have been tiny, go the long way.

/// A format that the host has as well.
protocol HostFloatFormat: FloatFormat {
    associatedtype Value: FloatingPoint
    static func value(_ bits: UInt64) -> Value
    static func bits(_ value: Value) -> UInt64
}

extension Binary32: HostFloatFormat {
    @inline(__always) static func value(_ bits: UInt64) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: bits)) }
    @inline(__always) static func bits(_ value: Float) -> UInt64 { UInt64(value.bitPattern) }
}

extension Binary64: HostFloatFormat {
    @inline(__always) static func value(_ bits: UInt64) -> Double { Double(bitPattern: bits) }
    @inline(__always) static func bits(_ value: Double) -> UInt64 { value.bitPattern }
}

extension HostFloatFormat {
    /// Whether a normal result is all there is to an operation on normal operands.
    @inline(__always)
    static func isHostExact(_ rounding: RoundingMode, _ flags: FloatFlags) -> Bool {
        rounding == .nearestEven && flags.contains(.inexact)
    }

    /// Neither zero, subnormal, infinite nor NaN.
    @inline(__always)
    static func isNormal(_ bits: UInt64) -> Bool {
        let exponent = bits & infinity
        return exponent != 0 && exponent != infinity
    }

    /// The bits of a result, unless it is not normal or the smallest normal number, which a tiny one may round to.
    @inline(__always)
    static func accepted(_ value: Value) -> UInt64? {
        let bits = bits(value)
        return isNormal(bits) && bits & ~signBit != fractionMask &+ 1 ? bits : nil
    }

    /// The host's result of an operation of two operands; `nil`: it has to be done in integers.
    @inline(__always)
    static func onHost(
        _ a: UInt64, _ b: UInt64, _ rounding: RoundingMode, _ flags: FloatFlags, _ operation: (Value, Value) -> Value
    ) -> UInt64? {
        guard isHostExact(rounding, flags), isNormal(a), isNormal(b) else { return nil }
        return accepted(operation(value(a), value(b)))
    }

    /// As above, of the root.
    @inline(__always)
    static func rootOnHost(_ a: UInt64, _ rounding: RoundingMode, _ flags: FloatFlags) -> UInt64? {
        guard isHostExact(rounding, flags), isNormal(a), !isNegative(a) else { return nil }
        return accepted(value(a).squareRoot())
    }

    /// As above, of a fused multiply-add.
    @inline(__always)
    static func fusedOnHost(
        _ a: UInt64, _ b: UInt64, _ c: UInt64, _ rounding: RoundingMode, _ flags: FloatFlags
    ) -> UInt64? {
        guard isHostExact(rounding, flags), isNormal(a), isNormal(b), isNormal(c) else { return nil }
        return accepted(value(c).addingProduct(value(a), value(b)))
    }
}
