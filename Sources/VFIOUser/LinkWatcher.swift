internal import Wire

/// One thread for all clients of a process, which notices at once when a server is gone.
///
/// It waits for hang-ups only, so a reply does not wake it: epoll looks at the event's kind before it wakes anybody.
final class LinkWatcher: Sendable {
    /// Nil where the process has no descriptors left for it; a dead link is then noticed at the next access.
    static let shared = try? LinkWatcher()

    private let loop: EventLoop

    private init() throws(WireError) {
        let loop = try EventLoop()
        self.loop = loop
        WorkerThread("vfio-user-watch") { loop.run() }
    }

    /// Calls `hungUp` on this thread when the other end is closed, until `forget`.
    func watch(_ socket: Socket, hungUp: @escaping @Sendable () -> Void) {
        try? loop.add(socket.descriptor, .hangUp) { _ in hungUp() }
    }

    func forget(_ socket: Socket) { loop.remove(socket.descriptor) }
}
