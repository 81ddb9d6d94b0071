public import VFIOUser

/// Writes a model's state: integers, little-endian, without gaps.
public struct StateWriter: Sendable {
    public private(set) var bytes: [UInt8] = []

    public init() {}

    public mutating func add<Value: FixedWidthInteger>(_ value: Value) {
        for index in 0..<Value.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: value >> Value(index * 8))) }
    }

    public mutating func add(_ value: Bool) { bytes.append(value ? 1 : 0) }

    /// Bytes behind their number.
    public mutating func add(_ value: [UInt8]) {
        add(UInt32(value.count))
        bytes += value
    }
}

/// Reads what a `StateWriter` wrote, from a client that may have written anything: whatever is not there or cannot be
/// is `invalid`.
public struct StateReader: Sendable {
    private var rest: ArraySlice<UInt8>

    public init(_ bytes: [UInt8]) { rest = bytes[...] }

    public mutating func take<Value: FixedWidthInteger>(_ type: Value.Type) throws(ErrorNumber) -> Value {
        let count = Value.bitWidth / 8
        guard rest.count >= count else { throw .invalid }
        var value: Value = 0
        for (index, byte) in rest.prefix(count).enumerated() {
            value |= Value(truncatingIfNeeded: byte) << Value(index * 8)
        }
        rest = rest.dropFirst(count)
        return value
    }

    public mutating func takeBool() throws(ErrorNumber) -> Bool {
        switch try take(UInt8.self) {
        case 0: false
        case 1: true
        default: throw .invalid
        }
    }

    /// Bytes behind their number, which is at most `maximum`.
    public mutating func takeBytes(maximum: Int) throws(ErrorNumber) -> [UInt8] {
        let count = Int(try take(UInt32.self))
        guard count <= maximum, count <= rest.count else { throw .invalid }
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }

    /// A number that must be this one: a version, a kind.
    public mutating func expect<Value: FixedWidthInteger>(_ value: Value) throws(ErrorNumber) {
        guard try take(Value.self) == value else { throw .invalid }
    }

    /// Nothing may be left.
    public func finish() throws(ErrorNumber) {
        guard rest.isEmpty else { throw .invalid }
    }
}
