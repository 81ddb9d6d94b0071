/// Watches a byte stream for one exact line, however the stream is cut. Carriage returns are not part of a line.
public struct LineMatcher: Sendable {
    private let line: [UInt8]
    private var position = 0
    private var isOff = false

    public init(_ line: String) { self.line = Array(line.utf8) }

    /// Takes the next bytes; true when the line ended among them at least once.
    public mutating func feed(_ bytes: Span<UInt8>) -> Bool {
        var found = false
        for index in bytes.indices {
            switch bytes[index] {
            case UInt8(ascii: "\n"):
                if !isOff, position == line.count { found = true }
                position = 0
                isOff = false
            case UInt8(ascii: "\r"):
                break
            case let byte where !isOff && position < line.count && line[position] == byte:
                position += 1
            default:
                isOff = true
            }
        }
        return found
    }

    /// Forgets a line that has begun.
    public mutating func reset() {
        position = 0
        isOff = false
    }
}
