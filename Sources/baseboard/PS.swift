import ArgumentParser
import Launcher
import QMP
import Wire

struct PS: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps",
        abstract: "Shows boards and the state of their components.",
        discussion: """
            Without a name: every board that runs, and the last state of those that ended.

            EXAMPLES
              baseboard ps
              baseboard ps --json server | jq '.[0].components[] | {name, status}'
            """)

    @Argument(help: ArgumentHelp("Only this board.", valueName: "board"))
    var name: String?

    @OptionGroup var option: BoardOption

    @Flag(help: "Print an array of boards as JSON.")
    var json = false

    func run() throws {
        var records: [BoardRecord] = []
        if let name = name ?? option.board {
            records = [try BoardSelection.find(name, orEnded: true).1]
        } else {
            records = RuntimeFolder.all().compactMap { BoardRecord.read($0) }
        }
        for index in records.indices where records[index].state != .stopped { records[index].askComponents() }
        if json {
            write(JSONValue.array(records.map(\.json)).text(pretty: true) + "\n")
        } else if records.isEmpty {
            write("no boards; 'baseboard up FILE' starts one\n")
        } else {
            write(records.map { $0.headline + "\n" + $0.table }.joined(separator: "\n"))
        }
    }
}

extension BoardRecord {
    /// Asks every component that runs how it is, all together within half a second.
    mutating func askComponents() {
        let deadline = MonotonicTime.after(.milliseconds(500))
        for index in components.indices where components[index].state == .ready {
            guard let path = components[index].sockets["control"] else { continue }
            do {
                let client = try QMPClient(path: path, until: deadline)
                components[index].take(status: try client.execute("query-status", until: deadline))
            } catch {
                components[index].status = "does not answer"
            }
        }
    }
}
