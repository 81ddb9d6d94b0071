import Glibc
import RISCV
import Testing

/// A small generator with a printed seed, so that a failure can be repeated.
struct FloatOperands: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A pattern with `exponentBits` and `fractionBits`: edges half of the time, few ones or near-equal exponents often.
    mutating func pattern(_ exponentBits: UInt64, _ fractionBits: UInt64) -> UInt64 {
        let special = (UInt64(1) << exponentBits) - 1
        let bias = special >> 1
        let fractionMask = (UInt64(1) << fractionBits) - 1
        let choice = next()
        let exponent: UInt64
        switch choice & 7 {
        case 0: exponent = [0, 1, special - 1, special][Int(choice >> 8 & 3)]
        case 1, 2, 3: exponent = bias &- 3 &+ (choice >> 8 & 7)
        case 4: exponent = bias &- fractionBits &+ (choice >> 8) % (2 * fractionBits)
        default: exponent = next() & special
        }
        let fraction: UInt64
        switch choice >> 16 & 7 {
        case 0: fraction = 0
        case 1: fraction = fractionMask
        case 2: fraction = 1 << ((choice >> 24) % fractionBits)
        case 3: fraction = fractionMask &- (1 << ((choice >> 24) % fractionBits)) &+ 1
        case 4: fraction = 1
        default: fraction = next() & fractionMask
        }
        return (choice >> 63) << (exponentBits + fractionBits) | exponent << fractionBits | fraction & fractionMask
    }

    mutating func f32() -> UInt32 { UInt32(truncatingIfNeeded: pattern(8, 23)) }
    mutating func f64() -> UInt64 { pattern(11, 52) }
}

/// The numbers of the host's `fenv.h`: glibc spells them as enumerators and macros at once, which Swift finds ambiguous.
private enum FloatEnvironment {
    #if arch(x86_64)
        static let (downward, upward, towardZero): (CInt, CInt, CInt) = (0x400, 0x800, 0xC00)
        static let (invalid, divideByZero, overflow, underflow, inexact): (CInt, CInt, CInt, CInt, CInt) =
            (1, 4, 8, 16, 32)
    #elseif arch(arm64)
        static let (downward, upward, towardZero): (CInt, CInt, CInt) = (0x80_0000, 0x40_0000, 0xC0_0000)
        static let (invalid, divideByZero, overflow, underflow, inexact): (CInt, CInt, CInt, CInt, CInt) =
            (1, 2, 4, 8, 16)
    #endif
    static let all = invalid | divideByZero | overflow | underflow | inexact
}

/// The host's rounding mode number, nil for the one it does not have.
private func host(_ rounding: RoundingMode) -> CInt? {
    switch rounding {
    case .nearestEven: 0
    case .towardZero: FloatEnvironment.towardZero
    case .down: FloatEnvironment.downward
    case .up: FloatEnvironment.upward
    case .nearestMaxMagnitude: nil
    }
}

private func hostFlags() -> FloatFlags {
    let raised = fetestexcept(FloatEnvironment.all)
    var flags: FloatFlags = []
    if raised & FloatEnvironment.inexact != 0 { flags.insert(.inexact) }
    if raised & FloatEnvironment.underflow != 0 { flags.insert(.underflow) }
    if raised & FloatEnvironment.overflow != 0 { flags.insert(.overflow) }
    if raised & FloatEnvironment.divideByZero != 0 { flags.insert(.divideByZero) }
    if raised & FloatEnvironment.invalid != 0 { flags.insert(.invalid) }
    return flags
}

private func float(_ bits: UInt64) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: bits)) }
private func bits(_ value: Float) -> UInt64 { UInt64(value.isNaN ? SoftFloat.canonicalNaN32 : value.bitPattern) }
private func double(_ bits: UInt64) -> Double { Double(bitPattern: bits) }
private func bits(_ value: Double) -> UInt64 { value.isNaN ? SoftFloat.canonicalNaN64 : value.bitPattern }
private func low(_ bits: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: bits) }

/// An operation in integers and the same on the host's unit; called through closures so that nothing is folded or moved
/// across a change of the rounding mode.
struct Operation: Sendable, CustomTestStringConvertible {
    let testDescription: String
    fileprivate let wide: Bool
    fileprivate let soft: @Sendable (UInt64, UInt64, UInt64, RoundingMode, inout FloatFlags) -> UInt64
    fileprivate let hard: @Sendable (UInt64, UInt64, UInt64) -> UInt64

    static let all: [Operation] = [
        .init(testDescription: "add32", wide: false) { a, b, _, r, f in
            UInt64(SoftFloat.add32(low(a), low(b), r, &f))
        } hard: { a, b, _ in
            bits(float(a) + float(b))
        },
        .init(testDescription: "sub32", wide: false) { a, b, _, r, f in
            UInt64(SoftFloat.sub32(low(a), low(b), r, &f))
        } hard: { a, b, _ in
            bits(float(a) - float(b))
        },
        .init(testDescription: "mul32", wide: false) { a, b, _, r, f in
            UInt64(SoftFloat.mul32(low(a), low(b), r, &f))
        } hard: { a, b, _ in
            bits(float(a) * float(b))
        },
        .init(testDescription: "div32", wide: false) { a, b, _, r, f in
            UInt64(SoftFloat.div32(low(a), low(b), r, &f))
        } hard: { a, b, _ in
            bits(float(a) / float(b))
        },
        .init(testDescription: "sqrt32", wide: false) { a, _, _, r, f in
            UInt64(SoftFloat.sqrt32(low(a), r, &f))
        } hard: { a, _, _ in
            bits(float(a).squareRoot())
        },
        .init(testDescription: "fma32", wide: false) { a, b, c, r, f in
            UInt64(SoftFloat.fma32(low(a), low(b), low(c), r, &f))
        } hard: { a, b, c in
            bits(fmaf(float(a), float(b), float(c)))
        },
        .init(testDescription: "f32ToF64", wide: false) { a, _, _, _, f in
            SoftFloat.f32ToF64(low(a), &f)
        } hard: { a, _, _ in
            bits(Double(float(a)))
        },
        .init(testDescription: "add64", wide: true) { a, b, _, r, f in
            SoftFloat.add64(a, b, r, &f)
        } hard: { a, b, _ in
            bits(double(a) + double(b))
        },
        .init(testDescription: "sub64", wide: true) { a, b, _, r, f in
            SoftFloat.sub64(a, b, r, &f)
        } hard: { a, b, _ in
            bits(double(a) - double(b))
        },
        .init(testDescription: "mul64", wide: true) { a, b, _, r, f in
            SoftFloat.mul64(a, b, r, &f)
        } hard: { a, b, _ in
            bits(double(a) * double(b))
        },
        .init(testDescription: "div64", wide: true) { a, b, _, r, f in
            SoftFloat.div64(a, b, r, &f)
        } hard: { a, b, _ in
            bits(double(a) / double(b))
        },
        .init(testDescription: "sqrt64", wide: true) { a, _, _, r, f in
            SoftFloat.sqrt64(a, r, &f)
        } hard: { a, _, _ in
            bits(double(a).squareRoot())
        },
        .init(testDescription: "fma64", wide: true) { a, b, c, r, f in
            SoftFloat.fma64(a, b, c, r, &f)
        } hard: { a, b, c in
            bits(fma(double(a), double(b), double(c)))
        },
        .init(testDescription: "f64ToF32", wide: true) { a, _, _, r, f in
            UInt64(SoftFloat.f64ToF32(a, r, &f))
        } hard: { a, _, _ in
            bits(Float(double(a)))
        },
        .init(testDescription: "i64ToF32", wide: true) { a, _, _, r, f in
            UInt64(SoftFloat.i64ToF32(Int64(bitPattern: a), r, &f))
        } hard: { a, _, _ in
            bits(Float(Int64(bitPattern: a)))
        },
        .init(testDescription: "i64ToF64", wide: true) { a, _, _, r, f in
            SoftFloat.i64ToF64(Int64(bitPattern: a), r, &f)
        } hard: { a, _, _ in
            bits(Double(Int64(bitPattern: a)))
        },
        .init(testDescription: "i32ToF32", wide: true) { a, _, _, r, f in
            UInt64(SoftFloat.i32ToF32(Int32(bitPattern: low(a)), r, &f))
        } hard: { a, _, _ in
            bits(Float(Int32(bitPattern: low(a))))
        },
        .init(testDescription: "u32ToF64", wide: true) { a, _, _, r, f in
            SoftFloat.u32ToF64(low(a), r, &f)
        } hard: { a, _, _ in
            bits(Double(low(a)))
        },
    ]

    fileprivate init(
        testDescription: String, wide: Bool,
        soft: @escaping @Sendable (UInt64, UInt64, UInt64, RoundingMode, inout FloatFlags) -> UInt64,
        hard: @escaping @Sendable (UInt64, UInt64, UInt64) -> UInt64
    ) {
        self.testDescription = testDescription
        self.wide = wide
        self.soft = soft
        self.hard = hard
    }
}

@Suite struct `Soft float` {
    static let seed: UInt64 = 0xBA5E_B0A2_D000_0001

    @Test(arguments: Operation.all)
    func `results and flags are those of the host's unit in its four rounding modes`(_ operation: Operation) {
        var random = FloatOperands(seed: Self.seed)
        var failures = 0
        for rounding in RoundingMode.allCases {
            guard let mode = host(rounding) else { continue }
            for _ in 0..<60_000 where failures < 5 {
                let a = operation.wide ? random.f64() : UInt64(random.f32())
                let b = operation.wide ? random.f64() : UInt64(random.f32())
                let c = operation.wide ? random.f64() : UInt64(random.f32())
                fesetround(mode)
                feclearexcept(FloatEnvironment.all)
                let expected = operation.hard(a, b, c)
                let expectedFlags = hostFlags()
                fesetround(0)
                var flags: FloatFlags = []
                let result = operation.soft(a, b, c, rounding, &flags)
                // With NX set before, much is done by the host's unit.
                var later: FloatFlags = [.inexact]
                let again = operation.soft(a, b, c, rounding, &later)
                #expect(again == result && later == flags.union(.inexact), "\(operation) \(a) \(b) \(c) \(rounding)")
                if result != expected || !sameFlags(operation, a, b, c, flags, expectedFlags) {
                    failures += 1
                    let operands = [a, b, c].map { "0x" + String($0, radix: 16) }.joined(separator: " ")
                    Issue.record(
                        """
                        \(operation.testDescription) \(rounding) \(operands): 0x\(String(result, radix: 16)) \
                        flags \(flags.rawValue), host 0x\(String(expected, radix: 16)) flags \
                        \(expectedFlags.rawValue) (seed \(Self.seed))
                        """)
                }
            }
        }
    }

    /// RISC-V makes a fused infinity times zero invalid even with a quiet NaN addend; x86 does not.
    private func sameFlags(
        _ operation: Operation, _ a: UInt64, _ b: UInt64, _ c: UInt64, _ flags: FloatFlags, _ host: FloatFlags
    ) -> Bool {
        guard operation.testDescription.hasPrefix("fma") else { return flags == host }
        let (left, right, addend) =
            operation.wide ? (double(a), double(b), double(c)) : (Double(float(a)), Double(float(b)), Double(float(c)))
        let undefined = (left.isInfinite && right.isZero) || (left.isZero && right.isInfinite)
        return undefined && addend.isNaN ? flags == .invalid : flags == host
    }

    @Test func `ties go away from zero in the mode the host does not have`() {
        var random = FloatOperands(seed: Self.seed &+ 1)
        var ties = 0
        for round in 0..<200_000 {
            // Few significant bits, so that ties are common and the product is exact in binary64.
            let a = Float(Int64(random.next() & 0x3FFF)) * (round & 1 == 0 ? 1 : -1)
            let b = Float(Int64(random.next() & 0x3FFF))
            let exact = Double(a) * Double(b)
            let nearest = Float(exact)
            let other = Double(nearest) < exact ? nearest.nextUp : nearest.nextDown
            var expected = nearest
            if Double(nearest) != exact && (exact - Double(nearest)).magnitude == (Double(other) - exact).magnitude {
                ties += 1
                expected = other.magnitude > nearest.magnitude ? other : nearest
            }
            var flags: FloatFlags = []
            let result = SoftFloat.mul32(a.bitPattern, b.bitPattern, .nearestMaxMagnitude, &flags)
            guard result == expected.bitPattern || (exact == 0 && result << 1 == 0) else {
                Issue.record("\(a) × \(b): \(Float(bitPattern: result)), expected \(expected)")
                return
            }
        }
        #expect(ties > 1000)
    }

    @Test func `subnormal halves round as each mode says`() {
        let smallest: UInt64 = 1
        let half = Double(0.5).bitPattern
        let expected: [RoundingMode: UInt64] = [
            .nearestEven: 0, .towardZero: 0, .down: 0, .up: 1, .nearestMaxMagnitude: 1,
        ]
        for (rounding, result) in expected {
            var flags: FloatFlags = []
            #expect(SoftFloat.mul64(smallest, half, rounding, &flags) == result)
            #expect(flags == [.inexact, .underflow])
        }
    }

    @Test func `a result that rounds up to the smallest normal number does not underflow`() {
        // (1 − 2⁻²⁴) × 2⁻¹²⁶ × (1 + 2⁻²³): tiny before rounding, normal after it.
        let a = Float(bitPattern: 0x00FF_FFFF)  // (2 − 2⁻²³) × 2⁻¹²⁶
        var flags: FloatFlags = []
        let result = SoftFloat.mul32(a.bitPattern, Float(0.5).bitPattern, .up, &flags)
        #expect(result == 0x0080_0000)
        #expect(flags == [.inexact, .underflow])
        flags = []
        // 0x1.fffffffp-127 in binary64: at full precision it rounds to 2⁻¹²⁶.
        let narrowed = SoftFloat.f64ToF32((0x1.fffffffp-127 as Double).bitPattern, .nearestEven, &flags)
        #expect(narrowed == 0x0080_0000)
        #expect(flags == .inexact)
    }

    @Test(
        arguments: [
            (0xFF80_0000, 0), (0xC000_0000, 1), (0x8000_0001, 2), (0x8000_0000, 3), (0x0000_0000, 4), (0x007F_FFFF, 5),
            (0x0080_0000, 6), (0x7F80_0000, 7), (0x7F80_0001, 8), (0x7FC0_0000, 9), (0xFFC1_2345, 9),
        ] as [(UInt32, UInt64)])
    func `a binary32 value is in one class`(_ pattern: UInt32, _ bit: UInt64) {
        #expect(SoftFloat.classify32(pattern) == 1 << bit)
    }

    @Test(
        arguments: [
            (0xFFF0_0000_0000_0000, 0), (0xC000_0000_0000_0000, 1), (0x8000_0000_0000_0001, 2),
            (0x8000_0000_0000_0000, 3), (0, 4), (0x000F_FFFF_FFFF_FFFF, 5), (0x0010_0000_0000_0000, 6),
            (0x7FF0_0000_0000_0000, 7), (0x7FF0_0000_0000_0001, 8), (0x7FF8_0000_0000_0000, 9),
        ] as [(UInt64, UInt64)])
    func `a binary64 value is in one class`(_ pattern: UInt64, _ bit: UInt64) {
        #expect(SoftFloat.classify64(pattern) == 1 << bit)
    }

    @Test func `comparisons are those of the host, equality alone is quiet`() {
        var random = FloatOperands(seed: Self.seed &+ 2)
        for _ in 0..<100_000 {
            let a = random.f64()
            let b = random.next() & 3 == 0 ? a ^ (random.next() & 1) << 63 : random.f64()
            let (x, y) = (double(a), double(b))
            let anyNaN = x.isNaN || y.isNaN
            var flags: FloatFlags = []
            #expect(SoftFloat.eq64(a, b, &flags) == (x == y))
            #expect(flags == (x.isSignalingNaN || y.isSignalingNaN ? .invalid : []))
            flags = []
            #expect(SoftFloat.lt64(a, b, &flags) == (x < y))
            #expect(flags == (anyNaN ? .invalid : []))
            flags = []
            #expect(SoftFloat.le64(a, b, &flags) == (x <= y))
            let (narrowA, narrowB) = (low(a >> 32), low(b >> 32))
            #expect(
                SoftFloat.lt32(narrowA, narrowB, &flags)
                    == (Float(bitPattern: narrowA) < Float(bitPattern: narrowB)))
            #expect(
                SoftFloat.le32(narrowA, narrowB, &flags)
                    == (Float(bitPattern: narrowA) <= Float(bitPattern: narrowB)))
            #expect(
                SoftFloat.eq32(narrowA, narrowB, &flags)
                    == (Float(bitPattern: narrowA) == Float(bitPattern: narrowB)))
        }
    }

    @Test func `minimum and maximum prefer numbers and order the zeros`() {
        let (one, two) = (Float(1).bitPattern, Float(2).bitPattern)
        let (quiet, signaling): (UInt32, UInt32) = (0x7FC1_2345, 0x7F80_0001)
        let (zero, minusZero): (UInt32, UInt32) = (0, 0x8000_0000)
        let table: [(UInt32, UInt32, UInt32, UInt32, FloatFlags)] = [
            (one, two, one, two, []), (two, one, one, two, []),
            (zero, minusZero, minusZero, zero, []), (minusZero, zero, minusZero, zero, []),
            (quiet, one, one, one, []), (one, signaling, one, one, .invalid),
            (quiet, quiet, SoftFloat.canonicalNaN32, SoftFloat.canonicalNaN32, []),
            (quiet, signaling, SoftFloat.canonicalNaN32, SoftFloat.canonicalNaN32, .invalid),
            (Float(-1).bitPattern, Float(-2).bitPattern, Float(-2).bitPattern, Float(-1).bitPattern, []),
        ]
        for (a, b, minimum, maximum, expected) in table {
            var flags: FloatFlags = []
            #expect(SoftFloat.min32(a, b, &flags) == minimum)
            #expect(SoftFloat.max32(a, b, &flags) == maximum)
            #expect(flags == expected)
            flags = []
            let (wideA, wideB) = (widened(a), widened(b))
            #expect(SoftFloat.min64(wideA, wideB, &flags) == widened(minimum))
            #expect(SoftFloat.max64(wideA, wideB, &flags) == widened(maximum))
            #expect(flags == expected)
        }
    }

    /// The same value or kind of NaN in binary64.
    private func widened(_ a: UInt32) -> UInt64 {
        if a == 0x7F80_0001 { return 0x7FF0_0000_0000_0001 }
        var flags: FloatFlags = []
        return SoftFloat.f32ToF64(a, &flags)
    }

    @Test func `a fused infinity times zero is invalid even with a quiet addend`() {
        var flags: FloatFlags = []
        #expect(
            SoftFloat.fma64(0x7FF0 << 48, 0, SoftFloat.canonicalNaN64, .nearestEven, &flags)
                == SoftFloat.canonicalNaN64)
        #expect(flags == .invalid)
        flags = []
        #expect(
            SoftFloat.fma32(0, 0xFF80_0000, SoftFloat.canonicalNaN32, .nearestEven, &flags)
                == SoftFloat.canonicalNaN32)
        #expect(flags == .invalid)
    }
}

@Suite struct `Soft float to integers` {
    /// The exact answer through `Double.rounded`, which every binary32 and binary64 value survives.
    private func expected<Target: FixedWidthInteger>(
        _ value: Double, _ rounding: RoundingMode, _: Target.Type
    ) -> (Target, FloatFlags) {
        if value.isNaN { return (.max, .invalid) }
        let rule: FloatingPointRoundingRule =
            switch rounding {
            case .nearestEven: .toNearestOrEven
            case .towardZero: .towardZero
            case .down: .down
            case .up: .up
            case .nearestMaxMagnitude: .toNearestOrAwayFromZero
            }
        let rounded = value.rounded(rule)
        guard let result = Target(exactly: rounded) else { return (value < 0 ? .min : .max, .invalid) }
        return (result, rounded == value ? [] : .inexact)
    }

    @Test(arguments: RoundingMode.allCases)
    func `conversions round, saturate and raise what the exact answer says`(_ rounding: RoundingMode) {
        var random = FloatOperands(seed: 77)
        for _ in 0..<40_000 {
            let wide = random.f64()
            let narrow = random.f32()
            let double = Double(bitPattern: wide)
            let float = Double(Float(bitPattern: narrow))
            func check<Target: FixedWidthInteger>(
                _ value: Double, _ convert: (inout FloatFlags) -> Target
            ) {
                var flags: FloatFlags = []
                let result = convert(&flags)
                let (answer, raised) = expected(value, rounding, Target.self)
                if result != answer || flags != raised {
                    Issue.record(
                        "\(value) \(rounding) → \(Target.self): \(result) \(flags), expected \(answer) \(raised)")
                }
            }
            check(double) { SoftFloat.f64ToI32(wide, rounding, &$0) }
            check(double) { SoftFloat.f64ToU32(wide, rounding, &$0) }
            check(double) { SoftFloat.f64ToI64(wide, rounding, &$0) }
            check(double) { SoftFloat.f64ToU64(wide, rounding, &$0) }
            check(float) { SoftFloat.f32ToI32(narrow, rounding, &$0) }
            check(float) { SoftFloat.f32ToU32(narrow, rounding, &$0) }
            check(float) { SoftFloat.f32ToI64(narrow, rounding, &$0) }
            check(float) { SoftFloat.f32ToU64(narrow, rounding, &$0) }
        }
    }

    @Test(
        arguments: [
            (-0.5, .down, -1), (-0.5, .nearestEven, 0), (1.5, .nearestEven, 2), (2.5, .nearestEven, 2),
            (2.5, .nearestMaxMagnitude, 3), (-2.5, .nearestMaxMagnitude, -3), (1e-300, .up, 1),
        ] as [(Double, RoundingMode, Int32)])
    func `known roundings`(_ value: Double, _ rounding: RoundingMode, _ result: Int32) {
        var flags: FloatFlags = []
        #expect(SoftFloat.f64ToI32(value.bitPattern, rounding, &flags) == result)
        #expect(flags == .inexact)
    }

    @Test func `the unsigned 64-bit extremes round as each mode says`() {
        let expected: [RoundingMode: Double] = [
            .nearestEven: 0x1p64, .towardZero: 0x1.fffffffffffffp63, .down: 0x1.fffffffffffffp63, .up: 0x1p64,
            .nearestMaxMagnitude: 0x1p64,
        ]
        for (rounding, value) in expected {
            var flags: FloatFlags = []
            #expect(SoftFloat.u64ToF64(.max, rounding, &flags) == value.bitPattern)
            #expect(flags == .inexact)
            flags = []
            #expect(SoftFloat.u64ToF32(1 << 63, rounding, &flags) == Float(0x1p63).bitPattern)
            #expect(SoftFloat.u32ToF32(7, rounding, &flags) == Float(7).bitPattern)
            #expect(SoftFloat.i32ToF64(.min, rounding, &flags) == Double(Int32.min).bitPattern)
            #expect(flags == [])
        }
    }
}
