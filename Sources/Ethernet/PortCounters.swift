// What a port has carried: written by the thread that carries, read by whoever asks.

import Synchronization

/// The counters of one port, as a value.
public struct PortStatistics: Hashable, Sendable {
    /// Whole frames that came in, and their bytes without the length prefixes.
    public var receivedFrames: UInt64 = 0
    public var receivedBytes: UInt64 = 0
    /// Frames that came in and went nowhere: malformed, or refused by a policy.
    public var receivedDropped: UInt64 = 0
    /// Frames taken for sending, and their bytes.
    public var sentFrames: UInt64 = 0
    public var sentBytes: UInt64 = 0
    /// Frames not taken: the peer does not keep up, or there is none.
    public var sentDropped: UInt64 = 0

    public init() {}
}

/// The counters of one port. Each is written by one thread at a time and may be read by any.
final class PortCounters: Sendable {
    private let values = (0..<6).map { _ in Counter() }

    private final class Counter: Sendable {
        let value = Atomic<UInt64>(0)
    }

    enum Kind: Int { case receivedFrames, receivedBytes, receivedDropped, sentFrames, sentBytes, sentDropped }

    func add(_ amount: Int, to kind: Kind) {
        values[kind.rawValue].value.wrappingAdd(UInt64(truncatingIfNeeded: amount), ordering: .relaxed)
    }

    var statistics: PortStatistics {
        func read(_ kind: Kind) -> UInt64 { values[kind.rawValue].value.load(ordering: .relaxed) }
        var statistics = PortStatistics()
        statistics.receivedFrames = read(.receivedFrames)
        statistics.receivedBytes = read(.receivedBytes)
        statistics.receivedDropped = read(.receivedDropped)
        statistics.sentFrames = read(.sentFrames)
        statistics.sentBytes = read(.sentBytes)
        statistics.sentDropped = read(.sentDropped)
        return statistics
    }
}
