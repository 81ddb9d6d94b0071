internal import PCIe
internal import Synchronization
public import VFIOUser

// A virtio function's state: what its driver has set, how far its rings have come, and what its device knows. Requests
// that were taken are completed before it is saved, so none is in it.
//
//     version u8, type u16, common configuration, interrupt status u8, window,
//     of each queue of a running device that is enabled: available u16, used u16,
//     the device's state
extension VirtioFunction {
    private static let version: UInt8 = 1

    /// A console's waiting input is the longest part.
    public var maximumStateSize: Int { 1 << 16 }

    public func stop() {
        onWorker { [self] in
            if let queues = running.queues, !queues.isStopped { device.drain(queues) }
            running.isPaused = true
            running.queues?.pause()
        }
    }

    public func resume() {
        onWorker { [self] in
            running.isPaused = false
            let status = state.withLock { $0.interruptStatus }
            let isRestored = running.isRestored
            running.isRestored = false
            if isRestored, status != 0 { bus.setINTx(true) }
            guard let queues = running.queues, !queues.isStopped else { return }
            queues.unpause()
            guard isRestored else { return }
            // Another function's last interrupts may have been lost on the way, and what this one is joined to may be
            // another size or state: the driver looks.
            for index in 0..<queues.count where queues.isEnabled(index) { interrupt(index) }
            queues.changeConfiguration()
        }
    }

    public func saveState() -> [UInt8] {
        let saved = Mutex<[UInt8]>([])
        onWorker { [self] in saved.withLock { $0 = encoded() } }
        return saved.withLock { $0 }
    }

    /// Worker's thread.
    private func encoded() -> [UInt8] {
        var writer = StateWriter()
        writer.add(Self.version)
        writer.add(device.type.rawValue)
        let (common, status, window) = state.withLock { ($0.common, $0.interruptStatus, $0.window) }
        common.save(&writer)
        writer.add(status)
        writer.add(window.bytes)
        if let queues = running.queues, common.isRunning {
            for index in 0..<queues.count where common.queues[index].isEnabled {
                let progress = queues.progress(index) ?? Virtqueue.Progress(available: 0, used: 0)
                writer.add(progress.available)
                writer.add(progress.used)
            }
        }
        writer.add(device.saveState())
        return writer.bytes
    }

    public func restoreState(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        let outcome = Mutex<Result<Void, ErrorNumber>>(.failure(.invalid))
        onWorker { [self] in
            outcome.withLock { outcome in
                do throws(ErrorNumber) {
                    try decode(state)
                    outcome = .success(())
                } catch {
                    outcome = .failure(error)
                }
            }
        }
        try outcome.withLock { $0 }.get()
    }

    /// Worker's thread. When it throws the function is left stopped, and waits for the reset that has to come.
    private func decode(_ bytes: [UInt8]) throws(ErrorNumber) {
        var reader = StateReader(bytes)
        try reader.expect(Self.version)
        try reader.expect(device.type.rawValue)
        var common = registers
        try common.restore(&reader)
        guard !common.status.contains(.featuresOK) || device.accepts(common.driverFeatures) else { throw .invalid }
        let status = try reader.take(UInt8.self)
        guard status & ~3 == 0, let window = ConfigurationWindow(bytes: try reader.takeBytes(maximum: 64)) else {
            throw .invalid
        }
        running.isPaused = true
        var queues: QueueSet?
        if common.isRunning {
            let made = makeQueues(common)
            for (index, queue) in common.queues.enumerated() where queue.isEnabled {
                let available = try reader.take(UInt16.self)
                let used = try reader.take(UInt16.self)
                try made.enable(index, queue, at: Virtqueue.Progress(available: available, used: used))
            }
            queues = made
        }
        let own = try reader.takeBytes(maximum: maximumStateSize)
        try reader.finish()
        end()
        state.withLock { state in
            state.common = common
            state.interruptStatus = status
            state.window = window
        }
        running.queues = queues
        running.isRestored = true
        if let queues { device.start(queues) }
        try device.restoreState(own)
    }
}
