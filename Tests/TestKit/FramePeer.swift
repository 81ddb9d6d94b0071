public import Wire

/// The far end of an Ethernet link, as an independent peer would see it: a plain socket and the framing by hand.
public struct FramePeer {
    public let socket: Socket

    public init(socket: Socket) { self.socket = socket }

    /// `frame` behind its 32-bit big-endian length.
    public static func framed(_ frame: [UInt8]) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: frame.count >> (24 - 8 * $0)) } + frame
    }

    /// Sends frames in one call.
    public func send(_ frames: [UInt8]...) throws { try socket.send(frames.flatMap(Self.framed)) }

    /// The next frame, or nil when the link ended; throws when none comes in time.
    public func next(within limit: Duration = .seconds(20)) throws -> [UInt8]? {
        let deadline = MonotonicTime.after(limit)
        guard let prefix = try exactly(4, deadline) else { return nil }
        return try exactly(prefix.reduce(0) { $0 << 8 | Int($1) }, deadline)
    }

    private func exactly(_ count: Int, _ deadline: MonotonicTime) throws -> [UInt8]? {
        var bytes: [UInt8] = []
        while bytes.count < count {
            guard let more = try socket.receiveBytes(limit: count - bytes.count, until: deadline) else { return nil }
            bytes += more
        }
        return bytes
    }
}

/// A loop that serves on a thread of its own until `end`.
public final class LoopThread: Sendable {
    public let loop: EventLoop
    private let thread: WorkerThread

    public init() throws {
        let loop = try EventLoop()
        self.loop = loop
        thread = WorkerThread("test-loop") { loop.run() }
    }

    public func end() {
        loop.stop()
        thread.join()
    }
}
