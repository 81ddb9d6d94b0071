// The Altera PS/2 controller and the keyboard at it: how an unmodified Linux hears of the power button. Debian's kernel
// for riscv64 has drivers for these two (altera_ps2, atkbd) and none for keys at GPIO lines.
public import RISCV
import Synchronization

/// A PS/2 port with its keyboard. Words only.
public final class PS2Port: MachineDevice {
    private struct State {
        var keyboard = PS2Keyboard()
        var received: [UInt8] = []
        var interruptEnabled = false
    }

    private let line: InterruptLine
    private let state = Mutex(State())

    public init(line: InterruptLine) { self.line = line }

    public func reset() {
        state.withLock { state in
            state = State()
            line.set(false)
        }
    }

    /// Presses the power button for a moment. Any thread.
    public func pressPower() {
        state.withLock { state in receive(state.keyboard.pressPower(), &state) }
    }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width == .word else { return nil }
        return state.withLock { state in
            switch offset {
            case Self.data:
                guard let byte = state.received.first else { return 0 }
                let available = UInt64(state.received.count)
                state.received.removeFirst()
                drive(state)
                return available << 16 | Self.valid | UInt64(byte)
            case Self.control:
                let pending = state.interruptEnabled && !state.received.isEmpty
                return (state.interruptEnabled ? Self.enable : 0) | (pending ? Self.pending : 0)
            default: return 0
            }
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .word else { return false }
        state.withLock { state in
            switch offset {
            case Self.data: receive(state.keyboard.take(UInt8(truncatingIfNeeded: value)), &state)
            case Self.control:
                state.interruptEnabled = value & Self.enable != 0
                drive(state)
            default: break
            }
        }
        return true
    }

    /// Bytes come in whole, or not at all where the queue is full: half a scan code would be another key.
    private func receive(_ bytes: [UInt8], _ state: inout State) {
        guard state.received.count + bytes.count <= Self.capacity else { return }
        state.received += bytes
        drive(state)
    }

    private func drive(_ state: State) { line.set(state.interruptEnabled && !state.received.isEmpty) }
}
