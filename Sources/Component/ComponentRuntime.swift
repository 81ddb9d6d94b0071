internal import CSystemd
public import Logging
public import QMP
internal import Synchronization
public import Wire

/// What every executable shares: ports, control socket, log, events, readiness, watchdog, and a clean end.
///
/// The main thread serves `loop` inside `run()`; data paths run on threads of their own.
public final class ComponentRuntime: Sendable {
    /// The executable's kind, e.g. "flash".
    public let kind: String
    /// The instance's name, e.g. "flash0".
    public let name: String
    public let log: Logger
    /// The control path's event loop, on the main thread.
    public let loop: EventLoop
    public let control: QMPServer

    private struct State {
        var activated: [String: Descriptor] = [:]
        var listen: [String: String] = [:]
        var connect: [String: String] = [:]
        var claimed: [String] = []
        var status = "running"
        var details: [String: JSONValue] = [:]
        var stopActions: [@Sendable () -> Void] = []
        var ownListeners: [Listener] = []
        var exitCode: Int32?
    }
    private let state: Mutex<State>
    private let termination: Descriptor

    /// Takes the sockets passed by activation and the arguments; call it first, before any thread is started.
    public init(kind: String, options: ComponentOptions) throws {
        termination = try takeTerminationSignals()
        if options.dieWithParent {
            // A parent that is gone already cannot signal any more: the id has changed. The launcher tells its own, since
            // it may be gone before this process can ask.
            let parent = Activation.launcher ?? getppid()
            endWithParent()
            guard getppid() == parent else { throw ComponentError.message("the parent process is gone already") }
        }
        self.kind = kind
        name = options.name ?? kind
        let handler = ComponentLogHandler(name: options.name ?? kind, level: options.logLevel)
        log = Logger(label: kind, factory: { _ in handler })
        var initial = State()
        initial.activated = try Activation.takeListeners()
        for entry in options.listen {
            guard initial.activated[entry.port] == nil,
                initial.listen.updateValue(entry.path, forKey: entry.port) == nil
            else { throw ComponentError.portGivenTwice(entry.port) }
        }
        for entry in options.connect {
            guard initial.activated[entry.port] == nil, initial.listen[entry.port] == nil,
                initial.connect.updateValue(entry.path, forKey: entry.port) == nil
            else { throw ComponentError.portGivenTwice(entry.port) }
        }
        state = Mutex(initial)
        loop = try EventLoop()
        control = QMPServer(kind: kind, loop: loop)
        registerCommands()
        if let listener = try listener("control") { try control.serve(listener) }
    }

    private func registerCommands() {
        control.register(
            QMPCommand("query-status") { [unowned self] _ throws(QMPError) in
                state.withLock { state in
                    .object(
                        state.details.merging([
                            "status": .string(state.status), "running": .bool(state.status == "running"),
                            "kind": .string(kind), "name": .string(name),
                        ]) { _, own in own })
                }
            })
        control.register(
            QMPCommand("quit") { [unowned self] _ throws(QMPError) in
                loop.perform { [unowned self] in stop() }
                return [:]
            })
    }

    // MARK: Ports

    /// The listening socket of a serving port; nil when none was given.
    public func listener(_ port: String, kind: SocketKind = .stream) throws(ComponentError) -> Listener? {
        let (activated, path) = state.withLock { state in
            state.claimed.append(port)
            return (state.activated.removeValue(forKey: port), state.listen.removeValue(forKey: port))
        }
        if let activated { return Listener(adopting: activated, kind: kind) }
        guard let path else { return nil }
        do throws(WireError) {
            let listener = try Listener(path: path, kind: kind)
            state.withLock { $0.ownListeners.append(listener) }
            return listener
        } catch { throw .wire(port: port, error) }
    }

    /// The listening socket of a port that must have one.
    public func requireListener(_ port: String, kind: SocketKind = .stream) throws(ComponentError) -> Listener {
        guard let listener = try listener(port, kind: kind) else { throw .noSocketToServe(port: port) }
        return listener
    }

    /// The connection of a using port; nil when none was asked for.
    public func connection(_ port: String, kind: SocketKind = .stream) throws(ComponentError) -> Socket? {
        let path = state.withLock { state in
            state.claimed.append(port)
            return state.connect.removeValue(forKey: port)
        }
        guard let path else { return nil }
        do throws(WireError) { return try Socket.connect(to: path, kind: kind) } catch {
            throw .wire(port: port, error)
        }
    }

    /// The connection of a port that must have one.
    public func requireConnection(_ port: String, kind: SocketKind = .stream) throws(ComponentError) -> Socket {
        guard let socket = try connection(port, kind: kind) else { throw .noSocketToUse(port: port) }
        return socket
    }

    /// The path that a using port connects to, for a port that makes its link again when it is lost; nil when none was
    /// asked for.
    public func connectionPath(_ port: String) -> String? {
        state.withLock { state in
            state.claimed.append(port)
            return state.connect.removeValue(forKey: port)
        }
    }

    // MARK: Events and state

    /// Sends a QMP event; any thread.
    public func emit(_ event: String, _ data: [String: JSONValue] = [:]) { control.emit(event, data) }

    /// What `query-status` tells: a QEMU run state ("running", "paused", "shutdown", …) or a component's own word
    /// ("held"), and fields beside it. Shown by `baseboard ps` too.
    public func setStatus(_ status: String, _ details: [String: JSONValue] = [:]) {
        state.withLock { state in
            state.status = status
            state.details = details
        }
        Activation.notify("STATUS=\(status)")
    }

    // MARK: The end

    /// Calls `body` once when the component ends, newest first; files are closed, peers told.
    public func onStop(_ body: @escaping @Sendable () -> Void) {
        state.withLock { $0.stopActions.append(body) }
    }

    /// Ends `run()` with an exit code, after the events emitted so far; the first call counts. Any thread.
    public func stop(exitCode: Int32 = 0) {
        state.withLock { state in if state.exitCode == nil { state.exitCode = exitCode } }
        loop.perform { [loop] in loop.stop() }
    }

    /// Says that the component is ready, serves the control path until `stop`, SIGTERM or `quit`, and returns the
    /// exit code.
    public func run() throws -> Int32 {
        defer { removeOwnPaths() }
        let left = state.withLock { state in
            (state.activated.keys.sorted() + state.listen.keys.sorted() + state.connect.keys.sorted(), state.claimed)
        }
        guard left.0.isEmpty else { throw ComponentError.unknownPorts(left.0, known: Set(left.1).sorted()) }
        try loop.add(termination) { [unowned self] _ in
            log.debug("asked to end by a signal")
            stop()
        }
        emit("COMPONENT_READY", ["kind": .string(kind), "name": .string(name)])
        Activation.notify("READY=1\nSTATUS=\(state.withLock { $0.status })")
        if let interval = Activation.watchdogInterval() { feedWatchdog(every: interval) }
        loop.run()
        Activation.notify("STOPPING=1")
        let (actions, code) = state.withLock { ($0.stopActions, $0.exitCode ?? 0) }
        for action in actions.reversed() { action() }
        control.flushAll()
        return code
    }

    /// Runs `start`, which may wait for a peer that never answers: SIGTERM and SIGINT end the process meanwhile, too.
    func interruptible(_ start: () throws -> Void) throws {
        let guardian = try EventLoop()
        try guardian.add(termination) { [unowned self] _ in
            log.debug("asked to end by a signal while starting")
            removeOwnPaths()
            endProcess(0)
        }
        let thread = WorkerThread("start-guard") { guardian.run() }
        defer {
            guardian.stop()
            thread.join()
        }
        do { try start() } catch {
            removeOwnPaths()
            throw error
        }
    }

    private func removeOwnPaths() { for listener in state.withLock({ $0.ownListeners }) { listener.removePath() } }

    private func feedWatchdog(every interval: Duration) {
        Activation.notify("WATCHDOG=1")
        loop.schedule(at: .after(interval)) { [unowned self] in feedWatchdog(every: interval) }
    }
}
