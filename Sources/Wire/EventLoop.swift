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
        while !isStopping { turn(waiting: true) }
        state.withLock { $0.stopping = false }
    }

    /// True after `stop`, until `run` has returned.
    public var isStopping: Bool { state.withLock { $0.stopping } }

    /// Makes a `turn` that waits return, or the next one not wait.
    public func interrupt() { wake.signal() }

    /// Serves what is ready now, once; with `waiting` sleeps for it first. For a thread that does other work between
    /// the turns; one at a time, instead of `run`.
    public func turn(waiting: Bool) {
        // Safety: the arrays live as long as their closures, and are used inside only.
        unsafe withUnsafeTemporaryAllocation(of: UInt32.self, capacity: Self.eventsATurn) { events in
            unsafe withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.eventsATurn) { tokens in
                // Safety: the call writes at most as many elements as each array has room for.
                let count = unsafe cs_epoll_wait(
                    epoll.rawValue, events.baseAddress, tokens.baseAddress, Int32(Self.eventsATurn), waiting ? -1 : 0)
                for index in 0..<max(0, Int(count)) {
                    // Safety: the call has written so many elements.
                    unsafe handle(Events(rawValue: events[index]), tokens[index])
                }
            }
        }
        runDue()
    }

    private static let eventsATurn = 32

    private func handle(_ events: Events, _ data: UInt64) {
        let number = Int32(truncatingIfNeeded: data)
        let token = data >> 32
        if token == 0 { return drainCounter(number) }
        let handler = state.withLock { state -> Handler? in
            guard let entry = state.handlers[number], entry.token == token else { return nil }
            return entry.handler
        }
        handler?(events)
    }

    private func drainCounter(_ number: Int32) {
        var count: UInt64 = 0
        // Safety: eight bytes of a local variable.
        _ = unsafe read(number, &count, 8)
    }

    private func runDue() {
        let now = MonotonicTime.now
        let none: (calls: [@Sendable () -> Void], timers: [@Sendable () -> Void]) = ([], [])
        let (calls, timers) = state.withLock { state in
            if state.calls.isEmpty, state.timers.first.map({ $0.at > now }) ?? true { return none }
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
