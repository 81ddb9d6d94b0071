internal import VFIOUser
internal import Wire

// Admin commands. Spec: NVM Express 1.4 §5.
extension NVMeEngine {
    func executeAdmin(_ command: NVMeCommand) -> NVMeOutcome {
        // No fused operations, and PRPs only.
        guard command.flags == 0 else { return .status(.invalidField) }
        switch command.opcode {
        case AdminOpcode.deleteSubmissionQueue: return deleteSubmissionQueue(command)
        case AdminOpcode.createSubmissionQueue: return createSubmissionQueue(command)
        case AdminOpcode.getLogPage: return getLogPage(command)
        case AdminOpcode.deleteCompletionQueue: return deleteCompletionQueue(command)
        case AdminOpcode.createCompletionQueue: return createCompletionQueue(command)
        case AdminOpcode.identify: return identify(command)
        case AdminOpcode.abort: return abort(command)
        case AdminOpcode.setFeatures: return setFeatures(command)
        case AdminOpcode.getFeatures: return getFeatures(command)
        case AdminOpcode.asynchronousEventRequest: return requestEvent(command)
        case AdminOpcode.doorbellBufferConfig: return doorbellBufferConfig(command)
        default: return .status(.invalidOpcode)
        }
    }

    // MARK: Queues. Spec: NVM Express 1.4 §5.3 – §5.6

    private func createCompletionQueue(_ command: NVMeCommand) -> NVMeOutcome {
        let (index, entries) = (Int(command.dword10 & 0xFFFF), (command.dword10 >> 16) + 1)
        let vector = Int(command.dword11 >> 16)
        guard index > 0, index <= features.completionQueues, !completion[index].isOpen else {
            return .status(.invalidQueueIdentifier)
        }
        guard entries >= 2, entries <= NVMeLimits.maximumEntries else { return .status(.invalidQueueSize) }
        guard command.prp1 & UInt64(NVMeLimits.pageSize - 1) == 0 else { return .status(.invalidPRPOffset) }
        guard command.dword11 & 1 != 0, completionEntrySize == 4,
            Self.fits(command.prp1, UInt64(entries) * 16)
        else { return .status(.invalidField) }
        guard vector < completion.count else { return .status(.invalidInterruptVector) }
        openCompletion(
            index, base: command.prp1, entries: entries, vector: vector, interrupts: command.dword11 & 2 != 0)
        return .success
    }

    private func createSubmissionQueue(_ command: NVMeCommand) -> NVMeOutcome {
        let (index, entries) = (Int(command.dword10 & 0xFFFF), (command.dword10 >> 16) + 1)
        let number = Int(command.dword11 >> 16)
        guard number > 0, number < completion.count, completion[number].isOpen else {
            return .status(.invalidCompletionQueue)
        }
        guard index > 0, index <= features.submissionQueues, !submission[index].isOpen else {
            return .status(.invalidQueueIdentifier)
        }
        guard entries >= 2, entries <= NVMeLimits.maximumEntries else { return .status(.invalidQueueSize) }
        guard command.prp1 & UInt64(NVMeLimits.pageSize - 1) == 0 else { return .status(.invalidPRPOffset) }
        guard command.dword11 & 1 != 0, submissionEntrySize == 6,
            Self.fits(command.prp1, UInt64(entries) * 64)
        else { return .status(.invalidField) }
        openSubmission(index, base: command.prp1, entries: entries, completionQueue: number)
        return .success
    }

    private func deleteSubmissionQueue(_ command: NVMeCommand) -> NVMeOutcome {
        let index = Int(command.dword10 & 0xFFFF)
        guard index > 0, index < submission.count, submission[index].isOpen else {
            return .status(.invalidQueueIdentifier)
        }
        for entry in delayed where entry.queue == index { release(entry, .abortedByQueueDeletion) }
        delayed.removeAll { $0.queue == index }
        closeSubmission(index)
        return .success
    }

    private func deleteCompletionQueue(_ command: NVMeCommand) -> NVMeOutcome {
        let index = Int(command.dword10 & 0xFFFF)
        guard index > 0, index < completion.count, completion[index].isOpen else {
            return .status(.invalidQueueIdentifier)
        }
        guard completion[index].submissionQueues == 0 else { return .status(.invalidQueueDeletion) }
        closeCompletion(index)
        return .success
    }

    // MARK: Abort. Spec: NVM Express 1.4 §5.1

    private func abort(_ command: NVMeCommand) -> NVMeOutcome {
        let (queue, identifier) = (Int(command.dword10 & 0xFFFF), UInt16(truncatingIfNeeded: command.dword10 >> 16))
        // Only what waits can be aborted; all else has ended.
        if let place = delayed.firstIndex(where: { $0.queue == queue && $0.command.identifier == identifier }) {
            release(delayed.remove(at: place), .abortRequested)
            return .done(.success, 0)
        }
        if queue == 0, let place = eventRequests.firstIndex(of: identifier) {
            eventRequests.remove(at: place)
            completion[0].reserved -= 1
            post(0, identifier, .abortRequested, 0)
            return .done(.success, 0)
        }
        return .done(.success, 1)
    }

    /// Ends a command that waited.
    private func release(_ entry: DelayedCommand, _ status: NVMeStatus, _ result: UInt32 = 0) {
        completion[submission[entry.queue].completionQueue].reserved -= 1
        complete(entry.command, entry.queue, status, result)
    }

    /// Carries out the commands whose time has come. True when there were some.
    func releaseDelayed(until now: UInt64 = MonotonicTime.now.nanoseconds) -> Bool {
        var did = false
        while fatalReason == nil, let place = delayed.firstIndex(where: { $0.deadline <= now }) {
            let entry = delayed.remove(at: place)
            did = true
            guard case .done(let status, let result) = executeIO(entry.command, queue: entry.queue, isDelayed: true)
            else { continue }
            release(entry, status, result)
        }
        return did
    }

    // MARK: Events. Spec: NVM Express 1.4 §5.2

    private func requestEvent(_ command: NVMeCommand) -> NVMeOutcome {
        guard eventRequests.count < NVMeLimits.eventRequests else { return .status(.eventRequestLimit) }
        eventRequests.append(command.identifier)
        // Its completion must have a place too.
        completion[0].reserved += 1
        deliverEvents()
        return .waits
    }

    /// Something happened that the host may want to hear of.
    func raiseEvent(_ event: AsynchronousEvent) {
        guard isEnabled, fatalReason == nil, features.wants(event), !events.contains(event) else { return }
        events.append(event)
        deliverEvents()
    }

    func deliverEvents() {
        var place = 0
        while place < events.count, !eventRequests.isEmpty, fatalReason == nil, !isPaused {
            let event = events[place]
            guard maskedEvents & 1 << event.type == 0 else {
                place += 1
                continue
            }
            events.remove(at: place)
            maskedEvents |= 1 << event.type
            completion[0].reserved -= 1
            post(0, eventRequests.removeFirst(), .success, event.dword0)
        }
    }

    /// The host has read a log page: events of its type may come again.
    func unmaskEvents(_ type: UInt8) {
        maskedEvents &= ~(1 << type)
        deliverEvents()
    }
}
