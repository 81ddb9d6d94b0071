// An IMSIC interrupt file: the identities that messages (MSIs) made pending, and which of them the hart wants.
//
// Spec: RISC-V Advanced Interrupt Architecture 1.0 §3.5 (interrupt files), §3.8 (indirectly accessed registers),
// §3.10 (top external interrupt). Senders only set bits of `eip`; everything else is done by the hart.
import Synchronization

/// One interrupt file (machine or supervisor level) with identities 1…255. Senders may be on any thread.
public final class InterruptFile: Sendable {
    /// The highest identity; the devicetree's `riscv,num-ids`.
    public static let identityCount: UInt32 = 255

    private let pending = Bits()
    private let enabled = Bits()
    /// `eidelivery`: 0 or 1.
    private let delivery = Atomic<UInt64>(0)
    /// `eithreshold`: identities at or above it are masked; 0 masks none.
    private let threshold = Atomic<UInt64>(0)
    private let signals: HartSignals

    init(signals: HartSignals) {
        self.signals = signals
    }

    /// A message arrived (a write of `identity` to `seteipnum_le`). Zero and identities that the file does not have
    /// are ignored, as the specification asks.
    public func deliver(identity: UInt32) {
        guard identity != 0 && identity <= Self.identityCount else { return }
        pending.set(Int(identity))
        signals.raiseAttention()
    }

    // MARK: the hart's side

    /// Back to the state after reset.
    func reset() {
        for index in 0..<4 {
            pending.store(0, word: index)
            enabled.store(0, word: index)
        }
        delivery.store(0, ordering: .relaxed)
        threshold.store(0, ordering: .relaxed)
    }

    /// The pending and enabled identity of the highest priority (the lowest number) that the threshold lets through,
    /// or 0. `eidelivery` has no say in it (§3.10).
    var topIdentity: UInt32 {
        for index in 0..<4 {
            let candidates = pending.word(index) & enabled.word(index)
            if candidates != 0 {
                let identity = UInt32(index * 64 + candidates.trailingZeroBitCount)
                let limit = threshold.load(ordering: .relaxed)
                return limit == 0 || UInt64(identity) < limit ? identity : 0
            }
        }
        return 0
    }

    /// Whether the file drives its external-interrupt line.
    var isSignaling: Bool {
        delivery.load(ordering: .relaxed) != 0 && topIdentity != 0
    }

    /// `mtopei`/`stopei`: identity in bits 26:16 and again, as priority, in bits 10:0.
    var topExternalInterrupt: UInt64 {
        let identity = UInt64(topIdentity)
        return identity << 16 | identity
    }

    /// A write to `mtopei`/`stopei` claims the identity that the same instruction read.
    func claim(identity: UInt64) {
        if identity != 0 && identity <= UInt64(Self.identityCount) { pending.clear(Int(identity)) }
    }

    /// A register behind `miselect`/`siselect` 0x70…0xFF; `nil`: there is none (illegal instruction).
    func readRegister(_ select: UInt64) -> UInt64? {
        switch select {
        case 0x70: delivery.load(ordering: .relaxed)
        case 0x72: threshold.load(ordering: .relaxed)
        case 0x80...0xBF where select & 1 == 0: word(pending, (select - 0x80) / 2)
        case 0xC0...0xFF where select & 1 == 0: word(enabled, (select - 0xC0) / 2)
        case 0x71, 0x73...0x7F: select & 1 == 0 ? 0 : nil
        default: nil
        }
    }

    /// Changes a register by clearing `clear` and then setting `set`: the atomic form of write, set and clear, so that
    /// a message that arrives in between is not lost. False: there is no such register.
    func writeRegister(_ select: UInt64, clear: UInt64, set: UInt64) -> Bool {
        switch select {
        case 0x70: delivery.store((delivery.load(ordering: .relaxed) & ~clear | set) & 1, ordering: .relaxed)
        case 0x72:
            // WARL: at least the values 0…255 (§3.8.2).
            threshold.store((threshold.load(ordering: .relaxed) & ~clear | set) & 0xFF, ordering: .relaxed)
        case 0x80...0xBF where select & 1 == 0: change(pending, (select - 0x80) / 2, clear, set)
        case 0xC0...0xFF where select & 1 == 0: change(enabled, (select - 0xC0) / 2, clear, set)
        case 0x71, 0x73...0x7F: return select & 1 == 0
        default: return false
        }
        return true
    }

    private func word(_ bits: Bits, _ index: UInt64) -> UInt64 {
        index < 4 ? bits.word(Int(index)) : 0
    }

    private func change(_ bits: Bits, _ index: UInt64, _ clear: UInt64, _ set: UInt64) {
        guard index < 4 else { return }
        // Identity 0 does not exist: its bit reads as zero.
        bits.change(Int(index), clear: clear, set: index == 0 ? set & ~1 : set)
    }

    /// 256 atomic bits.
    private final class Bits: Sendable {
        private let w0 = Atomic<UInt64>(0)
        private let w1 = Atomic<UInt64>(0)
        private let w2 = Atomic<UInt64>(0)
        private let w3 = Atomic<UInt64>(0)

        func word(_ index: Int) -> UInt64 {
            switch index {
            case 0: w0.load(ordering: .acquiring)
            case 1: w1.load(ordering: .acquiring)
            case 2: w2.load(ordering: .acquiring)
            default: w3.load(ordering: .acquiring)
            }
        }

        func store(_ value: UInt64, word index: Int) { change(index, clear: ~0, set: value) }
        func set(_ bit: Int) { change(bit / 64, clear: 0, set: 1 << UInt64(bit % 64)) }
        func clear(_ bit: Int) { change(bit / 64, clear: 1 << UInt64(bit % 64), set: 0) }

        func change(_ index: Int, clear: UInt64, set: UInt64) {
            switch index {
            case 0: Self.change(w0, clear, set)
            case 1: Self.change(w1, clear, set)
            case 2: Self.change(w2, clear, set)
            default: Self.change(w3, clear, set)
            }
        }

        private static func change(_ word: borrowing Atomic<UInt64>, _ clear: UInt64, _ set: UInt64) {
            if clear != 0 { word.bitwiseAnd(~clear, ordering: .acquiringAndReleasing) }
            if set != 0 { word.bitwiseOr(set, ordering: .acquiringAndReleasing) }
        }
    }
}
