internal import Synchronization
internal import Wire

/// The client's ends of a device's interrupts: an eventfd for each vector that the client has set.
///
/// Any thread may raise at any time. Spec: vfio-user VFIO_USER_DEVICE_SET_IRQS; <linux/vfio.h> for the types.
public final class InterruptTable: Sendable {
    /// The types of interrupt of a PCI device. Spec: <linux/vfio.h> VFIO_PCI_*_IRQ_INDEX.
    public enum Kind: UInt32, CaseIterable, Sendable {
        case intx = 0
        case msi = 1
        case msix = 2
        case error = 3
        case request = 4

        /// Whether its interrupts can be masked.
        var isMaskable: Bool { self == .intx || self == .msi || self == .msix }
    }

    private struct Line {
        /// Signalled when the interrupt is raised, and when it becomes masked and unmasked.
        var trigger: PeerEvent?
        var maskEvent: PeerEvent?
        var unmaskEvent: PeerEvent?
        /// INTx: unmasks it when the client signals.
        var unmasker: Unmasker?
        var masked = false
        /// INTx: asserted by the device. Others: raised while masked.
        var pending = false

        mutating func mask() {
            guard !masked else { return }
            masked = true
            maskEvent?.signal()
        }

        mutating func unmask() {
            guard masked else { return }
            masked = false
            unmaskEvent?.signal()
        }
    }

    private let counts: [UInt32]
    private let lines: Mutex<[[Line]]>

    /// A table with so many interrupts of each kind.
    public init(intx: UInt32 = 0, msi: UInt32 = 0, msix: UInt32 = 0, error: UInt32 = 0, request: UInt32 = 0) {
        counts = [intx, msi, msix, error, request]
        lines = Mutex(counts.map { [Line](repeating: Line(), count: Int($0)) })
    }

    /// How many interrupts there are of a kind.
    public func count(_ kind: Kind) -> UInt32 { counts[Int(kind.rawValue)] }

    /// What GET_IRQ_INFO answers. Refused: an unknown kind.
    func info(_ index: UInt32) throws(ErrorNumber) -> IRQInfo {
        guard let kind = Kind(rawValue: index) else { throw .invalid }
        let flags: UInt32 =
            switch kind {
            case .intx: IRQInfo.eventfd | IRQInfo.maskable | IRQInfo.automasked
            case .msi, .msix: IRQInfo.eventfd | IRQInfo.maskable | IRQInfo.noResize
            case .error, .request: IRQInfo.eventfd | IRQInfo.noResize
            }
        return IRQInfo(index: index, flags: flags, count: count(kind))
    }

    // MARK: The device's side

    /// Raises one interrupt: signals its eventfd, or keeps it pending while it is masked. False when the client has
    /// set no eventfd for it, or there is no such vector.
    @discardableResult
    public func raise(_ kind: Kind, vector: UInt32 = 0) -> Bool {
        lines.withLock { lines in
            let (kind, vector) = (Int(kind.rawValue), Int(vector))
            guard vector < lines[kind].count, let trigger = lines[kind][vector].trigger else { return false }
            if lines[kind][vector].masked {
                lines[kind][vector].pending = true
            } else {
                trigger.signal()
            }
            return true
        }
    }

    /// Sets the level of INTx. Asserting it signals once and masks it until the client unmasks; it signals again
    /// then if it is still asserted.
    public func setINTx(_ level: Bool) {
        lines.withLock { lines in
            guard !lines[0].isEmpty else { return }
            lines[0][0].pending = level
            Self.deliverINTx(&lines[0][0])
        }
    }

    private static func deliverINTx(_ line: inout Line) {
        guard line.pending, !line.masked, let trigger = line.trigger else { return }
        line.mask()
        trigger.signal()
    }

    /// True while the client has set an eventfd for an interrupt of a kind: it has enabled that kind.
    public func isSet(_ kind: Kind) -> Bool {
        lines.withLock { lines in lines[Int(kind.rawValue)].contains { $0.trigger != nil } }
    }

    /// True while an interrupt that was raised waits for its mask to go.
    public func isPending(_ kind: Kind, vector: Int) -> Bool {
        lines.withLock { lines in
            let kind = Int(kind.rawValue)
            return lines[kind].indices.contains(vector) && lines[kind][vector].pending
        }
    }

    // MARK: The client's side

    /// Forgets every eventfd and mask.
    public func removeAll() {
        lines.withLock { lines in
            for kind in lines.indices {
                for vector in lines[kind].indices {
                    let asserted = kind == 0 && lines[kind][vector].pending
                    lines[kind][vector] = Line()
                    lines[kind][vector].pending = asserted
                }
            }
        }
    }

    /// Does what a SET_IRQS message asks. `bools` is its bool data. Refused: `invalid` for an unknown kind, a range
    /// outside it, a descriptor that is not an eventfd, masking of a kind that has no masks; `noSpace` where the process
    /// has no descriptors left to wait for an unmasking.
    ///
    /// Deviates: an eventfd at INTx's unmasking has two meanings: the specification's server signals it when INTx is
    /// unmasked, Linux's waits for it and unmasks then. QEMU with KVM counts on Linux's, which lets KVM unmask without a
    /// message, and no client is known that waits: so INTx has Linux's meaning, the others the specification's.
    func apply(_ set: IRQSet, bools: RawSpan, descriptors: [Descriptor]) throws(ErrorNumber) {
        guard let kind = Kind(rawValue: set.index) else { throw .invalid }
        let count = count(kind)
        guard set.start <= count, set.count <= count - set.start else { throw .invalid }
        guard set.action == .trigger || kind.isMaskable else { throw .invalid }
        var events: [PeerEvent] = []
        if set.data == .eventfd {
            guard set.start < count else { throw .invalid }
            for descriptor in descriptors {
                guard let event = PeerEvent(descriptor) else { throw .invalid }
                events.append(event)
            }
        }
        if set.count == 0 { return disable(kind) }
        if kind == .intx, set.data == .eventfd, set.action == .unmask { return try setUnmasker(descriptors.first) }
        for number in 0..<Int(set.count) {
            if set.data == .bool, bools.uint8(at: number) == 0 { continue }
            let vector = Int(set.start) + number
            let event = number < events.count ? events[number] : nil
            lines.withLock { lines in
                Self.apply(set, kind, event, &lines[Int(kind.rawValue)][vector])
            }
        }
    }

    /// The eventfd by which the client unmasks INTx, or nil: by messages only.
    private func setUnmasker(_ descriptor: Descriptor?) throws(ErrorNumber) {
        var unmasker: Unmasker?
        if let descriptor {
            unmasker = Unmasker(descriptor) { [weak self] unmasker in self?.unmaskINTx(by: unmasker) }
            guard unmasker != nil else { throw .noSpace }
        }
        // The old one is let go of outside the lock, and not before the new one is in place.
        let old = lines.withLock { lines in
            defer { lines[0][0].unmasker = unmasker }
            return lines[0][0].unmasker
        }
        withExtendedLifetime(old) {}
        unmasker?.start()
    }

    private func unmaskINTx(by unmasker: Unmasker) {
        lines.withLock { lines in
            // One that was replaced may still be called once.
            guard lines[0][0].unmasker === unmasker else { return }
            lines[0][0].unmask()
            Self.deliverINTx(&lines[0][0])
        }
    }

    /// Takes every eventfd and mask of a kind away.
    private func disable(_ kind: Kind) {
        lines.withLock { lines in
            for vector in lines[Int(kind.rawValue)].indices {
                let pending = lines[Int(kind.rawValue)][vector].pending
                lines[Int(kind.rawValue)][vector] = Line()
                lines[Int(kind.rawValue)][vector].pending = pending
            }
        }
    }

    private static func apply(_ set: IRQSet, _ kind: Kind, _ event: PeerEvent?, _ line: inout Line) {
        switch (set.action, set.data) {
        case (.trigger, .eventfd):
            line.trigger = event
            line.masked = false
            if kind == .intx { deliverINTx(&line) }
        case (.mask, .eventfd): line.maskEvent = event
        case (.unmask, .eventfd): line.unmaskEvent = event
        case (.trigger, _): line.trigger?.signal()
        case (.mask, _): line.mask()
        case (.unmask, _):
            line.unmask()
            if kind == .intx {
                deliverINTx(&line)
            } else if line.pending {
                line.pending = false
                line.trigger?.signal()
            }
        }
    }
}
