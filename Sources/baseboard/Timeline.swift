import ArgumentParser
import Launcher
import QMP

struct TimelineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "timeline",
        abstract: "Shows a board's events in order of time.",
        discussion: """
            Seconds count from the beginning of 'up'. Also of a board that has ended.

            EXAMPLES
              baseboard timeline
              baseboard timeline --json | jq 'select(.event == "BOOT_COMPLETE").time / 1e6'
            """)

    @Flag(name: .shortAndLong, help: "Go on as events happen, until the board ends.")
    var follow = false

    @OptionGroup var option: BoardOption

    @Flag(help: "Print one object a line: time and monotonic (nanoseconds), kind, component, event, data.")
    var json = false

    func run() throws {
        let (folder, _) = try BoardSelection.find(option.board, orEnded: true)
        var file = GrowingFile(folder.timelinePath)
        func look() {
            // Events of different components arrive on their own ways: those that are there are put in order.
            let entries = file.newLines().compactMap { JSONValue(parsing: $0).flatMap { TimelineEntry(json: $0) } }
            for entry in entries.sorted(by: { $0.time < $1.time }) {
                write((json ? entry.json.text() : entry.text) + "\n")
            }
        }
        if follow { try Follower.follow(folder.path, of: folder, look) } else { look() }
    }
}
