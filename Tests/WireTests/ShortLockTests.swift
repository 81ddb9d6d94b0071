import Synchronization
import Testing
import Wire

@Suite struct ShortLockTests {
    /// Safety of the sharing: the lock under test.
    private final class Counter: @unchecked Sendable {
        let lock = ShortLock()
        var value = 0
        let threadsLeft = Atomic<Int>(0)
    }

    @Test func `threads that want the lock at once take turns, and none sleeps for ever`() throws {
        let counter = Counter()
        let (threads, rounds) = (4, 50_000)
        counter.threadsLeft.store(threads, ordering: .relaxed)
        let done = try EventNotifier()
        for _ in 0..<threads {
            WorkerThread("short-lock") {
                for _ in 0..<rounds {
                    counter.lock.lock()
                    counter.value += 1
                    counter.lock.unlock()
                }
                if counter.threadsLeft.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { done.signal() }
            }
        }
        let deadline = MonotonicTime.after(.seconds(20))
        try Socket(adopting: done.descriptor.duplicate(), kind: .stream).wait(for: .readable, until: deadline)
        #expect(counter.value == threads * rounds)
    }
}
