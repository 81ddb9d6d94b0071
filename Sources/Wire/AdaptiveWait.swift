internal import CSystem

/// How long to poll before sleeping, learned from the traffic.
///
/// A sleep and a wake cost some 5–50 µs on a shared machine, a poll of an empty socket some 0.2 µs. While messages
/// come faster than `limit` the waiter polls; when they do not, the budget halves at each miss down to nothing, and
/// the waiter blocks at once, which is what a blocking receive does. A sleep that turned out shorter than `limit`
/// says that polling would have won, and the budget grows again.
///
/// Unless it was polled in vain just before: then the other side probably waits for this very core, as happens when
/// every core is busy, and each poll would cost both their whole budget (seen: 60 µs a round trip instead of 25). So
/// after a poll in vain the next waits do not poll: 1, then 3, 7, … up to 255, until a poll wins again.
public struct AdaptiveWait: Sendable {
    /// The longest poll in nanoseconds: about the price of two sleeps, so a wrong guess costs no more than that.
    public let limit: UInt64
    public private(set) var budget: UInt64
    private var misses: UInt8 = 0
    private var abstentions: UInt8 = 0

    public init(limit: Duration = .microseconds(50)) {
        self.limit = limit.clampedNanoseconds
        budget = limit.clampedNanoseconds / 2
    }

    /// How long to poll now, in nanoseconds: the budget, or nothing while polls are abstained from.
    public mutating func takeBudget() -> UInt64 {
        guard abstentions == 0 else {
            abstentions -= 1
            return 0
        }
        return budget
    }

    /// A message was there while polling.
    public mutating func pollingWon() {
        budget = min(limit, max(budget &* 2, limit / 8))
        misses = 0
    }

    /// A poll of `polled` nanoseconds ended without a message; then a sleep of `slept` nanoseconds brought one.
    public mutating func sleepWon(polled: UInt64 = 0, slept: UInt64) {
        if slept < limit {
            if polled == 0 {
                budget = min(limit, max(budget &* 2, limit / 8))
            } else {
                misses = min(misses + 1, 8)
                abstentions = UInt8((1 << UInt16(misses)) - 1)
            }
        } else {
            budget = budget < 1_000 ? 0 : budget / 2
        }
    }
}

extension Socket {
    /// `receive` that polls as `wait` has learned to, then sleeps; throws `.timedOut` when `deadline` passes first.
    @inlinable
    public func receive(
        into buffer: UnsafeMutableRawBufferPointer, descriptors: inout [Descriptor], polling wait: inout AdaptiveWait,
        until deadline: MonotonicTime? = nil
    ) throws(WireError) -> Received {
        let budget = wait.takeBudget()
        if budget > 0 {
            let start = RoughTime.now
            repeat {
                // Safety: as `receive(into:descriptors:waiting:)`.
                let received = unsafe try receive(into: buffer, descriptors: &descriptors, waiting: false)
                if received != .nothing {
                    wait.pollingWon()
                    return received
                }
                relax()
            } while RoughTime.now &- start < budget
        }
        let start = RoughTime.now
        if let deadline { try self.wait(for: .readable, until: deadline) }
        // Safety: as `receive(into:descriptors:waiting:)`.
        let received = unsafe try receive(into: buffer, descriptors: &descriptors, waiting: true)
        wait.sleepWon(polled: budget, slept: RoughTime.now &- start)
        return received
    }
}

/// Tells the core that it spins.
@usableFromInline func relax() { cs_pause() }
