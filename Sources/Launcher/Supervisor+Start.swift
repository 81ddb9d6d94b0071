// Starting a board: folder, sockets, processes, then the watches. Every socket is listening before the first process
// starts, so the order of the processes is nobody's concern.

internal import Glibc
internal import Component
internal import QMP
internal import Topology
internal import Wire

extension Supervisor {
    func start() throws(LaunchError) {
        let folder = plan.folder
        let (lock, found) = try folder.take()
        self.lock = lock
        if case .stale(let pid, let killed) = found {
            let owner = pid.map { " (pid \($0))" } ?? ""
            report.notice("cleared what a dead board '\(plan.board.name)'\(owner) left in \(folder.path)")
            for name in killed { report.notice("\(name) of the dead board did not end; killed") }
        }
        do throws(LaunchError) {
            do throws(WireError) {
                timeline = try .open(folder.timelinePath, flags: O_WRONLY | O_CREAT | O_APPEND)
            } catch { throw .wire(error, in: folder.path) }
            for planned in plan.processes { try prepare(planned) }
            try Files.replace(folder.recordPath, record.json.encoded(pretty: true), folder: folder.path)
            try startProcesses()
        } catch {
            abandon(error)
            throw error
        }
        watchEverything()
    }

    /// Makes the sockets, the log and the record of one component.
    private func prepare(_ planned: PlannedProcess) throws(LaunchError) {
        let part = Part(planned)
        var entry = BoardRecord.Component(
            name: planned.name, kind: planned.component.kind.name, log: plan.folder.logPath(planned.name))
        for listener in planned.listeners {
            do throws(WireError) {
                listeners.append(try Listener(path: listener.path, kind: listener.kind))
            } catch { throw .wire(error, in: plan.folder.path) }
            entry.sockets[listener.port] = listener.path
        }
        part.notify = try NotifySocket.make(
            at: plan.folder.notifyPath(planned.name), folder: plan.folder.path)
        part.output = try ComponentOutput(path: entry.log, folder: plan.folder.path)
        parts.append(part)
        record.components.append(entry)
    }

    private func startProcesses() throws(LaunchError) {
        let nothing: Descriptor
        do throws(WireError) { nothing = try .open("/dev/null", flags: O_RDONLY) } catch { throw .wire(error) }
        var next = listeners.makeIterator()
        for (index, part) in parts.enumerated() {
            guard let output = part.output?.writing else { continue }
            let passed = part.planned.listeners.compactMap { _ in next.next()?.descriptor }
            do throws(WireError) {
                let process = try ChildProcess(
                    part.planned.executable, part.planned.arguments + LaunchPlan.launcherArguments,
                    environment: Environment.current.adding(
                        plan.environment(of: part.planned, watchdog: options.watchdog)
                            + [("BASEBOARD_LAUNCHER", String(getpid()))]),
                    // A session of its own: the terminal's Ctrl-C is for the launcher, which ends the board in order.
                    descriptors: [nothing, output, output] + passed, newSession: true)
                part.process = process
                part.ended = try process.exitDescriptor()
                record.components[index].pid = process.pid
            } catch {
                throw .spawn(component: part.name, path: part.planned.executable, error)
            }
            part.lastSign = .now
            part.output?.writing = nil
        }
        // Before anybody can know that they run: the next 'up' finds them by it should this process be killed.
        writeRecord()
        tell("PROCESSES_STARTED", ["count": .integer(Int64(parts.count))])
    }

    private func watchEverything() {
        do throws(WireError) {
            try loop.add(termination) { [unowned self] _ in signalled() }
            for part in parts { try watch(part) }
        } catch {
            perform([.stop(.failed(error.description))])
        }
        if options.timeout > .zero {
            loop.schedule(at: options.started + options.timeout) { [unowned self] in timedOut() }
        }
        watch()
        saveRecord()
    }

    private func watch(_ part: Part) throws(WireError) {
        if let ended = part.ended { try loop.add(ended) { [unowned self] _ in processEnded(part) } }
        if let notify = part.notify { try loop.add(notify) { [unowned self] _ in notified(part) } }
        if let output = part.output { try loop.add(output.pipe) { [unowned self] _ in outputReadable(part) } }
        guard let path = part.planned.path(of: "control") else { return }
        // The socket listens since before the process was there: connecting and asking need not wait for it. A process
        // that is dead already is told by its end, not by its connection.
        guard let socket = try? Socket.connect(to: path) else { return }
        let client = QMPClient(socket: socket)
        guard (try? client.send("qmp_capabilities")) != nil, (try? client.send("query-events")) != nil else { return }
        part.client = client
        try loop.add(socket.descriptor) { [unowned self] _ in controlReadable(part) }
    }

    /// Takes back a start that failed half-way.
    private func abandon(_ error: LaunchError) {
        for part in parts {
            guard let process = part.process else { continue }
            process.signal(SIGKILL)
            _ = process.wait()
        }
        parts = []
        listeners = []
        plan.folder.removeSockets()
        (record.state, record.reason, record.exitCode) = (.failed, error.description, 1)
        record.components = []
        // 'ps' tells it; a folder that cannot hold the record is what the error is about already.
        try? Files.replace(plan.folder.recordPath, record.json.encoded(pretty: true), folder: plan.folder.path)
        lock = nil
    }
}
