internal import Glibc
internal import Synchronization
internal import Wire

/// The doorbell registers as the bus writes and the I/O thread reads them, and the thread's bell.
///
/// Numbered as in the BAR: 2 × queue is a submission queue's tail, 2 × queue + 1 a completion queue's head. A doorbell is
/// validated against its queue's size where it is written, so that none that is wrong is lost behind one that is right.
@safe final class Doorbells: @unchecked Sendable {
    let count: Int
    // Safety: `count` of each, initialised in init, deinitialised in deinit.
    private let values: UnsafeMutablePointer<Atomic<UInt32>>
    private let limits: UnsafeMutablePointer<Atomic<UInt32>>

    /// Set by whoever wants the I/O thread to look; the thread clears it.
    private let isRung = Atomic(false)
    private let isAsleep = Atomic(false)
    private let notifier: EventNotifier

    init(queues: Int) {
        count = 2 * queues
        unsafe values = .allocate(capacity: count)
        unsafe limits = .allocate(capacity: count)
        for index in 0..<count {
            unsafe (values + index).initialize(to: Atomic(0))
            unsafe (limits + index).initialize(to: Atomic(0))
        }
        guard let notifier = try? EventNotifier() else { preconditionFailure("no descriptor is left for an eventfd") }
        self.notifier = notifier
    }

    deinit {
        unsafe values.deinitialize(count: count)
        unsafe limits.deinitialize(count: count)
        unsafe values.deallocate()
        unsafe limits.deallocate()
    }

    enum Refusal { case noQueue, badValue }

    /// What the bus writes.
    func write(_ index: Int, _ value: UInt32) -> Refusal? {
        guard index < count else { return .noQueue }
        // Safety: index < count.
        let limit = unsafe limits[index].load(ordering: .acquiring)
        guard limit > 0 else { return .noQueue }
        guard value < limit else { return .badValue }
        unsafe values[index].store(value, ordering: .releasing)
        ring()
        return nil
    }

    /// The last value written. Precondition: `index` < `count`.
    @inline(__always)
    func value(_ index: Int) -> UInt32 {
        precondition(index < count)
        // Safety: index < count.
        return unsafe values[index].load(ordering: .acquiring)
    }

    /// Opens a doorbell for a queue of so many entries, at 0; 0 entries closes it.
    func open(_ index: Int, entries: UInt32) {
        precondition(index < count)
        // Safety: index < count.
        unsafe values[index].store(0, ordering: .releasing)
        unsafe limits[index].store(entries, ordering: .releasing)
    }

    /// Opens a doorbell that was written before, at a value below the number of entries. Precondition of both.
    func open(_ index: Int, entries: UInt32, at value: UInt32) {
        precondition(index < count && value < entries)
        // Safety: index < count.
        unsafe values[index].store(value, ordering: .releasing)
        unsafe limits[index].store(entries, ordering: .releasing)
    }

    func closeAll() { for index in 0..<count { open(index, entries: 0) } }

    // MARK: The bell

    /// Wakes the I/O thread. Any thread.
    func ring() {
        isRung.store(true, ordering: .sequentiallyConsistent)
        if isAsleep.load(ordering: .sequentiallyConsistent),
            isAsleep.exchange(false, ordering: .sequentiallyConsistent)
        {
            notifier.signal()
        }
    }

    /// True once for all rings before.
    @inline(__always)
    func takeRing() -> Bool {
        isRung.load(ordering: .acquiring) && isRung.exchange(false, ordering: .sequentiallyConsistent)
    }

    var hasRing: Bool { isRung.load(ordering: .acquiring) }

    /// Sleeps until a ring or the deadline, unless `mayNotSleep` finds something to do after it was announced that the
    /// thread sleeps.
    func sleep(until deadline: UInt64?, unless mayNotSleep: () -> Bool) {
        isAsleep.store(true, ordering: .sequentiallyConsistent)
        defer {
            isAsleep.store(false, ordering: .sequentiallyConsistent)
            notifier.drain()
        }
        if mayNotSleep() || isRung.load(ordering: .sequentiallyConsistent) { return }
        var entry = pollfd(fd: notifier.descriptor.rawValue, events: Int16(POLLIN), revents: 0)
        if let deadline {
            let now = MonotonicTime.now.nanoseconds
            let left = deadline > now ? deadline - now : 0
            var time = timespec(tv_sec: Int(clamping: left / 1_000_000_000), tv_nsec: Int(left % 1_000_000_000))
            // Safety: one entry, count one; locals.
            _ = unsafe ppoll(&entry, 1, &time, nil)
        } else {
            // Safety: one entry, count one.
            _ = unsafe poll(&entry, 1, -1)
        }
    }
}
