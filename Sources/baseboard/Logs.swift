import ArgumentParser
import Launcher
import QMP

struct Logs: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows what components wrote to their standard output and error.",
        discussion: """
            Also of a board that has ended, until the next 'up' of that name.

            EXAMPLES
              baseboard logs
              baseboard logs -f host0 bmc0
            """)

    @Argument(help: ArgumentHelp("Only these; all without any.", valueName: "component"))
    var components: [String] = []

    @Flag(name: .shortAndLong, help: "Go on as more is written, until the board ends.")
    var follow = false

    @OptionGroup var option: BoardOption

    @Flag(help: "Print one object a line: component, line.")
    var json = false

    func run() throws {
        let (folder, record) = try BoardSelection.find(option.board, orEnded: true)
        let chosen = try components.isEmpty ? record.components : components.map { try record.component($0) }
        var files = chosen.map { (name: $0.name, file: GrowingFile($0.log)) }
        let width = chosen.map(\.name.count).max() ?? 0
        func show(_ name: String, _ line: [UInt8]) {
            let text = String(decoding: line, as: UTF8.self)
            if json {
                write(JSONValue.object(["component": .string(name), "line": .string(text)]).text() + "\n")
            } else if chosen.count == 1 {
                write(line + [0x0A])
            } else {
                write(Colour.dim.around(padded(name, width) + " | ") + text + "\n")
            }
        }
        func look() {
            for index in files.indices {
                for line in files[index].file.newLines() { show(files[index].name, line) }
            }
        }
        if follow { try Follower.follow(folder.logFolder, of: folder, look) } else { look() }
        for index in files.indices {
            if let rest = files[index].file.rest() { show(files[index].name, rest) }
        }
    }
}
