// The host's end of the sideband: RESET# in, POWER_GOOD out.
import Sideband
import Synchronization
public import Wire

/// Holds a machine in reset as the security logic says. Runs on the event loop.
public final class PowerSequencer: Sendable {
    /// What happened, for the timeline.
    public enum Event: Sendable, Equatable {
        case resetAsserted
        case resetReleased
        case powerGood
    }

    private let machine: Machine
    private let loop: EventLoop
    private let report: @Sendable (String) -> Void
    private let onEvent: @Sendable (Event) -> Void
    private let link = Mutex<SidebandLink?>(nil)

    /// `report` hears of messages that were refused and of the end of the link.
    public init(
        machine: Machine, loop: EventLoop, report: @escaping @Sendable (String) -> Void,
        onEvent: @escaping @Sendable (Event) -> Void
    ) {
        self.machine = machine
        self.loop = loop
        self.report = report
        self.onEvent = onEvent
    }

    /// Begins: without a sideband the machine leaves reset at once, with one when the logic says so.
    public func start(_ socket: Socket?) throws(WireError) {
        guard let socket else { return release() }
        let link = SidebandLink(socket: socket)
        self.link.withLock { $0 = link }
        try loop.add(socket.descriptor) { [weak self] _ in self?.drain() }
    }

    private func drain() {
        while let link = link.withLock({ $0 }) {
            do throws(SidebandLink.Failure) {
                guard let message = try link.receive(until: .now) else { return lose(link) }
                switch message {
                case .signal(.reset, level: true): release()
                case .signal(.reset, level: false): hold()
                // Other signals are ours to drive; nobody addresses the host by MCTP in this design yet.
                case .signal, .mctp: break
                }
            } catch {
                switch error {
                case .wire(.timedOut): return
                case .wire: return lose(link)
                case .refused: report("sideband: \(error)")
                }
            }
        }
    }

    private func release() {
        guard machine.state == .held else { return }
        onEvent(.resetReleased)
        machine.releaseReset()
        send(level: true)
        onEvent(.powerGood)
    }

    private func hold() {
        guard machine.state != .held else { return }
        machine.holdInReset()
        send(level: false)
        onEvent(.resetAsserted)
    }

    private func send(level: Bool) {
        guard let link = link.withLock({ $0 }) else { return }
        do throws(WireError) { try link.send(.signal(.powerGood, level: level)) } catch { lose(link) }
    }

    /// Whoever drives RESET# is gone: the line's resistor pulls it to reset.
    private func lose(_ link: SidebandLink) {
        loop.remove(link.socket.descriptor)
        self.link.withLock { $0 = nil }
        report("sideband: the security logic is gone: in reset from now on")
        hold()
    }
}
