public import QMP

/// A setting that a device's firmware package may carry.
public struct FirmwareSetting: Sendable, Hashable {
    /// What its value may be.
    public enum Kind: Sendable, Hashable {
        /// 1 to `maximum` printable ASCII characters.
        case text(maximum: Int)
        case unsigned(ClosedRange<UInt64>)
        case boolean
        /// One of these texts.
        case choice([String])
    }

    public enum Value: Sendable, Hashable {
        case text(String)
        case unsigned(UInt64)
        case boolean(Bool)
    }

    public let name: String
    public let kind: Kind
    /// One line for people.
    public let help: String

    init(_ name: String, _ kind: Kind, help: String) {
        self.name = name
        self.kind = kind
        self.help = help
    }

    /// Whether the setting may have this value.
    public func accepts(_ value: Value) -> Bool {
        switch (kind, value) {
        case (.text(let maximum), .text(let text)):
            (1...maximum).contains(text.utf8.count) && text.utf8.allSatisfy { (0x20...0x7E).contains($0) }
        case (.unsigned(let range), .unsigned(let number)): range.contains(number)
        case (.boolean, .boolean): true
        case (.choice(let texts), .text(let text)): texts.contains(text)
        default: false
        }
    }

    /// The value that a person wrote; numbers in decimal, or hexadecimal behind `0x`. Nil when the setting may not have it.
    public func value(parsing text: String) -> Value? {
        let value: Value? =
            switch kind {
            case .text, .choice: .text(text)
            case .unsigned:
                (text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)).map { .unsigned($0) }
            case .boolean: Bool(text).map { .boolean($0) }
            }
        return value.flatMap { accepts($0) ? $0 : nil }
    }

    /// What the value may be, for people.
    public var range: String {
        switch kind {
        case .text(let maximum): "1 to \(maximum) printable ASCII characters"
        case .unsigned(let range): "a number from \(range.lowerBound) to \(range.upperBound)"
        case .boolean: "true or false"
        case .choice(let texts): texts.joined(separator: " or ")
        }
    }
}

extension FirmwareSetting.Value: CustomStringConvertible {
    public var description: String {
        switch self {
        case .text(let text): text
        case .unsigned(let number): "\(number)"
        case .boolean(let value): "\(value)"
        }
    }

    public var json: JSONValue {
        switch self {
        case .text(let text): .string(text)
        case .unsigned(let number): .unsigned(number)
        case .boolean(let value): .bool(value)
        }
    }
}
