internal import Synchronization
public import Wire

/// Serves serprog on a listening socket: a thread accepts, a thread a connection answers.
public final class SerprogServer: Sendable {
    /// Connections at once. A board has three masters and a person; more is a mistake or an attack.
    public static let maximumConnections = 16

    private let listener: Listener
    private let programmerName: String
    private let report: @Sendable (String) -> Void
    private let state = Mutex(State())

    private struct State {
        var connections: [ObjectIdentifier: Socket] = [:]
        var isStopping = false
    }

    /// Starts to accept.
    ///
    /// - Parameters:
    ///   - programmerName: what Q_PGMNAME answers, cut to 16 bytes, and the name in reports.
    ///   - report: called with one line for every connection that ended otherwise than by the peer's close between
    ///     commands; from any thread.
    ///   - makeTarget: makes a connection's target, on the connection's thread; an error closes the connection.
    public init<Target: SPITarget>(
        _ listener: Listener, programmerName: String, report: @escaping @Sendable (String) -> Void,
        makeTarget: @escaping @Sendable () throws(SPITargetError) -> Target
    ) {
        self.listener = listener
        self.programmerName = programmerName
        self.report = report
        WorkerThread("serprog") { [self] in accept(makeTarget) }
    }

    /// Closes every connection and accepts no more.
    public func stop() {
        let sockets = state.withLock { state in
            state.isStopping = true
            return Array(state.connections.values)
        }
        listener.shutdown()
        for socket in sockets { socket.shutdown() }
    }

    /// Closes every connection; new ones are accepted.
    public func disconnectAll() {
        for socket in state.withLock({ Array($0.connections.values) }) { socket.shutdown() }
    }

    private func accept<Target: SPITarget>(_ makeTarget: @escaping @Sendable () throws(SPITargetError) -> Target) {
        while true {
            let socket: Socket
            do throws(WireError) {
                socket = try listener.accept()
            } catch {
                if !state.withLock({ $0.isStopping }) { report("\(programmerName): cannot accept: \(error)") }
                return
            }
            let isWelcome = state.withLock { state in
                guard !state.isStopping, state.connections.count < Self.maximumConnections else { return false }
                state.connections[ObjectIdentifier(socket)] = socket
                return true
            }
            guard isWelcome else {
                report("\(programmerName): a connection beyond \(Self.maximumConnections) is closed")
                socket.shutdown()
                continue
            }
            WorkerThread("serprog-link") { [self] in
                serve(socket, makeTarget)
                // Closed here and now, though the peer may still hold its end.
                socket.shutdown()
                state.withLock { $0.connections[ObjectIdentifier(socket)] = nil }
            }
        }
    }

    private func serve<Target: SPITarget>(_ socket: Socket, _ makeTarget: () throws(SPITargetError) -> Target) {
        let target: Target
        do throws(SPITargetError) {
            target = try makeTarget()
        } catch {
            report("\(programmerName): \(error)")
            return
        }
        var session = SerprogSession(socket: socket, programmerName: programmerName, target: target)
        do throws(SerprogError) {
            try session.run()
        } catch {
            report("\(programmerName): connection closed: \(error)")
        }
    }
}
