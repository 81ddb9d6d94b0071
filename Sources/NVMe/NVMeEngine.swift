internal import BlockStore
internal import PCIe
internal import VFIOUser
internal import Wire

/// The controller's queues and what it does with them.
///
/// Not thread-safe: all of it is reached under the controller's `gate`: by the I/O thread, which serves the queues, and by the bus's
/// thread, which enables, disables and resets. No allocation per command.
final class NVMeEngine {
    let bus: EndpointBus
    var configuration: NVMeConfiguration
    let doorbells: Doorbells

    var isEnabled = false
    /// Why nothing is served any more until a reset.
    private(set) var fatalReason: String?
    /// The controller migrates: nothing is served, posted or signalled.
    var isPaused = false
    private var hasNewFailure = false
    var submission: [SubmissionQueue]
    var completion: [CompletionQueue]
    /// Identifiers of open submission queues, in the order they are served in.
    var order: [Int] = []
    var features: NVMeFeatures
    var delayed: [DelayedCommand] = []
    /// Command identifiers of event requests that wait.
    var eventRequests: [UInt16] = []
    /// Events that no request was there for; each at most once.
    var events: [AsynchronousEvent] = []
    /// Types reported and not yet looked up in their log page: a bit each.
    var maskedEvents: UInt8 = 0
    var changedNamespaces: [UInt32] = []
    /// The newest entry last; a ring in order of `errorCount`.
    var errors: [ErrorLogEntry] = []
    var errorCount: UInt64 = 0
    /// Shadow doorbells and event indexes, two pages of the host. Spec: NVM Express 1.4 §7.13.
    var shadow: (doorbells: UInt64, events: UInt64)?

    /// IOSQES and IOCQES of the Controller Configuration: they must be right before an I/O queue is made.
    var submissionEntrySize: UInt32 = 0
    var completionEntrySize: UInt32 = 0

    // INTx: used while MSI-X is not enabled.
    var usesPin = false
    var pinLevel = false
    var interruptMask: UInt32 = 0

    // For the health log and for people; kept over resets.
    var commands: UInt64 = 0
    var failures: UInt64 = 0
    var lastFailure: NVMeSnapshot.Failure?
    var resets: UInt64 = 0
    var temperature: UInt16 = 310
    let powerOn = MonotonicTime.now

    let transfer: BlockTransfer
    let list = DataPage(count: NVMeLimits.pageSize)
    let data = DataPage(count: NVMeLimits.pageSize)
    private let fetched = DataPage(count: NVMeLimits.burst * NVMeCommand.size)

    init(_ bus: EndpointBus, _ configuration: NVMeConfiguration, _ doorbells: Doorbells) {
        self.bus = bus
        self.configuration = configuration
        self.doorbells = doorbells
        let queues = configuration.queuePairs + 1
        submission = Array(repeating: SubmissionQueue(), count: queues)
        completion = Array(repeating: CompletionQueue(), count: queues)
        features = NVMeFeatures(vectors: queues)
        transfer = BlockTransfer(maximumPieces: NVMeLimits.maximumTransfer / NVMeLimits.pageSize + 1)
        errors.reserveCapacity(NVMeLimits.errorLogEntries)
        order.reserveCapacity(queues)
        events.reserveCapacity(8)
        eventRequests.reserveCapacity(NVMeLimits.eventRequests)
    }

    // MARK: On and off

    /// Begins to serve with the admin queues. Returns why it cannot.
    func enable(_ registers: ControllerRegisters) -> String? {
        disable()
        let configuration = registers.configuration
        let attributes = registers.adminQueueAttributes
        let (submissionEntries, completionEntries) = ((attributes & 0xFFF) + 1, (attributes >> 16 & 0xFFF) + 1)
        func refuse(_ reason: String) -> String {
            fatalReason = reason
            return reason
        }
        guard configuration.memoryPageSize == 0 else {
            return refuse("the host asks for memory pages of another size than 4096 bytes")
        }
        guard configuration.commandSet == 0, configuration.arbitration == 0 else {
            return refuse("the host asks for a command set or an arbitration that is not offered")
        }
        guard submissionEntries >= 2, completionEntries >= 2 else {
            return refuse("an admin queue of one entry: two are the least")
        }
        let (submissionBase, completionBase) = (registers.adminSubmissionQueue, registers.adminCompletionQueue)
        guard Self.fits(submissionBase, UInt64(submissionEntries) * 64),
            Self.fits(completionBase, UInt64(completionEntries) * 16)
        else { return refuse("an admin queue reaches beyond the address space") }
        isEnabled = true
        openCompletion(0, base: completionBase, entries: completionEntries, vector: 0, interrupts: true)
        openSubmission(0, base: submissionBase, entries: submissionEntries, completionQueue: 0)
        return nil
    }

    static func fits(_ base: UInt64, _ length: UInt64) -> Bool {
        !base.addingReportingOverflow(length - 1).overflow
    }

    /// Forgets queues, commands, events and features: a controller reset. Spec: NVM Express 1.4 §7.3.2.
    func disable() {
        isEnabled = false
        fatalReason = nil
        doorbells.closeAll()
        for index in submission.indices { submission[index] = SubmissionQueue() }
        for index in completion.indices { completion[index] = CompletionQueue() }
        order.removeAll(keepingCapacity: true)
        delayed.removeAll()
        eventRequests.removeAll(keepingCapacity: true)
        events.removeAll(keepingCapacity: true)
        maskedEvents = 0
        shadow = nil
        features = NVMeFeatures(vectors: completion.count)
        interruptMask = 0
        setPin(false)
        usesPin = false
    }

    /// Stops serving: the host gave something that cannot be served. Only a reset helps.
    func fail(_ reason: String) {
        guard fatalReason == nil else { return }
        fatalReason = reason
        hasNewFailure = true
        delayed.removeAll()
    }

    /// True once after each `fail`.
    func takeNewFailure() -> Bool {
        defer { hasNewFailure = false }
        return hasNewFailure
    }

    // MARK: Queues

    func openSubmission(_ index: Int, base: UInt64, entries: UInt32, completionQueue: Int) {
        submission[index] = SubmissionQueue(
            isOpen: true, base: base, entries: entries, completionQueue: completionQueue)
        completion[completionQueue].submissionQueues += 1
        order.append(index)
        doorbells.open(2 * index, entries: entries)
        resetShadow(2 * index)
    }

    func openCompletion(_ index: Int, base: UInt64, entries: UInt32, vector: Int, interrupts: Bool) {
        completion[index] = CompletionQueue(
            isOpen: true, base: base, entries: entries, vector: vector, interrupts: interrupts)
        doorbells.open(2 * index + 1, entries: entries)
        resetShadow(2 * index + 1)
    }

    func closeSubmission(_ index: Int) {
        completion[submission[index].completionQueue].submissionQueues -= 1
        submission[index] = SubmissionQueue()
        order.removeAll { $0 == index }
        doorbells.open(2 * index, entries: 0)
    }

    func closeCompletion(_ index: Int) {
        completion[index] = CompletionQueue()
        doorbells.open(2 * index + 1, entries: 0)
        updatePin()
    }

    // MARK: Service

    struct Round {
        /// Something was done, or is left to do at once.
        var didWork = false
        /// When the next delayed command is due.
        var deadline: UInt64?
    }

    /// Serves each queue once, at most a burst of commands.
    func serve() -> Round {
        var round = Round()
        guard isEnabled, fatalReason == nil, !isPaused else { return round }
        for index in completion.indices where completion[index].isOpen { takeHead(index) }
        if !delayed.isEmpty { round.didWork = releaseDelayed() }
        if !events.isEmpty { deliverEvents() }
        var place = 0
        while place < order.count, fatalReason == nil {
            let index = order[place]
            if serveQueue(index) { round.didWork = true }
            // Commands may open and close queues.
            if place < order.count, order[place] == index { place += 1 }
        }
        notify()
        round.deadline = delayed.min { $0.deadline < $1.deadline }?.deadline
        return round
    }

    /// Takes commands of one queue. True when there were some.
    private func serveQueue(_ index: Int) -> Bool {
        takeTail(index)
        let queue = submission[index]
        guard queue.head != queue.tail, completion[queue.completionQueue].hasRoom else { return false }
        let available = queue.tail > queue.head ? queue.tail - queue.head : queue.entries - queue.head
        let count = min(Int(available), NVMeLimits.burst)
        let address = queue.base + UInt64(queue.head) * UInt64(NVMeCommand.size)
        do throws(DMAError) {
            // Safety: count ≤ burst, the page's size.
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: fetched.bytes[..<(count * NVMeCommand.size)])
            var span = unsafe MutableRawSpan(_unsafeBytes: room)
            try bus.dma.read(at: IOVirtualAddress(address), into: &span)
        } catch .disabled {
            // The host will come back to it: bus mastering is off.
            return false
        } catch {
            // A client that exchanges its memory maps is back with the next one.
            if case .notMapped = error, bus.dma.isExchangingMaps { return false }
            fail("submission queue \(index): \(error)")
            return false
        }
        var taken = 0
        while taken < count, fatalReason == nil, submission[index].isOpen,
            completion[queue.completionQueue].hasRoom
        {
            // Safety: the bytes fetched above.
            let command = unsafe NVMeCommand(
                RawSpan(_unsafeBytes: UnsafeRawBufferPointer(fetched.bytes)), at: taken * NVMeCommand.size)
            taken += 1
            let head = submission[index].head &+ 1
            submission[index].head = head == queue.entries ? 0 : head
            commands &+= 1
            let outcome = index == 0 ? executeAdmin(command) : executeIO(command, queue: index, isDelayed: false)
            if case .done(let status, let result) = outcome { complete(command, index, status, result) }
        }
        return taken > 0
    }

    /// What the host says of a submission queue's tail, by register or in memory.
    private func takeTail(_ index: Int) {
        guard let shadow, index > 0 else {
            submission[index].tail = doorbells.value(2 * index)
            return
        }
        guard let value = load(shadow.doorbells, 2 * index) else { return }
        guard value < submission[index].entries else {
            return fail("submission queue \(index): tail \(value) in memory, of \(submission[index].entries) entries")
        }
        submission[index].tail = value
    }

    /// What the host says of a completion queue's head.
    private func takeHead(_ index: Int) {
        let value: UInt32
        if let shadow, index > 0 {
            guard let loaded = load(shadow.doorbells, 2 * index + 1) else { return }
            value = loaded
        } else {
            value = doorbells.value(2 * index + 1)
        }
        let queue = completion[index]
        guard value != queue.head else { return }
        let passed = value >= queue.head ? value - queue.head : value &+ queue.entries &- queue.head
        guard value < queue.entries, passed <= queue.used else {
            return fail(
                "completion queue \(index): the host says that it read up to \(value), beyond what was posted")
        }
        completion[index].head = value
        if usesPin { updatePin() }
    }

    // MARK: Completions

    /// Posts a completion. There is room: a command is taken only then. Spec: NVM Express 1.4 §4.6.
    ///
    ///     0 result u32   4 reserved u32   8 submission queue head u16   10 submission queue u16
    ///     12 command identifier u16   14 phase in bit 0, status in bits 15…1
    func complete(_ command: NVMeCommand, _ index: Int, _ status: NVMeStatus, _ result: UInt32) {
        var status = status
        if status != .success {
            failures &+= 1
            lastFailure = NVMeSnapshot.Failure(queue: index, opcode: command.opcode, status: status)
            recordError(command, index, status)
            // More: the error log has an entry. Spec: NVM Express 1.4 §4.6.1 bit 30.
            status.rawValue |= 1 << 13
        }
        post(index, command.identifier, status, result)
    }

    func post(_ index: Int, _ identifier: UInt16, _ status: NVMeStatus, _ result: UInt32) {
        let number = submission[index].completionQueue
        let queue = completion[number]
        let address = queue.base + UInt64(queue.tail) * 16
        let head = submission[index].head
        let tag: UInt64 = queue.phase ? 1 : 0
        let high =
            UInt64(head) | UInt64(index) << 16 | UInt64(identifier) << 32
            | (UInt64(status.rawValue) << 1 | tag) << 48
        do throws(DMAError) {
            try bus.dma.store(UInt64(result), at: IOVirtualAddress(address))
            // The phase is in the second store: it reaches memory after the first.
            try bus.dma.store(high, at: IOVirtualAddress(address + 8))
        } catch {
            return fail("completion queue \(number): \(error)")
        }
        completion[number].tail += 1
        if completion[number].tail == queue.entries {
            completion[number].tail = 0
            completion[number].phase.toggle()
        }
        completion[number].isNews = true
    }

    /// Interrupts for what was posted.
    func notify() {
        guard !isPaused else { return }
        for index in completion.indices where completion[index].isNews {
            completion[index].isNews = false
            guard completion[index].interrupts else { continue }
            if bus.raise(vector: completion[index].vector) {
                if usesPin {
                    usesPin = false
                    setPin(false)
                }
            } else {
                usesPin = true
            }
        }
        if usesPin { updatePin() }
    }

    /// The level of INTA#: something is posted that the host did not look at. Spec: NVM Express 1.4 §7.5.1.
    func updatePin() {
        guard usesPin, !isPaused else { return }
        let isWanted = completion.contains { queue in
            queue.isOpen && queue.interrupts && queue.head != queue.tail
                && (queue.vector > 31 || interruptMask & 1 << UInt32(queue.vector) == 0)
        }
        setPin(isWanted)
    }

    private func setPin(_ level: Bool) {
        guard level != pinLevel else { return }
        pinLevel = level
        bus.setINTx(level)
    }

    /// The host has written a completion queue's doorbell: the pin falls before the write is answered.
    func updatePinEarly() {
        guard usesPin, isEnabled, fatalReason == nil, !isPaused else { return }
        for index in completion.indices where completion[index].isOpen { takeHead(index) }
    }
}
