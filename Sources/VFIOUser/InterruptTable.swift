internal import Glibc
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
    }

    private struct Line {
        var notifier: EventNotifier?
        /// The eventfd would block when its counter is full, so it is asked first.
        var mayBlock = false
        var masked = false
        /// INTx: asserted by the device. Others: raised while masked.
        var pending = false
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
            case .msi, .msix: IRQInfo.eventfd | IRQInfo.noResize
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
            guard vector < lines[kind].count, lines[kind][vector].notifier != nil else { return false }
            if lines[kind][vector].masked {
                lines[kind][vector].pending = true
            } else {
                Self.signal(lines[kind][vector])
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
        guard line.pending, !line.masked, line.notifier != nil else { return }
        line.masked = true
        signal(line)
    }

    private static func signal(_ line: Line) {
        guard let notifier = line.notifier else { return }
        if line.mayBlock {
            var entry = pollfd(fd: notifier.descriptor.rawValue, events: Int16(POLLOUT), revents: 0)
            // Safety: one entry, count one. A full counter is raised already.
            guard unsafe poll(&entry, 1, 0) == 1 else { return }
        }
        notifier.signal()
    }

    /// True while the client has set an eventfd for an interrupt of a kind: it has enabled that kind.
    public func isSet(_ kind: Kind) -> Bool {
        lines.withLock { lines in lines[Int(kind.rawValue)].contains { $0.notifier != nil } }
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
    /// outside it, a descriptor that is not an eventfd, masking other than INTx and MSI-X; `notSupported` for
    /// eventfds that shall report masking.
    func apply(_ set: IRQSet, bools: RawSpan, descriptors: [Descriptor]) throws(ErrorNumber) {
        guard let kind = Kind(rawValue: set.index) else { throw .invalid }
        let count = count(kind)
        guard set.start <= count, set.count <= count - set.start else { throw .invalid }
        guard set.action == .trigger || kind == .intx || kind == .msix || kind == .msi else { throw .invalid }
        if set.data == .eventfd {
            guard set.action == .trigger else { throw .notSupported }
            guard set.start < count, descriptors.allSatisfy(Self.isEventDescriptor) else { throw .invalid }
        }
        for number in 0..<Int(set.count) {
            if set.data == .bool, bools.uint8(at: number) == 0 { continue }
            let vector = Int(set.start) + number
            let descriptor = number < descriptors.count ? descriptors[number] : nil
            lines.withLock { lines in
                Self.apply(set, kind, descriptor, &lines[Int(kind.rawValue)][vector])
            }
        }
        if set.count == 0 {
            lines.withLock { lines in
                for vector in lines[Int(kind.rawValue)].indices {
                    lines[Int(kind.rawValue)][vector].notifier = nil
                    lines[Int(kind.rawValue)][vector].masked = false
                }
            }
        }
    }

    private static func apply(_ set: IRQSet, _ kind: Kind, _ descriptor: Descriptor?, _ line: inout Line) {
        switch (set.action, set.data) {
        case (.trigger, .eventfd):
            line.notifier = descriptor.map(EventNotifier.init(adopting:))
            line.mayBlock = descriptor.map { fcntl($0.rawValue, F_GETFL) & O_NONBLOCK == 0 } ?? false
            line.masked = false
            if kind == .intx { deliverINTx(&line) }
        case (.trigger, _): signal(line)
        case (.mask, _): line.masked = true
        case (.unmask, _):
            line.masked = false
            if kind == .intx {
                deliverINTx(&line)
            } else if line.pending {
                line.pending = false
                signal(line)
            }
        }
    }

    /// True for an eventfd: anything else a peer passes (a pipe, a file) could block or grow with each interrupt.
    private static func isEventDescriptor(_ descriptor: Descriptor) -> Bool {
        var name = [UInt8](repeating: 0, count: 32)
        // Safety: readlink writes at most the array's bytes.
        let count = unsafe "/proc/self/fd/\(descriptor.rawValue)".withCString { path in
            unsafe name.withUnsafeMutableBytes { unsafe readlink(path, $0.baseAddress!, $0.count) }
        }
        return count > 0 && name.prefix(count).elementsEqual("anon_inode:[eventfd]".utf8)
    }
}
