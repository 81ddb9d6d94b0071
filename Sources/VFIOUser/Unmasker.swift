internal import Wire

/// An eventfd that the client, or KVM for it, signals to unmask INTx. Waits from `start` until it is let go of.
///
/// One thread of the process waits for all of them. It never reads a descriptor, which a client that reads it too could
/// make it block on: the loop tells of each signal once (edge-triggered), whatever the counter is.
final class Unmasker: Sendable {
    private static let loop: EventLoop? = {
        guard let loop = try? EventLoop() else { return nil }
        WorkerThread("vfio-user-intx") { loop.run() }
        return loop
    }()
    /// EPOLLET.
    private static let edge = EventLoop.Events(rawValue: 1 << 31)

    private let descriptor: Descriptor
    private let loop: EventLoop
    private let signalled: @Sendable (Unmasker) -> Void

    /// Nil where the process has no descriptors left. The descriptor is an eventfd's.
    init?(_ descriptor: Descriptor, _ signalled: @escaping @Sendable (Unmasker) -> Void) {
        guard let loop = Self.loop else { return nil }
        self.descriptor = descriptor
        self.loop = loop
        self.signalled = signalled
    }

    func start() {
        try? loop.add(descriptor, [.readable, Self.edge]) { [weak self] _ in
            if let self { self.signalled(self) }
        }
    }

    deinit { loop.remove(descriptor) }
}
