internal import Synchronization
public import Wire

/// Serves one device to one client at a time, on a thread of its own.
///
/// The next client is accepted when the first has left; in between its DMA maps and eventfds are dropped and the
/// device is reset. Deviates: vfio-user "Client Disconnection" retains the device's state; a card whose host went away
/// has lost its bus, and a host that comes back finds it as after power-on.
public final class VFIOUserServer: Sendable {
    private let listener: Listener
    private let device: any VFIODevice
    private let tap: LinkTap
    private let log: @Sendable (String) -> Void

    private struct State {
        var connection: ServerConnection?
        var thread: WorkerThread?
        var isStopped = false
    }

    private let state = Mutex(State())

    /// `log` gets one line a link that was closed for a reason; it may be called on any thread.
    public init(
        listener: Listener, device: any VFIODevice, tap: LinkTap = LinkTap(),
        log: @escaping @Sendable (String) -> Void
    ) {
        self.listener = listener
        self.device = device
        self.tap = tap
        self.log = log
    }

    /// True while a client is there.
    public var hasClient: Bool { state.withLock { $0.connection != nil } }

    /// Starts serving on a new thread. Once.
    public func start() {
        let thread = WorkerThread("vfio-user") { [self] in run() }
        state.withLock { $0.thread = thread }
    }

    /// Serves on the calling thread until `stop`.
    public func run() {
        while true {
            do throws(WireError) {
                serve(try listener.accept())
            } catch {
                if !state.withLock({ $0.isStopped }) { log("vfio-user: \(error): no more clients are accepted") }
                return
            }
        }
    }

    /// Serves one connected client on the calling thread until it leaves or `stop`.
    public func serve(_ socket: Socket) {
        let count = device.information.regionCount
        let connection = ServerConnection(
            socket: socket, device: device, regions: (0..<count).map { device.region($0) }, tap: tap, log: log)
        let isStopped = state.withLock { state in
            if !state.isStopped { state.connection = connection }
            return state.isStopped
        }
        if isStopped { return }
        connection.serve()
        device.dma.removeAll()
        device.dma.log = nil
        device.interrupts.removeAll()
        device.reset()
        connection.endMigration()
        state.withLock { $0.connection = nil }
    }

    /// Ends serving: the client's link is closed, no other is accepted. Returns when the thread has ended.
    public func stop() {
        let (connection, thread) = state.withLock { state in
            state.isStopped = true
            let thread = state.thread
            state.thread = nil
            return (state.connection, thread)
        }
        listener.shutdown()
        connection?.close(nil)
        thread?.join()
    }
}
