// Machine timer and software interrupts.
//
// Model: the registers are the harts' own wires (`HartSignals`), so there is nothing to lock. The surprise: after reset
// `mtimecmp` is all ones, not undefined, so that no timer interrupt comes before software asked for one.
public import RISCV

/// The core-local interruptor: `msip`, `mtimecmp` and `mtime` at 10 MHz. Words and doubles only.
public final class CLINT: MachineDevice {
    private let harts: [HartSignals]
    private let time: TimeSource

    public init(harts: [HartSignals], time: TimeSource) {
        self.harts = harts
        self.time = time
    }

    public func reset() {
        for signals in harts {
            signals.set(.machineSoftware, false)
            signals.machineTimerDeadline = .max
        }
        time.set(ticks: 0)
    }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width == .word || width == .double else { return nil }
        switch Register(offset: offset) {
        case .msip(let hart):
            guard width == .word else { return nil }
            return hart < harts.count && harts[hart].level(of: .machineSoftware) ? 1 : 0
        case .mtimecmp(let hart, let high):
            guard hart < harts.count else { return 0 }
            return part(of: harts[hart].machineTimerDeadline, high: high, width)
        case .mtime(let high):
            return part(of: time.ticks, high: high, width)
        case .reserved:
            return 0
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .word || width == .double else { return false }
        switch Register(offset: offset) {
        case .msip(let hart):
            guard width == .word else { return false }
            if hart < harts.count { harts[hart].set(.machineSoftware, value & 1 != 0) }
        case .mtimecmp(let hart, let high):
            guard hart < harts.count else { return true }
            let old = harts[hart].machineTimerDeadline
            harts[hart].machineTimerDeadline = merge(old, value, high: high, width)
        case .mtime(let high):
            time.set(ticks: merge(time.ticks, value, high: high, width))
            // Deadlines are absolute: every hart has to look again.
            for signals in harts { signals.machineTimerDeadline = signals.machineTimerDeadline }
        case .reserved:
            break
        }
        return true
    }

    private func part(of value: UInt64, high: Bool, _ width: AccessWidth) -> UInt64 {
        if width == .double { return value }
        return high ? value >> 32 : value & 0xFFFF_FFFF
    }

    private func merge(_ old: UInt64, _ value: UInt64, high: Bool, _ width: AccessWidth) -> UInt64 {
        if width == .double { return value }
        return high ? old & 0xFFFF_FFFF | value << 32 : old & ~0xFFFF_FFFF | value & 0xFFFF_FFFF
    }
}
