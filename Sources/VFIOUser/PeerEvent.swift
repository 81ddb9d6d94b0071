internal import Glibc
internal import Wire

/// An eventfd that the peer passed: raised here, waited for there.
///
/// Anything else that a peer may pass (a pipe, a file) could block or grow with each signal and is refused. An eventfd
/// that would block when its counter is full is asked first whether it would: a full one is raised already.
struct PeerEvent: Sendable {
    private let notifier: EventNotifier
    private let mayBlock: Bool

    init?(_ descriptor: Descriptor) {
        guard Self.isEventDescriptor(descriptor) else { return nil }
        notifier = EventNotifier(adopting: descriptor)
        mayBlock = fcntl(descriptor.rawValue, F_GETFL) & O_NONBLOCK == 0
    }

    func signal() {
        if mayBlock {
            var entry = pollfd(fd: notifier.descriptor.rawValue, events: Int16(POLLOUT), revents: 0)
            // Safety: one entry, count one.
            guard unsafe poll(&entry, 1, 0) == 1 else { return }
        }
        notifier.signal()
    }

    private static func isEventDescriptor(_ descriptor: Descriptor) -> Bool {
        var name = [UInt8](repeating: 0, count: 32)
        // Safety: readlink writes at most the array's bytes.
        let count = unsafe "/proc/self/fd/\(descriptor.rawValue)".withCString { path in
            unsafe name.withUnsafeMutableBytes { unsafe readlink(path, $0.baseAddress!, $0.count) }
        }
        return count > 0 && name.prefix(count).elementsEqual("anon_inode:[eventfd]".utf8)
    }
}
