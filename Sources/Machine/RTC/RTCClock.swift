// What drives the real-time clock: the host's wall clock, or guest time from a fixed epoch.
public import RISCV
public import Wire

/// A clock with alarms.
public protocol RTCClock: Sendable {
    /// Nanoseconds since 1970.
    var now: UInt64 { get }
    /// Calls `body` once, after so many nanoseconds, on any thread; what comes back takes that back.
    func schedule(after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void) -> @Sendable () -> Void
}

/// The host's wall clock; alarms come on an event loop's thread.
public struct WallRTCClock: RTCClock {
    private let loop: EventLoop

    public init(loop: EventLoop) { self.loop = loop }

    public var now: UInt64 { wallClockNanoseconds() }

    public func schedule(after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void) -> @Sendable () -> Void {
        let time = MonotonicTime(nanoseconds: MonotonicTime.now.nanoseconds &+ nanoseconds)
        let timer = loop.schedule(at: time, body)
        return { [loop] in loop.cancel(timer) }
    }
}

/// The instruction clock from an epoch on; alarms come on the hart's thread, at their very instruction.
public struct InstructionRTCClock: RTCClock {
    private let time: TimeSource
    private let epoch: UInt64

    /// `epoch`: seconds since 1970 when the machine is made.
    public init(time: TimeSource, epoch: UInt64) {
        self.time = time
        self.epoch = epoch &* 1_000_000_000
    }

    public var now: UInt64 { epoch &+ time.nanoseconds }

    public func schedule(after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void) -> @Sendable () -> Void {
        let alarm = time.schedule(at: time.nanoseconds &+ nanoseconds, body)
        return { [time] in time.cancel(alarm) }
    }
}
