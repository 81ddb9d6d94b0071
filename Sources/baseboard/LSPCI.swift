import ArgumentParser
import Glibc
import Launcher
import PCINames
import QMP
import Wire

struct LSPCI: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lspci",
        abstract: "Shows what a running board's host has on its PCI buses.",
        discussion: """
            The configuration spaces are those that the host's guest reads now; the guest is not disturbed and need not run. \
            What is behind a root port whose bus the guest has not numbered has no address yet: a note on standard error \
            tells of it. Options are lspci's; -v and -t are decoded by lspci itself (Debian package pciutils).

            EXAMPLES
              baseboard lspci                          one line a function
              baseboard lspci -vv -s 01:00.0 host0     all about one of them
              baseboard lspci -tv                      as a tree
              baseboard lspci --dump board.lspci && lspci -F board.lspci -vvv
              baseboard lspci --json | jq '.[] | {address, port, name: .device.name}'
            """)

    @Argument(help: "The host, as 'baseboard ps' shows it; needed where a board has more than one.")
    var host: String?

    @Flag(name: .customShort("v"), help: "More; -vv and -vvv still more.")
    var verbosity: Int

    @Flag(name: .customShort("x"), help: "The header in hexadecimal; -xxx 256 bytes, -xxxx all 4096.")
    var hexadecimal: Int

    @Flag(name: .customShort("t"), help: "A tree of buses.")
    var tree = false

    @Flag(name: .customShort("n"), help: "Numbers instead of names; -nn both.")
    var numeric: Int

    @Option(
        name: .customShort("s"),
        help: ArgumentHelp("Only these addresses, in hexadecimal.", valueName: "[[[domain]:]bus]:device[.function]"))
    var slot: String?

    @Option(
        help: ArgumentHelp("Write everything to a file that 'lspci -F' reads; - is standard output.", valueName: "file")
    )
    var dump: String?

    @OptionGroup var option: BoardOption

    @Flag(help: "Print an array of functions as JSON.")
    var json = false

    func validate() throws {
        _ = try filter()
        let kinds = [("--json", json), ("--dump", dump != nil), ("-t", tree), ("-v", !tree && verbosity > 0)]
        let chosen = kinds.filter(\.1).map(\.0)
        if chosen.count > 1 { throw ValidationError("choose one of \(chosen.joined(separator: " and "))") }
        if dump != nil, slot != nil || hexadecimal > 0 || numeric > 0 {
            throw ValidationError("--dump writes everything; choose when reading it: lspci -F FILE -s …")
        }
    }

    private func filter() throws -> PCISlotFilter? {
        do throws(PCISlotFilter.Mistake) {
            return try slot.map { (text) throws(PCISlotFilter.Mistake) in try PCISlotFilter(parsing: text) }
        } catch {
            throw ValidationError("-s \(error)")
        }
    }

    func run() throws {
        let (_, record) = try BoardSelection.find(option.board)
        let component = try chooseHost(record)
        let buses = try ask(component)
        if let dump { return try save(buses.dump, to: dump) }
        let filter = try filter()
        let chosen = buses.functions.filter { it in
            filter?.matches(bus: it.bus, device: it.device, function: it.function) ?? true
        }
        if json {
            let names = PCINames()
            let all = chosen.filter { filter == nil || $0.isNumbered }
            return write(JSONValue.array(all.map { $0.json(names) }).text(pretty: true) + "\n")
        }
        for it in buses.functions where !it.isNumbered {
            let name = PCINames(.both).fullName(vendor: it.vendor, device: it.deviceID)
            writeError(
                "baseboard: note: the guest of \(component.name) has not numbered the bus behind \(it.port) yet; there is "
                    + "\(name)\n")
        }
        if tree || verbosity > 0 { return try decode(buses) }
        let names = PCINames([.names, .numbers, .both][min(numeric, 2)])
        for it in chosen where it.isNumbered {
            write(it.line(names) + "\n")
            if hexadecimal > 0 {
                write(it.dump(hexadecimal < 3 ? 64 : hexadecimal == 3 ? 256 : 4096) + "\n")
            }
        }
    }

    /// The host that is meant.
    private func chooseHost(_ record: BoardRecord) throws(LaunchError) -> BoardRecord.Component {
        if let host {
            let component = try record.component(host)
            guard component.kind == "host-cpu" else {
                throw .message("component '\(host)' (\(component.kind)) is no host: it has no PCI buses")
            }
            return component
        }
        let hosts = record.components.filter { $0.kind == "host-cpu" }
        guard let first = hosts.first else { throw .message("board '\(record.name)' has no host") }
        guard hosts.count == 1 else {
            throw .message("which host of board '\(record.name)'? " + hosts.map(\.name).joined(separator: ", "))
        }
        return first
    }

    private func ask(_ host: BoardRecord.Component) throws(LaunchError) -> PCIBuses {
        guard let path = host.sockets["control"] else {
            throw .message("component '\(host.name)' has no control socket")
        }
        // A card that hangs is waited for by the host, ten seconds long, and then is gone.
        let deadline = MonotonicTime.after(.seconds(30))
        let answer: JSONValue
        do throws(QMPClient.Failure) {
            answer = try QMPClient(path: path, until: deadline).execute("query-pci", until: deadline)
        } catch {
            throw .message("\(host.name): \(error)")
        }
        guard let buses = PCIBuses(json: answer) else {
            throw .message("\(host.name): its answer to query-pci is of another version of Baseboard")
        }
        return buses
    }

    private func save(_ text: String, to path: String) throws(WireError) {
        if path == "-" { return write(text) }
        let file = try Descriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try file.writeAll(Array(text.utf8), subject: path)
    }

    /// Hands everything to lspci, which reads it as a dump.
    private func decode(_ buses: PCIBuses) throws {
        guard let program = Self.lspci else {
            throw LaunchError.message(
                "-v and -t need lspci, which is not in PATH; install it with 'apt-get install pciutils' "
                    + "(without it: -x, -n, --json)")
        }
        let memory = try SharedMemory(create: "lspci", size: max(buses.dump.utf8.count, 1))
        try memory.descriptor.writeAll(Array(buses.dump.utf8), subject: "the dump")
        func flag(_ letter: String, _ count: Int) -> [String] {
            count > 0 ? ["-" + String(repeating: letter, count: count)] : []
        }
        let arguments =
            ["-F", "/proc/self/fd/3"] + flag("v", verbosity) + flag("x", hexadecimal) + flag("n", numeric)
            + (tree ? ["-t"] : []) + (slot.map { ["-s", $0] } ?? [])
        let (child, complaints) = try Self.start(program, arguments, memory.descriptor)
        var said: [UInt8] = []
        while let some = try? complaints.readSome(limit: 4096), !some.isEmpty { said += some }
        // It wants to name this machine's modules for the board's devices, and complains where it has none.
        for line in String(decoding: said, as: UTF8.self).split(separator: "\n") where !line.contains("libkmod") {
            writeError(line + "\n")
        }
        switch child.wait() {
        case .code(0): return
        case .code(let code): throw ExitCode(code)
        case let end: throw LaunchError.message("lspci: \(end.map { "\($0)" } ?? "lost")")
        }
    }

    /// Starts lspci with `dump` as descriptor 3; what it complains of is read from the descriptor that is returned.
    private static func start(
        _ program: String, _ arguments: [String], _ dump: Descriptor
    ) throws -> (ChildProcess, Descriptor) {
        var ends: [Int32] = [0, 0]
        guard pipe2(&ends, O_CLOEXEC) == 0 else {
            throw LaunchError.message("cannot make a pipe: \(systemErrorText(errno))")
        }
        let (reader, writer) = (Descriptor(adopting: ends[0]), Descriptor(adopting: ends[1]))
        let child = try ChildProcess(
            program, arguments, environment: Environment.current.entries,
            descriptors: [standardInput, standardOutput, writer, dump])
        return (child, reader)
    }

    /// Where lspci is: in PATH, or where Debian has had it for those who are not root.
    private static var lspci: String? {
        let folders = (Environment.current["PATH"] ?? "/usr/bin").split(separator: ":").map(String.init)
        return folders.map { $0 + "/lspci" }.first { access($0, X_OK) == 0 }
    }
}
