import Component
import Foundation
import QMP
import TestKit
import Testing
import Wire

/// A runtime folder, a folder of components that do as told (`test-component` under every kind's name), and a board of
/// three: a launcher under test with nothing real behind it.
final class LauncherBench: Sendable {
    let folder = TemporaryFolder()
    let topology: String
    var runtime: String { folder.file("run") }
    var executables: String { folder.file("bin") }

    init(name: String = "bench") {
        topology = folder.file("board.yaml")
        let files = FileManager.default
        try! files.createDirectory(atPath: folder.file("bin"), withIntermediateDirectories: false)
        for kind in ComponentCatalog.kinds {
            try! files.createSymbolicLink(
                atPath: "\(folder.file("bin"))/\(kind.name)", withDestinationPath: binary("test-component"))
        }
        try! "chip".write(toFile: folder.file("chip.img"), atomically: true, encoding: .utf8)
        try! """
        name: \(name)
        components:
          flash0: {type: flash, image: chip.img}
          host0: {type: host-cpu}
          bmc0: {type: bmc}
        links:
          - spi: [host0, flash0]
          - serial: [host0, bmc0]
        """.write(toFile: topology, atomically: true, encoding: .utf8)
    }

    /// No test leaves a board behind, however it ends.
    deinit {
        for pid in supervisors { kill(pid, SIGKILL) }
    }

    /// The supervisors that hold a lock in the runtime folder.
    private var supervisors: [Int32] {
        let boards = (try? FileManager.default.contentsOfDirectory(atPath: runtime)) ?? []
        return boards.compactMap { board in
            guard let text = try? String(contentsOfFile: "\(runtime)/\(board)/lock", encoding: .utf8),
                let pid = Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)),
                let command = try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8),
                command.contains("baseboard"), command.contains(folder.path)
            else { return nil }
            return pid
        }
    }

    func environment(_ behaviour: String = "") -> [String: String] {
        [
            "BASEBOARD_RUNTIME_DIR": runtime, "BASEBOARD_BIN_DIR": executables, "TEST_BEHAVIOUR": behaviour,
            "NO_COLOR": "1",
        ]
    }

    /// Runs `baseboard` to its end.
    func baseboard(_ arguments: String..., behaviour: String = "") throws -> (status: Int32?, output: String) {
        try run(binary("baseboard"), arguments, environment: environment(behaviour))
    }

    /// Starts `baseboard` and lets it run.
    func start(_ arguments: String..., behaviour: String = "") throws -> RunningProcess {
        try RunningProcess(binary("baseboard"), arguments, environment: environment(behaviour))
    }

    /// A board that is up in the background.
    func up(_ arguments: String..., behaviour: String = "bmc0=boot") throws {
        let result = try run(
            binary("baseboard"), ["up", "-d"] + arguments + [topology], environment: environment(behaviour))
        try #require(result.status == 0, "\(result.output)")
    }

    /// The only board of `ps --json`, or the one of that name.
    func record(_ name: String = "bench") throws -> JSONValue {
        let output = try baseboard("ps", "--json", name).output
        return try #require(JSONValue(parsing: output)?[0], "\(output)")
    }

    func component(_ component: String, of record: JSONValue) throws -> JSONValue {
        try #require(record["components"]?.arrayValue?.first { $0["name"]?.stringValue == component })
    }

    /// The pids of the components of a record.
    func pids(_ record: JSONValue) -> [Int32] {
        (record["components"]?.arrayValue ?? []).compactMap { $0["pid"]?.integerValue.map { Int32($0) } }
    }

    /// What the runtime folder of a board holds.
    func leftovers(_ board: String = "bench") -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "\(runtime)/\(board)")) ?? []).sorted()
    }

    /// Whether all of these processes are gone, soon.
    func allGone(_ pids: [Int32]) -> Bool { eventually(within: .seconds(10)) { pids.allSatisfy { !isAlive($0) } } }

    static let records = ["board.json", "lock", "logs", "timeline.jsonl"]
}

/// Whether a process runs: there and no zombie, which a foreign parent may be slow to reap.
func isAlive(_ pid: Int32) -> Bool {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return false }
    return !text.contains(") Z ")
}
