// The parent of a board's processes. One thread, one event loop: process ends, readiness datagrams, QMP streams, output
// pipes, signals and a few timers. What they mean is decided by BoardProgress; here it is done.
//
// Supervisor+Start.swift starts the board; this file watches it and ends it.

internal import Glibc
internal import Component
internal import QMP
internal import Topology
public import Wire

/// What the supervisor tells whoever started it.
public struct SupervisorReport: Sendable {
    /// An event, as it happens.
    public var event: @Sendable (TimelineEntry) -> Void
    /// A line for people: something found, something that went wrong.
    public var notice: @Sendable (String) -> Void
    /// `up` has its outcome; the record has the state of every component. May come again: a refused board that boots
    /// after all.
    public var settled: @Sendable (BoardProgress.Outcome, BoardRecord) -> Void

    public init(
        event: @escaping @Sendable (TimelineEntry) -> Void, notice: @escaping @Sendable (String) -> Void,
        settled: @escaping @Sendable (BoardProgress.Outcome, BoardRecord) -> Void
    ) {
        self.event = event
        self.notice = notice
        self.settled = settled
    }
}

public struct SupervisorOptions: Sendable {
    /// When `up` began.
    public var started = MonotonicTime.now
    /// The path of the topology, for the record.
    public var topology = ""
    /// Until the board must be up.
    public var timeout = Duration.seconds(60)
    /// A component that is silent for longer is hung; zero: never.
    public var watchdog = Duration.seconds(30)
    /// From SIGTERM to SIGKILL when the board ends.
    public var patience = Duration.seconds(3)
    public var isDetached = false

    public init() {}
}

/// Safety of `@unchecked Sendable`: every stored property is touched by the thread in `run` alone; the event loop's
/// closures, which must be Sendable, run on it.
public final class Supervisor: @unchecked Sendable {
    /// One process and what is known of it.
    ///
    /// Safety of `@unchecked Sendable`: as the supervisor's own.
    final class Part: @unchecked Sendable {
        let planned: PlannedProcess
        var process: ChildProcess?
        /// Readable when the process has ended.
        var ended: Descriptor?
        var output: ComponentOutput?
        var outputOpen = true
        var notify: Descriptor?
        var client: QMPClient?
        var lastSequence: Int64 = 0
        var statusQueries: Set<JSONValue> = []
        var lastSign: MonotonicTime = .now
        var isReaped = false

        init(_ planned: PlannedProcess) { self.planned = planned }
        var name: String { planned.name }
    }

    let plan: LaunchPlan
    let options: SupervisorOptions
    let report: SupervisorReport
    let loop: EventLoop
    let termination: Descriptor
    var lock: RuntimeLock?
    var listeners: [Listener] = []
    var parts: [Part] = []
    var record: BoardRecord
    var timeline: Descriptor?
    private var progress: BoardProgress
    private var recordIsDue = false
    private var storageBroke = false
    /// What the component wrote last whose end ends the board.
    private var lastWords = ""
    private var outcome: BoardProgress.Outcome?
    private var announcing: (outcome: BoardProgress.Outcome, timer: EventLoop.Timer)?
    private var forceTimer: EventLoop.Timer?

    /// - Parameter termination: from `takeTerminationSignals()`.
    public init(
        _ plan: LaunchPlan, _ options: SupervisorOptions, termination: Descriptor, report: SupervisorReport
    ) throws(LaunchError) {
        self.plan = plan
        self.options = options
        self.report = report
        self.termination = termination
        do throws(WireError) { loop = try EventLoop() } catch { throw .wire(error) }
        record = BoardRecord(
            name: plan.board.name, topology: options.topology, supervisor: getpid(), isDetached: options.isDetached,
            started: options.started.nanoseconds)
        progress = BoardProgress(plan.board, keepsRefused: options.isDetached)
    }

    /// Starts the board and supervises it to its end.
    ///
    /// - Throws: where it cannot be started at all; nothing of it is left then.
    public func run() throws(LaunchError) -> BoardProgress.Outcome {
        try start()
        loop.run()
        finish()
        return outcome ?? .stopped
    }

    // MARK: What happens

    /// A readiness datagram of a component. Spec: sd_notify(3).
    func notified(_ part: Part) {
        while let notify = part.notify, let bytes = try? notify.readSome(limit: 4096) {
            part.lastSign = .now
            for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
                guard let index = record.components.firstIndex(where: { $0.name == part.name }) else { continue }
                if line == "READY=1", record.components[index].state == .starting {
                    record.components[index].state = .ready
                    perform(progress.ready(part.name))
                } else if line.hasPrefix("STATUS=") {
                    record.components[index].status = printable(String(line.dropFirst("STATUS=".count)))
                    if progress.settled != nil { queryStatus(part) }
                } else {
                    continue
                }
                saveRecord()
            }
        }
    }

    /// Bytes on a component's control connection.
    func controlReadable(_ part: Part) {
        guard let client = part.client else { return }
        do throws(QMPClient.Failure) {
            for message in try client.receive(until: .now) { take(message, part) }
        } catch {
            guard error != .timedOut else { return }
            if error != .closed, !part.isReaped { report.notice("\(part.name): control connection: \(error)") }
            loop.remove(client.socket.descriptor)
            part.client = nil
        }
    }

    private func take(_ message: QMPServerMessage, _ part: Part) {
        switch message {
        case .event(let event): take(event, part)
        case .success(let value, let id):
            if let id, part.statusQueries.remove(id) != nil {
                if let index = record.components.firstIndex(where: { $0.name == part.name }) {
                    record.components[index].take(status: value)
                    saveRecord()
                }
                announceIfComplete()
            } else if let history = value.arrayValue {
                // The answer to `query-events`: what happened before this connection was negotiated.
                for event in history.compactMap({ QMPEvent(json: $0) }) { take(event, part) }
            }
        case .failure(_, let id):
            if let id, part.statusQueries.remove(id) != nil { announceIfComplete() }
        case .greeting: break
        }
    }

    private func take(_ event: QMPEvent, _ part: Part) {
        if let sequence = event.sequence {
            guard sequence > part.lastSequence else { return }
            part.lastSequence = sequence
        }
        tell(
            TimelineEntry(
                event, kind: part.planned.component.kind.name, component: part.name,
                started: options.started.nanoseconds, now: MonotonicTime.now.nanoseconds))
        perform(progress.event(part.name, event))
    }

    /// An event of the board as a whole.
    func tell(_ event: String, _ data: [String: JSONValue] = [:]) {
        let now = MonotonicTime.now
        tell(
            TimelineEntry(
                time: now.since(options.started).clampedNanoseconds, monotonic: now.nanoseconds, kind: "board",
                component: plan.board.name, event: event, data: data))
    }

    private func tell(_ entry: TimelineEntry) {
        report.event(entry)
        guard let timeline else { return }
        do throws(WireError) {
            try timeline.writeAll(entry.json.encoded() + [0x0A], subject: plan.folder.timelinePath)
        } catch { storageFailed(.wire(error, in: plan.folder.path)) }
    }

    func outputReadable(_ part: Part) {
        guard part.outputOpen, let output = part.output else { return }
        do throws(LaunchError) {
            if try output.drain() == .ended { closeOutput(part) }
        } catch { storageFailed(error) }
    }

    private func closeOutput(_ part: Part) {
        guard part.outputOpen, let output = part.output else { return }
        part.outputOpen = false
        loop.remove(output.pipe)
    }

    func processEnded(_ part: Part) {
        guard let process = part.process, let end = process.wait(waiting: false) else { return }
        part.isReaped = true
        if let ended = part.ended { loop.remove(ended) }
        // What it said last explains its end: take that first.
        outputReadable(part)
        closeOutput(part)
        notified(part)
        controlReadable(part)
        if let client = part.client {
            controlReadable(part)
            loop.remove(client.socket.descriptor)
            part.client = nil
        }
        if let index = record.components.firstIndex(where: { $0.name == part.name }) {
            record.components[index].state = .ended
            record.components[index].end = end.description
        }
        tell("COMPONENT_ENDED", ["name": .string(part.name), "end": .string(end.description)])
        if progress.stopping == nil { lastWords = lastWords(of: part) }
        let pid = part.process?.pid ?? 0
        perform(
            progress.ended(
                part.name, end, "\(part.name) (\(part.planned.component.kind.name), pid \(pid)) ended: \(end)"))
        saveRecord()
        if parts.allSatisfy(\.isReaped) { allEnded() }
    }

    private func lastWords(of part: Part) -> String {
        let lines = part.output?.takeLastLines() ?? []
        if lines.isEmpty { return "; it wrote nothing" }
        return "; its last lines, of \(plan.folder.logPath(part.name)):" + lines.map { "\n    \($0)" }.joined()
    }

    /// A full disk, or another failure to write in the runtime folder: the board does not come up without its record; one
    /// that is up goes on without it. Told once.
    func storageFailed(_ error: LaunchError) {
        guard !storageBroke else { return }
        storageBroke = true
        timeline = nil
        if progress.settled == nil {
            perform(progress.broke(error.description))
        } else {
            report.notice("\(error); logs and timeline have gaps from here on")
        }
    }

    func signalled() {
        // Level-triggered: read what came, so that the next signal is told from this one. Each is 128 bytes that begin
        // with its number. Spec: signalfd(2).
        let signals = (try? termination.readSome(limit: 1024)) ?? []
        if progress.stopping != nil {
            // Impatience: a second signal from a person. A terminal that closes is no such.
            let isImpatient = stride(from: 0, to: signals.count, by: 128).contains { signals[$0] != UInt8(SIGHUP) }
            guard isImpatient else { return }
            for part in parts where !part.isReaped { part.process?.signal(SIGKILL) }
        } else {
            perform(progress.stopRequested())
        }
    }

    /// Looks whether every component has given a sign of life, and looks again in half of the time that is allowed.
    func watch() {
        guard options.watchdog > .zero else { return }
        for part in parts where !part.isReaped && progress.stopping == nil {
            guard MonotonicTime.now.since(part.lastSign) > options.watchdog else { continue }
            let text = "\(part.name) hangs: no sign of life for \(options.watchdog.spelledForPeople)"
            perform(progress.broke(text))
        }
        loop.schedule(at: .after(options.watchdog / 2)) { [unowned self] in watch() }
    }

    func timedOut() { perform(progress.timedOut(after: options.timeout.spelledForPeople)) }

    // MARK: What is done

    func perform(_ actions: [BoardProgress.Action]) {
        for action in actions {
            switch action {
            case .settle(let outcome): settle(outcome)
            case .stop(let outcome): stop(outcome)
            }
        }
    }

    private func settle(_ outcome: BoardProgress.Outcome) {
        record.settledAfter = record.settledAfter ?? MonotonicTime.now.since(options.started).clampedNanoseconds
        record.exitCode = outcome.exitCode
        switch outcome {
        case .up:
            (record.state, record.reason) = (.up, "")
            tell("BOARD_UP")
        case .refused(let text), .failed(let text):
            (record.state, record.reason) = (.failed, text)
        case .poweredOff(let text): record.reason = text
        case .stopped: break
        }
        saveRecord()
        // The table says what every component says of itself: asked now, shown when all have answered or soon after.
        announce()
        for part in parts where !part.isReaped { queryStatus(part) }
        announcing = (
            outcome, loop.schedule(at: .after(.milliseconds(250))) { [unowned self] in announce() }
        )
        announceIfComplete()
    }

    private func queryStatus(_ part: Part) {
        guard let client = part.client, let id = try? client.send("query-status") else { return }
        part.statusQueries.insert(id)
    }

    private func announceIfComplete() {
        if parts.allSatisfy({ $0.statusQueries.isEmpty || $0.client == nil }) { announce() }
    }

    private func announce() {
        guard let (outcome, timer) = announcing else { return }
        announcing = nil
        loop.cancel(timer)
        report.settled(outcome, record)
    }

    private func stop(_ outcome: BoardProgress.Outcome) {
        self.outcome = outcome
        announce()
        switch outcome {
        case .failed(let text):
            (record.state, record.reason, record.exitCode) = (.failed, text, outcome.exitCode)
            report.notice("error: \(text)\(lastWords)")
        case .poweredOff(let text):
            (record.state, record.reason) = (.stopping, text)
            report.notice(text)
        case .refused(let text): (record.state, record.reason) = (.failed, text)
        case .stopped, .up: record.state = .stopping
        }
        saveRecord()
        let left = parts.filter { !$0.isReaped && $0.process != nil }
        for part in left { part.process?.signal(SIGTERM) }
        forceTimer = loop.schedule(at: .after(options.patience)) { [unowned self] in
            for part in parts where !part.isReaped {
                report.notice("\(part.name) does not end; killed")
                part.process?.signal(SIGKILL)
            }
        }
        if left.isEmpty { allEnded() }
    }

    private func allEnded() {
        if let forceTimer { loop.cancel(forceTimer) }
        loop.stop()
    }

    /// Writes the record soon: once for all that changes in one round of the loop.
    func saveRecord() {
        guard !recordIsDue else { return }
        recordIsDue = true
        loop.perform { [unowned self] in
            recordIsDue = false
            writeRecord()
        }
    }

    func writeRecord() {
        guard !storageBroke else { return }
        do throws(LaunchError) {
            try Files.replace(plan.folder.recordPath, record.json.encoded(pretty: true), folder: plan.folder.path)
        } catch { storageFailed(error) }
    }

    private func finish() {
        tell("BOARD_STOPPED")
        if record.state != .failed { record.state = .stopped }
        for part in parts { part.client = nil }
        listeners = []
        plan.folder.removeSockets()
        writeRecord()
        lock = nil
    }
}

extension Duration {
    /// `60 s`, `250 ms`.
    var spelledForPeople: String {
        let milliseconds = clampedNanoseconds / 1_000_000
        return milliseconds.isMultiple(of: 1000) ? "\(milliseconds / 1000) s" : "\(milliseconds) ms"
    }
}
