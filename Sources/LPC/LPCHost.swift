// The host's end of an lpc wire: cycles of harts, one at a time, and serial interrupts in between.
//
// A cycle that nobody answers in time is aborted, as a host aborts one without SYNC: it reads 0xFF. The answer may still
// come; until it does, or until `pause` is over, further cycles are aborted without waiting, so that a peer that hangs
// costs a hart `patience` once and not once an access.

import Synchronization
public import Wire

/// Makes LPC cycles. `read` and `write` may be called on any thread and wait for at most `patience` and the cycles
/// before them.
public final class LPCHost: Sendable {
    public struct Statistics: Hashable, Sendable {
        public var cycles: UInt64 = 0
        /// Nobody drove the bus, or not in time.
        public var aborted: UInt64 = 0

        public init(cycles: UInt64 = 0, aborted: UInt64 = 0) {
            self.cycles = cycles
            self.aborted = aborted
        }
    }

    /// Long for a process that is not scheduled on a busy machine, short for a guest's watchdogs (20 s and more).
    public static let defaultPatience = Duration.seconds(1)
    /// A peer that hangs is asked again so often.
    public static let defaultPause = Duration.seconds(10)

    private struct State {
        var tag: UInt8 = 0
        /// The tag of a cycle that was given up, and when the wire is tried again.
        var late: (tag: UInt8, until: MonotonicTime)?
        var isDown = false
        var asserted: UInt16 = 0
        var complaints = Complaints()
        var statistics = Statistics()
    }

    private let link: LPCLink
    private let loop: EventLoop
    private let patience: Duration
    private let pause: Duration
    private let report: @Sendable (String) -> Void
    private let onInterrupt: @Sendable (UInt8, Bool) -> Void
    private let state = Mutex(State())

    /// - Parameters:
    ///   - report: given lines for the log.
    ///   - onInterrupt: told every level of an interrupt; on any thread, and it must not begin a cycle.
    public init(
        socket: Socket, loop: EventLoop, patience: Duration = defaultPatience, pause: Duration = defaultPause,
        report: @escaping @Sendable (String) -> Void, onInterrupt: @escaping @Sendable (UInt8, Bool) -> Void
    ) {
        link = LPCLink(socket: socket)
        self.loop = loop
        self.patience = patience
        self.pause = pause
        self.report = report
        self.onInterrupt = onInterrupt
    }

    /// Begins to hear interrupts.
    public func start() throws(WireError) {
        try loop.add(link.socket.descriptor) { [weak self] _ in
            // While a cycle goes on, whoever waits for its end hears the rest, too.
            _ = self?.state.withLockIfAvailable { self?.drain(&$0) }
        }
    }

    public var statistics: Statistics { state.withLock { $0.statistics } }

    /// Whether an interrupt is asserted now.
    public func isAsserted(_ interrupt: UInt8) -> Bool {
        state.withLock { $0.asserted >> (interrupt & 15) & 1 == 1 }
    }

    /// An I/O read cycle.
    public func read(_ port: UInt16) -> UInt8 {
        state.withLock { state in
            state.tag &+= 1
            return cycle(.read(tag: state.tag, port: port), &state)
        }
    }

    /// An I/O write cycle.
    public func write(_ port: UInt16, _ data: UInt8) {
        state.withLock { state in
            state.tag &+= 1
            _ = cycle(.write(tag: state.tag, port: port, data: data), &state)
        }
    }

    private func cycle(_ message: LPCMessage, _ state: inout State) -> UInt8 {
        state.statistics.cycles &+= 1
        drain(&state)
        if let late = state.late, MonotonicTime.now < late.until { return abort(&state) }
        guard !state.isDown else { return abort(&state) }
        guard link.send(message) else {
            giveUp("does not take cycles", &state)
            return abort(&state)
        }
        let deadline = MonotonicTime.after(patience)
        let tag = state.tag
        while !state.isDown {
            // A peer that says other things without end does not answer either.
            guard MonotonicTime.now < deadline,
                (try? link.socket.wait(for: .readable, until: deadline)) != nil
            else {
                giveUp("does not answer", &state)
                return abort(&state)
            }
            if let (sync, data) = drain(&state, until: tag) {
                if state.late != nil {
                    state.late = nil
                    report("lpc: answers again")
                }
                guard sync == .ready else { return abort(&state) }
                return data
            }
        }
        return abort(&state)
    }

    private func abort(_ state: inout State) -> UInt8 {
        state.statistics.aborted &+= 1
        return 0xFF
    }

    private func giveUp(_ what: String, _ state: inout State) {
        if state.late == nil { report("lpc: \(what): its ports read 0xFF until it does") }
        state.late = (state.tag, .after(pause))
    }

    private func complain(_ text: String, _ state: inout State) {
        if let line = state.complaints.line(text) { report("lpc: \(line)") }
    }

    /// Takes what is there, a turn's worth of it and up to the SYNC with `tag`.
    @discardableResult
    private func drain(_ state: inout State, until tag: UInt8? = nil) -> (LPCMessage.Sync, UInt8)? {
        var left = LPCLink.messagesATurn
        while !state.isDown, left > 0 {
            left -= 1
            switch link.next() {
            case .nothing: return nil
            case .message(.sync(let answered, let sync, let data)):
                if answered == tag { return (sync, data) }
                if answered == state.late?.tag {
                    state.late = nil
                    report("lpc: answers again")
                }
            case .message(.interrupt(let number, let level)):
                state.asserted = state.asserted & ~(1 << UInt16(number)) | (level ? 1 << UInt16(number) : 0)
                onInterrupt(number, level)
            case .message: complain("a cycle of the other side is ignored: the host alone begins one", &state)
            case .refused(let reason): complain(reason, &state)
            case .ended(let reason):
                state.isDown = true
                loop.remove(link.socket.descriptor)
                report("lpc: the link has ended\(reason.map { " (\($0))" } ?? ""): its ports read 0xFF from now on")
                for number in UInt8(0)..<16 where state.asserted >> UInt16(number) & 1 == 1 {
                    onInterrupt(number, false)
                }
                state.asserted = 0
            }
        }
        return nil
    }
}
