import ArgumentParser
import Component
import Glibc
import Launcher
import QMP
import Synchronization
import Topology
import Wire

struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Starts a board and stays until Ctrl-C.",
        discussion: """
            Prints the boot as it happens, then the state of the board. The board is up when every component is ready
            and the host's firmware has booted.

            EXAMPLES
              baseboard up topology/server.yaml
              baseboard up -d --set components.host0.memory=1GiB topology/server.yaml
              baseboard up --dry-run topology/minimal.yaml

            EXIT STATUS
              0 stopped by Ctrl-C, by 'baseboard down' or by the guest (with -d: the board is up);
              1 it did not come up, or a component died; 2 the topology has mistakes;
              3 the firmware was refused (with -d the board stays held, for 'ps' and 'qmp').
            """)

    @Argument(help: ArgumentHelp("The topology.", valueName: "file"), completion: .file(extensions: ["yaml"]))
    var file: String

    @Flag(name: .shortAndLong, help: "Go on as soon as the board is up; it runs until 'baseboard down'.")
    var detach = false

    @Flag(help: "Print the command line of every process instead of starting any.")
    var dryRun = false

    @Option(
        help: ArgumentHelp(
            "Change the topology: components.NAME.KEY=VALUE, name=NAME. Repeatable.", valueName: "key=value"))
    var set: [String] = []

    @Option(help: "The board must be up within this time; 0s: whenever.")
    var timeout = DurationArgument(.seconds(60))

    @Option(help: "A component without a sign of life for this time is hung; 0s: never.")
    var watchdog = DurationArgument(.seconds(30))

    @Flag(help: "Print events and state as JSON, one object a line.")
    var json = false

    /// The supervisor of a detached board: descriptor 3 takes the outcome.
    @Flag(help: .hidden)
    var supervise = false

    /// When the command that asked for it began: CLOCK_MONOTONIC nanoseconds.
    @Option(help: .hidden)
    var started: UInt64?

    func run() throws {
        let started = started.map { MonotonicTime(nanoseconds: $0) } ?? .now
        if detach, !dryRun {
            // Everything is the supervisor's: it reads the topology, tells the mistakes, and ends with the exit status.
            throw ExitCode(try startDetached(started, try takeTerminationSignals()))
        }
        let board = try TopologyReader.read(file, overrides: set)
        let plan = try LaunchPlan(board)
        if dryRun {
            write(plan.script(watchdog: watchdog.duration))
            return
        }
        let termination = try takeTerminationSignals()
        var options = SupervisorOptions()
        options.started = started
        options.topology = absolutePath(file)
        options.timeout = timeout.duration
        options.watchdog = watchdog.duration
        options.isDetached = supervise
        let report = report(plan, options)
        let outcome = try Supervisor(plan, options, termination: termination, report: report).run()
        throw ExitCode(outcome.exitCode)
    }

    private func report(_ plan: LaunchPlan, _ options: SupervisorOptions) -> SupervisorReport {
        let (json, isDetached) = (json, options.isDetached)
        /// A detached board outlives whoever read its beginning; one in the foreground ends with them, in order: asked
        /// once, as by a terminal that was closed.
        let hasReader = Mutex(true)
        @Sendable func tell(_ text: String) {
            do { try standardOutput.writeAll(Array(text.utf8), subject: "standard output") } catch {
                let isNews = hasReader.withLock { hasReader in
                    defer { hasReader = false }
                    return hasReader
                }
                if !isDetached, isNews { kill(getpid(), SIGHUP) }
            }
        }
        return SupervisorReport(
            event: { entry in
                if json { tell(entry.json.text() + "\n") } else { tell(Self.coloured(entry) + "\n") }
            },
            notice: { complain($0) },
            settled: { outcome, record in
                if json {
                    tell(record.json.text() + "\n")
                } else {
                    tell("\n" + record.table + "\n")
                    // A failure is told as an error, at its length.
                    if record.state != .failed { tell(Self.coloured(record) + "\n") }
                    if outcome == .up { tell(Self.hint(plan, isDetached: isDetached)) }
                }
                switch outcome {
                case .up where isDetached: Self.letGo(outcome.exitCode)
                case .refused(let text):
                    complain("error: \(text)")
                    if isDetached { Self.letGo(outcome.exitCode) }
                default: break
                }
            })
    }

    private static func coloured(_ entry: TimelineEntry) -> String {
        let text = entry.text
        let colour: Colour? =
            switch entry.event {
            case "BOARD_UP", "BOOT_COMPLETE", "FIRMWARE_VERIFIED": .green
            case "FIRMWARE_REFUSED", "FIRMWARE_LOAD_FAILED", "BOARD_FAILED", "GUEST_PANICKED", "COMPONENT_ENDED": .red
            default: nil
            }
        return colour?.around(text) ?? text
    }

    private static func coloured(_ record: BoardRecord) -> String {
        (record.state == .failed ? Colour.red : .green).around(record.headline)
    }

    private static func hint(_ plan: LaunchPlan, isDetached: Bool) -> String {
        let console = plan.processes.first { $0.path(of: "console") != nil }?.name
        let look = console.map { "'baseboard console \($0)' shows its console; " } ?? ""
        return look + (isDetached ? "'baseboard down \(plan.board.name)' stops it\n" : "Ctrl-C stops it\n")
    }

    // MARK: Detached

    /// Starts this program again as the board's supervisor in a session of its own, and waits for the outcome.
    private func startDetached(_ started: MonotonicTime, _ termination: Descriptor) throws -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard pipe2(&ends, O_CLOEXEC) == 0 else { throw LaunchError.file(path: "pipe", call: "pipe2", errno: errno) }
        let (reading, writing) = (Descriptor(adopting: ends[0]), Descriptor(adopting: ends[1]))
        var arguments = ["up", file, "--supervise", "--started", String(started.nanoseconds)]
        arguments += ["--timeout", timeout.duration.spelled, "--watchdog", watchdog.duration.spelled]
        for entry in set { arguments += ["--set=" + entry] }
        if json { arguments.append("--json") }
        let nothing = try Descriptor.open("/dev/null", flags: O_RDONLY)
        let child = try ChildProcess(
            Environment.ownExecutable, arguments, environment: Environment.current.entries,
            descriptors: [nothing, standardOutput, standardError, writing], newSession: true)
        return try Self.outcome(of: child, reading: reading, termination: termination)
    }

    private static func outcome(
        of child: ChildProcess, reading: Descriptor, termination: Descriptor
    ) throws -> Int32 {
        let ended = try child.exitDescriptor()
        while true {
            let ready = waitReadable([reading, termination, ended])
            // The supervisor's word comes before its end: a byte when it lets go.
            if ready[0], (try? reading.setNonblocking(true)) != nil, let byte = try? reading.readSome(limit: 1)?.first {
                return Int32(byte)
            }
            if ready[1] {
                _ = try? termination.readSome(limit: 1024)
                child.signal(SIGTERM)
            }
            if ready[2] {
                switch child.wait() {
                case .code(let code): return code
                case .signal(let number):
                    complain("error: the supervisor was ended by signal \(number)")
                    return 1
                case nil: return 1
                }
            }
        }
    }

    /// In the supervisor: tells the outcome to the command that waits, and lets go of its terminal.
    private static func letGo(_ code: Int32) {
        var byte = UInt8(truncatingIfNeeded: code)
        guard fcntl(3, F_GETFD) >= 0 else { return }
        _ = Glibc.write(3, &byte, 1)
        close(3)
        let nothing = open("/dev/null", O_WRONLY | O_CLOEXEC)
        dup2(nothing, 1)
        dup2(nothing, 2)
        close(nothing)
    }
}
