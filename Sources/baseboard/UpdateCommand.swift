import ArgumentParser
import Glibc
import Launcher
import QMP
import Wire

/// `baseboard update`
struct Update: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Gives a running board new firmware, through its BMC.",
        discussion: """
            The BMC hands the image to the security logic, which refuses one that is not authentic, writes the others \
            into the slot that does not run, and verifies what it wrote. The board boots it at the next power cycle.

            EXAMPLES
              baseboard update server.slot.img
              baseboard update --power-cycle server.slot.img     and boot it now

            EXIT STATUS
              0 the image is in its slot; 1 it was refused, and the reason is printed.
            """)

    @Argument(help: "A slot image, as 'baseboard image build' makes it.", completion: .file())
    var image: String

    @OptionGroup var option: BoardOption

    @Option(help: ArgumentHelp("The BMC, where the board has more than one.", valueName: "component"))
    var bmc: String?

    @Flag(help: "Power-cycle the board when the image is in its slot.")
    var powerCycle = false

    @Flag(help: "Print JSON.")
    var json = false

    /// Between two looks at the BMC: what a person sees as motion.
    private static let interval: UInt32 = 50_000

    func run() throws {
        let (_, record) = try BoardSelection.find(option.board)
        let controller = try self.controller(record)
        // The BMC is another process, in another folder.
        let path = try absolute(image)
        do {
            let client = try QMPClient(path: try Self.control(controller), until: .after(.seconds(10)))
            _ = try client.execute("update-firmware", ["file": .string(path)])
            let state = try follow(client)
            guard state["state"] == "staged" else {
                throw LaunchError.message("\(controller.name): \(state["reason"]?.stringValue ?? "the update ended")")
            }
            if powerCycle { try cycle(record) }
            write(
                json
                    ? state.text(pretty: false) + "\n"
                    : "\(image): written and verified; \(powerCycle ? "the board is power-cycled" : "it boots at the next power cycle")\n"
            )
        } catch let error as QMPClient.Failure {
            throw LaunchError.message("\(controller.name): \(error)")
        }
    }

    private func controller(_ record: BoardRecord) throws(LaunchError) -> BoardRecord.Component {
        if let bmc { return try record.component(bmc) }
        let all = record.components.filter { $0.kind == "bmc" }
        guard let only = all.first else { throw .message("board '\(record.name)' has no bmc to give the image to") }
        guard all.count == 1 else {
            throw .message("which BMC? \(all.map(\.name).joined(separator: ", ")): name it by --bmc")
        }
        return only
    }

    private func follow(_ client: QMPClient) throws -> JSONValue {
        let showsProgress = isatty(2) == 1
        defer { if showsProgress { writeError("\r\u{1B}[K") } }
        while true {
            let state = try client.execute("query-update")
            let name = state["state"]?.stringValue ?? ""
            guard ["authenticating", "sending", "verifying"].contains(name) else { return state }
            if showsProgress, let sent = state["sent"]?.integerValue, let size = state["size"]?.integerValue, size > 0 {
                writeError("\r\(name) \(sent * 100 / size) %\u{1B}[K")
            }
            usleep(Self.interval)
        }
    }

    private func cycle(_ record: BoardRecord) throws {
        guard let logic = record.components.first(where: { $0.kind == "security-logic" }) else {
            throw LaunchError.message("board '\(record.name)' has no security-logic to power-cycle it")
        }
        let client = try QMPClient(path: try Self.control(logic), until: .after(.seconds(10)))
        _ = try client.execute("system_reset")
    }

    private static func control(_ component: BoardRecord.Component) throws -> String {
        guard let path = component.sockets["control"] else {
            throw LaunchError.message("component '\(component.name)' has no control socket")
        }
        return path
    }

    private func absolute(_ path: String) throws(LaunchError) -> String {
        // Safety: realpath returns memory of its own, which is freed here.
        guard let resolved = realpath(path, nil) else {
            throw .message("\(path): \(systemErrorText(errno))")
        }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
