// One interrupt domain's state: what §4.5 calls the registers of its control region, as a value.

/// An interrupt domain. Sets of sources are 128-bit masks, bit n is source n.
struct APLICDomain {
    /// Where and as what a source is delivered.
    struct Target: Equatable {
        var hart: UInt32 = 0
        /// MSI mode: the identity.
        var identity: UInt32 = 0
        /// Direct mode: 1…255, lower is better.
        var priority: UInt32 = 1
    }

    /// A hart's interrupt delivery control structure.
    struct Delivery {
        var isEnabled = false
        var isForced = false
        var threshold: UInt32 = 0
    }

    var isEnabled = false
    var sendsMessages = false
    var modes = [APLIC.SourceMode](repeating: .inactive, count: InterruptSource.count + 1)
    var targets = [Target](repeating: Target(), count: InterruptSource.count + 1)
    var pending: UInt128 = 0
    var enabled: UInt128 = 0
    var generated: UInt32 = 0
    var deliveries: [Delivery]

    init(hartCount: Int) {
        deliveries = Array(repeating: Delivery(), count: hartCount)
    }

    /// The rectified input of a source whose wire is `wire`: zero while inactive or detached.
    func rectified(_ source: Int, wire: Bool) -> Bool {
        switch modes[source] {
        case .inactive, .detached: false
        case .risingEdge, .highLevel: wire
        case .fallingEdge, .lowLevel: !wire
        }
    }

    /// Takes a new source mode.
    ///
    /// Spec: AIA 1.0 §4.5.2: becoming inactive clears pending, enable and target; nothing else clears pending.
    mutating func setMode(_ source: Int, _ mode: APLIC.SourceMode, wire: Bool) {
        modes[source] = mode
        let bit: UInt128 = 1 << UInt128(source)
        if mode == .inactive {
            pending &= ~bit
            enabled &= ~bit
            targets[source] = Target()
        } else if mode.isLevel {
            if rectified(source, wire: wire) {
                pending |= bit
            } else if !sendsMessages {
                pending &= ~bit
            }
        }
    }

    /// The wire of an active source went from `old` to `new`.
    ///
    /// Spec: AIA 1.0 §4.7
    mutating func wireChanged(_ source: Int, from old: Bool, to new: Bool) {
        let bit: UInt128 = 1 << UInt128(source)
        let was = rectified(source, wire: old)
        let now = rectified(source, wire: new)
        if now && !was { pending |= bit }
        if !now && modes[source].isLevel { pending &= ~bit }
    }

    /// `setipnum` of one source.
    mutating func setPending(_ source: Int, wire: Bool) {
        switch modes[source] {
        case .inactive: return
        case .detached, .risingEdge, .fallingEdge: break
        case .highLevel, .lowLevel:
            // In direct mode the bit only follows the wire; in MSI mode a high input may be announced again.
            guard sendsMessages, rectified(source, wire: wire) else { return }
        }
        pending |= 1 << UInt128(source)
    }

    /// `clripnum` of one source.
    mutating func clearPending(_ source: Int) {
        if modes[source].isLevel && !sendsMessages { return }
        pending &= ~(1 << UInt128(source))
    }

    mutating func setEnabled(_ source: Int) {
        if modes[source] != .inactive { enabled |= 1 << UInt128(source) }
    }

    /// The best interrupt of a hart in direct mode: `topi`'s fields, or nil.
    func top(hart: Int) -> (source: Int, priority: UInt32)? {
        let threshold = deliveries[hart].threshold
        var best: (source: Int, priority: UInt32)?
        var candidates = pending & enabled
        while candidates != 0 {
            let source = candidates.trailingZeroBitCount
            candidates &= candidates - 1
            let target = targets[source]
            guard target.hart == UInt32(hart), threshold == 0 || target.priority < threshold else { continue }
            if let best, best.priority <= target.priority { continue }
            best = (source, target.priority)
        }
        return best
    }

    /// Whether the domain drives a hart's external interrupt line (direct mode).
    func drivesLine(hart: Int) -> Bool {
        guard isEnabled, !sendsMessages, deliveries[hart].isEnabled else { return false }
        return deliveries[hart].isForced || top(hart: hart) != nil
    }
}
