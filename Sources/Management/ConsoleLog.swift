/// The last bytes of a serial line: a ring that many readers follow, each at its own position.
///
/// Positions count the line's bytes from the beginning and never wrap (2^64 bytes at 115,200 baud take 50 million
/// years). A reader that falls behind by more than the ring holds continues with the oldest byte there is.
public struct ConsoleLog: Sendable {
    /// Bytes kept when nothing else is asked for: some 800 full lines.
    public static let defaultCapacity = 64 << 10

    private var storage: [UInt8]
    /// The position after the newest byte.
    public private(set) var end: UInt64 = 0

    /// - Parameter capacity: bytes kept, a power of two.
    public init(capacity: Int = ConsoleLog.defaultCapacity) {
        precondition(capacity > 0 && capacity.nonzeroBitCount == 1, "the capacity is a power of two")
        storage = Array(repeating: 0, count: capacity)
    }

    /// The position of the oldest byte there is.
    public var start: UInt64 { end - min(end, UInt64(storage.count)) }

    public mutating func append(_ bytes: Span<UInt8>) {
        let mask = UInt64(storage.count - 1)
        for index in bytes.indices {
            storage[Int(truncatingIfNeeded: end & mask)] = bytes[index]
            end &+= 1
        }
    }

    /// At most `limit` bytes from `position` on, or from the oldest there is, and the position after them.
    public func read(from position: UInt64, limit: Int) -> (bytes: [UInt8], next: UInt64) {
        let first = min(max(position, start), end)
        let count = Int(min(end - first, UInt64(max(limit, 0))))
        let mask = UInt64(storage.count - 1)
        let bytes = (0..<count).map { storage[Int(truncatingIfNeeded: (first + UInt64($0)) & mask)] }
        return (bytes, first + UInt64(count))
    }
}
