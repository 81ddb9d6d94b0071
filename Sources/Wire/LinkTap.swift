public import Synchronization

/// Which way a message goes on a link, seen from the process that holds the tap.
public enum LinkDirection: Sendable { case received, sent }

/// What becomes of a message on an impaired link.
public enum LinkVerdict: Sendable, Equatable {
    case pass
    case drop
    /// These bytes go in its place, one message an element: corruption, duplication, reordering.
    case replace([[UInt8]])
    /// The link is cut.
    case disconnect
}

/// Sees every message of a tapped link, on the thread that carries it.
public protocol LinkObserver: AnyObject, Sendable {
    func message(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict
}

/// The place on a link where a capture or an impairment can be put in at any moment.
///
/// While none is, a message pays one relaxed load and one predictable branch.
public final class LinkTap: Sendable {
    @usableFromInline let active = Atomic<Bool>(false)
    private let observers = Mutex<[any LinkObserver]>([])

    public init() {}

    /// Puts an observer in; several see a message in the order they were put in.
    public func insert(_ observer: any LinkObserver) {
        observers.withLock { $0.append(observer) }
        active.store(true, ordering: .releasing)
    }

    /// Takes an observer out.
    public func remove(_ observer: any LinkObserver) {
        observers.withLock { list in
            list.removeAll { $0 === observer }
            if list.isEmpty { active.store(false, ordering: .releasing) }
        }
    }

    /// True while an observer is in; one relaxed load.
    @inlinable public var isActive: Bool { active.load(ordering: .relaxed) }

    /// The verdict on a message.
    @inlinable
    public func inspect(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict {
        // Safety: passed on for the time of the call.
        active.load(ordering: .relaxed) ? unsafe consult(bytes, direction) : .pass
    }

    @usableFromInline
    func consult(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict {
        for observer in observers.withLock({ $0 }) {
            let verdict = unsafe observer.message(bytes, direction)
            if verdict != .pass { return verdict }
        }
        return .pass
    }
}
