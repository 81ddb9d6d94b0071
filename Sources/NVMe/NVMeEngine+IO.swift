internal import BlockStore
internal import PCIe
internal import VFIOUser
internal import Wire

// NVM commands. Spec: NVM Express 1.4 §6.
extension NVMeEngine {
    /// Carries out a command. `isDelayed`: an injected fault has held it back once already.
    func executeIO(_ command: NVMeCommand, queue: Int, isDelayed: Bool) -> NVMeOutcome {
        // No fused operations, and PRPs only.
        guard command.flags == 0 else { return .status(.invalidField) }
        if command.opcode == NVMOpcode.flush, command.namespace == NVMeCommand.allNamespaces {
            return flushAll(command, queue, isDelayed)
        }
        guard let store = namespace(command.namespace) else { return .status(.invalidNamespace) }
        let shift = UInt64(store.blockSize.trailingZeroBitCount)
        let (offset, count) = (command.startingLBA << shift, command.blocks << shift)
        let operation: BlockFault.Operation
        switch command.opcode {
        case NVMOpcode.flush:
            if let outcome = holdBack(command, queue, store, .flush, 0, 0, isDelayed) { return outcome }
            return outcome { () throws(BlockFailure) in try store.flush() }
        case NVMOpcode.datasetManagement: return datasetManagement(command, store)
        case NVMOpcode.read, NVMOpcode.compare, NVMOpcode.verify: operation = .read
        case NVMOpcode.write, NVMOpcode.writeZeroes: operation = .write
        default: return .status(.invalidOpcode)
        }
        let carriesData = command.opcode != NVMOpcode.writeZeroes && command.opcode != NVMOpcode.verify
        guard !carriesData || count <= UInt64(NVMeLimits.maximumTransfer) else { return .status(.invalidField) }
        guard command.startingLBA <= store.blockCount, command.blocks <= store.blockCount - command.startingLBA else {
            return .status(.lbaOutOfRange)
        }
        guard operation == .read || !store.isReadOnly else { return .status(.namespaceWriteProtected) }
        if let outcome = holdBack(command, queue, store, operation, offset, count, isDelayed) { return outcome }
        if carriesData {
            let status = takePointers(command, count: Int(count))
            guard status == .success else { return .status(status) }
        }
        return outcome(of: operation) { () throws(BlockFailure) in
            switch command.opcode {
            case NVMOpcode.read: try transfer.read(store, at: offset, bus.dma)
            case NVMOpcode.compare: try transfer.compare(store, at: offset, bus.dma)
            case NVMOpcode.verify: try verify(store, offset, count)
            case NVMOpcode.writeZeroes:
                try store.writeZeroes(at: offset, count: count, mayDiscard: command.dword12 & 1 << 25 != 0)
            default: try transfer.write(store, at: offset, bus.dma)
            }
            if operation == .write, command.forcesUnitAccess || !features.hasWriteCache { try store.flush() }
        }
    }

    private func flushAll(_ command: NVMeCommand, _ queue: Int, _ isDelayed: Bool) -> NVMeOutcome {
        for store in configuration.namespaces {
            if let outcome = holdBack(command, queue, store, .flush, 0, 0, isDelayed) { return outcome }
        }
        return outcome { () throws(BlockFailure) in
            for store in configuration.namespaces { try store.flush() }
        }
    }

    /// Ends a command as an access of the store ended.
    private func outcome(
        of operation: BlockFault.Operation = .write, _ body: () throws(BlockFailure) -> Void
    ) -> NVMeOutcome {
        do throws(BlockFailure) {
            try body()
            return .success
        } catch {
            switch error {
            case .outOfRange: return .status(.lbaOutOfRange)
            case .readOnly: return .status(.namespaceWriteProtected)
            case .media: return .status(operation == .read ? .unrecoveredReadError : .writeFault)
            case .noSpace: return .status(.capacityExceeded)
            case .mismatch: return .status(.compareFailure)
            case .memory: return .status(.dataTransferError)
            }
        }
    }

    /// Puts a command aside if an injected fault says so.
    private func holdBack(
        _ command: NVMeCommand, _ queue: Int, _ store: BlockStore, _ operation: BlockFault.Operation,
        _ offset: UInt64, _ count: UInt64, _ isDelayed: Bool
    ) -> NVMeOutcome? {
        guard !isDelayed, let delay = store.delay(operation, at: offset, count: count) else { return nil }
        completion[submission[queue].completionQueue].reserved += 1
        delayed.append(
            DelayedCommand(command: command, queue: queue, deadline: MonotonicTime.after(delay).nanoseconds))
        return .waits
    }

    /// Reads through, and gives nothing to the host.
    private func verify(_ store: BlockStore, _ offset: UInt64, _ count: UInt64) throws(BlockFailure) {
        var done: UInt64 = 0
        while done < count {
            let part = Int(min(count - done, UInt64(NVMeLimits.pageSize)))
            // Safety: part ≤ the page's size.
            try unsafe store.read(
                at: offset + done, into: UnsafeMutableRawBufferPointer(rebasing: data.bytes[..<part]))
            done += UInt64(part)
        }
    }

    /// Deallocates ranges; other hints change nothing. Spec: §6.7.
    ///
    ///     0 context attributes u32   4 length in blocks u32   8 starting LBA u64
    private func datasetManagement(_ command: NVMeCommand, _ store: BlockStore) -> NVMeOutcome {
        let ranges = Int(command.dword10 & 0xFF) + 1
        let status = takeData(command, count: ranges * 16)
        guard status == .success else { return .status(status) }
        guard command.dword11 & 1 << 2 != 0 else { return .success }
        guard !store.isReadOnly else { return .status(.namespaceWriteProtected) }
        // All are looked at before any is given up.
        for index in 0..<ranges {
            let (blocks, start) = range(index)
            guard start <= store.blockCount, blocks <= store.blockCount - start else {
                return .status(.lbaOutOfRange)
            }
        }
        let shift = UInt64(store.blockSize.trailingZeroBitCount)
        return outcome { () throws(BlockFailure) in
            for index in 0..<ranges {
                let (blocks, start) = range(index)
                try store.discard(at: start << shift, count: blocks << shift)
            }
        }
    }

    private func range(_ index: Int) -> (blocks: UInt64, start: UInt64) {
        (UInt64(data.get(UInt32.self, at: index * 16 + 4)), data.get(UInt64.self, at: index * 16 + 8))
    }
}
