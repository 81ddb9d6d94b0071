// The goldfish real-time clock: wall-clock time in nanoseconds, one alarm with an interrupt.
public import RISCV
import Synchronization
public import Wire

/// A real-time clock that shows the host's wall clock until the guest sets it. Words only.
public final class RTC: MachineDevice {
    private struct State {
        /// Guest time minus the host's wall clock, in nanoseconds (wrapping). Battery-backed: survives reset.
        var offset: UInt64 = 0
        var latchedHigh: UInt32 = 0
        var alarmHigh: UInt32 = 0
        var alarm: UInt64 = 0
        var isArmed = false
        var interruptEnabled = false
        var interruptPending = false
        var timer: EventLoop.Timer?
    }

    private let line: InterruptLine
    private let loop: EventLoop
    private let state = Mutex(State())

    /// `loop` fires the alarm.
    public init(line: InterruptLine, loop: EventLoop) {
        self.line = line
        self.loop = loop
    }

    public func reset() {
        state.withLock { state in
            disarm(&state)
            let offset = state.offset
            state = State()
            state.offset = offset
            line.set(false)
        }
    }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width == .word else { return nil }
        return state.withLock { state in
            switch offset {
            case Self.timeLow:
                let now = wallClockNanoseconds() &+ state.offset
                state.latchedHigh = UInt32(truncatingIfNeeded: now >> 32)
                return now & 0xFFFF_FFFF
            case Self.timeHigh: return UInt64(state.latchedHigh)
            case Self.alarmLow: return state.alarm & 0xFFFF_FFFF
            case Self.alarmHigh: return UInt64(state.alarmHigh)
            case Self.interruptEnabled: return state.interruptEnabled ? 1 : 0
            case Self.alarmStatus: return state.isArmed ? 1 : 0
            default: return 0
            }
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .word else { return false }
        state.withLock { state in
            let now = wallClockNanoseconds() &+ state.offset
            switch offset {
            case Self.timeLow: state.offset &+= (now & ~0xFFFF_FFFF | value) &- now
            case Self.timeHigh: state.offset &+= (now & 0xFFFF_FFFF | value << 32) &- now
            case Self.alarmLow:
                state.alarm = UInt64(state.alarmHigh) << 32 | value
                arm(&state)
            case Self.alarmHigh: state.alarmHigh = UInt32(truncatingIfNeeded: value)
            case Self.interruptEnabled: state.interruptEnabled = value & 1 != 0
            case Self.clearAlarm: disarm(&state)
            case Self.clearInterrupt: state.interruptPending = false
            default: break
            }
            line.set(state.interruptPending && state.interruptEnabled)
        }
        return true
    }

    private func arm(_ state: inout State) {
        disarm(&state)
        let now = wallClockNanoseconds() &+ state.offset
        state.isArmed = true
        let ahead = state.alarm > now ? state.alarm - now : 0
        if ahead == 0 {
            expire(&state)
            return
        }
        // Bounded so that the addition cannot wrap; a later alarm is armed again when the timer fires early.
        let time = MonotonicTime(nanoseconds: MonotonicTime.now.nanoseconds &+ min(ahead, 1 << 60))
        state.timer = loop.schedule(at: time) { [weak self] in self?.timerFired() }
    }

    private func disarm(_ state: inout State) {
        if let timer = state.timer { loop.cancel(timer) }
        state.timer = nil
        state.isArmed = false
    }

    private func expire(_ state: inout State) {
        state.isArmed = false
        state.timer = nil
        state.interruptPending = true
    }

    private func timerFired() {
        state.withLock { state in
            guard state.isArmed else { return }
            // The guest may have set the clock back since: `arm` looks at it again.
            arm(&state)
            line.set(state.interruptPending && state.interruptEnabled)
        }
    }
}
