internal import BlockStore
internal import PCIe
internal import Synchronization
public import VFIOUser
internal import Wire

// A controller's state: what its host sees of it and what it promised. Commands that an injected fault holds back are
// carried out before it is saved; event requests, which wait for as long as nothing happens, go along.
extension NVMeController {
    /// 65 queue pairs, the error log and the changed namespaces are far below it.
    public var maximumStateSize: Int { 1 << 16 }

    public func stop() {
        engine.use { engine in
            _ = engine.releaseDelayed(until: .max)
            engine.notify()
            engine.isPaused = true
        }
    }

    public func resume() {
        engine.use { engine in
            engine.isPaused = false
            // Whoever was told last may have been told by another controller: once more does no harm.
            if engine.isEnabled, engine.fatalReason == nil { engine.notify() }
        }
        let isShuttingDown = registers.withLock {
            $0.status & ControllerStatus.shutdownMask == ControllerStatus.shutdownOccurring
        }
        if isShuttingDown { wantsShutdown.store(true, ordering: .releasing) }
        doorbells.ring()
    }

    public func saveState() -> [UInt8] {
        let registers = registers.withLock { $0 }
        return engine.use { engine in
            var state = StateWriter()
            engine.save(registers, &state)
            return state.bytes
        }
    }

    public func restoreState(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        let result: Result<ControllerRegisters, ErrorNumber> = engine.use { engine in
            engine.isPaused = true
            var reader = StateReader(state)
            do throws(ErrorNumber) {
                return .success(try engine.restore(&reader))
            } catch {
                engine.disable()
                return .failure(error)
            }
        }
        let restored = try result.get()
        registers.withLock { $0 = restored }
    }
}

extension NVMeEngine {
    private static let version: UInt8 = 1
    /// Changed namespaces that are told of: as many as the log page holds.
    private static let maximumChanged = 1024

    func save(_ registers: ControllerRegisters, _ state: inout StateWriter) {
        state.add(Self.version)
        state.add(UInt8(submission.count))
        state.add(UInt8(configuration.namespaces.count))
        for store in configuration.namespaces {
            state.add(store.byteCount)
            state.add(UInt32(store.blockSize))
            state.add(store.isReadOnly)
        }
        state.add(registers.interruptMask)
        state.add(registers.configuration.rawValue)
        state.add(registers.status)
        state.add(registers.adminQueueAttributes)
        state.add(registers.adminSubmissionQueue)
        state.add(registers.adminCompletionQueue)
        state.add(commands)
        state.add(failures)
        state.add(errorCount)
        state.add(UInt8(errors.count))
        for entry in errors {
            state.add(entry.count)
            state.add(entry.queue)
            state.add(entry.command)
            state.add(entry.status.rawValue)
            state.add(entry.block)
            state.add(entry.namespace)
        }
        state.add(isEnabled && fatalReason == nil)
        state.add(fatalReason != nil)
        guard isEnabled, fatalReason == nil else { return }
        features.save(&state)
        state.add(usesPin)
        state.add(shadow != nil)
        if let shadow {
            state.add(shadow.doorbells)
            state.add(shadow.events)
        }
        state.add(maskedEvents)
        state.add(UInt8(eventRequests.count))
        for request in eventRequests { state.add(request) }
        state.add(UInt8(events.count))
        for event in events {
            state.add(event.type)
            state.add(event.information)
            state.add(event.logPage)
        }
        let changed = changedNamespaces.prefix(Self.maximumChanged)
        state.add(UInt16(changed.count))
        for number in changed { state.add(number) }
        for (index, queue) in completion.enumerated() {
            state.add(queue.isOpen)
            guard queue.isOpen else { continue }
            state.add(queue.base)
            for value in [queue.entries, queue.head, queue.tail, doorbells.value(2 * index + 1)] { state.add(value) }
            state.add(queue.phase)
            state.add(UInt8(queue.vector))
            state.add(queue.interrupts)
        }
        // In the order they are served in.
        state.add(UInt8(order.count))
        for index in order {
            let queue = submission[index]
            state.add(UInt8(index))
            state.add(queue.base)
            for value in [queue.entries, queue.head, queue.tail, doorbells.value(2 * index)] { state.add(value) }
            state.add(UInt8(queue.completionQueue))
        }
    }

    /// Reads what `save` of a controller of this kind wrote, and begins with it; returns the registers. Refused: what no
    /// host can have brought this controller to. The engine is then in no state to go on.
    func restore(_ state: inout StateReader) throws(ErrorNumber) -> ControllerRegisters {
        disable()
        try state.expect(Self.version)
        try state.expect(UInt8(submission.count))
        try state.expect(UInt8(configuration.namespaces.count))
        for store in configuration.namespaces {
            // No smaller, of the same blocks, and writable if that one was.
            guard try state.take(UInt64.self) <= store.byteCount else { throw .invalid }
            try state.expect(UInt32(store.blockSize))
            guard try state.takeBool() || !store.isReadOnly else { throw .invalid }
        }
        var registers = ControllerRegisters()
        registers.interruptMask = try state.take(UInt32.self)
        registers.configuration.rawValue = try state.take(UInt32.self) & ControllerConfiguration.writable
        registers.status = try state.take(UInt32.self)
        registers.adminQueueAttributes = try state.take(UInt32.self)
        registers.adminSubmissionQueue = try state.take(UInt64.self)
        registers.adminCompletionQueue = try state.take(UInt64.self)
        commands = try state.take(UInt64.self)
        failures = try state.take(UInt64.self)
        try restoreErrors(&state)
        let isRunning = try state.takeBool()
        let hasFailed = try state.takeBool()
        let known =
            ControllerStatus.ready | ControllerStatus.fatal | ControllerStatus.shutdownMask
            | ControllerStatus.subsystemResetOccurred
        guard registers.status & ~known == 0, !(isRunning && hasFailed),
            isRunning == (registers.status & ControllerStatus.ready != 0 && !hasFailed),
            hasFailed == (registers.status & ControllerStatus.fatal != 0)
        else { throw .invalid }
        submissionEntrySize = registers.configuration.submissionEntrySize
        completionEntrySize = registers.configuration.completionEntrySize
        interruptMask = registers.interruptMask
        if hasFailed { fail("it had failed before it came here") }
        if isRunning { try restoreRunning(registers, &state) }
        try state.finish()
        return registers
    }

    private func restoreErrors(_ state: inout StateReader) throws(ErrorNumber) {
        errorCount = try state.take(UInt64.self)
        let count = Int(try state.take(UInt8.self))
        guard count <= NVMeLimits.errorLogEntries else { throw .invalid }
        errors.removeAll(keepingCapacity: true)
        for _ in 0..<count {
            errors.append(
                ErrorLogEntry(
                    count: try state.take(UInt64.self), queue: try state.take(UInt16.self),
                    command: try state.take(UInt16.self), status: NVMeStatus(rawValue: try state.take(UInt16.self)),
                    block: try state.take(UInt64.self), namespace: try state.take(UInt32.self)))
        }
    }

    private func restoreRunning(
        _ registers: ControllerRegisters, _ state: inout StateReader
    ) throws(ErrorNumber) {
        guard registers.configuration.isEnabled, registers.configuration.memoryPageSize == 0,
            registers.configuration.commandSet == 0, registers.configuration.arbitration == 0
        else { throw .invalid }
        try features.restore(&state)
        usesPin = try state.takeBool()
        if try state.takeBool() {
            let pages = (doorbells: try state.take(UInt64.self), events: try state.take(UInt64.self))
            let mask = UInt64(NVMeLimits.pageSize - 1)
            guard pages.doorbells & mask == 0, pages.events & mask == 0 else { throw .invalid }
            shadow = pages
        }
        maskedEvents = try state.take(UInt8.self)
        let requests = Int(try state.take(UInt8.self))
        guard requests <= NVMeLimits.eventRequests else { throw .invalid }
        for _ in 0..<requests { eventRequests.append(try state.take(UInt16.self)) }
        for _ in 0..<Int(try state.take(UInt8.self)) {
            let event = AsynchronousEvent(
                type: try state.take(UInt8.self), information: try state.take(UInt8.self),
                logPage: try state.take(UInt8.self))
            guard event.type < 8, event.information < 32, !events.contains(event) else { throw .invalid }
            events.append(event)
        }
        let changed = Int(try state.take(UInt16.self))
        guard changed <= Self.maximumChanged else { throw .invalid }
        changedNamespaces.removeAll()
        for _ in 0..<changed { changedNamespaces.append(try state.take(UInt32.self)) }
        for index in completion.indices where try state.takeBool() { try restoreCompletion(index, &state) }
        let count = Int(try state.take(UInt8.self))
        guard count <= submission.count else { throw .invalid }
        for _ in 0..<count { try restoreSubmission(&state) }
        guard submission[0].isOpen, submission[0].completionQueue == 0, completion[0].isOpen else { throw .invalid }
        completion[0].reserved = UInt32(requests)
        guard completion[0].used + completion[0].reserved < completion[0].entries else { throw .invalid }
        isEnabled = true
    }

    private func restoreCompletion(_ index: Int, _ state: inout StateReader) throws(ErrorNumber) {
        let base = try state.take(UInt64.self)
        var queue = CompletionQueue(isOpen: true, base: base, entries: try state.take(UInt32.self))
        queue.head = try state.take(UInt32.self)
        queue.tail = try state.take(UInt32.self)
        let written = try state.take(UInt32.self)
        queue.phase = try state.takeBool()
        queue.vector = Int(try state.take(UInt8.self))
        queue.interrupts = try state.takeBool()
        let most = index == 0 ? 4096 : NVMeLimits.maximumEntries
        guard queue.entries >= 2, queue.entries <= most, Self.fits(base, UInt64(queue.entries) * 16),
            queue.head < queue.entries, queue.tail < queue.entries, written < queue.entries,
            queue.vector < completion.count
        else { throw .invalid }
        queue.isNews = true
        completion[index] = queue
        doorbells.open(2 * index + 1, entries: queue.entries, at: written)
    }

    private func restoreSubmission(_ state: inout StateReader) throws(ErrorNumber) {
        let index = Int(try state.take(UInt8.self))
        let base = try state.take(UInt64.self)
        var queue = SubmissionQueue(isOpen: true, base: base, entries: try state.take(UInt32.self))
        queue.head = try state.take(UInt32.self)
        queue.tail = try state.take(UInt32.self)
        let written = try state.take(UInt32.self)
        queue.completionQueue = Int(try state.take(UInt8.self))
        guard submission.indices.contains(index), !submission[index].isOpen,
            completion.indices.contains(queue.completionQueue), completion[queue.completionQueue].isOpen,
            // Only the admin queues belong together.
            (index == 0) == (queue.completionQueue == 0)
        else { throw .invalid }
        let most = index == 0 ? 4096 : NVMeLimits.maximumEntries
        guard queue.entries >= 2, queue.entries <= most, Self.fits(base, UInt64(queue.entries) * 64),
            queue.head < queue.entries, queue.tail < queue.entries, written < queue.entries
        else { throw .invalid }
        submission[index] = queue
        completion[queue.completionQueue].submissionQueues += 1
        order.append(index)
        doorbells.open(2 * index, entries: queue.entries, at: written)
    }
}
