/// How a floating-point result that is not representable is chosen; raw values are those of `frm`.
///
/// Spec: RISC-V Unprivileged 20240411 §21.2
public enum RoundingMode: UInt8, Sendable, CaseIterable {
    /// RNE: to the nearest value, ties to the even one.
    case nearestEven = 0
    /// RTZ
    case towardZero
    /// RDN: toward minus infinity.
    case down
    /// RUP: toward plus infinity.
    case up
    /// RMM: to the nearest value, ties away from zero.
    case nearestMaxMagnitude
}

/// Accrued exceptions, laid out as `fflags`.
///
/// Spec: RISC-V Unprivileged 20240411 §21.2
public struct FloatFlags: OptionSet, Sendable, Hashable {
    public var rawValue: UInt8

    @inlinable public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// NX
    public static let inexact = FloatFlags(rawValue: 1)
    /// UF
    public static let underflow = FloatFlags(rawValue: 2)
    /// OF
    public static let overflow = FloatFlags(rawValue: 4)
    /// DZ
    public static let divideByZero = FloatFlags(rawValue: 8)
    /// NV
    public static let invalid = FloatFlags(rawValue: 16)
}
