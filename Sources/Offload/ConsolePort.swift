// A console's socket: people who watch what the host prints there, and type.

import Synchronization
internal import VFIOUser
public import Wire

/// Joins a byte stream to any number of clients up to a bound. Each gets what was kept first, then what comes; one that
/// reads too slowly skips to the oldest byte kept. All but `output` happens on the loop's thread.
public final class ConsolePort: Sendable {
    /// People and scripts at one console. More are turned away: each costs a descriptor.
    public static let maximumClients = 16
    /// Output kept for those who come later.
    public static let backlog = 64 << 10
    private static let piece = 4096
    /// How soon input is offered again that was not taken.
    private static let retry = Duration.milliseconds(5)

    private final class Client: Sendable {
        let socket: Socket
        /// Where in the output it is, and what it typed that was not taken yet.
        let state = Mutex((position: UInt64(0), typed: [UInt8]()))
        init(_ socket: Socket) { self.socket = socket }
    }

    private struct State {
        var clients: [Client] = []
        /// The newest output; `end` is the position after its last byte.
        var kept: [UInt8] = []
        var end: UInt64 = 0
        var isPumping = false
    }

    private let loop: EventLoop
    private let taker = Mutex<(@Sendable ([UInt8]) -> Int)?>(nil)
    private let state = Mutex(State())

    public init(loop: EventLoop) { self.loop = loop }

    /// Names who takes what is typed, and says how much of it there was room for. Without one it is thrown away.
    public func connect(_ taker: @escaping @Sendable ([UInt8]) -> Int) { self.taker.withLock { $0 = taker } }

    public var clientCount: Int { state.withLock { $0.clients.count } }
    /// Bytes of output so far.
    public var outputCount: UInt64 { state.withLock { $0.end } }

    public func serve(_ listener: Listener) throws(WireError) {
        try listener.descriptor.setNonblocking(true)
        try loop.add(listener.descriptor) { [weak self] _ in
            guard let socket = try? listener.accept(until: .now) else { return }
            self?.welcome(socket)
        }
    }

    /// Takes output. Any thread; it does not wait.
    public func output(_ bytes: RawSpan) {
        let mustPump = state.withLock { state in
            for index in 0..<bytes.byteCount { state.kept.append(bytes.uint8(at: index)) }
            state.end &+= UInt64(bytes.byteCount)
            // Half is thrown away at a time, so that a byte is moved once at most.
            if state.kept.count > 2 * Self.backlog { state.kept.removeFirst(state.kept.count - Self.backlog) }
            defer { state.isPumping = true }
            return !state.isPumping
        }
        if mustPump { loop.perform { [weak self] in self?.pump() } }
    }

    private func pump() {
        let clients = state.withLock { state in
            state.isPumping = false
            return state.clients
        }
        for client in clients { send(client) }
    }

    private func welcome(_ socket: Socket) {
        let client = Client(socket)
        let isTaken = state.withLock { state in
            guard state.clients.count < Self.maximumClients else { return false }
            state.clients.append(client)
            return true
        }
        guard isTaken else { return socket.shutdown() }
        do throws(WireError) {
            try socket.descriptor.setNonblocking(true)
            try loop.add(socket.descriptor) { [weak self] events in self?.ready(client, events) }
        } catch {
            return drop(client)
        }
        send(client)
    }

    private func ready(_ client: Client, _ events: EventLoop.Events) {
        if events.contains(.writable) { send(client) }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        do throws(WireError) {
            guard let bytes = try client.socket.receiveBytes(limit: Self.piece, until: .now) else {
                return drop(client)
            }
            offer(bytes, of: client)
        } catch {
            if error != .timedOut { drop(client) }
        }
    }

    /// Gives the device what was typed. What there is no room for waits, and the client is not read from meanwhile.
    private func offer(_ bytes: [UInt8], of client: Client) {
        let waiting = client.state.withLock { state in
            defer { state.typed = [] }
            return state.typed + bytes
        }
        let taker = taker.withLock { $0 }
        let rest = Array(waiting.dropFirst(taker?(waiting) ?? waiting.count))
        client.state.withLock { $0.typed = rest }
        arm(client)
        guard !rest.isEmpty else { return }
        loop.schedule(at: .after(Self.retry)) { [weak self] in self?.offer([], of: client) }
    }

    private func send(_ client: Client) {
        var isBlocked = false
        while !isBlocked {
            let bytes = next(client)
            guard !bytes.isEmpty else { break }
            let sent = bytes.withUnsafeBytes { (try? client.socket.trySend($0)) ?? -1 }
            guard sent >= 0 else { return drop(client) }
            client.state.withLock { $0.position &+= UInt64(sent) }
            isBlocked = sent < bytes.count
        }
        arm(client, isBlocked: isBlocked)
    }

    /// What the client gets next.
    private func next(_ client: Client) -> [UInt8] {
        state.withLock { state in
            let oldest = state.end - UInt64(state.kept.count)
            let position = client.state.withLock { own in
                own.position = max(own.position, oldest)
                return own.position
            }
            let start = Int(position - oldest)
            return Array(state.kept[start..<min(state.kept.count, start + Self.piece)])
        }
    }

    private func arm(_ client: Client, isBlocked: Bool = false) {
        let isFull = client.state.withLock { !$0.typed.isEmpty }
        var events: EventLoop.Events = isFull ? [] : .readable
        if isBlocked { events.insert(.writable) }
        try? loop.modify(client.socket.descriptor, events)
    }

    private func drop(_ client: Client) {
        loop.remove(client.socket.descriptor)
        client.socket.shutdown()
        state.withLock { $0.clients.removeAll { $0 === client } }
    }
}
