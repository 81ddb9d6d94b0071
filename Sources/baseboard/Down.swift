import ArgumentParser
import Glibc
import Launcher
import QMP
import Wire

struct Down: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Stops a board.",
        discussion: """
            Its components end in order; one that does not is killed after three seconds. Logs and timeline stay.

            EXAMPLES
              baseboard down
              baseboard down server
            """)

    @Argument(help: ArgumentHelp("The board; needed where more than one runs.", valueName: "board"))
    var name: String?

    @OptionGroup var option: BoardOption

    @Flag(help: "Print what was stopped as JSON.")
    var json = false

    func run() throws {
        let (folder, record) = try BoardSelection.find(name ?? option.board)
        guard let pid = folder.runningPID else { throw LaunchError.noBoard("board '\(record.name)' does not run") }
        let ended = try ProcessIdentifier.endDescriptor(of: pid)
        // The number is still the supervisor's: the lock was held after the descriptor was bound to it.
        guard folder.runningPID == pid else { throw LaunchError.noBoard("board '\(record.name)' has just ended") }
        guard kill(pid, SIGTERM) == 0 else {
            throw LaunchError.message("cannot stop board '\(record.name)' (pid \(pid)): \(systemErrorText(errno))")
        }
        // The supervisor kills what does not end within three seconds, so it ends itself soon after that.
        if waitReadable([ended], until: .after(.seconds(10))) != [true] {
            throw LaunchError.message(
                "the supervisor of board '\(record.name)' (pid \(pid)) does not end; kill it by 'kill -9 \(pid)'")
        }
        if json {
            write((BoardRecord.read(folder) ?? record).json.text(pretty: true) + "\n")
        } else {
            write("board \(record.name) stopped\n")
        }
    }
}
