internal import CSystem
internal import Synchronization

/// One thread's wait for many descriptors (epoll), timers and calls from other threads. For control paths.
///
/// Handlers run on the thread in `run`. `add`, `remove`, `schedule`, `perform` and `stop` may come from any thread.
public final class EventLoop: Sendable {
    /// What a descriptor is ready for.
    public struct Events: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let readable = Events(rawValue: 0x001)
        public static let writable = Events(rawValue: 0x004)
        /// The peer is gone or the descriptor is broken; always reported.
        public static let hangUp = Events(rawValue: 0x010 | 0x008 | 0x2000)
    }

    public typealias Handler = @Sendable (Events) -> Void

    /// A timer to cancel.
    public struct Timer: Hashable, Sendable { let id: UInt64 }

    private struct State {
        var handlers: [Int32: (owner: Descriptor, token: UInt64, handler: Handler)] = [:]
        var timers: [(at: MonotonicTime, timer: Timer, body: @Sendable () -> Void)] = []
        var calls: [@Sendable () -> Void] = []
        var nextToken: UInt64 = 1
        var stopping = false
    }

    private let epoll: Descriptor
    private let alarm: Descriptor
    private let wake: EventNotifier
    private let state = Mutex(State())

    public init() throws(WireError) {
        let number = cs_epoll_create()
        guard number >= 0 else { throw .last("epoll_create1", "event loop") }
        epoll = Descriptor(adopting: number)
        let timer = cs_timer_create()
        guard timer >= 0 else { throw .last("timerfd_create", "event loop") }
        alarm = Descriptor(adopting: timer)
        wake = try EventNotifier()
        try control(EPOLL_CTL_ADD, wake.descriptor.rawValue, .readable, token: 0)
        try control(EPOLL_CTL_ADD, alarm.rawValue, .readable, token: 0)
    }

    private func control(_ operation: Int32, _ number: Int32, _ events: Events, token: UInt64) throws(WireError) {
        let data = token << 32 | UInt64(UInt32(bitPattern: number))
        guard cs_epoll_control(epoll.rawValue, operation, number, events.rawValue, data) == 0 else {
            throw .last("epoll_ctl", "descriptor \(number)")
        }
    }

    /// Calls `handler` whenever `descriptor` is ready, until `remove`. The loop keeps the descriptor open.
    public func add(_ descriptor: Descriptor, _ events: Events = .readable, _ handler: @escaping Handler)
        throws(WireError)
    {
        let token = state.withLock { state in
            state.nextToken = (state.nextToken + 1) & 0x7FFF_FFFF
            state.handlers[descriptor.rawValue] = (descriptor, state.nextToken, handler)
            return state.nextToken
        }
        try control(EPOLL_CTL_ADD, descriptor.rawValue, events, token: token)
    }

    /// Changes what is waited for.
    public func modify(_ descriptor: Descriptor, _ events: Events) throws(WireError) {
        let token = state.withLock { $0.handlers[descriptor.rawValue]?.token }
        guard let token else { return }
        try control(EPOLL_CTL_MOD, descriptor.rawValue, events, token: token)
    }

    /// Forgets `descriptor`: no call for it begins after this returns on the loop's own thread.
    public func remove(_ descriptor: Descriptor) {
        let known = state.withLock { state in
            guard let entry = state.handlers[descriptor.rawValue], entry.owner === descriptor else { return false }
            state.handlers[descriptor.rawValue] = nil
            return true
        }
        if known { _ = cs_epoll_control(epoll.rawValue, EPOLL_CTL_DEL, descriptor.rawValue, 0, 0) }
    }

    /// Calls `body` once at `time`.
    @discardableResult
    public func schedule(at time: MonotonicTime, _ body: @escaping @Sendable () -> Void) -> Timer {
        let timer = state.withLock { state in
            state.nextToken = (state.nextToken + 1) & 0x7FFF_FFFF
            let timer = Timer(id: state.nextToken)
            let place = state.timers.firstIndex { $0.at > time } ?? state.timers.endIndex
            state.timers.insert((time, timer, body), at: place)
            return timer
        }
        arm()
        return timer
    }

    /// A timer that has not fired will not.
    public func cancel(_ timer: Timer) {
        state.withLock { state in state.timers.removeAll { $0.timer == timer } }
        arm()
    }

    private func arm() {
        state.withLock { state in
            _ = cs_timer_at(alarm.rawValue, state.timers.first.map { max($0.at.nanoseconds, 1) } ?? 0)
        }
    }

    /// Calls `body` soon on the loop's thread.
    public func perform(_ body: @escaping @Sendable () -> Void) {
        state.withLock { $0.calls.append(body) }
        wake.signal()
    }

    /// Makes `run` return.
    public func stop() {
        state.withLock { $0.stopping = true }
        wake.signal()
    }

    /// Serves until `stop`.
    public func run() {
        var events = [UInt32](repeating: 0, count: 32)
        var tokens = [UInt64](repeating: 0, count: 32)
        while !state.withLock({ $0.stopping }) {
            // Safety: the call writes at most 32 elements of each array.
            let count = unsafe cs_epoll_wait(epoll.rawValue, &events, &tokens, 32, -1)
            for index in 0..<max(0, Int(count)) {
                let data = tokens[index]
                let number = Int32(truncatingIfNeeded: data)
                let token = data >> 32
                if token == 0 {
                    drainCounter(number)
                    continue
                }
                let handler = state.withLock { state -> Handler? in
                    guard let entry = state.handlers[number], entry.token == token else { return nil }
                    return entry.handler
                }
                handler?(Events(rawValue: events[index]))
            }
            runDue()
        }
        state.withLock { $0.stopping = false }
    }

    private func drainCounter(_ number: Int32) {
        var count: UInt64 = 0
        // Safety: eight bytes of a local variable.
        _ = unsafe read(number, &count, 8)
    }

    private func runDue() {
        let now = MonotonicTime.now
        let (calls, timers) = state.withLock { state in
            let calls = state.calls
            state.calls = []
            let due = state.timers.prefix { $0.at <= now }.map(\.body)
            state.timers.removeFirst(due.count)
            return (calls, due)
        }
        for body in calls { body() }
        for body in timers { body() }
        if !timers.isEmpty { arm() }
    }
}
