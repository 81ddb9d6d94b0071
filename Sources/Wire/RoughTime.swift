internal import CSystem

/// Time for guesses: how long somebody slept, whether a peer is still awake. Never for a deadline.
///
/// It is read from the core's own counter: after a sleep the caches are cold, and the system's clock would touch several
/// of their lines on the way of a message. Off by a per cent, and where the cores' counters differ, wrong, as a guess
/// may be.
public enum RoughTime {
    /// Nanoseconds since some moment.
    public static var now: UInt64 { nanoseconds(ticks: ticks) }

    /// The same moment in the unit that is read fastest.
    static var ticks: UInt64 {
        let ticks = cs_ticks()
        return ticks == 0 ? cs_monotonic() : ticks
    }

    /// So many ticks in nanoseconds.
    static func nanoseconds(ticks: UInt64) -> UInt64 {
        let scale = scale
        if scale == 0 { return ticks }
        let product = ticks.multipliedFullWidth(by: scale)
        return product.high << 32 | product.low >> 32
    }

    /// A tick in nanoseconds, times 2^32; 0 where there is no counter. Measured once, in 20 µs.
    private static let scale: UInt64 = {
        let (ticks, start) = (cs_ticks(), cs_monotonic())
        while cs_monotonic() &- start < 20_000 {}
        let (passed, nanoseconds) = (cs_ticks() &- ticks, cs_monotonic() &- start)
        return passed == 0 || nanoseconds >= 1 << 31 ? 0 : (nanoseconds << 32) / passed
    }()
}
