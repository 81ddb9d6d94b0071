import ArgumentParser
import Glibc
import Launcher
import Wire

struct Console: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Joins the terminal to a component's console.",
        discussion: """
            On a terminal, Ctrl-] leaves. With pipes, what comes in is typed and what the console says goes out, until
            the board ends, or with --idle until the input has ended and the console is quiet.

            EXAMPLES
              baseboard console host0
              echo help | baseboard console --idle 500ms host0
            """)

    @Argument(help: "The component, as 'baseboard ps' shows it.")
    var component: String

    @OptionGroup var option: BoardOption

    @Option(
        help: ArgumentHelp(
            "After the input's end, leave when the console was quiet for this long.", valueName: "duration"))
    var idle: DurationArgument?

    /// Ctrl-].
    private static let escape: UInt8 = 0x1D

    func run() throws {
        let (_, record) = try BoardSelection.find(option.board)
        let chosen = try record.component(component)
        guard let path = chosen.sockets["console"] else {
            let others = record.components.filter { $0.sockets["console"] != nil }.map(\.name).joined(separator: ", ")
            throw LaunchError.message(
                "component '\(component)' (\(chosen.kind)) has no console"
                    + (others.isEmpty ? "" : "; \(others) has one"))
        }
        let socket = try Socket.connect(to: path)
        let termination = try takeTerminationSignals()
        let terminal = RawTerminal()
        if terminal != nil { writeError("console of \(component); Ctrl-] leaves\r\n") }
        defer {
            terminal?.restore()
            if terminal != nil { writeError("\n") }
        }
        try talk(socket, termination)
    }

    private func talk(_ socket: Socket, _ termination: Descriptor) throws {
        var inputOpen = true
        while true {
            let deadline = inputOpen ? nil : idle.map { MonotonicTime.after($0.duration) }
            let ready = waitReadable(
                [socket.descriptor, termination] + (inputOpen ? [standardInput] : []), until: deadline)
            if ready[0] {
                guard let bytes = try socket.receiveBytes(limit: 65_536) else { return }
                write(bytes)
            }
            if ready[1] { return }
            if inputOpen, ready[2] {
                guard let bytes = try standardInput.readSome(limit: 4096), !bytes.isEmpty else {
                    inputOpen = false
                    continue
                }
                if isatty(0) == 1, let end = bytes.firstIndex(of: Self.escape) {
                    try socket.send(Array(bytes[..<end]))
                    return
                }
                try socket.send(bytes)
            }
            if !ready.contains(true) { return }
        }
    }
}

/// Standard input as a raw terminal, until restored.
struct RawTerminal {
    private var before = termios()

    /// Nil where standard input is no terminal.
    init?() {
        guard isatty(0) == 1, tcgetattr(0, &before) == 0 else { return nil }
        var raw = before
        cfmakeraw(&raw)
        guard tcsetattr(0, TCSADRAIN, &raw) == 0 else { return nil }
    }

    func restore() {
        var before = before
        tcsetattr(0, TCSADRAIN, &before)
    }
}
