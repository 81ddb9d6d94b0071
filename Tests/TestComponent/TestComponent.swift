// A component of any kind that does as a test tells it: run under the name of a kind (a symbolic link), it takes that
// kind's ports and settings, is ready, and does nothing until told.
//
// At its start it is told by TEST_BEHAVIOUR, `NAME=WORD[,NAME=WORD…]`; while it runs, by QMP commands whose names begin
// with `test-`.
import ArgumentParser
import Component
import Glibc
import QMP
import Wire

@main struct TestComponent: ComponentCommand {
    static let kind = String(CommandLine.arguments[0].split(separator: "/").last ?? "")

    @OptionGroup var options: ComponentOptions
    @Argument(parsing: .allUnrecognized) var settings: [String] = []

    func start(_ runtime: ComponentRuntime) throws {
        guard let kind = ComponentCatalog.kind(named: Self.kind) else {
            throw ComponentError.message("run me under the name of a component kind, not '\(Self.kind)'")
        }
        var connections: [Socket] = []
        var listeners: [Listener] = []
        for port in kind.ports where port.wire != .control {
            let socketKind: SocketKind = port.wire.isSequencedPacket ? .seqpacket : .stream
            if port.role != .uses, let listener = try runtime.listener(port.name, kind: socketKind) {
                listeners.append(listener)
                if port.wire == .console { try echo(listener, runtime) }
            } else if port.role != .serves, let connection = try runtime.connection(port.name, kind: socketKind) {
                connections.append(connection)
            }
        }
        let (heldConnections, heldListeners) = (connections, listeners)
        runtime.onStop { _ = (heldConnections, heldListeners) }
        runtime.setStatus("running", ["settings": .array(settings.map(JSONValue.string))])
        register(runtime)
        try behave(runtime)
    }

    private func register(_ runtime: ComponentRuntime) {
        let control = runtime.control
        control.register(
            QMPCommand("test-die", [.required("code", .integer)]) { arguments throws(QMPError) in
                writeLine("dying as told")
                _exit(Int32(truncatingIfNeeded: arguments["code"]?.integerValue ?? 1))
            })
        control.register(
            QMPCommand("test-print", [.required("text", .string)]) { arguments throws(QMPError) in
                writeLine(arguments["text"]?.stringValue ?? "")
                return [:]
            })
        control.register(
            QMPCommand("test-emit", [.required("event", .string), .optional("data", .object)]) {
                arguments throws(QMPError) in
                runtime.emit(arguments["event"]?.stringValue ?? "", arguments["data"]?.objectValue ?? [:])
                return [:]
            })
        // From here on COMMAND is answered with VALUE.
        control.register(
            QMPCommand("test-answer", [.required("command", .string), .required("value", .object)]) {
                arguments throws(QMPError) in
                let value = arguments["value"] ?? .null
                control.register(QMPCommand(arguments["command"]?.stringValue ?? "") { _ throws(QMPError) in value })
                return [:]
            })
        control.register(
            QMPCommand("test-power-off") { _ throws(QMPError) in
                runtime.emit("SHUTDOWN", ["guest": true])
                runtime.stop()
                return [:]
            })
        control.register(
            QMPCommand("test-environment", [.required("name", .string)]) { arguments throws(QMPError) in
                guard let value = getenv(arguments["name"]?.stringValue ?? "") else { return nil }
                return .string(String(cString: value))
            })
        control.register(
            QMPCommand("test-block") { _ throws(QMPError) in
                while true { pause() }
            })
    }

    private func behave(_ runtime: ComponentRuntime) throws {
        guard let variable = getenv("TEST_BEHAVIOUR") else { return }
        for entry in String(cString: variable).split(separator: ",") {
            let parts = entry.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, parts[0] == runtime.name else { continue }
            switch parts[1] {
            case "boot": runtime.emit("BOOT_COMPLETE")
            case "refuse": runtime.emit("BOARD_FAILED", ["image": "server", "reason": "the signature is wrong"])
            case "panic": runtime.emit("GUEST_PANICKED")
            case "die":
                for line in 1...30 { writeLine("line \(line)") }
                writeLine("cannot go on")
                _exit(7)
            case "abort":
                writeLine("about to abort")
                abort()
            case "hang":
                while true { pause() }
            case "stubborn":
                runtime.onStop { while true { pause() } }
            case "spew":
                WorkerThread("spew") {
                    for number in 0..<200_000 { writeLine("spew \(number) " + String(repeating: "x", count: 100)) }
                }
            default: throw ComponentError.message("unknown behaviour '\(parts[1])'")
            }
        }
    }

    /// What comes to the console goes back in capitals.
    private func echo(_ listener: Listener, _ runtime: ComponentRuntime) throws {
        WorkerThread("echo") {
            while let socket = try? listener.accept() {
                while let bytes = try? socket.receiveBytes(limit: 4096) {
                    try? socket.send(Array(String(decoding: bytes, as: UTF8.self).uppercased().utf8))
                }
            }
        }
    }
}

private func writeLine(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
}
