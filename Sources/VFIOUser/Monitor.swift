internal import Glibc

/// A mutex with a condition: for the few places where a thread must sleep until another one changes something.
///
/// An uncontended lock and unlock cost some 20 ns together; nothing here allocates after init.
@safe package final class Monitor: @unchecked Sendable {
    // Safety: both are initialised in init, destroyed in deinit, and never moved: they live in one heap allocation.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    package init() {
        unsafe mutex = .allocate(capacity: 1)
        unsafe condition = .allocate(capacity: 1)
        // Safety: fresh memory of the right type, initialised exactly once.
        unsafe mutex.initialize(to: pthread_mutex_t())
        unsafe condition.initialize(to: pthread_cond_t())
        var attributes = pthread_condattr_t()
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_condattr_init(&attributes)
        unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        unsafe pthread_cond_init(condition, &attributes)
        unsafe pthread_condattr_destroy(&attributes)
    }

    deinit {
        // Safety: nobody else can reach either any more.
        unsafe pthread_cond_destroy(condition)
        unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
    }

    @inline(__always) package func lock() { unsafe _ = pthread_mutex_lock(mutex) }
    @inline(__always) package func unlock() { unsafe _ = pthread_mutex_unlock(mutex) }

    /// Sleeps until a `broadcast` or the moment on CLOCK_MONOTONIC; the caller holds the lock before and after.
    /// Returns false when the moment passed.
    package func wait(until nanoseconds: UInt64) -> Bool {
        var deadline = timespec()
        deadline.tv_sec = Int(clamping: nanoseconds / 1_000_000_000)
        deadline.tv_nsec = Int(nanoseconds % 1_000_000_000)
        return unsafe pthread_cond_timedwait(condition, mutex, &deadline) == 0
    }

    /// Sleeps until a `broadcast`; the caller holds the lock before and after.
    package func wait() { unsafe _ = pthread_cond_wait(condition, mutex) }

    package func broadcast() { unsafe _ = pthread_cond_broadcast(condition) }
}
