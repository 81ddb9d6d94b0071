/// A data item of CBOR (Spec: RFC 8949 §3), without tags' meaning and without floating-point payloads of NaN.
///
/// A map keeps its entries in the order in which they were given or read; `encoded()` sorts them, so two maps that
/// differ only in order encode alike.
public indirect enum CBOR: Hashable, Sendable {
    /// Major type 0.
    case unsigned(UInt64)
    /// Major type 1: the value is -1 - argument, so `.negative(0)` is -1.
    case negative(UInt64)
    /// Major type 2.
    case bytes([UInt8])
    /// Major type 3, always valid UTF-8.
    case text(String)
    /// Major type 4.
    case array([CBOR])
    /// Major type 5.
    case map([Entry])
    /// Major type 6.
    case tagged(UInt64, CBOR)
    /// Major type 7: 20 false, 21 true, 22 null, 23 undefined; 24…31 do not exist.
    case simple(UInt8)
    /// Major type 7, half, single or double precision.
    case float(Double)

    /// A key and its value.
    public struct Entry: Hashable, Sendable {
        public let key: CBOR
        public let value: CBOR

        public init(_ key: CBOR, _ value: CBOR) {
            self.key = key
            self.value = value
        }
    }

    public static let `false` = CBOR.simple(20)
    public static let `true` = CBOR.simple(21)
    public static let null = CBOR.simple(22)

    /// The integer `value` in the major type of its sign.
    public static func integer(_ value: Int64) -> CBOR {
        value >= 0 ? .unsigned(UInt64(value)) : .negative(UInt64(bitPattern: ~value))
    }
}

extension CBOR {
    /// The value as a signed integer, or nil when it is none or does not fit.
    public var integerValue: Int64? {
        switch self {
        case .unsigned(let value): Int64(exactly: value)
        case .negative(let argument): Int64(exactly: argument).map { ~$0 }
        default: nil
        }
    }

    public var unsignedValue: UInt64? {
        if case .unsigned(let value) = self { value } else { nil }
    }

    public var bytesValue: [UInt8]? {
        if case .bytes(let value) = self { value } else { nil }
    }

    public var textValue: String? {
        if case .text(let value) = self { value } else { nil }
    }

    public var arrayValue: [CBOR]? {
        if case .array(let value) = self { value } else { nil }
    }

    /// The value behind integer `key` in a map, or nil.
    public subscript(_ key: Int64) -> CBOR? {
        guard case .map(let entries) = self else { return nil }
        let wanted = CBOR.integer(key)
        return entries.first { $0.key == wanted }?.value
    }
}
