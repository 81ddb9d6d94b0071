import ArgumentParser
import Launcher
import QMP
import Wire

struct SendQMP: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qmp",
        abstract: "Sends one command to a component's control socket and prints the answer.",
        discussion: """
            A value that is JSON (a number, true, null, an object …) is sent as such, anything else as text.

            EXAMPLES
              baseboard qmp host0 query-status
              baseboard qmp host0 query-commands
              baseboard qmp host0 pmemsave val=2147483648 size=4096 filename=/tmp/ram.bin
            """)

    @Argument(help: "The component, as 'baseboard ps' shows it.")
    var component: String

    @Argument(help: "The command.")
    var command: String

    @Argument(help: ArgumentHelp("Arguments of the command.", valueName: "key=value"))
    var arguments: [String] = []

    @OptionGroup var option: BoardOption

    @Option(help: "Wait this long for the answer.")
    var timeout = DurationArgument(.seconds(10))

    @Flag(help: "Print the answer as JSON on one line.")
    var json = false

    func run() throws {
        var values: [String: JSONValue] = [:]
        for argument in arguments {
            guard let equals = argument.firstIndex(of: "="), equals != argument.startIndex else {
                throw ValidationError("'\(argument)' is not key=value")
            }
            let text = String(argument[argument.index(after: equals)...])
            values[String(argument[..<equals])] = JSONValue(parsing: text) ?? .string(text)
        }
        let (_, record) = try BoardSelection.find(option.board)
        guard let path = try record.component(component).sockets["control"] else {
            throw LaunchError.message("component '\(component)' has no control socket")
        }
        let deadline = MonotonicTime.after(timeout.duration)
        do throws(QMPClient.Failure) {
            let client = try QMPClient(path: path, until: deadline)
            let answer = try client.execute(command, values, until: deadline)
            write(answer.text(pretty: !json) + "\n")
        } catch {
            throw LaunchError.message("\(component): \(error)")
        }
    }
}
