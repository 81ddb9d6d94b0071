extension CBOR {
    /// The item in core deterministic encoding (Spec: RFC 8949 §4.2.1): shortest arguments and floats, definite
    /// lengths, map entries in bytewise order of their encoded keys.
    public func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        append(to: &bytes)
        return bytes
    }

    private func append(to bytes: inout [UInt8]) {
        switch self {
        case .unsigned(let value):
            Self.appendHead(0, value, to: &bytes)
        case .negative(let argument):
            Self.appendHead(1, argument, to: &bytes)
        case .bytes(let content):
            Self.appendHead(2, UInt64(content.count), to: &bytes)
            bytes += content
        case .text(let text):
            let content = text.utf8
            Self.appendHead(3, UInt64(content.count), to: &bytes)
            bytes += content
        case .array(let items):
            Self.appendHead(4, UInt64(items.count), to: &bytes)
            for item in items { item.append(to: &bytes) }
        case .map(let entries):
            Self.appendHead(5, UInt64(entries.count), to: &bytes)
            let sorted = entries.map { (key: $0.key.encoded(), value: $0.value) }
                .sorted { $0.key.lexicographicallyPrecedes($1.key) }
            for entry in sorted {
                bytes += entry.key
                entry.value.append(to: &bytes)
            }
        case .tagged(let tag, let item):
            Self.appendHead(6, tag, to: &bytes)
            item.append(to: &bytes)
        case .simple(let value):
            precondition(!(24...31).contains(value), "simple values 24 to 31 do not exist")
            Self.appendHead(7, UInt64(value), to: &bytes)
        case .float(let value):
            Self.appendFloat(value, to: &bytes)
        }
    }

    /// The initial byte of `major` and the shortest form of `argument` (Spec: RFC 8949 §3).
    private static func appendHead(_ major: UInt8, _ argument: UInt64, to bytes: inout [UInt8]) {
        let initial = major << 5
        switch argument {
        case 0...23:
            bytes.append(initial | UInt8(argument))
        case 24...0xFF:
            bytes.append(initial | 24)
            appendBigEndian(argument, count: 1, to: &bytes)
        case 0x100...0xFFFF:
            bytes.append(initial | 25)
            appendBigEndian(argument, count: 2, to: &bytes)
        case 0x1_0000...0xFFFF_FFFF:
            bytes.append(initial | 26)
            appendBigEndian(argument, count: 4, to: &bytes)
        default:
            bytes.append(initial | 27)
            appendBigEndian(argument, count: 8, to: &bytes)
        }
    }

    private static func appendFloat(_ value: Double, to bytes: inout [UInt8]) {
        if value.isNaN {
            bytes += [0xF9, 0x7E, 0x00]
        } else if let half = HalfPrecision.bits(exactly: value) {
            bytes.append(0xF9)
            appendBigEndian(UInt64(half), count: 2, to: &bytes)
        } else if Double(Float(value)) == value {
            bytes.append(0xFA)
            appendBigEndian(UInt64(Float(value).bitPattern), count: 4, to: &bytes)
        } else {
            bytes.append(0xFB)
            appendBigEndian(value.bitPattern, count: 8, to: &bytes)
        }
    }

    private static func appendBigEndian(_ value: UInt64, count: Int, to bytes: inout [UInt8]) {
        for index in (0..<count).reversed() {
            bytes.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))))
        }
    }
}

/// IEEE 754 binary16, in integers: no hardware or runtime support is needed.
enum HalfPrecision {
    /// The value of `bits`. Spec: RFC 8949 appendix D.
    static func value(_ bits: UInt16) -> Double {
        let exponent = Int(bits >> 10 & 0x1F)
        let fraction = Double(bits & 0x3FF)
        let magnitude =
            switch exponent {
            case 0: fraction * 0x1p-24
            case 31: fraction == 0 ? Double.infinity : Double.nan
            default: Double(sign: .plus, exponent: exponent - 25, significand: fraction + 1024)
            }
        return bits & 0x8000 == 0 ? magnitude : -magnitude
    }

    /// The bits of `value` when half precision holds it exactly.
    static func bits(exactly value: Double) -> UInt16? {
        let sign: UInt16 = value.sign == .minus ? 0x8000 : 0
        let magnitude = value.magnitude
        if magnitude == 0 { return sign }
        if magnitude.isInfinite { return sign | 0x7C00 }
        guard magnitude <= 65504, magnitude >= 0x1p-24 else { return nil }
        let candidate: UInt16
        if magnitude < 0x1p-14 {
            candidate = UInt16(magnitude * 0x1p24)
        } else {
            let exponent = Int(magnitude.exponent)
            candidate = UInt16(exponent + 15) << 10 | UInt16((magnitude.significand - 1) * 1024)
        }
        return Self.value(candidate) == magnitude ? sign | candidate : nil
    }
}
