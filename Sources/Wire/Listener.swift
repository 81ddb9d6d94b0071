internal import CSystem

/// A listening Unix socket. Removes its path when it made the path itself.
public final class Listener: Sendable {
    public let descriptor: Descriptor
    public let kind: SocketKind
    private let ownedPath: String?

    /// Makes the socket at `path`. An old socket there is replaced only when nobody listens on it any more.
    public init(path: String, kind: SocketKind = .stream, backlog: Int32 = 16) throws(WireError) {
        guard path.utf8.count <= 107 else { throw .pathTooLong(path) }
        let number = cs_unix_socket(kind.rawType)
        guard number >= 0 else { throw .last("socket", path) }
        descriptor = Descriptor(adopting: number)
        self.kind = kind
        // Safety: the strings live through the calls.
        if unsafe cs_unix_bind(number, path) != 0 {
            guard errno == EADDRINUSE, Self.isStale(path, kind) else { throw .last("bind", path) }
            unsafe unlink(path)
            guard unsafe cs_unix_bind(number, path) == 0 else { throw .last("bind", path) }
        }
        ownedPath = path
        guard listen(number, backlog) == 0 else { throw .last("listen", path) }
    }

    /// Takes over a listening socket that someone else made (socket activation).
    public init(adopting descriptor: Descriptor, kind: SocketKind) {
        self.descriptor = descriptor
        self.kind = kind
        ownedPath = nil
    }

    deinit { removePath() }

    /// Removes the path that this listener made, if it did; for a process that ends without letting go of it.
    public func removePath() {
        // Safety: the string lives through the call.
        if let ownedPath { unsafe unlink(ownedPath) }
    }

    private static func isStale(_ path: String, _ kind: SocketKind) -> Bool {
        do throws(WireError) {
            _ = try Socket.connect(to: path, kind: kind)
            return false
        } catch {
            guard case .system(_, _, let code) = error else { return false }
            return code == ECONNREFUSED
        }
    }

    /// The next connection, waiting for it until `deadline` (nil: forever).
    ///
    /// Throws `.closed` after `shutdown()`.
    public func accept(until deadline: MonotonicTime? = nil) throws(WireError) -> Socket {
        while true {
            if let deadline {
                try Socket(adopting: try descriptor.duplicate(), kind: kind).wait(for: .readable, until: deadline)
            }
            let number = cs_accept(descriptor.rawValue)
            if number >= 0 { return Socket(adopting: Descriptor(adopting: number), kind: kind) }
            switch errno {
            case EINTR, ECONNABORTED: continue
            case EAGAIN:
                try Socket(adopting: try descriptor.duplicate(), kind: kind).wait(for: .readable, until: nil)
            case EINVAL: throw .closed(inMessage: false)
            default: throw .last("accept", ownedPath ?? "listener")
            }
        }
    }

    /// Ends a blocked `accept`; no connection comes after it.
    public func shutdown() { _ = CSystem.shutdown(descriptor.rawValue, Int32(SHUT_RDWR)) }
}
