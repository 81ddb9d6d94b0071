public import VFIOUser

/// The queues of a running device. For the worker's thread only.
///
/// A queue whose ring turns out to be garbage stops the whole device: from then on `withQueue` runs nothing.
public final class QueueSet: @unchecked Sendable {
    // Safety: unchecked because all state belongs to the worker's thread; other threads only pass the reference on.

    /// What was negotiated.
    public let features: VirtioFeatures
    /// The driver's memory.
    public let dma: DMAAddressSpace
    private let interrupt: @Sendable (Int) -> Void
    private let configurationChanged: @Sendable () -> Void
    private let failed: @Sendable (Int, RingFault) -> Void
    private var queues: [Virtqueue?]
    /// Queues that are looked at in every turn: one bit each.
    private(set) var watched: UInt64 = 0
    public private(set) var isStopped = false
    /// The device migrates: `withQueue` runs nothing and the driver hears nothing until it goes on.
    private(set) var isPaused = false
    /// The configuration has changed meanwhile.
    private var hasChanged = false

    /// - Parameters:
    ///   - interrupt: tells the driver that requests of a queue were completed.
    ///   - configurationChanged: tells the driver that the device configuration changed.
    ///   - failed: a queue's ring is garbage; called once.
    public init(
        count: Int, features: VirtioFeatures, dma: DMAAddressSpace, interrupt: @escaping @Sendable (Int) -> Void,
        configurationChanged: @escaping @Sendable () -> Void = {},
        failed: @escaping @Sendable (Int, RingFault) -> Void
    ) {
        queues = [Virtqueue?](repeating: nil, count: count)
        self.features = features
        self.dma = dma
        self.interrupt = interrupt
        self.configurationChanged = configurationChanged
        self.failed = failed
    }

    public var count: Int { queues.count }

    /// Whether the driver has enabled a queue.
    public func isEnabled(_ index: Int) -> Bool { queues.indices.contains(index) && queues[index] != nil }

    /// Begins with a queue as the driver has set it up.
    public func enable(_ index: Int, _ settings: CommonConfiguration.Queue) {
        guard queues.indices.contains(index), !isStopped else { return }
        do throws(RingFault) {
            queues[index] = try Virtqueue(settings, features: features)
            watch(index)
        } catch {
            fail(index, error)
        }
    }

    /// Begins with a queue where another device stopped. Refused where that cannot be.
    func enable(
        _ index: Int, _ settings: CommonConfiguration.Queue, at progress: Virtqueue.Progress
    ) throws(ErrorNumber) {
        guard queues.indices.contains(index) else { throw .invalid }
        do throws(RingFault) {
            var queue = try Virtqueue(settings, features: features)
            guard queue.resume(at: progress) else { throw RingFault.request("a place outside the ring") }
            queues[index] = queue
        } catch {
            throw .invalid
        }
    }

    /// How far a queue has come; nil when it is not enabled.
    func progress(_ index: Int) -> Virtqueue.Progress? {
        queues.indices.contains(index) ? queues[index]?.progress : nil
    }

    func pause() { isPaused = true }

    /// Goes on: with a look at every queue, for whatever its driver did meanwhile.
    func unpause() {
        isPaused = false
        for index in queues.indices where queues[index] != nil { watch(index) }
        if hasChanged { changeConfiguration() }
    }

    /// Ends with a queue: the driver resets it.
    public func disable(_ index: Int) {
        guard queues.indices.contains(index) else { return }
        queues[index] = nil
        watched &= ~(1 << UInt64(index))
    }

    /// Whether the device may reach memory at all now.
    public var isBusOff: Bool { !dma.isEnabled }

    func stop() { isStopped = true }

    /// The device asks for a reset: a request of queue `index` makes no sense.
    public func fail(_ index: Int, _ fault: RingFault) {
        guard !isStopped else { return }
        isStopped = true
        failed(index, fault)
    }

    /// Tells the driver that the device configuration has changed.
    public func changeConfiguration() {
        hasChanged = isPaused
        if !isStopped, !isPaused { configurationChanged() }
    }

    /// Looks at a queue in every turn until nothing is left to do in it.
    public func watch(_ index: Int) { watched |= 1 << UInt64(index) }

    /// Runs `body` with a queue and the driver's memory held; what it completed becomes visible after it, and the
    /// driver is interrupted if it wants to be.
    ///
    /// Nil when the queue is not enabled or has stopped, when it stops now because `body` threw, or when bus mastering
    /// is off or the client exchanges its memory maps: then it goes on when that is over, and the request that was taken
    /// and not completed is offered again.
    @inline(__always)
    public func withQueue<Result>(
        _ index: Int, _ body: (inout Virtqueue, inout HeldMemory) throws(RingFault) -> Result
    ) -> Result? {
        guard !isStopped, !isPaused, index < queues.count, queues[index] != nil else { return nil }
        do throws(RingFault) {
            let (result, isWanted) = try dma.hold { (memory) throws(RingFault) -> (Result, Bool) in
                let result = try body(&queues[index]!, &memory)
                return (result, try queues[index]!.publish(&memory))
            }
            if isWanted { interrupt(index) }
            return result
        } catch {
            if error.isBusOff || error.isUnmapped && dma.isExchangingMaps {
                queues[index]?.offerAgain()
            } else {
                fail(index, error)
            }
            return nil
        }
    }

    // MARK: Notifications

    /// Before the queue is looked at in turns: the driver need not notify.
    public func quiet(_ index: Int) {
        _ = withQueue(index) { (queue, memory) throws(RingFault) in try queue.disableNotifications(&memory) }
    }

    /// Before the worker sleeps: no queue is watched any more, the driver notifies. True when there is work after all.
    public func arm(_ device: any VirtioDevice) -> Bool {
        var rest = watched
        var isBusy = false
        while rest != 0 {
            let index = rest.trailingZeroBitCount
            rest &= rest &- 1
            let bit: UInt64 = 1 << UInt64(index)
            let isReady: Bool
            if device.wantsNotifications(index) {
                isReady =
                    withQueue(index) { (queue, memory) throws(RingFault) in
                        try queue.enableNotifications(&memory)
                    } ?? false
            } else {
                quiet(index)
                isReady = false
            }
            if isReady { isBusy = true } else { watched &= ~bit }
        }
        return isBusy
    }
}
