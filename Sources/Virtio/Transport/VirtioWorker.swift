internal import Synchronization
public import Wire

/// The thread that carries the data of virtio functions: it serves their queues, and an event loop's descriptors beside
/// them (the sockets of a switch that the functions are joined to, for instance), so nothing is handed from thread to
/// thread and no ring needs a lock.
///
///     let worker = VirtioWorker(loop: loop)
///     let thread = WorkerThread("switch") { worker.run() }
///     …
///     loop.stop(); thread.join()
///
/// While there is work drivers need not notify: the worker looks by itself. When there is none it looks for a little
/// longer, as `AdaptiveWait` has learned to, then asks the drivers to notify and sleeps.
public final class VirtioWorker: Sendable {
    /// What the worker serves.
    protocol Client: AnyObject, Sendable {
        /// Serves what there is; true when there was something.
        func turn() -> Bool
        /// Before the worker sleeps; true when there is something after all.
        func arm() -> Bool
    }

    public let loop: EventLoop
    private let clients = Mutex<(list: [any Client], version: UInt64)>(([], 0))
    private let version = Atomic<UInt64>(0)
    private let isAsleep = Atomic<Bool>(false)
    private let running = Atomic<Bool>(false)

    /// Turns of queues between two looks at the loop while there is work: sockets wait so many batches at most.
    private static let turnsALoop = 4

    public init(loop: EventLoop) { self.loop = loop }

    func add(_ client: any Client) {
        let new = clients.withLock { clients in
            clients.list.append(client)
            clients.version += 1
            return clients.version
        }
        version.store(new, ordering: .releasing)
        wake()
    }

    func remove(_ client: any Client) {
        let new = clients.withLock { clients in
            clients.list.removeAll { $0 === client }
            clients.version += 1
            return clients.version
        }
        version.store(new, ordering: .releasing)
        wake()
    }

    /// True while a thread is in `run`.
    var isRunning: Bool { running.load(ordering: .acquiring) }

    /// Makes the worker look: something was changed for it before. Any thread; some nanoseconds when it is awake.
    func wake() {
        // Pairs with the fence between `isAsleep` and the last look in `sleep`.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if isAsleep.load(ordering: .relaxed), isAsleep.exchange(false, ordering: .acquiringAndReleasing) {
            loop.interrupt()
        }
    }

    /// Serves until the loop is stopped.
    public func run() {
        running.store(true, ordering: .releasing)
        defer { running.store(false, ordering: .releasing) }
        var list: [any Client] = []
        var seen: UInt64 = .max
        var wait = AdaptiveWait()
        var turns = 0
        var pollEnd: UInt64?
        var polled: UInt64 = 0
        while !loop.isStopping {
            if version.load(ordering: .acquiring) != seen { (list, seen) = clients.withLock { ($0.list, $0.version) } }
            var isBusy = false
            for client in list where client.turn() { isBusy = true }
            turns &+= 1
            if isBusy {
                if turns % Self.turnsALoop == 0 { loop.turn(waiting: false) }
                if pollEnd != nil { wait.pollingWon() }
                pollEnd = nil
                continue
            }
            let now = MonotonicTime.now.nanoseconds
            if pollEnd == nil {
                polled = wait.takeBudget()
                pollEnd = now &+ polled
            }
            if let end = pollEnd, now < end {
                loop.turn(waiting: false)
                continue
            }
            pollEnd = nil
            guard !arm(list) else { continue }
            let slept = sleep(list)
            wait.sleepWon(polled: polled, slept: slept)
        }
    }

    private func arm(_ list: [any Client]) -> Bool {
        var isBusy = false
        for client in list where client.arm() { isBusy = true }
        return isBusy
    }

    /// Sleeps in the loop unless something was changed meanwhile; the nanoseconds slept.
    private func sleep(_ list: [any Client]) -> UInt64 {
        let start = MonotonicTime.now.nanoseconds
        isAsleep.store(true, ordering: .relaxed)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        // A last look at what other threads set before they saw that the worker sleeps.
        var isBusy = false
        for client in list where client.turn() { isBusy = true }
        let isCurrent = version.load(ordering: .acquiring) == clients.withLock { $0.version }
        loop.turn(waiting: !isBusy && isCurrent)
        isAsleep.store(false, ordering: .relaxed)
        return MonotonicTime.now.nanoseconds &- start
    }
}
