// What a running board measured, as its security logic keeps it.

import ArgumentParser
import Crypto
import Launcher
import QMP
import Trust
import Wire

struct Measurements: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measurements",
        abstract: "Shows what a running board measured at its boot.",
        discussion: """
            Reads the log from the board's security logic, replays it, and fails when the events do not give the \
            registers' values.

            EXAMPLES
              baseboard measurements                        registers and events
              baseboard measurements --tcg boot.log && tpm2_eventlog boot.log
              baseboard measurements --cbor boot.cbor       with the registers, for a verifier
              baseboard measurements --json | jq '.events[].text'
            """)

    @Argument(help: "The security logic, as 'baseboard ps' shows it; needed where a board has more than one.")
    var component: String?

    @OptionGroup var option: BoardOption

    @Option(
        help: ArgumentHelp("Write the log in the TCG's form (Debian: tpm2-tools reads it).", valueName: "file"),
        completion: .file())
    var tcg: String?

    @Option(help: ArgumentHelp("Write the log in CBOR.", valueName: "file"), completion: .file())
    var cbor: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let (_, record) = try BoardSelection.find(option.board)
        let name = try component ?? only(record)
        guard let path = try record.component(name).sockets["control"] else {
            throw LaunchError.message("component '\(name)' has no control socket")
        }
        let answer: JSONValue
        do throws(QMPClient.Failure) {
            let deadline = MonotonicTime.after(.seconds(10))
            answer = try QMPClient(path: path, until: deadline).execute("query-measurements", until: deadline)
        } catch {
            throw LaunchError.message("\(name): \(error)")
        }
        let log: MeasurementLog
        do throws(MeasurementError) { log = try MeasurementLog(json: answer) } catch {
            throw LaunchError.message("\(name): \(error)")
        }
        if let tcg { try WholeFile.write(tcg, log.tcgEventLog()) }
        if let cbor { try WholeFile.write(cbor, log.cbor()) }
        if json {
            write(answer.text(pretty: true) + "\n")
        } else if tcg == nil, cbor == nil {
            write(Self.text(log))
        }
    }

    private func only(_ record: BoardRecord) throws(LaunchError) -> String {
        let logics = record.components.filter { $0.kind == "security-logic" }.map(\.name)
        guard let name = logics.first else {
            throw .message("board '\(record.name)' has no security logic: nothing measures it")
        }
        guard logics.count == 1 else {
            throw .message("which security logic? \(logics.joined(separator: ", "))")
        }
        return name
    }

    /// Registers and events for people, a line each.
    static func text(_ log: MeasurementLog) -> String {
        let registers = log.registers.enumerated().map { "register \($0.offset)  \(Hex.encode($0.element))" }
        let width = log.events.map(\.type.description.count).max() ?? 0
        let events = log.events.enumerated().map { index, event in
            let type = event.type.description
            let padding = String(repeating: " ", count: width - type.count)
            let digest = Hex.encode(event.digest.prefix(12))
            return
                "\(index < 10 ? " " : "")\(index)  register \(event.register)  \(type)\(padding)  \(digest)…  \(event.text)"
        }
        return (registers + [events.isEmpty ? "nothing was measured" : ""] + events).joined(separator: "\n") + "\n"
    }
}
