public import PCIe
internal import Synchronization
public import VFIOUser
internal import Wire

/// A virtio device as a PCI Express function: the modern transport around a `VirtioDevice`.
///
///     let endpoint = Endpoint(VirtioFunction.description(of: device)) { bus in
///         VirtioFunction(bus, device: device, worker: worker, report: log)
///     }
///
/// Register accesses come on the vfio-user server's thread and never wait for the data path: the worker is told of
/// changes by flags. A reset that the driver asks for is therefore done when device_status reads zero, as the
/// specification has it; a reset of the function (bus, FLR, the client left) waits for the worker.
///
/// Spec: virtio 1.2 §4.1.
public final class VirtioFunction: MigratableModel, VirtioWorker.Client {
    /// Red Hat's number for virtio devices. Spec: virtio 1.2 §4.1.2.
    public static let vendor: UInt16 = 0x1AF4

    struct State {
        var common: CommonConfiguration
        var window = ConfigurationWindow()
        var interruptStatus: UInt8 = 0
    }

    /// What the server's thread has changed for the worker.
    private struct Attention: OptionSet {
        let rawValue: UInt32
        static let reset = Attention(rawValue: 1)
        static let start = Attention(rawValue: 2)
        static let queues = Attention(rawValue: 4)
        static let bus = Attention(rawValue: 8)
        static let job = Attention(rawValue: 16)
    }

    /// A reset of the function waits so long for the worker. In practice it waits microseconds; the worker takes longer
    /// only when it waits for this very thread itself, for memory that is reached by messages.
    private static let patience: UInt64 = 1_000_000_000

    public let device: any VirtioDevice
    let bus: EndpointBus
    private let worker: VirtioWorker
    private let report: @Sendable (String) -> Void
    let state: Mutex<State>
    private let attention = Atomic<UInt32>(0)
    private let kicks = Atomic<UInt64>(0)
    /// One a queue: what a host signals in place of a write to the queue's notify register.
    private let doorbells: [EventNotifier]
    private let quiescence = Monitor()
    /// Resets of the function asked for, and done by the worker; under `quiescence`.
    private let resetsAsked = Atomic<UInt64>(0)
    private let resetsDone = Atomic<UInt64>(0)
    /// What the worker shall do for the server's thread, which waits for it; nil when it is done. Under `quiescence` it
    /// becomes nil.
    private let job = Mutex<(@Sendable () -> Void)?>(nil)

    // Safety: unchecked because only the worker's thread uses it.
    final class Running: @unchecked Sendable {
        var queues: QueueSet?
        /// The function migrates: it does nothing of its own accord.
        var isPaused = false
        /// The state is another function's: its driver may have missed what that one told last.
        var isRestored = false
        /// When a line was reported last, and how many were not since.
        var reported: MonotonicTime?
        var unreported = 0
    }
    let running = Running()

    /// - Parameters:
    ///   - offering: the transport's features; less than all for drivers that shall not use some.
    ///   - report: given one line when a ring turns out to be garbage, at most one a second. Called on the worker's
    ///     thread.
    public init(
        _ bus: EndpointBus, device: any VirtioDevice, worker: VirtioWorker, offering: VirtioFeatures = .transport,
        report: @escaping @Sendable (String) -> Void
    ) {
        self.bus = bus
        self.device = device
        self.worker = worker
        self.report = report
        let common = CommonConfiguration(
            offered: device.features.union(offering), queueSizes: device.queueSizes,
            vectors: Self.vectors(device))
        state = Mutex(State(common: common))
        // Without descriptors for eventfds the host writes the registers.
        let doorbells = device.queueSizes.compactMap { _ in try? EventNotifier() }
        self.doorbells = doorbells.count == device.queueSizes.count ? doorbells : []
        for (queue, doorbell) in self.doorbells.enumerated() {
            try? worker.loop.add(doorbell.descriptor) { [weak self] _ in
                if doorbell.drain() { self?.notify(queue) }
            }
        }
        worker.add(self)
    }

    /// Ends the data path; the worker does not know the function any more.
    public func detach() {
        worker.remove(self)
        for doorbell in doorbells { worker.loop.remove(doorbell.descriptor) }
    }

    /// One for changes of the configuration and one a queue.
    private static func vectors(_ device: any VirtioDevice) -> Int { device.queueSizes.count + 1 }

    /// The endpoint that such a function is.
    ///
    /// - Parameters:
    ///   - subsystemVendor, subsystem: who made the card.
    ///   - registers: base address registers beside those of virtio (1 and 2), for a model around this one.
    public static func description(
        of device: any VirtioDevice, subsystemVendor: UInt16 = 0x1AF4, subsystem: UInt16 = 0x1100,
        registers: [EndpointDescription.BAR] = []
    ) -> EndpointDescription {
        EndpointDescription(
            vendor: vendor, device: device.type.pciDevice, classCode: device.type.classCode,
            subsystemVendor: subsystemVendor, subsystem: subsystem,
            // Spec: virtio 1.2 §4.1.2.1: a device that is not transitional has revision 1 or more.
            revision: 1,
            bars: registers + [
                EndpointDescription.BAR(TransportLayout.msixBAR, size: 4096),
                EndpointDescription.BAR(TransportLayout.bar, size: TransportLayout.barSize),
            ],
            msix: EndpointDescription.MSIX(
                vectors: vectors(device), tableBAR: TransportLayout.msixBAR, tableOffset: 0, pbaOffset: 0x800),
            interruptPin: 1, vendorCapabilities: capabilities)
    }

    private static let capabilities: [EndpointDescription.VendorCapability] = [
        .init(TransportLayout.common.capability),
        .init(
            TransportLayout.notify.capability + TransportLayout.Structure.bytes(TransportLayout.notifyMultiplier)),
        .init(TransportLayout.interruptStatus.capability),
        .init(TransportLayout.device.capability),
        .init([TransportLayout.windowType] + [UInt8](repeating: 0, count: 16), isLive: true),
    ]

    /// A copy of the registers, for queries.
    public var registers: CommonConfiguration { state.withLock { $0.common } }

    // MARK: EndpointModel

    public func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan) {
        bytes.fill(with: 0)
        guard bar == TransportLayout.bar else { return }
        if let place = TransportLayout.common.place(of: offset, count: bytes.byteCount) {
            bytes.storeLittleEndian(state.withLock { $0.common.read(place, width: bytes.byteCount) })
        } else if let place = TransportLayout.interruptStatus.place(of: offset, count: bytes.byteCount) {
            if place == 0 { bytes.storeLittleEndian(UInt64(takeInterruptStatus())) }
        } else if let place = TransportLayout.device.place(of: offset, count: bytes.byteCount) {
            device.readConfiguration(place, into: &bytes)
        }
    }

    public func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan) {
        guard bar == TransportLayout.bar else { return }
        if let place = TransportLayout.notify.place(of: offset, count: bytes.byteCount) {
            notify(place / Int(TransportLayout.notifyMultiplier))
        } else if let place = TransportLayout.common.place(of: offset, count: bytes.byteCount) {
            guard bytes.byteCount <= 8 else { return }
            writeCommon(place, bytes.byteCount, bytes.littleEndianValue)
        } else if let place = TransportLayout.device.place(of: offset, count: bytes.byteCount) {
            device.writeConfiguration(place, from: bytes)
        }
    }

    /// A queue was notified: by its register, or by an eventfd in its place. Any thread.
    public func notify(_ queue: Int) {
        guard queue < TransportLayout.maximumQueues else { return }
        kicks.bitwiseOr(1 << UInt64(queue), ordering: .acquiringAndReleasing)
        worker.wake()
    }

    private func writeCommon(_ place: Int, _ width: Int, _ value: UInt64) {
        let effect = state.withLock { $0.common.write(place, width: width, value: value) }
        switch effect {
        case .none: break
        case .checkFeatures(let features):
            if device.accepts(features) { state.withLock { $0.common.acceptFeatures() } }
        case .reset: call(.reset)
        case .start: call(.start)
        case .enableQueue, .resetQueue: call(.queues)
        }
        // Without a worker nothing runs that would have to stop.
        if effect == .reset, !worker.isRunning { turn() }
    }

    private func call(_ attention: Attention) {
        self.attention.bitwiseOr(attention.rawValue, ordering: .acquiringAndReleasing)
        worker.wake()
    }

    public func reset() {
        resetsAsked.wrappingAdd(1, ordering: .acquiringAndReleasing)
        let asked = resetsAsked.load(ordering: .acquiring)
        call(.reset)
        let deadline = MonotonicTime.now.nanoseconds &+ Self.patience
        quiescence.lock()
        while worker.isRunning, resetsDone.load(ordering: .acquiring) < asked {
            guard quiescence.wait(until: deadline) else { break }
        }
        quiescence.unlock()
        if resetsDone.load(ordering: .acquiring) < asked { finishReset() }
    }

    public func fundamentalReset() {
        reset()
        device.fundamentalReset()
    }

    public func busChanged() { call(.bus) }

    public func ioEvents(_ bar: Int) -> [RegionIOEvent] {
        guard bar == TransportLayout.bar else { return [] }
        return doorbells.enumerated().map { queue, doorbell in
            RegionIOEvent(
                offset: UInt64(TransportLayout.notify.offset + TransportLayout.notifyMultiplier * UInt32(queue)),
                notifier: doorbell)
        }
    }

    // MARK: Worker's thread

    @discardableResult
    func turn() -> Bool {
        var isBusy = false
        if attention.load(ordering: .relaxed) != 0 {
            attend(Attention(rawValue: attention.exchange(0, ordering: .acquiringAndReleasing)))
            isBusy = true
        }
        let kicked = kicks.load(ordering: .relaxed) == 0 ? 0 : kicks.exchange(0, ordering: .acquiringAndReleasing)
        guard let queues = running.queues, !queues.isStopped, !queues.isPaused else { return isBusy }
        if kicked != 0 {
            // Whatever comes of it: a queue that was notified is looked at once more before the worker sleeps.
            isBusy = true
            forEach(kicked) { index in
                guard queues.isEnabled(index) else { return }
                queues.quiet(index)
                queues.watch(index)
            }
        }
        forEach(queues.watched) { index in
            if device.serve(index, queues) { isBusy = true }
        }
        return isBusy
    }

    func arm() -> Bool {
        guard let queues = running.queues, !queues.isStopped, !queues.isPaused else { return false }
        return queues.arm(device)
    }

    private func forEach(_ bits: UInt64, _ body: (Int) -> Void) {
        var rest = bits
        while rest != 0 {
            body(rest.trailingZeroBitCount)
            rest &= rest &- 1
        }
    }

    private func attend(_ what: Attention) {
        if what.contains(.reset) {
            end()
            finishReset()
            quiescence.lock()
            resetsDone.store(resetsAsked.load(ordering: .acquiring), ordering: .releasing)
            quiescence.broadcast()
            quiescence.unlock()
        }
        if what.contains(.start) { begin() }
        if what.contains(.queues) { followQueues() }
        if what.contains(.bus), let queues = running.queues {
            for index in 0..<queues.count where queues.isEnabled(index) { queues.watch(index) }
        }
        if what.contains(.job), let body = job.withLock({ $0 }) {
            body()
            quiescence.lock()
            job.withLock { $0 = nil }
            quiescence.broadcast()
            quiescence.unlock()
        }
    }

    /// Does something on the worker's thread, after what the driver has asked for before; returns when it is done. The
    /// server's thread, one job at a time.
    func onWorker(_ body: @escaping @Sendable () -> Void) {
        job.withLock { $0 = body }
        call(.job)
        quiescence.lock()
        while worker.isRunning, job.withLock({ $0 != nil }) {
            _ = quiescence.wait(until: MonotonicTime.now.nanoseconds &+ Self.patience)
        }
        quiescence.unlock()
        // Without a worker nobody else looks.
        if job.withLock({ $0 != nil }) { turn() }
    }

    private func begin() {
        let common = registers
        guard common.isRunning, running.queues == nil else { return }
        let queues = makeQueues(common)
        running.queues = queues
        for (index, queue) in common.queues.enumerated() where queue.isEnabled { queues.enable(index, queue) }
        guard !queues.isStopped else { return }
        device.start(queues)
    }

    /// Queues for a driver that is ready, none of them enabled.
    func makeQueues(_ common: CommonConfiguration) -> QueueSet {
        let queues = QueueSet(
            count: common.queues.count, features: common.driverFeatures, dma: bus.dma,
            interrupt: { [weak self] in self?.interrupt($0) },
            configurationChanged: { [weak self] in self?.changeConfiguration() },
            failed: { [weak self] in self?.fail($0, $1) })
        if running.isPaused { queues.pause() }
        return queues
    }

    func end() {
        guard let queues = running.queues else { return }
        queues.stop()
        device.stop()
        running.queues = nil
    }

    private func followQueues() {
        for (index, queue) in registers.queues.enumerated() {
            if queue.isResetting {
                if let queues = running.queues, queues.isEnabled(index) {
                    queues.disable(index)
                    device.queueReset(index)
                }
                state.withLock { $0.common.finishQueueReset(index) }
            } else if queue.isEnabled, let queues = running.queues, !queues.isEnabled(index) {
                queues.enable(index, queue)
            }
        }
    }

    private func finishReset() {
        state.withLock { state in
            state.common.finishReset()
            state.interruptStatus = 0
            bus.setINTx(false)
        }
    }

    private func fail(_ queue: Int, _ fault: RingFault) {
        let tells = state.withLock { state in
            state.common.needReset()
            return state.common.status.contains(.driverOK)
        }
        device.stop()
        complain("queue \(queue): \(fault): the device needs a reset")
        // Spec: virtio 1.2 §2.1.2: a driver that is running is told by a configuration change.
        if tells { changeConfiguration() }
    }

    /// One line a second at most: a guest may break its rings as fast as it can.
    private func complain(_ line: String) {
        if let reported = running.reported, MonotonicTime.now.since(reported) < .seconds(1) {
            running.unreported += 1
            return
        }
        report(running.unreported == 0 ? line : "\(line) (and \(running.unreported) times more since the last line)")
        running.reported = .now
        running.unreported = 0
    }

    // MARK: Interrupts

    func interrupt(_ queue: Int) {
        let vector = state.withLock { $0.common.queues[queue].vector }
        raise(vector, status: 1)
    }

    private func changeConfiguration() {
        let vector = state.withLock { state in
            state.common.generation &+= 1
            return state.common.configVector
        }
        raise(vector, status: 2)
    }

    /// By the vector while MSI-X is on, else by INTx and the status register.
    private func raise(_ vector: UInt16, status: UInt8) {
        if vector != TransportLayout.noVector, bus.raise(vector: Int(vector)) { return }
        guard !bus.isMSIXEnabled else { return }
        state.withLock { state in
            state.interruptStatus |= status
            bus.setINTx(true)
        }
    }

    /// Reading the status register lowers INTx. Spec: virtio 1.2 §4.1.4.5.
    private func takeInterruptStatus() -> UInt8 {
        state.withLock { state in
            let status = state.interruptStatus
            state.interruptStatus = 0
            bus.setINTx(false)
            return status
        }
    }

    // MARK: The window in configuration space

    public func readCapability(_ index: Int, offset: Int, into bytes: inout MutableRawSpan) {
        let (window, access) = state.withLock { ($0.window, $0.window.access(at: offset)) }
        guard let access else { return bytes.storeLittleEndian(window.read(offset, width: bytes.byteCount)) }
        var value: UInt64 = 0
        // Safety: every bit pattern is a valid integer.
        unsafe withUnsafeMutableBytes(of: &value) { raw in
            // Safety: access.count is at most 4 of the eight bytes.
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: raw[0..<access.count])
            var span = unsafe MutableRawSpan(_unsafeBytes: part)
            readBAR(TransportLayout.bar, offset: access.offset, into: &span)
        }
        bytes.storeLittleEndian(value)
    }

    public func writeCapability(_ index: Int, offset: Int, from bytes: RawSpan) {
        let access = state.withLock { state in
            state.window.write(offset, width: bytes.byteCount, value: bytes.littleEndianValue)
            return state.window.access(at: offset)
        }
        guard let access else { return }
        let value = bytes.littleEndianValue
        // Safety: access.count is at most 4 of the eight bytes.
        unsafe withUnsafeBytes(of: value) { raw in
            let part = unsafe UnsafeRawBufferPointer(rebasing: raw[0..<access.count])
            writeBAR(TransportLayout.bar, offset: access.offset, from: unsafe RawSpan(_unsafeBytes: part))
        }
    }
}
