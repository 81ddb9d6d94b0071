internal import BlockStore
internal import VFIOUser
internal import Wire

// Log pages. Spec: NVM Express 1.4 §5.14.
extension NVMeEngine {
    func getLogPage(_ command: NVMeCommand) -> NVMeOutcome {
        let page = UInt8(truncatingIfNeeded: command.dword10)
        let keepsEvents = command.dword10 & 1 << 15 != 0
        let wanted = (UInt64(command.dword10 >> 16) | UInt64(command.dword11 & 0xFFFF) << 16) * 4 + 4
        let offset = UInt64(command.dword12) | UInt64(command.dword13) << 32
        // No log page is of one namespace.
        let isForAll = command.namespace == 0 || command.namespace == NVMeCommand.allNamespaces
        data.clear()
        let size: Int
        switch page {
        case LogPage.errorInformation: size = errorLog()
        case LogPage.health:
            guard isForAll else { return .status(.invalidField) }
            size = healthLog()
        case LogPage.firmwareSlot: size = firmwareLog()
        case LogPage.changedNamespaces:
            size = NVMeLimits.pageSize
            for (place, number) in changedNamespaces.prefix(1024).enumerated() { data.put(number, at: place * 4) }
        case LogPage.commandsSupported: size = commandsLog()
        default: return .status(.invalidLogPage)
        }
        guard offset % 4 == 0, offset <= UInt64(size) else { return .status(.invalidField) }
        let left = UInt64(size) - offset
        // Beyond the page's end there are zeroes, as far as one page of data reaches.
        guard wanted <= UInt64(NVMeLimits.pageSize) else { return .status(.invalidField) }
        let status = giveData(command, from: Int(offset), available: Int(left), count: Int(wanted))
        if status == .success, !keepsEvents { forget(page) }
        return .status(status)
    }

    private func forget(_ page: UInt8) {
        switch page {
        case LogPage.errorInformation: unmaskEvents(0)
        case LogPage.health:
            unmaskEvents(1)
        case LogPage.changedNamespaces:
            changedNamespaces = []
            unmaskEvents(2)
        default: break
        }
    }

    /// Keeps what failed; the oldest entry goes.
    func recordError(_ command: NVMeCommand, _ queue: Int, _ status: NVMeStatus) {
        errorCount &+= 1
        if errors.count == NVMeLimits.errorLogEntries { errors.removeFirst() }
        errors.append(
            ErrorLogEntry(
                count: errorCount, queue: UInt16(queue), command: command.identifier, status: status,
                block: queue == 0 ? 0 : command.startingLBA, namespace: command.namespace))
    }

    /// Newest first. Spec: figure 193.
    private func errorLog() -> Int {
        for (place, entry) in errors.reversed().enumerated() {
            let offset = place * 64
            data.put(entry.count, at: offset)
            data.put(entry.queue, at: offset + 8)
            data.put(entry.command, at: offset + 10)
            data.put(entry.status.rawValue << 1, at: offset + 12)
            // No parameter to blame.
            data.put(UInt16(0xFFFF), at: offset + 14)
            data.put(entry.block, at: offset + 16)
            data.put(entry.namespace, at: offset + 24)
        }
        return NVMeLimits.errorLogEntries * 64
    }

    /// Spec: figure 194.
    private func healthLog() -> Int {
        var values = BlockStatistics.Values()
        for store in configuration.namespaces {
            let one = store.statistics.values
            values.reads &+= one.reads
            values.writes &+= one.writes
            values.bytesRead &+= one.bytesRead
            values.bytesWritten &+= one.bytesWritten
            values.failures &+= one.failures
        }
        data.put(UInt8(isTemperatureCritical ? 2 : 0), at: 0)
        data.put(temperature, at: 1)
        data.put(UInt8(100), at: 3)
        data.put(UInt8(10), at: 4)
        // Thousands of 512 bytes, rounded up.
        data.put(values.bytesRead / 512_000 + (values.bytesRead % 512_000 == 0 ? 0 : 1), at: 32)
        data.put(values.bytesWritten / 512_000 + (values.bytesWritten % 512_000 == 0 ? 0 : 1), at: 48)
        data.put(values.reads, at: 64)
        data.put(values.writes, at: 80)
        data.put(UInt64(1), at: 112)  // power cycles: this process
        data.put(MonotonicTime.now.since(powerOn).clampedNanoseconds / 3_600_000_000_000, at: 128)
        data.put(values.failures, at: 160)  // media and data integrity errors
        data.put(errorCount, at: 176)
        return 512
    }

    /// Slot 1 runs. Spec: figure 197.
    private func firmwareLog() -> Int {
        data.put(UInt8(1), at: 0)
        data.put(configuration.firmware, at: 8, count: 8)
        return 512
    }

    /// Spec: figure 199. Bit 0: supported; bit 1: changes logical blocks.
    private func commandsLog() -> Int {
        for opcode in [
            AdminOpcode.deleteSubmissionQueue, AdminOpcode.createSubmissionQueue, AdminOpcode.getLogPage,
            AdminOpcode.deleteCompletionQueue, AdminOpcode.createCompletionQueue, AdminOpcode.identify,
            AdminOpcode.abort, AdminOpcode.setFeatures, AdminOpcode.getFeatures, AdminOpcode.asynchronousEventRequest,
            AdminOpcode.doorbellBufferConfig,
        ] { data.put(UInt32(1), at: Int(opcode) * 4) }
        for opcode in [NVMOpcode.flush, NVMOpcode.read, NVMOpcode.compare, NVMOpcode.verify] {
            data.put(UInt32(1), at: 1024 + Int(opcode) * 4)
        }
        for opcode in [NVMOpcode.write, NVMOpcode.writeZeroes, NVMOpcode.datasetManagement] {
            data.put(UInt32(3), at: 1024 + Int(opcode) * 4)
        }
        return NVMeLimits.pageSize
    }
}
