// The memory-mapped face of a domain: register reads and writes in terms of the domain's state.
import RISCV

/// One domain's 32 KiB control region.
final class ControlRegion: MachineDevice {
    private let aplic: APLIC
    private let level: APLIC.Level

    init(aplic: APLIC, level: APLIC.Level) {
        self.aplic = aplic
        self.level = level
    }

    func reset() { aplic.reset() }

    func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width == .word else { return nil }
        let register = APLIC.Register(offset: offset)
        // Reading `claimi` is the only read that changes anything.
        if case .idc(let hart, .claimi) = register {
            return UInt64(aplic.change { state in claim(&state, hart: hart) })
        }
        return UInt64(aplic.withState { state in read(state, register) })
    }

    private func read(_ state: borrowing APLIC.State, _ register: APLIC.Register) -> UInt32 {
        let domain = state[level]
        switch register {
        case .domaincfg:
            return APLIC.domaincfgConstant | (domain.isEnabled ? APLIC.domaincfgIE : 0)
                | (domain.sendsMessages ? APLIC.domaincfgDM : 0)
        case .sourcecfg(let source):
            guard source <= InterruptSource.count else { return 0 }
            if level == .machine && state.isDelegated(source) { return APLIC.sourcecfgD }
            return domain.modes[source].rawValue
        case .mmsiaddrcfg: return level == .machine ? state.mmsiaddrcfg : 0
        case .mmsiaddrcfgh: return level == .machine ? state.mmsiaddrcfgh : 0
        case .smsiaddrcfg: return level == .machine ? state.smsiaddrcfg : 0
        case .smsiaddrcfgh: return level == .machine ? state.smsiaddrcfgh : 0
        case .setip(let word): return bits(domain.pending, word)
        case .inClrip(let word):
            var inputs: UInt128 = 0
            for source in 1...InterruptSource.count where domain.rectified(source, wire: state.wire(source)) {
                inputs |= 1 << UInt128(source)
            }
            return bits(inputs, word)
        case .setie(let word): return bits(domain.enabled, word)
        case .genmsi: return domain.sendsMessages ? domain.generated : 0
        case .target(let source):
            guard source <= InterruptSource.count, domain.modes[source] != .inactive else { return 0 }
            let target = domain.targets[source]
            return target.hart << 18 | (domain.sendsMessages ? target.identity : target.priority)
        case .idc(let hart, let register):
            guard hart < domain.deliveries.count else { return 0 }
            let delivery = domain.deliveries[hart]
            switch register {
            case .idelivery: return delivery.isEnabled ? 1 : 0
            case .iforce: return delivery.isForced ? 1 : 0
            case .ithreshold: return delivery.threshold
            case .topi, .claimi: return top(domain, hart: hart)
            }
        case .setipnum, .clripnum, .clrie, .setienum, .clrienum, .setipnumLE, .setipnumBE, .reserved:
            return 0
        }
    }

    private func bits(_ set: UInt128, _ word: Int) -> UInt32 {
        word < 4 ? UInt32(truncatingIfNeeded: set >> UInt128(word * 32)) : 0
    }

    private func top(_ domain: APLICDomain, hart: Int) -> UInt32 {
        guard !domain.sendsMessages, let top = domain.top(hart: hart) else { return 0 }
        return UInt32(top.source) << 16 | top.priority
    }

    /// Spec: AIA 1.0 §4.8.1.5: a claim of nothing clears a forced interrupt.
    private func claim(_ state: inout APLIC.State, hart: Int) -> UInt32 {
        guard hart < state[level].deliveries.count else { return 0 }
        let value = top(state[level], hart: hart)
        if value == 0 {
            state[level].deliveries[hart].isForced = false
        } else {
            state[level].clearPending(Int(value >> 16))
        }
        return value
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .word else { return false }
        let value = UInt32(truncatingIfNeeded: value)
        let register = APLIC.Register(offset: offset)
        if register == .genmsi {
            // An extempore message is sent whatever domaincfg.IE says (§4.5.15), and at once: never busy.
            let sends = aplic.change { state in
                if state[level].sendsMessages { state[level].generated = value & 0xFFFC_07FF }
                return state[level].sendsMessages
            }
            if sends { aplic.generate(level, hart: value >> 18, identity: value & 0x7FF) }
            return true
        }
        aplic.change { state in write(&state, register, value) }
        return true
    }

    private func write(_ state: inout APLIC.State, _ register: APLIC.Register, _ value: UInt32) {
        switch register {
        case .domaincfg: configure(&state, value)
        case .sourcecfg(let source):
            if source <= InterruptSource.count { configure(&state, source: source, value) }
        case .mmsiaddrcfg, .mmsiaddrcfgh, .smsiaddrcfg, .smsiaddrcfgh:
            configureMessages(&state, register, value)
        case .setip(let word):
            each(value, word) { state[level].setPending($0, wire: state.wire($0)) }
        case .inClrip(let word):
            each(value, word) { state[level].clearPending($0) }
        case .setie(let word):
            each(value, word) { state[level].setEnabled($0) }
        case .clrie(let word):
            each(value, word) { state[level].enabled &= ~(1 << UInt128($0)) }
        case .setipnum, .setipnumLE:
            one(value) { state[level].setPending($0, wire: state.wire($0)) }
        case .setipnumBE:
            one(value.byteSwapped) { state[level].setPending($0, wire: state.wire($0)) }
        case .clripnum:
            one(value) { state[level].clearPending($0) }
        case .setienum:
            one(value) { state[level].setEnabled($0) }
        case .clrienum:
            one(value) { state[level].enabled &= ~(1 << UInt128($0)) }
        case .target(let source):
            guard source <= InterruptSource.count, state[level].modes[source] != .inactive else { return }
            state[level].targets[source].hart = value >> 18
            if state[level].sendsMessages {
                // No guest interrupt files: the guest index is wired to zero.
                state[level].targets[source].identity = value & 0x7FF
            } else {
                state[level].targets[source].priority = max(value & 0xFF, 1)
            }
        case .idc(let hart, let register):
            guard hart < state[level].deliveries.count else { return }
            switch register {
            case .idelivery: state[level].deliveries[hart].isEnabled = value & 1 != 0
            case .iforce: state[level].deliveries[hart].isForced = value & 1 != 0
            case .ithreshold: state[level].deliveries[hart].threshold = value & 0xFF
            case .topi, .claimi: break
            }
        case .genmsi, .reserved:
            break
        }
    }

    private func configure(_ state: inout APLIC.State, _ value: UInt32) {
        state[level].isEnabled = value & APLIC.domaincfgIE != 0
        let sends = value & APLIC.domaincfgDM != 0
        guard sends != state[level].sendsMessages else { return }
        state[level].sendsMessages = sends
        if !sends {
            for source in 1...InterruptSource.count where state[level].modes[source].isLevel {
                // In direct mode the pending bit of a level source is its input.
                state[level].setMode(source, state[level].modes[source], wire: state.wire(source))
            }
        }
    }

    private func configure(_ state: inout APLIC.State, source: Int, _ value: UInt32) {
        let bit: UInt128 = 1 << UInt128(source)
        let wire = state.wire(source)
        // Reserved modes are stored as inactive.
        let mode = APLIC.SourceMode(rawValue: value & 7) ?? .inactive
        switch level {
        case .machine:
            if value & APLIC.sourcecfgD != 0 {
                // The root has one child; delegating to another is a write of an unsupported value.
                guard value & 0x3FF == 0 else { return }
                state.machine.setMode(source, .inactive, wire: wire)
                state.delegated |= bit
            } else {
                state.delegated &= ~bit
                state.supervisor.setMode(source, .inactive, wire: wire)
                state.machine.setMode(source, mode, wire: wire)
            }
        case .supervisor:
            // A source that is not delegated reads as zero; a leaf turns delegation into zero (§4.5.2).
            guard state.isDelegated(source) else { return }
            state.supervisor.setMode(source, value & APLIC.sourcecfgD != 0 ? .inactive : mode, wire: wire)
        }
    }

    private func configureMessages(_ state: inout APLIC.State, _ register: APLIC.Register, _ value: UInt32) {
        guard level == .machine, state.mmsiaddrcfgh & APLIC.mmsiaddrcfghL == 0 else { return }
        switch register {
        case .mmsiaddrcfg: state.mmsiaddrcfg = value
        case .mmsiaddrcfgh: state.mmsiaddrcfgh = value & APLIC.mmsiaddrcfghMask
        case .smsiaddrcfg: state.smsiaddrcfg = value
        default: state.smsiaddrcfgh = value & APLIC.smsiaddrcfghMask
        }
    }

    /// Calls `body` with every existing source whose bit is set in word `word` of a set.
    private func each(_ value: UInt32, _ word: Int, _ body: (Int) -> Void) {
        guard word < 4 else { return }
        var sources = UInt128(value) << UInt128(word * 32) & APLIC.allSources
        while sources != 0 {
            body(sources.trailingZeroBitCount)
            sources &= sources - 1
        }
    }

    private func one(_ value: UInt32, _ body: (Int) -> Void) {
        if 1...UInt32(InterruptSource.count) ~= value { body(Int(value)) }
    }
}
