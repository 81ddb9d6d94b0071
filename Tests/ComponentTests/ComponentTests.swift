import Foundation
import QMP
import TestKit
import Testing
import Wire

/// The shared part of every executable, seen from outside: `offload-card`, which needs least, stands for all.
@Suite struct ComponentTests {
    let folder = TemporaryFolder()
    var control: String { folder.file("control") }

    /// Starts the card with both its ports listening by hand.
    func start(_ arguments: [String] = [], environment: [String: String] = [:]) throws -> RunningProcess {
        try RunningProcess(
            binary("offload-card"),
            ["--name", "card0", "--listen", "control=\(control)", "--listen", "pcie=\(folder.file("pcie"))"]
                + arguments,
            environment: environment)
    }

    /// A control connection, once the socket is there.
    func connect() throws -> QMPClient {
        try #require(eventually { (try? Socket.connect(to: control)) != nil })
        return try QMPClient(path: control)
    }

    @Test func `a component started by hand answers on its control socket and quits when told`() throws {
        let process = try start()
        let client = try connect()
        let status = try client.execute("query-status")
        #expect(status["status"] == "running")
        #expect(status["name"] == "card0")
        #expect(status["kind"] == "offload-card")
        let events = try client.execute("query-events").arrayValue ?? []
        #expect(events.contains { $0["event"] == "COMPONENT_READY" })
        let commands = try client.execute("query-commands").arrayValue?.compactMap { $0["name"]?.stringValue } ?? []
        #expect(
            Set(["query-status", "query-commands", "query-events", "query-version", "quit"]).isSubset(of: commands))
        #expect(try client.execute("quit") == [:])
        #expect(process.waitForExit() == 0)
        #expect(!FileManager.default.fileExists(atPath: control))
    }

    @Test(arguments: [SIGTERM, SIGINT]) func `a signal ends it cleanly`(signal: Int32) throws {
        let process = try start()
        _ = try connect()
        process.signal(signal)
        #expect(process.waitForExit() == 0)
    }

    @Test func `a signal ends it also while it waits for a peer that says nothing`() throws {
        let chip = try Listener(path: folder.file("chip"))
        let silent = try Listener(path: folder.file("silent"))
        let process = try RunningProcess(
            binary("host-cpu"),
            [
                "--listen", "control=\(control)", "--connect", "spi=\(folder.file("chip"))", "--connect",
                "rp0=\(folder.file("silent"))",
            ])
        // It has connected, and now waits for an answer to VERSION, ten seconds long.
        let peer = try silent.accept(until: .after(.seconds(20)))
        #expect(try peer.receiveBytes(limit: 16, until: .after(.seconds(20)))?.isEmpty == false)
        process.terminate()
        #expect(process.waitForExit(within: .seconds(5)) == 0)
        #expect(!FileManager.default.fileExists(atPath: control))
        withExtendedLifetime(chip) {}
    }

    @Test(arguments: [
        (["--listen", "pcie"], "port=path"),
        ([], "no function has a socket to serve: give --listen PORT=PATH for some of pcie, pcie-net, "),
        (["--listen", "pcie=/tmp/bb-no-such-folder/s"], "/tmp/bb-no-such-folder/s: bind: No such file or directory"),
        (
            ["--listen", "pcei=FOLDER/x", "--listen", "pcie=FOLDER/y"],
            "no such port: pcei; the ports are console, control, eth0, pcie, "
        ),
        (["--connect", "pcie=FOLDER/y", "--listen", "pcie=FOLDER/y"], "port 'pcie' was given a socket twice"),
        (["--nonsense"], "Unknown option '--nonsense'"),
    ])
    func `a wrong command line is one clear error`(arguments: [String], text: String) throws {
        let words = arguments.map { $0.replacingOccurrences(of: "FOLDER", with: folder.path) }
        let result = try run(binary("offload-card"), words, within: .seconds(20))
        #expect(result.status != 0 && result.status != nil)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
        #expect(result.output.contains(text), "\(result.output)")
    }

    @Test func `sockets come by activation, by name`() throws {
        let control = try Listener(path: folder.file("c"))
        let pcie = try Listener(path: folder.file("p"))
        let null = try Descriptor.open("/dev/null", flags: 2)
        let child = try ChildProcess(
            binary("offload-card"), [],
            environment: environment([
                ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "pcie:control"), ("BASEBOARD_LISTEN", "1"),
            ]), descriptors: [null, null, null, pcie.descriptor, control.descriptor])
        let client = try QMPClient(path: folder.file("c"))
        #expect(try client.execute("query-status")["kind"] == "offload-card")
        _ = try client.execute("quit")
        #expect(child.wait() == .code(0))
    }

    @Test func `a socket for a port it does not have is refused by name`() throws {
        let listener = try Listener(path: folder.file("c"))
        let null = try Descriptor.open("/dev/null", flags: 2)
        let log = try Descriptor.open(folder.file("log"), flags: 0x242)
        let child = try ChildProcess(
            binary("offload-card"), ["--listen", "pcie=\(folder.file("p"))"],
            environment: environment([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "spi"), ("BASEBOARD_LISTEN", "1")]),
            descriptors: [null, null, log, listener.descriptor])
        #expect(child.wait() == .code(1))
        let text = try String(contentsOfFile: folder.file("log"), encoding: .utf8)
        #expect(text.contains("no such port: spi"))
    }

    @Test func `readiness and the watchdog are told to the service manager`() throws {
        let path = folder.file("notify")
        let socket = try NotifySocket(path: path)
        let process = try start(environment: ["NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"])
        var messages: [String] = []
        #expect(
            eventually {
                messages += socket.receive()
                return messages.contains { $0.contains("READY=1") } && messages.contains("WATCHDOG=1")
            }, "\(messages)")
        process.terminate()
        #expect(process.waitForExit() == 0)
        messages += socket.receive()
        #expect(messages.contains("STOPPING=1"))
    }

    @Test func `a launcher that is gone before the component could look is noticed`() throws {
        let orphan = try run(
            binary("offload-card"), ["--die-with-parent", "--listen", "pcie=\(folder.file("p"))"],
            environment: ["BASEBOARD_LAUNCHER": "1"])
        #expect(orphan.status == 1)
        #expect(orphan.output.contains("the parent process is gone already"), "\(orphan.output)")
    }

    @Test func `it ends with the process that started it`() throws {
        let shell = try RunningProcess(
            "/bin/sh",
            [
                "-c",
                "'\(binary("offload-card"))' --die-with-parent --listen control=\(control) --listen pcie=\(folder.file("p")) & "
                    + "echo child $!; wait",
            ])
        _ = try connect()
        try #require(shell.waitForOutput("child "))
        let word = shell.text.split(whereSeparator: \.isWhitespace).drop { $0 != "child" }.dropFirst().first
        let child = try #require(word.flatMap { Int32($0) })
        shell.signal(SIGKILL)
        #expect(eventually { kill(child, 0) != 0 }, "process \(child) outlives its parent")
    }

    @Test(arguments: ["flash", "security-logic", "host-cpu", "bmc", "adapter-card", "offload-card"])
    func `help shows a working example`(name: String) throws {
        let result = try run(binary(name), ["--help"])
        #expect(result.status == 0)
        #expect(result.output.contains("USAGE: \(name)"))
        #expect(result.output.contains("Example") && result.output.contains("  \(name) "), "\(result.output)")
    }

    @Test(arguments: ["flash", "security-logic", "host-cpu", "bmc", "adapter-card", "offload-card", "baseboard"])
    func `an executable that serves no HTTP links none`(name: String) throws {
        let linked = try run("/usr/bin/ldd", [binary(name)])
        #expect(linked.status == 0)
        let symbols = try run("/usr/bin/nm", ["-C", "--defined-only", binary(name)], within: .seconds(60))
        #expect(!symbols.output.contains("NIOHTTP1") && !symbols.output.contains("Hummingbird"))
    }

    private func environment(_ own: [(String, String)]) -> [(String, String)] {
        ProcessInfo.processInfo.environment.map { ($0.key, $0.value) } + own
    }
}

/// The service manager's end of sd_notify: a datagram socket.
final class NotifySocket {
    private let number: Int32

    init(path: String) throws {
        number = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        try #require(number >= 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        try #require(bytes.count < 108)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(number, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(code == 0)
    }

    deinit { close(number) }

    /// The datagrams that came since the last call.
    func receive() -> [String] {
        var messages: [String] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(number, &buffer, buffer.count, 0)
            if count <= 0 { return messages }
            messages.append(String(decoding: buffer[..<count], as: UTF8.self))
        }
    }
}
