/// Counts what a peer does wrong, so that one that does nothing else does not fill the log: the first, second, fourth,
/// eighth … time is told.
public struct Complaints: Sendable {
    public private(set) var count: UInt64 = 0

    public init() {}

    /// The line to log, or nil when this one is only counted.
    public mutating func line(_ text: String) -> String? {
        count &+= 1
        guard count & (count &- 1) == 0 else { return nil }
        return count == 1 ? text : "\(text) (complaint \(count))"
    }
}
