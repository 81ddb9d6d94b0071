// The goldfish real-time clock: time in nanoseconds since 1970, one alarm with an interrupt.
public import RISCV
import Synchronization

/// A real-time clock that shows a clock's time until the guest sets it. Words only.
public final class RTC: MachineDevice {
    private struct State {
        /// Guest time minus the clock's, in nanoseconds (wrapping). Battery-backed: survives reset.
        var offset: UInt64 = 0
        var latchedHigh: UInt32 = 0
        var alarmHigh: UInt32 = 0
        var alarm: UInt64 = 0
        var isArmed = false
        var interruptEnabled = false
        var interruptPending = false
        /// Takes back the alarm that the clock was asked for.
        var cancel: (@Sendable () -> Void)?
    }

    private let line: InterruptLine
    private let clock: any RTCClock
    private let state = Mutex(State())

    public init(line: InterruptLine, clock: any RTCClock) {
        self.line = line
        self.clock = clock
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
                let now = clock.now &+ state.offset
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
            let now = clock.now &+ state.offset
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
        let now = clock.now &+ state.offset
        state.isArmed = true
        let ahead = state.alarm > now ? state.alarm - now : 0
        if ahead == 0 {
            expire(&state)
            return
        }
        // Bounded so that no clock's addition wraps; a later alarm is armed again when this one comes early.
        state.cancel = clock.schedule(after: min(ahead, 1 << 60)) { [weak self] in self?.timerFired() }
    }

    private func disarm(_ state: inout State) {
        state.cancel?()
        state.cancel = nil
        state.isArmed = false
    }

    private func expire(_ state: inout State) {
        state.isArmed = false
        state.cancel = nil
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
