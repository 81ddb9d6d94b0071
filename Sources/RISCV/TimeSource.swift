// The platform's clock: one `mtime` for all harts of a machine.
import CSystem
import Synchronization

/// Gives `mtime`: a counter at 10 MHz that starts at zero when the source is made.
///
/// Spec: RISC-V Privileged 20240411 §3.2.1. Derived from CLOCK_MONOTONIC.
public final class TimeSource: Sendable {
    /// Ticks a second; the devicetree's `timebase-frequency`.
    public static let frequency: UInt64 = 10_000_000
    /// Nanoseconds a tick.
    static let nanosecondsPerTick: UInt64 = 100

    /// Nanoseconds of CLOCK_MONOTONIC at which `mtime` was zero (wrapping).
    private let origin: Atomic<UInt64>

    public init() {
        origin = Atomic(Self.monotonicNanoseconds())
    }

    /// `mtime` now.
    public var ticks: UInt64 {
        (Self.monotonicNanoseconds() &- origin.load(ordering: .relaxed)) / Self.nanosecondsPerTick
    }

    /// A guest wrote `mtime`: it continues from `ticks`.
    public func set(ticks: UInt64) {
        origin.store(
            Self.monotonicNanoseconds() &- (ticks &* Self.nanosecondsPerTick), ordering: .relaxed)
    }

    /// The CLOCK_MONOTONIC nanosecond at which `mtime` reaches `ticks`, at most a day ahead.
    func monotonicNanoseconds(at ticks: UInt64) -> UInt64 {
        let now = self.ticks
        let ahead = ticks > now ? min(ticks - now, 24 * 3600 * Self.frequency) : 0
        return Self.monotonicNanoseconds() &+ ahead &* Self.nanosecondsPerTick
    }

    static func monotonicNanoseconds() -> UInt64 { cs_monotonic() }
}
