import Component
import Foundation
import Launcher
import QMP
import TestKit
import Testing
import Topology
import Wire

private func board(_ bench: LauncherBench, _ overrides: String...) throws -> Board {
    try TopologyReader.read(bench.topology, overrides: overrides)
}

@Suite struct BoardProgressTests {
    enum Happening: Sendable {
        case ready(String)
        case event(String, String, [String: JSONValue] = [:])
        case ended(String, ChildProcess.Exit)
        case timedOut, stop, broke
    }

    struct Story: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var keepsRefused = false
        var happenings: [Happening]
        var expected: [BoardProgress.Action]
    }

    static let allReady: [Happening] = [.ready("flash0"), .ready("host0"), .ready("bmc0")]
    static let boot = Happening.event("bmc0", "BOOT_COMPLETE")
    static let refusal = Happening.event("host0", "BOARD_FAILED", ["image": "fw", "reason": "bad"])
    static let refused = BoardProgress.Outcome.refused("verification failed: image 'fw': bad")

    static let stories = [
        Story(testDescription: "ready is not enough", happenings: allReady, expected: []),
        Story(testDescription: "booted is not enough", happenings: [boot], expected: []),
        Story(testDescription: "ready, then booted", happenings: allReady + [boot], expected: [.settle(.up)]),
        Story(testDescription: "booted, then ready", happenings: [boot] + allReady, expected: [.settle(.up)]),
        Story(
            testDescription: "booted twice", happenings: allReady + [boot, boot, .timedOut], expected: [.settle(.up)]),
        Story(
            testDescription: "too slow", happenings: [.ready("host0"), .ready("bmc0"), boot, .timedOut],
            expected: [
                .settle(.failed("not up within 5 s: waiting for flash0 to be ready")),
                .stop(.failed("not up within 5 s: waiting for flash0 to be ready")),
            ]),
        Story(
            testDescription: "refused in the foreground", happenings: allReady + [refusal, boot],
            expected: [.settle(refused), .stop(refused)]),
        Story(
            testDescription: "refused and kept, then stopped", keepsRefused: true,
            happenings: allReady + [refusal, .timedOut, .stop], expected: [.settle(refused), .stop(refused)]),
        Story(
            testDescription: "refused and kept, then booted after all", keepsRefused: true,
            happenings: allReady + [refusal, boot], expected: [.settle(refused), .settle(.up)]),
        Story(
            testDescription: "refused after it was up", happenings: allReady + [boot, refusal],
            expected: [.settle(.up), .settle(refused)]),
        Story(
            testDescription: "dead before it was up",
            happenings: [.ended("bmc0", .code(1)), .ended("host0", .signal(9))],
            expected: [.settle(.failed("bmc0 died")), .stop(.failed("bmc0 died"))]),
        Story(
            testDescription: "dead after it was up", happenings: allReady + [boot, .ended("bmc0", .code(0))],
            expected: [.settle(.up), .stop(.failed("bmc0 died"))]),
        Story(
            testDescription: "powered off",
            happenings: allReady + [boot, .event("host0", "SHUTDOWN"), .ended("host0", .code(0))],
            expected: [.settle(.up), .stop(.poweredOff("the guest of host0 turned the power off"))]),
        Story(
            testDescription: "shut down and crashed",
            happenings: allReady + [boot, .event("host0", "SHUTDOWN"), .ended("host0", .signal(11))],
            expected: [.settle(.up), .stop(.failed("host0 died"))]),
        Story(
            testDescription: "stopped while starting", happenings: [.stop, .ended("host0", .code(0)), boot] + allReady,
            expected: [.settle(.stopped), .stop(.stopped)]),
        Story(
            testDescription: "stopped twice", happenings: allReady + [boot, .stop, .stop, .broke],
            expected: [.settle(.up), .stop(.stopped)]),
        Story(
            testDescription: "full disk while starting", happenings: [.broke],
            expected: [.settle(.failed("broken")), .stop(.failed("broken"))]),
        Story(
            testDescription: "panic", happenings: allReady + [.event("host0", "GUEST_PANICKED")],
            expected: [
                .settle(.failed("the guest of host0 panicked")), .stop(.failed("the guest of host0 panicked")),
            ]),
    ]

    @Test(arguments: stories) func `what happens decides what is done`(_ story: Story) throws {
        var progress = BoardProgress(try board(LauncherBench()), keepsRefused: story.keepsRefused)
        var actions: [BoardProgress.Action] = []
        for happening in story.happenings {
            switch happening {
            case .ready(let name): actions += progress.ready(name)
            case .event(let name, let event, let data):
                actions += progress.event(name, QMPEvent(name: event, data: data, timestamp: 0))
            case .ended(let name, let end): actions += progress.ended(name, end, "\(name) died")
            case .timedOut: actions += progress.timedOut(after: "5 s")
            case .stop: actions += progress.stopRequested()
            case .broke: actions += progress.broke("broken")
            }
        }
        #expect(actions == story.expected)
    }

    @Test(
        arguments: [
            (BoardProgress.Outcome.up, 0), (.stopped, 0), (.poweredOff(""), 0), (.failed(""), 1), (.refused(""), 3),
        ] as [(BoardProgress.Outcome, Int32)])
    func `every outcome has its exit status`(_ example: (outcome: BoardProgress.Outcome, code: Int32)) {
        #expect(example.outcome.exitCode == example.code)
    }
}

@Suite struct RuntimeFolderTests {
    @Test func `a folder is taken once at a time`() throws {
        let folder = RuntimeFolder(path: TemporaryFolder().file("x/board"))
        do {
            let first = try folder.take()
            #expect(first.found == .clean)
            #expect(folder.runningPID == ProcessIdentifier.current)
            #expect(throws: LaunchError.boardRuns(name: "board", pid: ProcessIdentifier.current)) { try folder.take() }
            withExtendedLifetime(first) {}
        }
        #expect(folder.runningPID == nil)
        #expect(throws: Never.self) { try folder.take() }
        try FileManager.default.removeItem(atPath: String(folder.path.dropLast("/x/board".count)))
    }

    @Test func `a folder of others, or open to others, is refused`() throws {
        let base = TemporaryFolder()
        let open = base.file("open")
        try FileManager.default.createDirectory(atPath: open, withIntermediateDirectories: false)
        chmod(open, 0o777)
        #expect(throws: LaunchError.foreignFolder(path: open, reason: "others may write in it")) {
            try RuntimeFolder(path: open + "/board").take()
        }
        try "".write(toFile: base.file("file"), atomically: true, encoding: .utf8)
        #expect(throws: LaunchError.foreignFolder(path: base.file("file"), reason: "it is not a folder")) {
            try RuntimeFolder(path: base.file("file") + "/board").take()
        }
        symlink(open, base.file("link"))
        #expect(throws: LaunchError.foreignFolder(path: base.file("link"), reason: "it is not a folder")) {
            try RuntimeFolder(path: base.file("link") + "/board").take()
        }
    }

    @Test func `clearing does not follow links out of the folder`() throws {
        let base = TemporaryFolder()
        let outside = base.file("outside")
        try FileManager.default.createDirectory(atPath: outside, withIntermediateDirectories: false)
        try "kept".write(toFile: outside + "/file", atomically: true, encoding: .utf8)
        let folder = RuntimeFolder(path: base.file("run/board"))
        _ = try folder.take()
        symlink(outside, folder.path + "/link.sock")
        #expect(try folder.take().found == .stale(pid: ProcessIdentifier.current))
        #expect(FileManager.default.fileExists(atPath: outside + "/file"))
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/link.sock"))
    }
}

@Suite struct LaunchPlanTests {
    @Test func `a socket path that is too long is refused before anything is made`() throws {
        let bench = LauncherBench()
        let long = RuntimeFolder(path: bench.folder.file(String(repeating: "d", count: 90)))
        let board = try board(bench)
        #expect {
            try LaunchPlan(board, folder: long, executables: bench.executables)
        } throws: { error in
            let text = "\(error)"
            return text.contains("a socket's path holds at most 107 bytes and this one has ")
                && text.contains("the runtime folder \(long.path) is too long")
        }
    }

    @Test(arguments: [
        ("plain-1.2_/x=y:z,@+%", "plain-1.2_/x=y:z,@+%"), ("", "''"), ("two words", "'two words'"),
        ("it's", "'it'\\''s'"), ("$HOME `x` \"y\"", "'$HOME `x` \"y\"'"), ("ü", "'ü'"),
    ])
    func `a word is quoted so that a shell reads it back`(_ example: (word: String, quoted: String)) throws {
        #expect(shellQuoted(example.word) == example.quoted)
        let echoed = try run("/bin/sh", ["-c", "printf %s \(example.quoted)"])
        #expect(echoed.output == example.word)
    }
}

@Suite struct RecordTests {
    @Test func `a record comes back from its JSON`() throws {
        var record = BoardRecord(name: "x", topology: "/t.yaml", supervisor: 7, isDetached: true, started: 5)
        record.state = .failed
        record.reason = "because"
        record.settledAfter = 412_000_000
        record.exitCode = 3
        var component = BoardRecord.Component(name: "host0", kind: "host-cpu", log: "/l")
        component.pid = 9
        component.state = .ready
        component.sockets = ["control": "/c"]
        component.take(status: ["status": "held", "running": false, "kind": "host-cpu", "name": "host0", "harts": 2])
        record.components = [component]
        let json = try #require(JSONValue(parsing: record.json.text(pretty: true)))
        #expect(BoardRecord(json: json) == record)
        #expect(record.headline == "board x: failed: because (pid 7)")
        #expect(
            record.table == """
                COMPONENT  KIND      PID  STATE  DETAILS
                host0      host-cpu  9    ready  held harts=2

                """)
    }

    @Test(arguments: [
        "", "{", "[]", "{}", #"{"name":"x","topology":"","state":"odd","supervisor":1,"started":1,"components":[]}"#,
    ])
    func `a damaged record is no record`(_ text: String) {
        #expect(JSONValue(parsing: text).flatMap { BoardRecord(json: $0) } == nil)
    }

    @Test func `an event's text cannot steer a terminal`() {
        let entry = TimelineEntry(
            time: 1_234_567_890, monotonic: 1, kind: "bmc", component: "bmc0", event: "X",
            data: ["a": "\u{1B}[2J", "b": 5, "digest": .string(String(repeating: "0123456789abcdef", count: 6))])
        #expect(entry.text == #"   1.234 s  bmc            bmc0       X a="\u001b[2J" b=5 digest=0123456789abcdef…"#)
        #expect(TimelineEntry(json: entry.json) == entry)
    }
}

@Suite struct FullDiskTests {
    @Test func `a log on a full disk is one error that names the folder`() throws {
        let output = try ComponentOutput(path: "/dev/full", folder: "/the/folder")
        try output.writing?.writeAll(Array("line\n".utf8))
        #expect(throws: LaunchError.diskFull(folder: "/the/folder")) { try output.drain() }
        #expect(output.takeLastLines() == ["line"])
        #expect(
            "\(LaunchError.diskFull(folder: "/the/folder"))".contains("no space left in the runtime folder /the/folder")
        )
    }

    /// A user namespace with a tiny file system of its own: needs no root where the kernel allows such namespaces.
    static let canMount =
        (try? run("/usr/bin/unshare", ["-rm", "/bin/mount", "-t", "tmpfs", "tmpfs", "/mnt"]))?.status == 0

    @Test(.enabled(if: canMount, "user namespaces with mounts"), arguments: [8, 24, 40])
    func `a board whose runtime folder is full ends with one clear error`(_ kibibytes: Int) throws {
        let bench = LauncherBench()
        try FileManager.default.createDirectory(atPath: bench.runtime, withIntermediateDirectories: false)
        let script = """
            mount -t tmpfs -o size=\(kibibytes)k,mode=700 tmpfs \(bench.runtime) &&
            head -c \((kibibytes - 4) * 1024) /dev/zero > \(bench.runtime)/ballast
            \(binary("baseboard")) up \(bench.topology)
            echo "status $?"
            """
        let result = try run(
            "/usr/bin/unshare", ["-rm", "/bin/sh", "-c", script], environment: bench.environment("bmc0=boot,host0=spew")
        )
        #expect(result.output.contains("status 1\n"), "\(result.output)")
        #expect(
            result.output.contains("baseboard: error: no space left in the runtime folder \(bench.runtime)/bench: "),
            "\(result.output)")
    }
}
