import Foundation
import QMP
import TestKit
import Testing
import Wire

/// A whole board of real components, started by `baseboard up -d` in a runtime folder of its own; taken down when let
/// go. Its flash holds the image that scripts/build-firmware made, unless told otherwise.
final class LiveBoard {
    let folder = TemporaryFolder()
    /// What `up` printed, and how it ended.
    private(set) var up: (status: Int32?, output: String) = (nil, "")

    /// Starts `topology`, a path in the package's folder.
    init(_ topology: String = "topology/server.yaml", _ arguments: [String] = []) throws {
        up = try baseboard(["up", "-d", packageFolder + "/" + topology] + arguments)
    }

    deinit { _ = try? baseboard(["down"]) }

    /// Runs a command of the launcher on this board.
    @discardableResult
    func baseboard(_ arguments: [String]) throws -> (status: Int32?, output: String) {
        try run(binary("baseboard"), arguments, environment: ["BASEBOARD_RUNTIME_DIR": folder.path, "NO_COLOR": "1"])
    }

    /// `ps --json` of the board.
    func record() throws -> JSONValue {
        let output = try baseboard(["ps", "--json"]).output
        return try #require(JSONValue(parsing: output)?[0], "\(output)")
    }

    /// One component in `ps --json`.
    func component(_ name: String) throws -> JSONValue {
        try #require(try record()["components"]?.arrayValue?.first { $0["name"]?.stringValue == name })
    }

    /// The path of a component's socket.
    func socket(_ component: String, _ port: String) throws -> String {
        try #require(try self.component(component)["sockets"]?[port]?.stringValue)
    }

    /// The answer to a QMP command, as `baseboard qmp` prints it.
    func qmp(_ component: String, _ command: String, _ arguments: String...) throws -> JSONValue {
        let result = try baseboard(["qmp", component, command] + arguments)
        return try #require(JSONValue(parsing: result.output), "\(result)")
    }

    private var consoleText = ""

    /// Everything that the host wrote on COM1 so far, as the BMC received it. (`ringbuf-read` takes what it returns out
    /// of the BMC's buffer, as QEMU's does.)
    func hostConsole() throws -> String {
        consoleText += try #require(try qmp("bmc0", "ringbuf-read", "device=serial", "size=65536").stringValue)
        return consoleText
    }

    /// The timeline, each event as "component EVENT subject".
    func timeline() throws -> [String] {
        try baseboard(["timeline", "--json"]).output.split(separator: "\n").compactMap { line in
            guard let entry = JSONValue(parsing: String(line)), let component = entry["component"]?.stringValue,
                let event = entry["event"]?.stringValue
            else { return nil }
            let subject = entry["data"]?["component"]?.stringValue
            return component + " " + event + (subject.map { " " + $0 } ?? "")
        }
    }
}
