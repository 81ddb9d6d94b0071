/// A strict reader of the JSON that a VERSION message carries: bounded in depth, never traps, keeps only what
/// capabilities are made of.
///
/// Numbers that are not non-negative integers below 2^64 are `other`. A name given twice is malformed: two readers
/// would disagree on which counts. Spec: RFC 8259.
enum JSONReader {
    indirect enum Value: Hashable, Sendable {
        case object([String: Value])
        case array([Value])
        case unsigned(UInt64)
        case boolean(Bool)
        case string(String)
        /// null, a negative number, a fraction.
        case other
    }

    /// How deep values may nest: a bound on the stack. Capabilities nest three deep.
    static let maximumDepth = 16

    /// The value of a whole text, or nil if it is malformed.
    static func parse(_ text: [UInt8]) -> Value? {
        var parser = Parser(text: text)
        guard let value = parser.value(depth: 0) else { return nil }
        parser.skipSpace()
        return parser.atEnd ? value : nil
    }

    private struct Parser {
        let text: [UInt8]
        var place = 0

        var atEnd: Bool { place >= text.count }
        var next: UInt8? { place < text.count ? text[place] : nil }

        mutating func skipSpace() {
            while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { place += 1 }
        }

        mutating func take(_ character: Character) -> Bool {
            guard next == character.asciiValue else { return false }
            place += 1
            return true
        }

        mutating func take(word: StaticString) -> Bool {
            let expected = Array(String(describing: word).utf8)
            guard text.count - place >= expected.count, Array(text[place..<(place + expected.count)]) == expected
            else { return false }
            place += expected.count
            return true
        }

        mutating func value(depth: Int) -> Value? {
            guard depth < JSONReader.maximumDepth else { return nil }
            skipSpace()
            switch next {
            case UInt8(ascii: "{"): return object(depth: depth)
            case UInt8(ascii: "["): return array(depth: depth)
            case UInt8(ascii: "\""): return string().map(Value.string)
            case UInt8(ascii: "t"): return take(word: "true") ? .boolean(true) : nil
            case UInt8(ascii: "f"): return take(word: "false") ? .boolean(false) : nil
            case UInt8(ascii: "n"): return take(word: "null") ? .other : nil
            default: return number()
            }
        }

        mutating func object(depth: Int) -> Value? {
            place += 1
            var members: [String: Value] = [:]
            skipSpace()
            if take("}") { return .object(members) }
            while true {
                skipSpace()
                guard next == UInt8(ascii: "\""), let name = string(), members[name] == nil else { return nil }
                skipSpace()
                guard take(":"), let member = value(depth: depth + 1) else { return nil }
                members[name] = member
                skipSpace()
                if take("}") { return .object(members) }
                guard take(",") else { return nil }
            }
        }

        mutating func array(depth: Int) -> Value? {
            place += 1
            var elements: [Value] = []
            skipSpace()
            if take("]") { return .array(elements) }
            while true {
                guard let element = value(depth: depth + 1) else { return nil }
                elements.append(element)
                skipSpace()
                if take("]") { return .array(elements) }
                guard take(",") else { return nil }
            }
        }

        /// A string; escapes other than \u are resolved, \u is kept as it is written: no capability has one.
        mutating func string() -> String? {
            place += 1
            var bytes: [UInt8] = []
            while let byte = next {
                place += 1
                switch byte {
                case UInt8(ascii: "\""): return String(validating: bytes, as: UTF8.self)
                case ..<0x20: return nil
                case UInt8(ascii: "\\"):
                    guard let escaped = next else { return nil }
                    place += 1
                    switch escaped {
                    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes.append(escaped)
                    case UInt8(ascii: "b"): bytes.append(0x08)
                    case UInt8(ascii: "f"): bytes.append(0x0C)
                    case UInt8(ascii: "n"): bytes.append(0x0A)
                    case UInt8(ascii: "r"): bytes.append(0x0D)
                    case UInt8(ascii: "t"): bytes.append(0x09)
                    case UInt8(ascii: "u"):
                        guard text.count - place >= 4, text[place..<(place + 4)].allSatisfy(Parser.isHexadecimal)
                        else { return nil }
                        bytes += [UInt8(ascii: "\\"), UInt8(ascii: "u")]
                        bytes += text[place..<(place + 4)]
                        place += 4
                    default: return nil
                    }
                default: bytes.append(byte)
                }
            }
            return nil
        }

        static func isHexadecimal(_ byte: UInt8) -> Bool {
            (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
        }

        mutating func digits() -> ArraySlice<UInt8>? {
            let start = place
            while let byte = next, (0x30...0x39).contains(byte) { place += 1 }
            return place > start ? text[start..<place] : nil
        }

        mutating func number() -> Value? {
            var plain = !take("-")
            guard let whole = digits(), whole.count == 1 || whole.first != UInt8(ascii: "0") else { return nil }
            if take(".") {
                plain = false
                guard digits() != nil else { return nil }
            }
            if take("e") || take("E") {
                plain = false
                if !take("+") { _ = take("-") }
                guard digits() != nil else { return nil }
            }
            guard plain else { return .other }
            var value: UInt64 = 0
            for digit in whole {
                let (product, large) = value.multipliedReportingOverflow(by: 10)
                let (sum, carried) = product.addingReportingOverflow(UInt64(digit - 0x30))
                guard !large, !carried else { return .other }
                value = sum
            }
            return .unsigned(value)
        }
    }
}
