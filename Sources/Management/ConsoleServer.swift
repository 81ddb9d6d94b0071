// The console port: people who watch the host's serial line and type into it.
//
// No client has a queue. Each follows the console log at its own position, so a client that reads slowly costs no memory
// and one that reads too slowly skips to the oldest byte kept.

import Synchronization
import Wire

/// Serves any number of console clients up to a bound: the backlog first, then what comes.
final class ConsoleServer: Sendable {
    /// People and scripts at one console. More are turned away: each costs a descriptor.
    private static let maximumClients = 16
    private static let sendLimit = 16 << 10
    private static let receiveLimit = 1 << 10

    private final class Client: Sendable {
        let socket: Socket
        let position = Mutex<UInt64>(0)
        init(_ socket: Socket) { self.socket = socket }
    }

    private let loop: EventLoop
    private let clients = Mutex<[Client]>([])
    private let read: @Sendable (UInt64, Int) -> (bytes: [UInt8], next: UInt64)
    private let typed: @Sendable ([UInt8]) -> Void

    /// - Parameters:
    ///   - read: the log's bytes from a position on, at most so many, and the position after them.
    ///   - typed: takes what a client types.
    init(
        loop: EventLoop, read: @escaping @Sendable (UInt64, Int) -> (bytes: [UInt8], next: UInt64),
        typed: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.loop = loop
        self.read = read
        self.typed = typed
    }

    var clientCount: Int { clients.withLock { $0.count } }

    func serve(_ listener: Listener) throws(WireError) {
        try loop.add(listener.descriptor) { [weak self] _ in
            guard let socket = try? listener.accept() else { return }
            self?.welcome(socket)
        }
    }

    private func welcome(_ socket: Socket) {
        let client = Client(socket)
        let isTaken = clients.withLock { clients in
            guard clients.count < Self.maximumClients else { return false }
            clients.append(client)
            return true
        }
        guard isTaken else { return socket.shutdown() }
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] events in self?.serve(client, events) }
        } catch {
            return drop(client)
        }
        pump(client)
    }

    private func serve(_ client: Client, _ events: EventLoop.Events) {
        if events.contains(.writable) { pump(client) }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        guard let bytes = client.socket.receiveSome(limit: Self.receiveLimit) else { return drop(client) }
        if !bytes.isEmpty { typed(bytes) }
    }

    /// Sends every client what is new.
    func pump() {
        for client in clients.withLock({ $0 }) { pump(client) }
    }

    private func pump(_ client: Client) {
        var isBlocked = false
        while !isBlocked {
            let position = client.position.withLock { $0 }
            let (bytes, next) = read(position, Self.sendLimit)
            guard !bytes.isEmpty else { break }
            guard let sent = try? client.socket.sendSome(bytes) else { return drop(client) }
            isBlocked = sent < bytes.count
            client.position.withLock { $0 = next - UInt64(bytes.count - sent) }
        }
        try? loop.modify(client.socket.descriptor, isBlocked ? [.readable, .writable] : .readable)
    }

    private func drop(_ client: Client) {
        loop.remove(client.socket.descriptor)
        client.socket.shutdown()
        clients.withLock { $0.removeAll { $0 === client } }
    }
}
