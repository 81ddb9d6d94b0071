internal import CSystem
internal import Synchronization

/// A plain thread with a name; the data paths run on these.
public final class WorkerThread: @unchecked Sendable {
    // Safety: written once in init before the thread can be joined.
    private var thread = pthread_t()
    private let isJoined = Atomic<Bool>(false)

    private final class Start {
        let name: String
        let body: @Sendable () -> Void
        init(_ name: String, _ body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts `body` on a new thread. `name` is cut to the 15 bytes that the kernel keeps.
    @discardableResult
    public init(_ name: String, _ body: @escaping @Sendable () -> Void) {
        let start = unsafe Unmanaged.passRetained(Start(String(name.prefix(15)), body))
        // Safety: the retained object is taken over by the new thread exactly once.
        let code = unsafe pthread_create(
            &thread, nil,
            { argument in
                let start = unsafe Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
                unsafe _ = cs_name_thread(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        precondition(code == 0, "pthread_create: \(systemErrorText(code))")
    }

    /// Nobody will join it: its stack goes with it.
    deinit { if !isJoined.load(ordering: .relaxed) { pthread_detach(thread) } }

    /// Waits for the thread to end. At most one caller, once.
    public func join() {
        isJoined.store(true, ordering: .relaxed)
        _ = pthread_join(thread, nil)
    }
}
