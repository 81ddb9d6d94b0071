internal import Foundation
public import QMP
internal import Wire

/// A whole board of real components, started by `baseboard up -d`; taken down when let go. Its flash holds the image that
/// scripts/build-firmware made, unless told otherwise.
public final class LiveBoard {
    /// The runtime folder.
    public let folder: TemporaryFolder
    /// What `up` printed, and how it ended.
    public private(set) var up: (status: Int32?, output: String) = (nil, "")

    /// Starts `topology`, a path in the package's folder, in a runtime folder of its own unless one is given.
    public init(
        _ topology: String = "topology/server.yaml", _ arguments: [String] = [],
        in folder: TemporaryFolder = TemporaryFolder()
    ) throws {
        self.folder = folder
        up = try baseboard(["up", "-d", packageFolder + "/" + topology] + arguments)
    }

    deinit { _ = try? baseboard(["down"]) }

    /// Runs a command of the launcher on this board.
    @discardableResult
    public func baseboard(_ arguments: [String]) throws -> (status: Int32?, output: String) {
        try run(binary("baseboard"), arguments, environment: ["BASEBOARD_RUNTIME_DIR": folder.path, "NO_COLOR": "1"])
    }

    /// `ps --json` of the board.
    public func record() throws -> JSONValue {
        let output = try baseboard(["ps", "--json"]).output
        return try Self.found(JSONValue(parsing: output)?[0], output)
    }

    /// One component in `ps --json`.
    public func component(_ name: String) throws -> JSONValue {
        let record = try record()
        return try Self.found(record["components"]?.arrayValue?.first { $0["name"]?.stringValue == name }, record)
    }

    /// The path of a component's socket.
    public func socket(_ component: String, _ port: String) throws -> String {
        let record = try self.component(component)
        return try Self.found(record["sockets"]?[port]?.stringValue, record)
    }

    /// The answer to a QMP command, as `baseboard qmp` prints it.
    public func qmp(_ component: String, _ command: String, _ arguments: String...) throws -> JSONValue {
        let result = try baseboard(["qmp", component, command] + arguments)
        return try Self.found(JSONValue(parsing: result.output), result)
    }

    /// An answer without what was asked for.
    public struct Unexpected: Error, CustomStringConvertible {
        public let description: String
    }

    private static func found<Value>(_ value: Value?, _ answer: Any) throws -> Value {
        guard let value else { throw Unexpected(description: "unexpected answer of the board: \(answer)") }
        return value
    }

    private var consoleText = ""

    /// Everything that the host wrote on COM1 so far, as the BMC received it. (`ringbuf-read` takes what it returns out
    /// of the BMC's buffer, as QEMU's does.)
    public func hostConsole() throws -> String {
        let piece = try qmp("bmc0", "ringbuf-read", "device=serial", "size=65536")
        consoleText += try Self.found(piece.stringValue, piece)
        return consoleText
    }

    /// The timeline, each event as "component EVENT subject".
    public func timeline() throws -> [String] {
        try baseboard(["timeline", "--json"]).output.split(separator: "\n").compactMap { line in
            guard let entry = JSONValue(parsing: String(line)), let component = entry["component"]?.stringValue,
                let event = entry["event"]?.stringValue
            else { return nil }
            let subject = entry["data"]?["component"]?.stringValue
            return component + " " + event + (subject.map { " " + $0 } ?? "")
        }
    }
}
