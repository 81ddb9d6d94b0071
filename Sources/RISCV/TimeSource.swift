// The platform's clock: one `mtime` for all harts of a machine.
//
// Two clocks: the host's, and one that counts the instructions of the machine's only hart, so that a run repeats to the
// instruction. How the second keeps that promise: docs/instruction-clock.md.
import CSystem
import Synchronization

/// Gives `mtime`: a counter at 10 MHz that starts at zero when the source is made.
///
/// Spec: RISC-V Privileged 20240411 §3.2.1.
public final class TimeSource: Sendable {
    /// What time is made of.
    public enum Clock: Sendable {
        /// CLOCK_MONOTONIC.
        case wall
        /// Retired instructions of one hart, `nanosecondsPerInstruction` each, and its waits.
        case instructions
    }

    /// A due time to cancel.
    public struct Alarm: Hashable, Sendable { fileprivate let id: UInt64 }

    /// Ticks a second; the devicetree's `timebase-frequency`.
    public static let frequency: UInt64 = 10_000_000
    /// Nanoseconds a tick.
    static let nanosecondsPerTick: UInt64 = 100
    /// What an instruction takes by the instruction clock: that of a core that retires 100 million a second, so that
    /// loops that kernels calibrate by the clock come out as on slow silicon, not as on impossible one.
    public static let nanosecondsPerInstruction: UInt64 = 10
    /// Instructions a tick.
    static let instructionsPerTick = nanosecondsPerTick / nanosecondsPerInstruction

    public let clock: Clock

    /// Wall: nanoseconds of CLOCK_MONOTONIC at which `mtime` was zero. Instructions: ticks then. Both wrap.
    private let origin: Atomic<UInt64>
    /// Instructions: how many the hart has retired and waited for since the source was made, as last told.
    private let position = Atomic<UInt64>(0)
    /// The position of the first alarm; `.max`: none.
    private let firstAlarm = Atomic<UInt64>(.max)

    private struct Alarms {
        var nextID: UInt64 = 0
        var list: [(position: UInt64, alarm: Alarm, body: @Sendable () -> Void)] = []
        var hart: HartSignals?
    }
    private let alarms = Mutex(Alarms())

    public init(_ clock: Clock = .wall) {
        self.clock = clock
        origin = Atomic(clock == .wall ? Self.monotonicNanoseconds() : 0)
    }

    /// `mtime` now.
    public var ticks: UInt64 {
        switch clock {
        case .wall: (Self.monotonicNanoseconds() &- origin.load(ordering: .relaxed)) / Self.nanosecondsPerTick
        case .instructions:
            position.load(ordering: .relaxed) / Self.instructionsPerTick &- origin.load(ordering: .relaxed)
        }
    }

    /// A guest wrote `mtime`: it continues from `ticks`.
    public func set(ticks: UInt64) {
        let zero =
            switch clock {
            case .wall: Self.monotonicNanoseconds() &- ticks &* Self.nanosecondsPerTick
            case .instructions: position.load(ordering: .relaxed) / Self.instructionsPerTick &- ticks
            }
        origin.store(zero, ordering: .relaxed)
    }

    /// The CLOCK_MONOTONIC nanosecond at which `mtime` reaches `ticks`, at most a day ahead. Wall clock only.
    func monotonicNanoseconds(at ticks: UInt64) -> UInt64 {
        let now = self.ticks
        let ahead = ticks > now ? min(ticks - now, 24 * 3600 * Self.frequency) : 0
        return Self.monotonicNanoseconds() &+ ahead &* Self.nanosecondsPerTick
    }

    static func monotonicNanoseconds() -> UInt64 { cs_monotonic() }
}

// MARK: the instruction clock

extension TimeSource {
    /// Guest time in nanoseconds since the source was made, whatever `mtime` was set to. Instruction clock only.
    public var nanoseconds: UInt64 { position.load(ordering: .relaxed) &* Self.nanosecondsPerInstruction }

    /// Calls `body` once, on the hart's thread, at the first instruction at which `nanoseconds` is not below `time`. To be called on
    /// the hart's thread, or while it does not run.
    public func schedule(at time: UInt64, _ body: @escaping @Sendable () -> Void) -> Alarm {
        // Up: an alarm that came before its time would be set again, for ever.
        let due = (time &+ (Self.nanosecondsPerInstruction - 1)) / Self.nanosecondsPerInstruction
        return alarms.withLock { alarms in
            alarms.nextID &+= 1
            let alarm = Alarm(id: alarms.nextID)
            alarms.list.append((due, alarm, body))
            noteFirst(alarms)
            // The hart's slice may have to end sooner.
            alarms.hart?.raiseAttention()
            return alarm
        }
    }

    /// An alarm that has not been given will not be.
    public func cancel(_ alarm: Alarm) {
        alarms.withLock { alarms in
            alarms.list.removeAll { $0.alarm == alarm }
            noteFirst(alarms)
        }
    }

    private func noteFirst(_ alarms: borrowing Alarms) {
        firstAlarm.store(alarms.list.map(\.position).min() ?? .max, ordering: .relaxed)
    }

    /// The hart that makes this time.
    func attach(_ signals: HartSignals) { alarms.withLock { $0.hart = signals } }

    /// The hart is here; gives the alarms that are due.
    func advance(to position: UInt64) {
        self.position.store(position, ordering: .relaxed)
        guard firstAlarm.load(ordering: .relaxed) <= position else { return }
        let due = alarms.withLock { alarms in
            let due = alarms.list.filter { $0.position <= position }.sorted {
                ($0.position, $0.alarm.id) < ($1.position, $1.alarm.id)
            }
            alarms.list.removeAll { $0.position <= position }
            noteFirst(alarms)
            return due
        }
        for alarm in due { alarm.body() }
    }

    /// The position of the first alarm; `.max`: none.
    var alarmPosition: UInt64 { firstAlarm.load(ordering: .relaxed) }

    /// The position at which `mtime` reaches `ticks`; `.max` where that is beyond counting.
    func position(ofTicks ticks: UInt64) -> UInt64 {
        let (absolute, wraps) = ticks.addingReportingOverflow(origin.load(ordering: .relaxed))
        let (position, overflows) = absolute.multipliedReportingOverflow(by: Self.instructionsPerTick)
        // An origin in the past of zero wraps on purpose: mtime was set ahead.
        if wraps && origin.load(ordering: .relaxed) < UInt64.max / 2 { return .max }
        return overflows ? .max : position
    }
}
