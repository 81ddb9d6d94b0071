// The lab bench: starts, watches and stops boards. Each command is a file; what they do together is in Launcher.

import ArgumentParser
import Launcher
import Topology
import Wire

struct Baseboard: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "baseboard",
        abstract: "Runs whole server boards as Linux processes.",
        discussion: """
            EXAMPLES
              baseboard up topology/server.yaml        start a board; Ctrl-C stops it
              baseboard up -d topology/server.yaml     start it and go on when it is up
              baseboard ps                             what runs, and how it fares
              baseboard console host0                  the host's serial line; Ctrl-] leaves
              baseboard down                           stop it

            EXIT STATUS
              0  done
              1  the operation failed; standard error says why
              2  wrong usage, or a topology with mistakes
              3  the board refused its firmware and stays held

            ENVIRONMENT
              BASEBOARD_RUNTIME_DIR  holds the boards' folders, instead of $XDG_RUNTIME_DIR/baseboard
                                     or /tmp/baseboard-UID
              BASEBOARD_BIN_DIR      holds the components' executables, instead of this one's folder
              NO_COLOR               no colours, also on a terminal
            """,
        subcommands: commands)

    /// Every command; to add one, write its file and name it here.
    static let commands: [any ParsableCommand.Type] = [
        Up.self, Down.self, PS.self, Logs.self, Console.self, SendQMP.self, Check.self, TimelineCommand.self,
        LSPCI.self, Measurements.self, Update.self, Provision.self, Image.self,
    ]
}

@main enum Main {
    static func main() {
        do {
            var command = try Baseboard.parseAsRoot()
            try command.run()
        } catch let error as LaunchError {
            complain("error: \(error)")
            endProcess(1)
        } catch let error as WireError {
            complain("error: \(error)")
            endProcess(1)
        } catch let error as TopologyError {
            complain(topology: error)
            endProcess(2)
        } catch {
            let code = Baseboard.exitCode(for: error)
            let message = Baseboard.fullMessage(for: error)
            // The parser's own code for wrong usage is 64 (EX_USAGE); ours is documented as 2.
            if code.isSuccess {
                write(message + (message.isEmpty ? "" : "\n"))
            } else if !message.isEmpty {
                writeError(message + "\n")
            }
            endProcess(code.rawValue == 64 ? 2 : code.rawValue)
        }
    }
}
