internal import Synchronization
public import Wire

/// A component's control socket: any number of clients, served on one event loop.
public final class QMPServer: Sendable {
    private final class Client: Sendable {
        let socket: Socket
        let state = Mutex((session: QMPSession(), output: [UInt8](), isClosed: false))
        init(_ socket: Socket) { self.socket = socket }
    }

    private struct State {
        var commands: [String: QMPCommand] = [:]
        var clients: [Client] = []
        var history: [QMPEvent] = []
        var sequence: Int64 = 0
    }

    /// What waits for a client that does not read is kept to this many bytes; then the client is let go.
    private static let outputLimit = 4 << 20
    /// The clients at once: a launcher, a person, a script, and room.
    private static let clientLimit = 32
    /// The events kept for `query-events`.
    private static let historyLimit = 256

    private let kind: String
    private let loop: EventLoop
    private let state = Mutex(State())

    /// `kind` goes into the greeting, e.g. "flash".
    public init(kind: String, loop: EventLoop) {
        self.kind = kind
        self.loop = loop
        register(
            QMPCommand("query-commands") { [unowned self] _ throws(QMPError) in
                .array(state.withLock { $0.commands.keys.sorted() }.map { ["name": .string($0)] })
            })
        register(
            QMPCommand("query-events") { [unowned self] _ throws(QMPError) in
                .array(state.withLock { $0.history }.map(\.json))
            })
        register(
            QMPCommand("query-version") { _ throws(QMPError) in
                ["qemu": ["major": 10, "minor": 0, "micro": 0], "package": .string("baseboard \(kind)")]
            })
    }

    /// Adds a command, or replaces the one of that name.
    public func register(_ command: QMPCommand) {
        state.withLock { $0.commands[command.name] = command }
    }

    /// Accepts clients on `listener` from now on; the event loop keeps the server alive.
    public func serve(_ listener: Listener) throws(WireError) {
        try listener.descriptor.setNonblocking(true)
        try loop.add(listener.descriptor) { [self] _ in
            guard let socket = try? listener.accept(until: .now) else { return }
            welcome(socket)
        }
    }

    private func welcome(_ socket: Socket) {
        let client = Client(socket)
        let isFull = state.withLock { state in
            if state.clients.count >= Self.clientLimit { return true }
            state.clients.append(client)
            return false
        }
        guard !isFull, (try? socket.descriptor.setNonblocking(true)) != nil else { return }
        enqueue(QMPSession.greeting(kind).bytes, to: client)
        do throws(WireError) {
            try loop.add(socket.descriptor) { [self] events in ready(client, events) }
        } catch { drop(client) }
    }

    private func ready(_ client: Client, _ events: EventLoop.Events) {
        if events.contains(.writable) { flush(client) }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        var bytes: [UInt8] = []
        do throws(WireError) {
            guard let some = try client.socket.receiveBytes(limit: 65_536, until: .now) else { return drop(client) }
            bytes = some
        } catch { return error == .timedOut ? () : drop(client) }
        let commands = state.withLock { $0.commands }
        var session = client.state.withLock { $0.session }
        let replies = session.receive(bytes, commands: commands)
        let updated = session
        client.state.withLock { $0.session = updated }
        enqueue(replies.flatMap(\.bytes), to: client)
    }

    private func enqueue(_ bytes: [UInt8], to client: Client) {
        client.state.withLock { $0.output.append(contentsOf: bytes) }
        flush(client)
    }

    private func flush(_ client: Client) {
        let outcome = client.state.withLock { state -> (failed: Bool, left: Int) in
            guard !state.isClosed else { return (false, 0) }
            while !state.output.isEmpty {
                // Safety: the array outlives the call.
                let sent = unsafe state.output.withUnsafeBytes { unsafe (try? client.socket.trySend($0)) ?? -1 }
                if sent < 0 { return (true, 0) }
                if sent == 0 { break }
                state.output.removeFirst(sent)
            }
            return (state.output.count > Self.outputLimit, state.output.count)
        }
        if outcome.failed { return drop(client) }
        try? loop.modify(client.socket.descriptor, outcome.left > 0 ? [.readable, .writable] : .readable)
    }

    private func drop(_ client: Client) {
        client.state.withLock { $0.isClosed = true }
        loop.remove(client.socket.descriptor)
        client.socket.shutdown()
        state.withLock { $0.clients.removeAll { $0 === client } }
    }

    /// Sends an event to every negotiated client and keeps it for `query-events`. Any thread; order is kept.
    public func emit(_ name: String, _ data: [String: JSONValue] = [:]) {
        var data = data
        data["monotonic"] = .unsigned(MonotonicTime.now.nanoseconds)
        let timestamp = wallClockNanoseconds()
        let fields = data
        state.withLock { state in
            state.sequence += 1
            var data = fields
            data["sequence"] = .integer(state.sequence)
            let event = QMPEvent(name: name, data: data, timestamp: timestamp)
            state.history.append(event)
            if state.history.count > Self.historyLimit { state.history.removeFirst() }
            // Queued under the lock, so that events leave in the order of their numbers.
            loop.perform { [self] in broadcast(event) }
        }
    }

    private func broadcast(_ event: QMPEvent) {
        let bytes = QMPServerMessage.event(event).bytes
        for client in state.withLock({ $0.clients }) where client.state.withLock({ $0.session.isNegotiated }) {
            enqueue(bytes, to: client)
        }
    }

    /// Gives pending output a last chance to leave; for the end of a process.
    public func flushAll() {
        for client in state.withLock({ $0.clients }) { flush(client) }
    }
}
