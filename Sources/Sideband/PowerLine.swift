// A component's end of the sideband: RESET# in, POWER_GOOD out, MCTP packets for its owner.
//
//   held ── RESET# released ──▶ powering up (beforePowerGood) ──▶ running: `run`, POWER_GOOD
//    ▲                                │                              │
//    └── RESET# asserted, or the security logic is gone: `hold` ─────┘
//
// A line that nobody drives is pulled to reset: without a security logic behind it a component that has a sideband is
// held, and one that has none leaves reset at once.

internal import Synchronization
public import Wire

/// Holds a component in reset as the security logic says. Everything happens on the event loop's thread.
public final class PowerLine: Sendable {
    /// What happened, for the timeline (docs/wiring.md, "Events").
    public enum Event: Sendable, Hashable {
        case resetAsserted
        case resetReleased
        case powerGood
        /// What had to be done before power is good failed: the component stays as in reset until the next release.
        case powerFailed(reason: String)
    }

    /// What the component does.
    public struct Handlers: Sendable {
        /// Stops everything: when it returns the component shows nothing any more. Not called for one that does not run.
        public var hold: @Sendable () -> Void
        /// Begins, as after power-on; POWER_GOOD follows.
        public var run: @Sendable () -> Void
        /// What has to be done between the release and `run`, such as to load firmware: it must not wait on the loop's
        /// thread, and says by `PowerUp` how it went. nil: nothing.
        public var beforePowerGood: (@Sendable (PowerUp) -> Void)?
        public var event: @Sendable (Event) -> Void
        /// An MCTP packet came.
        public var packet: @Sendable (MCTPPacket) -> Void
        /// Given lines for the log.
        public var report: @Sendable (String) -> Void

        public init(
            hold: @escaping @Sendable () -> Void, run: @escaping @Sendable () -> Void,
            beforePowerGood: (@Sendable (PowerUp) -> Void)? = nil, event: @escaping @Sendable (Event) -> Void,
            packet: @escaping @Sendable (MCTPPacket) -> Void = { _ in },
            report: @escaping @Sendable (String) -> Void
        ) {
            self.hold = hold
            self.run = run
            self.beforePowerGood = beforePowerGood
            self.event = event
            self.packet = packet
            self.report = report
        }
    }

    /// One release of RESET#, on its way to POWER_GOOD. Any thread.
    public struct PowerUp: Sendable {
        fileprivate let line: PowerLine
        fileprivate let number: UInt64

        /// False once RESET# was asserted again: what is being done is of no use any more.
        public var isCurrent: Bool { line.state.withLock { $0.release == number && $0.phase == .poweringUp } }

        /// Power is good: the component runs.
        public func succeed() { line.loop.perform { [self] in line.finish(number) } }

        /// The component cannot run; it stays as in reset.
        public func fail(_ reason: String) { line.loop.perform { [self] in line.fail(number, reason) } }
    }

    private enum Phase { case held, poweringUp, running }

    private struct State {
        var phase = Phase.held
        /// Releases so far.
        var release: UInt64 = 0
        var link: SidebandLink?
        var keeper: LinkKeeper?
    }

    private let loop: EventLoop
    private let handlers: Handlers
    private let state = Mutex(State())

    /// A component that is held; `start` begins.
    public init(loop: EventLoop, _ handlers: Handlers) {
        self.loop = loop
        self.handlers = handlers
    }

    /// Whether the component does not run: in reset, or on its way out of it.
    public var isHeld: Bool { state.withLock { $0.phase != .running } }
    /// Whether the security logic is there.
    public var isConnected: Bool { state.withLock { $0.link != nil } }

    /// Begins to obey RESET#; nil is a component without a sideband, which leaves reset at once.
    public func start(_ source: LinkSource?) throws(WireError) {
        guard let source else { return release() }
        let keeper = LinkKeeper(
            source, kind: .seqpacket, loop: loop, report: { [handlers] in handlers.report("sideband: \($0)") },
            onUp: { [weak self] in self?.cameUp($0) })
        state.withLock { $0.keeper = keeper }
        try keeper.start()
    }

    /// Ends the link; the component stays as it is.
    public func stop() { state.withLock { $0.keeper }?.stop() }

    /// Takes what has come already: RESET# may have changed before what came on another wire. Loop thread.
    public func refresh() { drain() }

    /// Sends an MCTP message in packets of at most `unit` payload bytes. Throws `closed` without a link.
    public func send(_ message: MCTPMessage, unit: Int = MCTPPacket.baselinePayload) throws(WireError) {
        guard let link = state.withLock({ $0.link }) else { throw .closed(inMessage: false) }
        for packet in message.packets(unit: unit) { try link.send(.mctp(packet)) }
    }

    // MARK: The link

    private func cameUp(_ socket: Socket) {
        let link = SidebandLink(socket: socket)
        state.withLock { $0.link = link }
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] _ in self?.drain() }
        } catch {
            handlers.report("sideband: \(error)")
            lose(link)
        }
    }

    private func drain() {
        while let link = state.withLock({ $0.link }) {
            do throws(SidebandLink.Failure) {
                guard let message = try link.receive(until: .now) else { return lose(link) }
                switch message {
                case .signal(.reset, let level): if level { release() } else { hold() }
                // Other signals are for the component to drive.
                case .signal: break
                case .mctp(let packet): handlers.packet(packet)
                }
            } catch {
                switch error {
                case .wire(.timedOut): return
                case .wire: return lose(link)
                case .refused: handlers.report("sideband: \(error)")
                }
            }
        }
    }

    /// The security logic is gone and with it whoever drives RESET#.
    private func lose(_ link: SidebandLink) {
        loop.remove(link.socket.descriptor)
        let keeper = state.withLock { state in
            state.link = nil
            return state.keeper
        }
        handlers.report("sideband: the security logic is gone: in reset until it is back")
        hold()
        keeper?.linkEnded()
    }

    // MARK: Reset and power

    private func release() {
        let number = state.withLock { state -> UInt64? in
            guard state.phase == .held else { return nil }
            state.phase = .poweringUp
            state.release &+= 1
            return state.release
        }
        guard let number else { return }
        handlers.event(.resetReleased)
        guard let prepare = handlers.beforePowerGood else { return finish(number) }
        prepare(PowerUp(line: self, number: number))
    }

    private func finish(_ number: UInt64) {
        let isNews = state.withLock { state in
            guard state.release == number, state.phase == .poweringUp else { return false }
            state.phase = .running
            return true
        }
        guard isNews else { return }
        handlers.run()
        // Told before the logic acts on it.
        handlers.event(.powerGood)
        tell(isGood: true)
    }

    private func fail(_ number: UInt64, _ reason: String) {
        guard state.withLock({ $0.release == number && $0.phase == .poweringUp }) else { return }
        handlers.event(.powerFailed(reason: reason))
    }

    private func hold() {
        let was = state.withLock { state in
            defer { state.phase = .held }
            return state.phase
        }
        guard was != .held else { return }
        if was == .running { handlers.hold() }
        handlers.event(.resetAsserted)
        tell(isGood: false)
    }

    /// A logic that has just left is noticed at the next receive.
    private func tell(isGood: Bool) {
        let link = state.withLock { $0.link }
        try? link?.send(.signal(.powerGood, level: isGood))
    }
}
