internal import CSystem

/// A moment on CLOCK_MONOTONIC, in nanoseconds: the one clock of every component of a board.
public struct MonotonicTime: Comparable, Hashable, Sendable {
    public var nanoseconds: UInt64

    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Now.
    public static var now: MonotonicTime { MonotonicTime(nanoseconds: cs_monotonic()) }

    /// `duration` after now; never before now.
    public static func after(_ duration: Duration) -> MonotonicTime { now + duration }

    public static func < (left: MonotonicTime, right: MonotonicTime) -> Bool { left.nanoseconds < right.nanoseconds }

    public static func + (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        MonotonicTime(nanoseconds: time.nanoseconds &+ duration.clampedNanoseconds)
    }

    /// The time from `earlier` to this one; zero when it is not earlier.
    public func since(_ earlier: MonotonicTime) -> Duration {
        .nanoseconds(Int64(clamping: nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0))
    }
}

extension Duration {
    /// Whole nanoseconds, 0 when negative, clamped at 2^63 - 1.
    public var clampedNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let (product, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        guard !overflow, product < UInt64(Int64.max) - 1_000_000_000 else { return UInt64(Int64.max) }
        return product + UInt64(attoseconds / 1_000_000_000)
    }
}

/// The wall clock in nanoseconds since 1970, for QMP timestamps.
public func wallClockNanoseconds() -> UInt64 { cs_realtime() }
