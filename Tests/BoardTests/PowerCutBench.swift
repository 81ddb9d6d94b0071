import Foundation
import QMP
import Synchronization
import TestKit
import Wire

/// What did not go as it must.
private struct Mishap: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// The cut was done: the scenario is over.
private struct PowerIsCut: Error {}

/// Boards of which one at a time runs, is cut, and is looked at afterwards. Belongs to one thread at a time.
final class PowerCutBench: Sendable {
    private let own: ProvisionedBoard
    /// The slot images by name.
    private let images: [String: String]
    private let fuses: Data

    init() throws {
        own = try ProvisionedBoard()
        fuses = try Data(contentsOf: URL(fileURLWithPath: own.fuses))
        // A next stage that does nothing: `j .`
        let silence = own.files.file("silence.bin")
        try Data([0x6F, 0, 0, 0]).write(to: URL(fileURLWithPath: silence))
        images = [
            "old": try own.image("old", version: 1), "new": try own.image("new", version: 2, floor: 2),
            "golden": try own.image("golden", version: 2),
            "silent": try own.image("silent", version: 2, nextStage: silence),
        ]
    }

    // MARK: Scenarios

    /// Plays a scenario to its end; its steps.
    func rehearse(_ scenario: PowerCutScenario) throws -> PowerCutSteps {
        let (_, steps) = try play(scenario, nil)
        return steps
    }

    /// Plays a scenario, cuts it, and looks at the board afterwards.
    ///
    /// - Returns: whether the scenario had ended before it was cut.
    func play(_ cut: PowerCut) throws -> Bool {
        let (board, steps) = try play(cut.scenario, cut)
        // Who was told that the update is staged sees it boot, if it can.
        let isStaged = board.has("UPDATE_STAGED") && cut.scenario.update == cut.scenario.result
        do { try look(cut.scenario, mustRun: isStaged ? cut.scenario.update : nil) } catch {
            throw Mishap("\(error)\nThe board that was cut said:\n\(board.story)")
        }
        return steps.events > 0
    }

    /// - Returns: the board, without power; where nothing cut it before its end, the scenario's steps.
    private func play(_ scenario: PowerCutScenario, _ cut: PowerCut?) throws -> (CutBoard, PowerCutSteps) {
        try makeNew(scenario)
        // Busy for a twentieth of a real chip's time, so that the cut finds it at work.
        let board = try CutBoard(own, scenario, "flash0.busy-time=5", "flash0.seed=\(cut?.seed ?? 0)")
        defer { board.cutEverything() }
        if scenario.update != nil { try board.wait { board.isUp } }
        let watch = try CutWatch(board, own.files.path, cut)
        do {
            try watch.wait { try watch.isReady() }
            if let update = scenario.update.flatMap({ images[$0] }) { try self.update(board, watch, update) }
            try watch.wait { scenario.result == nil ? board.status != nil : isOver(scenario, board) }
            if scenario.result == nil { try board.expectHeld() }
            let steps = watch.steps
            try watch.strike()
            return (board, steps)
        } catch is PowerIsCut {
            return (board, PowerCutSteps())
        }
    }

    private func update(_ board: CutBoard, _ watch: CutWatch, _ image: String) throws {
        _ = board.ask("bmc0", "update-firmware", ["file": .string(image)])
        try watch.wait {
            let state = board.ask("bmc0", "query-update")
            if state?["state"] == "failed" { throw Mishap("the update failed: \(state ?? .null)") }
            return state?["state"] == "staged"
        }
        _ = board.ask("logic0", "system_reset")
    }

    private func isOver(_ scenario: PowerCutScenario, _ board: CutBoard) -> Bool {
        if isTooSlow(scenario, board) { return true }
        guard board.isUp, let state = board.ask("logic0", "query-security-state") else { return false }
        return state["state"] == "locked" && scenario.results.contains(state["image"]?.stringValue ?? "")
            && state["boot-confirmed"] == true && state["record"]?["pending"] == .null
            && state["minimum-security-version"] == .integer(Int64(scenario.minimumVersion))
            && (!scenario.isWatched || board.has("BOOT_FAILED"))
    }

    /// The board as it is when a scenario begins.
    private func makeNew(_ scenario: PowerCutScenario) throws {
        let name = scenario.slots.joined(separator: "-")
        let template = own.files.file(name + ".chip.img")
        let files = FileManager.default
        if !files.fileExists(atPath: template) {
            let slots = scenario.slots.map { images[$0] }
            try own.fill(a: slots[0] ?? "", b: slots[1], golden: slots[2], into: template)
        }
        for path in [own.chip, own.record] { try? files.removeItem(atPath: path) }
        try files.copyItem(atPath: template, toPath: own.chip)
        for slot in scenario.spoilt { try own.spoil(slot) }
        try fuses.write(to: URL(fileURLWithPath: own.fuses))
    }

    /// Gives the board power again: it comes up on an image that may run, or stays held where none is good.
    private func look(_ scenario: PowerCutScenario, mustRun: String?) throws {
        let board = try CutBoard(own, scenario)
        defer { board.cutEverything() }
        guard scenario.result != nil else { return try board.expectHeld() }
        var state = JSONValue.null
        try board.wait {
            if isTooSlow(scenario, board) { return true }
            guard board.isUp else { return false }
            state = board.ask("logic0", "query-security-state") ?? .null
            return state["state"] == "locked"
        }
        if isTooSlow(scenario, board) {
            var patient = scenario
            patient.bootTimeout = "60s"
            return try look(patient, mustRun: mustRun)
        }
        let image = state["image"]?.stringValue ?? ""
        let minimum = state["minimum-security-version"]?.integerValue ?? 0
        guard mustRun.map({ $0 == image }) ?? scenario.survivors.contains(image), [1, 2].contains(minimum) else {
            throw Mishap("after the cut \(image) runs: \(state)")
        }
    }

    /// Whether the board has given up golden too, since this machine is too busy to boot it in time.
    private func isTooSlow(_ scenario: PowerCutScenario, _ board: CutBoard) -> Bool {
        scenario.isWatched && board.status == 3 && board.text.contains("golden did not boot")
    }
}

/// A board in the foreground whose power can go at any moment.
private final class CutBoard {
    private let launcher: RunningProcess
    private let folder: String
    private var clients: [String: QMPClient] = [:]
    /// How it ended; nil while it runs.
    var status: Int32? { launcher.isRunning ? nil : launcher.waitForExit() }
    var text: String { launcher.text }
    /// For people: the timeline in short, and what the launcher complained of.
    var story: String {
        text.split(separator: "\n").compactMap { line in
            guard let entry = JSONValue(parsing: String(line)) else { return "  \(line)" }
            guard let component = entry["component"]?.stringValue, let event = entry["event"]?.stringValue else {
                return nil
            }
            return "  \(component) \(event) \(entry["data"]?.text() ?? "")"
        }.joined(separator: "\n")
    }

    init(_ own: ProvisionedBoard, _ scenario: PowerCutScenario, _ settings: String...) throws {
        folder = own.files.file("server")
        launcher = try RunningProcess(
            binary("baseboard"),
            ["up", "--json", try own.topology(verifier: scenario.verifier)]
                + own.settings(scenario.settings + settings),
            environment: ["BASEBOARD_RUNTIME_DIR": own.files.path, "NO_COLOR": "1"])
    }

    deinit { cutEverything() }

    /// The lines of the timeline so far.
    var eventCount: Int { text.components(separatedBy: #""event":""#).count - 1 }
    func count(_ event: String) -> Int { text.components(separatedBy: #""event":"\#(event)""#).count - 1 }
    func has(_ event: String) -> Bool { count(event) > 0 }
    var isUp: Bool { has("BOARD_UP") }

    /// Waits for something that must come while the board runs, or because it has ended.
    func wait(until condition: () throws -> Bool) throws {
        let deadline = MonotonicTime.after(.seconds(60))
        while true {
            let wasRunning = launcher.isRunning
            if try condition() { return }
            guard wasRunning else { throw Mishap("the board ended with \(status ?? -1):\n\(story)") }
            guard MonotonicTime.now < deadline else { throw Mishap("nothing more happens:\n\(story)") }
            usleep(1000)
        }
    }

    /// It ends with 3 and every slot's reason.
    func expectHeld() throws {
        try wait { status != nil }
        guard status == 3, text.contains("every slot: "), text.contains("component OpenSBI: digest mismatch") else {
            throw Mishap("held without its reasons, status \(status ?? -1):\n\(story)")
        }
    }

    /// A component's answer; nil while it cannot answer.
    func ask(_ component: String, _ command: String, _ arguments: [String: JSONValue] = [:]) -> JSONValue? {
        guard has("PROCESSES_STARTED") else { return nil }
        let client = clients[component] ?? (try? QMPClient(path: "\(folder)/\(component).control.sock"))
        clients[component] = client
        let answer = try? client?.execute(command, arguments)
        if answer == nil { clients[component] = nil }
        return answer
    }

    /// The components' processes by name, once they run.
    var processes: [String: pid_t] {
        guard let bytes = try? Data(contentsOf: URL(fileURLWithPath: folder + "/board.json")),
            let record = JSONValue(parsing: Array(bytes)),
            // Not that of the board that was here before.
            record["supervisor"]?.integerValue == Int64(launcher.pid)
        else { return [:] }
        return (record["components"]?.arrayValue ?? []).reduce(into: [:]) { processes, component in
            guard let name = component["name"]?.stringValue, let pid = component["pid"]?.integerValue, pid > 0,
                component["state"] != "ended"
            else { return }
            processes[name] = pid_t(pid)
        }
    }

    /// Kills all of it; what is not known yet ends with the launcher.
    func cutEverything() {
        guard launcher.isRunning else { return }
        for pid in processes.values { kill(pid, SIGKILL) }
        launcher.signal(SIGKILL)
        _ = launcher.waitForExit()
    }

    /// Kills one component: the launcher ends the board and names it.
    func cut(_ component: String) throws {
        if let pid = processes[component] { kill(pid, SIGKILL) }
        try wait { status != nil }
        // One that was refused has ended with 3 before.
        guard status == 1 && text.contains("error: \(component) (") || status == 3 else {
            throw Mishap("\(component) was killed, and the board ended with \(status ?? -1):\n\(story)")
        }
    }
}

/// Watches for the moment of a cut, and does it.
private final class CutWatch {
    private let board: CutBoard
    private let cut: PowerCut?
    private let files: FileWatch
    private let eventsBefore: Int
    private let writesBefore: Int
    private var isArmed = false

    init(_ board: CutBoard, _ folder: String, _ cut: PowerCut?) throws {
        self.board = board
        self.cut = cut
        eventsBefore = board.eventCount
        writesBefore = Self.writes(board) ?? 0
        var wanted = Int.max
        if case .file(let number)? = cut?.moment { wanted = number }
        files = try FileWatch(folder, names: ["boot.json", "fuses.json"], killAt: wanted)
    }

    /// Since the watch began.
    var steps: PowerCutSteps {
        PowerCutSteps(
            events: board.eventCount - eventsBefore, writes: (Self.writes(board) ?? writesBefore) - writesBefore,
            files: files.count)
    }

    private static func writes(_ board: CutBoard) -> Int? {
        let answer = board.ask("flash0", "query-flash")
        guard let programs = answer?["programs"]?.integerValue, let erases = answer?["erases"]?.integerValue else {
            return nil
        }
        return Int(programs + erases)
    }

    /// Once what kills by itself knows whom.
    func isReady() throws -> Bool {
        guard !isArmed, let cut else { return true }
        switch (cut.moment, cut.loss) {
        case (.file, _):
            guard let logic = board.processes["logic0"] else { return false }
            files.arm(logic)
        case (.write(let number), .supply):
            isArmed =
                board.ask(
                    "flash0", "flash-inject-fault", ["kind": "power-loss", "after": .integer(Int64(number))]) != nil
            return isArmed
        default: break
        }
        isArmed = true
        return true
    }

    private var isDue: Bool {
        guard let cut else { return false }
        switch (cut.moment, cut.loss) {
        case (.event(let number), _): return board.eventCount - eventsBefore >= number
        case (.file(let number), _): return isArmed && files.count >= number
        case (.write, .supply): return hasLostSupply
        case (.write(let number), _): return (Self.writes(board) ?? 0) - writesBefore >= number
        }
    }

    /// Waits for a condition; cuts when it is time, and throws `PowerIsCut`.
    func wait(until condition: () throws -> Bool) throws {
        do {
            try board.wait {
                if isDue { throw PowerIsCut() }
                return try condition()
            }
        } catch {
            // What the cut itself has brought about is no surprise.
            guard error is PowerIsCut || isDue else { throw error }
            try strike()
            throw PowerIsCut()
        }
    }

    /// Cuts now, unless it is done already.
    func strike() throws {
        defer { files.end() }
        switch cut?.loss {
        case nil: return
        case .everything: board.cutEverything()
        case .chip: try board.cut("flash0")
        case .logic: try board.cut("logic0")
        case .supply:
            try live()
            board.cutEverything()
        }
    }

    deinit { files.end() }

    /// A board whose chip has lost its supply says so, and goes on when the supply is back.
    private func live() throws {
        guard let cut, hasLostSupply else { return }
        guard cut.scenario.update != nil else {
            // Slot A could not be written, and golden is not there any more: held, with the reason of each.
            try board.wait { board.status != nil || board.has("BOARD_FAILED") }
            guard !board.isUp, board.status != 0 else { throw Mishap("without a chip it is well:\n\(board.story)") }
            return
        }
        try board.wait {
            let state = board.ask("bmc0", "query-update")
            return state?["state"] == "failed" && state?["reason"]?.stringValue?.contains("flash") == true
        }
        guard cut.seed.isMultiple(of: 2) else { return }
        let locked = board.count("BOARD_LOCKED")
        _ = board.ask("flash0", "flash-power-on")
        _ = board.ask("logic0", "system_reset")
        try board.wait { board.count("BOARD_LOCKED") > locked }
        let image = board.ask("logic0", "query-security-state")?["image"]?.stringValue ?? ""
        guard cut.scenario.survivors.contains(image) else { throw Mishap("\(image) runs:\n\(board.story)") }
    }

    /// Seen at the chip, or at a board that has ended because of it.
    private var hasLostSupply: Bool {
        isArmed && (board.status != nil || board.ask("flash0", "query-flash")?["powered"] == false)
    }
}

/// Counts what happens to files of a folder, and kills a process at one of these moments, as soon as can be.
private final class FileWatch: Sendable {
    private struct State {
        var count = 0
        var victim: pid_t?
        var isOver = false
    }
    private let state = Mutex(State())
    private let descriptor: Descriptor

    init(_ folder: String, names: [String], killAt number: Int) throws {
        let raw = inotify_init1(Int32(IN_CLOEXEC))
        guard raw >= 0, inotify_add_watch(raw, folder, UInt32(IN_CREATE | IN_MODIFY | IN_MOVED_TO)) >= 0 else {
            throw Mishap("inotify: \(systemErrorText(errno))")
        }
        descriptor = Descriptor(adopting: raw)
        WorkerThread("file-watch") { [self] in
            while !state.withLock({ $0.isOver }) {
                var entry = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
                guard poll(&entry, 1, 50) > 0, let bytes = try? descriptor.readSome(limit: 4096) else { continue }
                for name in Self.names(in: bytes) where names.contains(where: name.hasPrefix) {
                    state.withLock { state in
                        state.count += 1
                        if state.count == number, let victim = state.victim { kill(victim, SIGKILL) }
                    }
                }
            }
        }
    }

    var count: Int { state.withLock { $0.count } }
    func arm(_ victim: pid_t) { state.withLock { $0.victim = victim } }
    func end() { state.withLock { $0.isOver = true } }

    /// The file of each event. Spec: inotify(7): four words, the last the length of the name that follows.
    private static func names(in bytes: [UInt8]) -> [String] {
        var names: [String] = []
        var rest = bytes[...]
        while rest.count >= 16 {
            let length = (0..<4).reduce(0) { $0 | Int(rest[rest.startIndex + 12 + $1]) << (8 * $1) }
            names.append(String(decoding: rest.dropFirst(16).prefix(length).prefix { $0 != 0 }, as: UTF8.self))
            rest = rest.dropFirst(16 + length)
        }
        return names
    }
}
