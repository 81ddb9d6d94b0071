internal import BlockStore
public import PCIe
internal import Synchronization
internal import VFIOUser
internal import Wire

/// An NVM Express 1.4 controller, the model of a PCI Express endpoint.
///
///     let endpoint = Endpoint(NVMeController.description(configuration)) { bus in
///         NVMeController(bus, configuration) { log.warning("\($0)") }
///     }
///
/// Queues are served on a thread of its own, woken by doorbells; it polls a little before it sleeps. A host whose queues
/// are garbage finds Controller Fatal Status set, and the reason is reported; a controller reset helps, nothing else is
/// disturbed. Optional parts that are there: doorbells in memory, subsystem reset, Compare, Write Zeroes, Dataset
/// Management, Verify. Not there: SGLs, Format NVM, namespace management, firmware update, reservations.
public final class NVMeController: MigratableModel {
    let engine: GuardedEngine
    let doorbells: Doorbells
    private let report: @Sendable (String) -> Void
    let registers = Mutex(ControllerRegisters())
    private let isStopped = Atomic(false)
    let wantsShutdown = Atomic(false)
    private let thread = Mutex<WorkerThread?>(nil)

    /// Class 01_08_02, BAR0 with registers and MSI-X, a vector for each queue pair and the admin queue, INTA#.
    public static func description(_ configuration: NVMeConfiguration) -> EndpointDescription {
        EndpointDescription(
            vendor: 0x1B36, device: 0x0B0C, classCode: 0x01_08_02, subsystemVendor: 0x1B36, subsystem: 0x0B0C,
            bars: [EndpointDescription.BAR(0, size: NVMeRegister.barSize, is64Bit: true)],
            msix: EndpointDescription.MSIX(
                vectors: configuration.queuePairs + 1, tableBAR: 0, tableOffset: NVMeRegister.msixTable,
                pbaOffset: NVMeRegister.msixPending),
            interruptPin: 1)
    }

    /// Starts the thread; `end` ends it. `report` is given one line when the controller stops itself.
    public init(
        _ bus: EndpointBus, _ configuration: NVMeConfiguration, report: @escaping @Sendable (String) -> Void
    ) {
        doorbells = Doorbells(queues: configuration.queuePairs + 1)
        self.report = report
        engine = GuardedEngine(NVMeEngine(bus, configuration, doorbells))
        let worker = WorkerThread("nvme") { [self] in run() }
        thread.withLock { $0 = worker }
    }

    /// Ends the thread. Call it once, when no host is there any more.
    public func end() {
        isStopped.store(true, ordering: .releasing)
        doorbells.ring()
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
    }

    /// What Identify Controller and the firmware slot log say from now on; false, and nothing changes, when the text is
    /// none of at most 8 printable ASCII characters. Any thread.
    @discardableResult
    public func setFirmwareRevision(_ revision: String) -> Bool {
        engine.use { $0.configuration.setFirmware(revision) }
    }

    // MARK: For people and faults

    public var snapshot: NVMeSnapshot {
        let status = registers.withLock { $0.status }
        return engine.use { engine in
            let state: NVMeSnapshot.State =
                if engine.fatalReason != nil {
                    .fatal
                } else if status & ControllerStatus.shutdownMask == ControllerStatus.shutdownComplete {
                    .shutdown
                } else {
                    engine.isEnabled ? .ready : .disabled
                }
            return NVMeSnapshot(
                state: state, reason: engine.fatalReason,
                submissionQueues: engine.submission.count(where: \.isOpen),
                completionQueues: engine.completion.count(where: \.isOpen), commands: engine.commands,
                failedCommands: engine.failures, lastFailure: engine.lastFailure,
                resets: engine.resets, usesShadowDoorbells: engine.shadow != nil,
                delayed: engine.delayed.count, temperature: engine.temperature)
        }
    }

    /// Sets the composite temperature, in kelvin; the host hears of it beyond its threshold.
    public func setTemperature(_ kelvin: UInt16) {
        engine.use { engine in
            engine.temperature = kelvin
            engine.checkTemperature()
            engine.notify()
        }
    }

    /// Tells the host that a namespace's size or attributes changed. False when there is none of this number.
    public func namespaceChanged(_ number: UInt32) -> Bool {
        engine.use { engine in
            guard engine.namespace(number) != nil else { return false }
            if !engine.changedNamespaces.contains(number) { engine.changedNamespaces.append(number) }
            engine.raiseEvent(.namespaceChanged)
            engine.notify()
            return true
        }
    }

    /// Stops as on an internal failure: Controller Fatal Status until the host resets it.
    public func fail(_ reason: String) {
        engine.use { $0.fail(reason) }
        publishFailure()
    }

    // MARK: EndpointModel

    /// Doublewords, pairs of them, and parts of one; anything else reads as ones.
    public func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan) {
        let count = UInt64(bytes.byteCount)
        guard bar == 0, [1, 2, 4, 8].contains(count), offset % count == 0 else { return bytes.fill(with: 0xFF) }
        let word = offset & ~3
        let (low, high) = registers.withLock { ($0.read(word), count == 8 ? $0.read(word + 4) : 0) }
        bytes.storeLittleEndian((UInt64(high) << 32 | UInt64(low)) >> ((offset & 3) * 8))
    }

    /// Doublewords and pairs of them; others are dropped.
    public func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan) {
        guard bar == 0 else { return }
        bytes.forEachDoubleword(at: offset) { write($0, $1) }
    }

    public func reset() {
        registers.withLock { $0 = ControllerRegisters() }
        wantsShutdown.store(false, ordering: .relaxed)
        engine.use { engine in
            engine.disable()
            engine.resets &+= 1
        }
    }

    public func busChanged() { doorbells.ring() }

    // MARK: Registers

    private func write(_ offset: UInt64, _ value: UInt32) {
        if offset >= NVMeRegister.doorbells { return writeDoorbell(offset, value) }
        switch offset {
        case NVMeRegister.configuration: configure(value)
        case NVMeRegister.interruptMaskSet: setInterruptMask { $0 | value }
        case NVMeRegister.interruptMaskClear: setInterruptMask { $0 & ~value }
        case NVMeRegister.subsystemReset where value == NVMeRegister.subsystemResetValue:
            reset()
            registers.withLock { $0.status |= ControllerStatus.subsystemResetOccurred }
        case NVMeRegister.status:
            // Subsystem Reset Occurred is cleared by writing one.
            registers.withLock { $0.status &= ~(value & ControllerStatus.subsystemResetOccurred) }
        default: _ = registers.withLock { $0.write(offset, value) }
        }
    }

    private func writeDoorbell(_ offset: UInt64, _ value: UInt32) {
        guard offset < UInt64(NVMeRegister.msixTable) else { return }
        let index = Int(offset - NVMeRegister.doorbells) / 4
        // A doorbell's upper half is reserved.
        switch doorbells.write(index, value & 0xFFFF) {
        case nil:
            if index % 2 == 1, engine.usesPin { engine.use { $0.updatePinEarly() } }
        case .noQueue: refuseDoorbell(.invalidDoorbell)
        case .badValue: refuseDoorbell(.invalidDoorbellValue)
        }
    }

    /// Spec: NVM Express 1.4 figure 146.
    private func refuseDoorbell(_ event: AsynchronousEvent) {
        engine.use { engine in
            engine.raiseEvent(event)
            engine.notify()
        }
    }

    private func setInterruptMask(_ change: (UInt32) -> UInt32) {
        let mask = registers.withLock { registers in
            registers.interruptMask = change(registers.interruptMask)
            return registers.interruptMask
        }
        engine.use { engine in
            engine.interruptMask = mask
            engine.updatePin()
        }
    }

    /// Controller Configuration. Spec: NVM Express 1.4 §3.1.5, §7.6.
    private func configure(_ value: UInt32) {
        let (old, new) = registers.withLock { registers in
            let old = registers
            registers.configuration.rawValue = value & ControllerConfiguration.writable
            return (old.configuration, registers)
        }
        let next = new.configuration
        engine.use { engine in
            engine.submissionEntrySize = next.submissionEntrySize
            engine.completionEntrySize = next.completionEntrySize
        }
        if !old.isEnabled, next.isEnabled {
            let refusal = engine.use { engine in
                engine.interruptMask = new.interruptMask
                return engine.enable(new)
            }
            registers.withLock { registers in
                registers.status &= ~(ControllerStatus.ready | ControllerStatus.fatal | ControllerStatus.shutdownMask)
                registers.status |= refusal == nil ? ControllerStatus.ready : ControllerStatus.fatal
            }
            if let refusal { report("\(refusal): the controller is not ready until a reset") }
        } else if old.isEnabled, !next.isEnabled {
            engine.use { engine in
                engine.disable()
                engine.resets &+= 1
            }
            registers.withLock { registers in
                registers.status &= ~(ControllerStatus.ready | ControllerStatus.fatal | ControllerStatus.shutdownMask)
                registers.interruptMask = 0
            }
        }
        if old.shutdownNotification == 0, next.shutdownNotification != 0 {
            registers.withLock { registers in
                registers.status &= ~ControllerStatus.shutdownMask
                registers.status |= ControllerStatus.shutdownOccurring
            }
            wantsShutdown.store(true, ordering: .releasing)
        }
        doorbells.ring()
    }

    // MARK: The thread

    private func run() {
        var wait = AdaptiveWait()
        while !isStopped.load(ordering: .acquiring) {
            _ = doorbells.takeRing()
            let (round, hasFailed) = engine.use { ($0.serve(), $0.takeNewFailure()) }
            if hasFailed { publishFailure() }
            if wantsShutdown.exchange(false, ordering: .acquiringAndReleasing) { shutDown() }
            if round.didWork { continue }
            let (budget, start) = (wait.takeBudget(), MonotonicTime.now.nanoseconds)
            if budget > 0, poll(until: min(start &+ budget, round.deadline ?? .max)) {
                wait.pollingWon()
                continue
            }
            let slept = MonotonicTime.now.nanoseconds
            doorbells.sleep(until: round.deadline) { engine.use { $0.prepareToSleep() } }
            wait.sleepWon(polled: budget, slept: MonotonicTime.now.nanoseconds &- slept)
        }
    }

    /// Looks at the bell and at doorbells in memory until a moment. True when there is something to do.
    private func poll(until end: UInt64) -> Bool {
        repeat {
            for _ in 0..<16 { if doorbells.hasRing { return true } }
            if engine.usesShadow, engine.use({ $0.hasShadowWork() }) { return true }
        } while MonotonicTime.now.nanoseconds < end
        return false
    }

    /// Everything written lasts, then the host hears that it may cut the power. Spec: NVM Express 1.4 §7.6.2.
    private func shutDown() {
        for store in engine.use({ $0.configuration.namespaces }) {
            do throws(BlockFailure) { try store.flush() } catch { report("\(store.name): shutdown: flush: \(error)") }
        }
        registers.withLock { registers in
            guard registers.status & ControllerStatus.shutdownMask == ControllerStatus.shutdownOccurring else { return }
            registers.status = registers.status & ~ControllerStatus.shutdownMask | ControllerStatus.shutdownComplete
        }
    }

    /// Makes a failure of the engine visible.
    private func publishFailure() {
        guard let reason = engine.use({ $0.fatalReason }) else { return }
        registers.withLock { $0.status |= ControllerStatus.fatal }
        report("\(reason): the controller stops until a reset")
    }
}

/// The engine and the lock it is reached under.
final class GuardedEngine: @unchecked Sendable {
    // Safety: reached only under `gate`.
    private let engine: NVMeEngine
    private let gate = Mutex(())
    private let shadow = Atomic(false)
    private let pin = Atomic(false)

    init(_ engine: NVMeEngine) { self.engine = engine }

    /// Whether the host's doorbells are in memory, and whether the INTx pin is in use; without the lock.
    var usesShadow: Bool { shadow.load(ordering: .relaxed) }
    var usesPin: Bool { pin.load(ordering: .relaxed) }

    @inline(__always)
    func use<Result>(_ body: (NVMeEngine) -> Result) -> Result {
        // Safety: neither the engine nor what it owns leaves the closure, by the callers.
        nonisolated(unsafe) let engine = engine
        nonisolated(unsafe) var result: Result?
        gate.withLock { _ in
            unsafe result = unsafe body(engine)
            unsafe shadow.store(engine.shadow != nil, ordering: .relaxed)
            unsafe pin.store(engine.usesPin, ordering: .relaxed)
        }
        return unsafe result!
    }
}
