// A card that runs alone, as a person would start it.

import FoundationEssentials
import Glibc
import QMP
import Wire

/// A folder for sockets and logs with a short path, removed with all that is in it.
final class WorkFolder {
    let path: String

    init() throws {
        path = "/tmp/bb-interop-" + String(UInt32.random(in: 0...UInt32.max), radix: 36)
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
}

/// A program of this build whose output goes to a log; killed when let go.
final class LoggedProcess {
    let log: String
    private let child: ChildProcess
    private var exit: ChildProcess.Exit?

    init(_ program: String, _ arguments: [String], log: String) throws {
        self.log = log
        let output = try Descriptor.open(log, flags: O_WRONLY | O_CREAT | O_APPEND)
        let input = try Descriptor.open("/dev/null", flags: O_RDONLY)
        let environment = ProcessInfo.processInfo.environment.map { ($0.key, $0.value) }
        child = try ChildProcess(program, arguments, environment: environment, descriptors: [input, output, output])
    }

    deinit { end() }

    var pid: Int32 { child.pid }

    var isRunning: Bool {
        if exit == nil { exit = child.wait(waiting: false) }
        return exit == nil
    }

    /// How it ended; nil while it runs.
    var ending: ChildProcess.Exit? { isRunning ? nil : exit }

    /// Kills it, as a pulled plug would.
    func end() {
        guard isRunning else { return }
        child.signal(SIGKILL)
        exit = child.wait()
    }

    /// What it printed.
    var text: String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }
}

final class CardProcess {
    let kind: String
    let name: String
    private let folder: WorkFolder
    private let ports: [String]
    private let arguments: [String]
    private(set) var process: LoggedProcess
    /// By the Ethernet port that they are plugged into.
    private var stations: [String: Station] = [:]

    /// Starts `kind` serving `ports` beside its control socket, and waits until it answers there.
    init(_ kind: String, _ name: String, in folder: WorkFolder, ports: [String], _ arguments: [String] = []) throws {
        self.kind = kind
        self.name = name
        self.folder = folder
        self.ports = ports
        self.arguments = arguments
        process = try Self.start(kind, name, folder, ports, arguments)
        try waitUntilReady()
    }

    private static func start(
        _ kind: String, _ name: String, _ folder: WorkFolder, _ ports: [String], _ arguments: [String]
    ) throws -> LoggedProcess {
        let own = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast()
        let beside = own.isEmpty ? "." : own.joined(separator: "/")
        let program = (ProcessInfo.processInfo.environment["BASEBOARD_BIN_DIR"] ?? beside) + "/" + kind
        return try LoggedProcess(
            program,
            (ports + ["control"]).flatMap { ["--listen", "\($0)=\(folder.file("\(name).\($0)"))"] }
                + ["--die-with-parent"] + arguments,
            log: folder.file("\(name).log"))
    }

    private func waitUntilReady() throws {
        let isReady = poll(within: .seconds(20)) {
            guard process.isRunning else { return true }
            guard let history = try? command("query-events").arrayValue else { return false }
            return history.contains { $0["event"] == "COMPONENT_READY" }
        }
        guard isReady, process.isRunning else { throw Failure("\(name) did not start: \(process.text)") }
    }

    /// The path of a port's socket.
    func socket(_ port: String) -> String { folder.file("\(name).\(port)") }

    func command(_ name: String, _ arguments: [String: JSONValue] = [:]) throws -> JSONValue {
        try QMPClient(path: socket("control"), until: .after(.seconds(5))).execute(name, arguments)
    }

    /// Plugs a station 192.168.`network`.1 into an Ethernet port, in place of the one that was there by another address.
    func attachStation(_ port: String, network: UInt8) throws {
        if let it = stations[port], it.network == network { return }
        // The port serves one link: the old one ends first.
        stations[port] = nil
        stations[port] = try Station(path: socket(port), network: network)
    }

    func kill() {
        process.end()
        stations = [:]
    }

    /// Starts it again after its death.
    func restart() throws {
        process = try Self.start(kind, name, folder, ports, arguments)
        try waitUntilReady()
    }
}

/// Polls a condition until it holds; false when the limit passes.
func poll(within limit: Duration, every pause: UInt32 = 2000, _ condition: () -> Bool) -> Bool {
    let deadline = MonotonicTime.after(limit)
    while !condition() {
        if MonotonicTime.now > deadline { return condition() }
        usleep(pause)
    }
    return true
}
