// What `up` is going to do, as a value: the sockets to make and the processes to start. `--dry-run` prints it.

public import Component
public import Topology
internal import Wire

/// A listening socket that the launcher makes for a component.
public struct PlannedListener: Sendable, Equatable {
    public var port: String
    public var path: String
    public var wire: WireKind

    var kind: SocketKind { wire.isSequencedPacket ? .seqpacket : .stream }
}

/// One process of a board.
public struct PlannedProcess: Sendable {
    public var component: BoardComponent
    public var executable: String
    /// Settings and connections; without what only the launcher passes.
    public var arguments: [String]
    public var listeners: [PlannedListener]

    public var name: String { component.name }
    public func path(of port: String) -> String? { listeners.first { $0.port == port }?.path }
}

public struct LaunchPlan: Sendable {
    public var board: Board
    public var folder: RuntimeFolder
    /// In an order in which they could be started by hand: whoever listens before whoever connects.
    public var processes: [PlannedProcess]

    /// The folder that holds the components' executables: BASEBOARD_BIN_DIR, else that of `baseboard` itself.
    public static var executableFolder: String {
        if let folder = Environment.current["BASEBOARD_BIN_DIR"] { return absolutePath(folder) }
        let own = Environment.ownExecutable
        return String(own[..<(own.lastIndex(of: "/") ?? own.startIndex)])
    }

    /// - Throws: where an executable is missing or a socket's path is too long.
    public init(
        _ board: Board, folder: RuntimeFolder? = nil, executables: String = LaunchPlan.executableFolder
    ) throws(LaunchError) {
        let folder = folder ?? RuntimeFolder.of(board.name)
        self.board = board
        self.folder = folder
        var paths: [BoardPort: String] = [:]
        var processes: [PlannedProcess] = []
        for component in board.components {
            let executable = "\(executables)/\(component.kind.name)"
            guard Files.isExecutable(executable) else {
                throw .missingBinary(kind: component.kind.name, component: component.name, path: executable)
            }
            var listeners: [PlannedListener] = []
            for port in component.kind.ports {
                let end = BoardPort(component: component.name, port: port.name)
                let link = board.link(at: end)
                guard !port.wire.isLinked || link?.listener == end else { continue }
                var path = folder.socketPath(component.name, port.name)
                for case .listen(let name)? in [link?.first, link?.second] { path = folder.socketPath(listen: name) }
                guard path.utf8.count <= 107 else { throw .socketPathTooLong(path: path, folder: folder.path) }
                paths[end] = path
                listeners.append(PlannedListener(port: port.name, path: path, wire: port.wire))
            }
            guard folder.notifyPath(component.name).utf8.count <= 107 else {
                throw .socketPathTooLong(path: folder.notifyPath(component.name), folder: folder.path)
            }
            processes.append(
                PlannedProcess(component: component, executable: executable, arguments: [], listeners: listeners))
        }
        for index in processes.indices { processes[index].arguments = Self.arguments(processes[index], board, paths) }
        self.processes = processes
    }

    private static func arguments(
        _ process: PlannedProcess, _ board: Board, _ paths: [BoardPort: String]
    ) -> [String] {
        let component = process.component
        var arguments = ["--name", component.name]
        for setting in component.settings {
            switch setting.value {
            case .boolean(true): arguments.append("--\(setting.name)")
            case .boolean(false): break
            default: arguments += ["--\(setting.name)", setting.value.description]
            }
        }
        for port in component.kind.ports {
            let end = BoardPort(component: component.name, port: port.name)
            guard let link = board.link(at: end), link.listener != end else { continue }
            let other = link.first == .port(end) ? link.second : link.first
            switch other {
            case .port(let peer): if let path = paths[peer] { arguments += ["--connect", "\(port.name)=\(path)"] }
            case .external(let path): arguments += ["--connect", "\(port.name)=\(path)"]
            case .listen: break
            }
        }
        return arguments
    }

    /// The environment that the launcher adds for a process. Spec: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
    ///
    /// BASEBOARD_LISTEN stands for LISTEN_PID, which nobody knows before the process is there.
    public func environment(of process: PlannedProcess, watchdog: Duration) -> [(String, String)] {
        var environment = [("NOTIFY_SOCKET", folder.notifyPath(process.name))]
        if watchdog > .zero { environment.append(("WATCHDOG_USEC", String(watchdog.clampedNanoseconds / 1000))) }
        if !process.listeners.isEmpty {
            environment += [
                ("BASEBOARD_LISTEN", "1"), ("LISTEN_FDS", String(process.listeners.count)),
                ("LISTEN_FDNAMES", process.listeners.map(\.port).joined(separator: ":")),
            ]
        }
        return environment
    }

    /// What only the launcher passes on the command line.
    static let launcherArguments = ["--die-with-parent"]
}

// MARK: By hand

extension LaunchPlan {
    /// A script that starts the board's processes by hand, whoever listens first; what the launcher does otherwise is
    /// in the comments. Every line can be pasted into a shell.
    public func script(watchdog: Duration) -> String {
        var lines = [
            "# board \(board.name): \(processes.count) processes", "mkdir -p -m 700 \(shellQuoted(folder.path))",
        ]
        for process in inDependencyOrder {
            let environment = environment(of: process, watchdog: watchdog)
                .map { "\($0.0)=\(shellQuoted($0.1))" }.joined(separator: " ")
            lines.append("")
            lines.append(
                "# \(process.name) (\(process.component.kind.name)); under the launcher the sockets are passed:")
            lines.append("#   \(environment) … \(Self.launcherArguments.joined(separator: " "))")
            let listen = process.listeners.flatMap { ["--listen", "\($0.port)=\($0.path)"] }
            lines.append(
                ([process.executable] + process.arguments + listen).map(shellQuoted).joined(separator: " "))
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Listening ends before those that connect to them; where they form a circle, the topology's order.
    var inDependencyOrder: [PlannedProcess] {
        var left = processes
        var placed: Set<String> = []
        var ordered: [PlannedProcess] = []
        while !left.isEmpty {
            let index = left.firstIndex { process in
                board.links.allSatisfy { link in
                    guard let listener = link.listener, listener.component != process.name else { return true }
                    let ends = [link.first, link.second].compactMap { end -> String? in
                        if case .port(let port) = end { return port.component }
                        return nil
                    }
                    return !ends.contains(process.name) || placed.contains(listener.component)
                }
            }
            let process = left.remove(at: index ?? 0)
            placed.insert(process.name)
            ordered.append(process)
        }
        return ordered
    }
}

/// `word` as a POSIX shell reads it back.
public func shellQuoted(_ word: String) -> String {
    let plain = word.utf8.allSatisfy { byte in
        (0x61...0x7A).contains(byte) || (0x41...0x5A).contains(byte) || (0x30...0x39).contains(byte)
            || "-_./=:,+@%".utf8.contains(byte)
    }
    if plain, !word.isEmpty { return word }
    return "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
}
