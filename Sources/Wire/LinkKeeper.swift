// Keeps one point-to-point link alive: accepts or connects, hands the socket over, and begins again when it ends.
//
// A side that serves takes one peer at a time; the next waits in the listener's queue until the first has left. A side
// that uses connects once at the start: its peer's listener exists before either process does, so that works at the
// first try. Only after a link has been lost does it try again at growing intervals, because nobody else can tell it
// when the peer's socket is back.

internal import Synchronization

/// How a port comes to its peer.
public enum LinkSource: Sendable {
    /// The port has a listening socket.
    case serves(Listener)
    /// The port connects to the socket at a path.
    case uses(path: String)
    /// The port was given a socket; when the link ends there is no other.
    case connected(Socket)
}

/// Makes a link again whenever it ends. Its callbacks run on the loop's thread.
public final class LinkKeeper: Sendable {
    /// Intervals between two attempts to connect: short, since a restarted peer is back within milliseconds; at most
    /// two seconds, so that a peer that stays away costs nothing to speak of.
    static let firstRetry = Duration.milliseconds(20)
    static let longestRetry = Duration.seconds(2)
    /// A link that lived shorter than this did not work: a peer that accepts and closes must not be called without end.
    static let provenAfter = Duration.seconds(1)

    private struct State {
        var isUp = false
        var isStopped = false
        var retry = LinkKeeper.firstRetry
        var cameUp = MonotonicTime(nanoseconds: 0)
        var timer: EventLoop.Timer?
    }

    private let loop: EventLoop
    private let source: LinkSource
    private let kind: SocketKind
    private let state = Mutex(State())
    private let onUp: @Sendable (Socket) -> Void
    private let report: @Sendable (String) -> Void

    /// - Parameters:
    ///   - onUp: called with the socket of a link that came up.
    ///   - report: called with one line when a lost link cannot be made again yet; once for each loss.
    public init(
        _ source: LinkSource, kind: SocketKind = .stream, loop: EventLoop,
        report: @escaping @Sendable (String) -> Void = { _ in }, onUp: @escaping @Sendable (Socket) -> Void
    ) {
        self.source = source
        self.kind = kind
        self.loop = loop
        self.onUp = onUp
        self.report = report
    }

    /// Makes the first link, or waits for it. Throws when a path cannot be connected to.
    public func start() throws(WireError) {
        switch source {
        case .serves: try listen()
        case .uses(let path): comeUp(try Socket.connect(to: path, kind: kind))
        case .connected(let socket): comeUp(socket)
        }
    }

    /// Tells that the link's owner has seen its end and let the socket go.
    public func linkEnded() {
        let again = state.withLock { state in
            state.isUp = false
            return !state.isStopped
        }
        guard again else { return }
        switch source {
        case .serves: try? listen()
        case .uses(let path): linkLost(path)
        case .connected: break
        }
    }

    /// No link comes up after this.
    public func stop() {
        let timer = state.withLock { state in
            state.isStopped = true
            return state.timer.take()
        }
        if let timer { loop.cancel(timer) }
        if case .serves(let listener) = source { loop.remove(listener.descriptor) }
    }

    private func comeUp(_ socket: Socket) {
        let wanted = state.withLock { state in
            guard !state.isStopped else { return false }
            state.isUp = true
            state.cameUp = .now
            return true
        }
        if wanted { onUp(socket) }
    }

    private func listen() throws(WireError) {
        guard case .serves(let listener) = source else { return }
        try loop.add(listener.descriptor) { [weak self] _ in self?.accept(listener) }
    }

    private func accept(_ listener: Listener) {
        // Readable: a connection waits, and on a Unix socket it waits even when its peer has already gone.
        guard let socket = try? listener.accept() else { return }
        loop.remove(listener.descriptor)
        comeUp(socket)
    }

    /// Tries at once after a link that worked, later after one that did not.
    private func linkLost(_ path: String) {
        let isProven = state.withLock { state in
            let isProven = MonotonicTime.now.since(state.cameUp) >= Self.provenAfter
            if isProven { state.retry = Self.firstRetry }
            return isProven
        }
        if isProven {
            connectAgain(path, isFirst: true)
        } else {
            scheduleRetry(path, isFirst: true)
        }
    }

    private func connectAgain(_ path: String, isFirst: Bool) {
        do throws(WireError) {
            // Never waits: the loop has other links.
            comeUp(try Socket.connect(to: path, kind: kind, patience: .zero))
        } catch {
            if isFirst { report("\(error): the link is down; trying again until it is back") }
            scheduleRetry(path, isFirst: false)
        }
    }

    private func scheduleRetry(_ path: String, isFirst: Bool) {
        let delay = state.withLock { state in
            defer { state.retry = min(state.retry * 2, Self.longestRetry) }
            return state.retry
        }
        let timer = loop.schedule(at: .after(delay)) { [weak self] in self?.connectAgain(path, isFirst: isFirst) }
        let isStopped = state.withLock { state in
            state.timer = timer
            return state.isStopped
        }
        if isStopped { loop.cancel(timer) }
    }
}
