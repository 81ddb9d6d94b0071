import ArgumentParser
import QMP
import Topology

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Checks topologies and reports every mistake.",
        discussion: """
            EXAMPLES
              baseboard check topology/*.yaml
              baseboard check --set components.host0.harts=4 topology/server.yaml

            EXIT STATUS
              0 all are right; 2 there are mistakes.
            """)

    @Argument(help: ArgumentHelp("Topologies.", valueName: "file"), completion: .file(extensions: ["yaml"]))
    var files: [String]

    @Option(
        help: ArgumentHelp(
            "Change the topologies: components.NAME.KEY=VALUE, name=NAME. Repeatable.", valueName: "key=value"))
    var set: [String] = []

    @Flag(help: "Print an array of mistakes as JSON.")
    var json = false

    func run() throws {
        var mistakes: [JSONValue] = []
        var isRight = true
        for file in files {
            do throws(TopologyError) {
                let board = try TopologyReader.read(file, overrides: set)
                guard !json else { continue }
                write(
                    "\(file): board '\(board.name)', \(board.components.count) components, \(board.links.count) links\n"
                )
            } catch {
                isRight = false
                if json {
                    mistakes += error.diagnostics.map { diagnostic in
                        [
                            "file": .string(diagnostic.position.file.path),
                            "line": .integer(Int64(diagnostic.position.line)),
                            "column": .integer(Int64(diagnostic.position.column)),
                            "message": .string(diagnostic.message),
                        ]
                    }
                } else {
                    complain(topology: error)
                }
            }
        }
        if json { write(JSONValue.array(mistakes).text(pretty: true) + "\n") }
        if !isRight { throw ExitCode(2) }
    }
}
