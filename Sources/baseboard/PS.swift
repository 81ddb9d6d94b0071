import ArgumentParser
import Launcher
import QMP
import Synchronization
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
    /// Asks every component that runs how it is, all together within half a second: one that hangs takes no time from
    /// the others, and is the only one blamed.
    mutating func askComponents() {
        let deadline = MonotonicTime.after(.milliseconds(500))
        let answers = Mutex<[Int: JSONValue]>([:])
        let asked = components.indices.filter { index in
            components[index].state == .ready && components[index].sockets["control"] != nil
        }
        let threads = asked.map { index in
            let path = components[index].sockets["control"] ?? ""
            return WorkerThread("ask") {
                guard let socket = try? Socket.connect(to: path, patience: deadline.since(.now)) else { return }
                let client = QMPClient(socket: socket)
                guard (try? client.execute("qmp_capabilities", until: deadline)) != nil,
                    let answer = try? client.execute("query-status", until: deadline)
                else { return }
                answers.withLock { $0[index] = answer }
            }
        }
        for thread in threads { thread.join() }
        for index in asked {
            if let answer = answers.withLock({ $0[index] }) {
                components[index].take(status: answer)
            } else {
                components[index].status = "does not answer"
            }
        }
    }
}
