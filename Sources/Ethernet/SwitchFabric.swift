// The shell of a switch: ports around one `EthernetSwitch` value, on one loop's thread.

import Synchronization
public import Wire

/// A learning switch with its ports.
///
/// One thread serves all ports: a frame costs one look-up and one copy, from the receive buffer of the port it came by
/// into the queues of those it leaves by; each queue is sent once a batch.
public final class SwitchFabric: Sendable {
    /// In the order of their numbers.
    public let ports: [EthernetPort]
    private let core: Mutex<EthernetSwitch>

    /// - Parameters:
    ///   - names: the ports, at most ``SwitchPort/maximumCount``.
    ///   - report: called with one line when a port's peer breaks the framing.
    public init(
        ports names: [String], loop: EventLoop, core: EthernetSwitch = EthernetSwitch(),
        report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        precondition(names.count <= SwitchPort.maximumCount, "a switch has at most 32 ports")
        self.core = Mutex(core)
        ports = names.map { EthernetPort(named: $0, loop: loop, report: report) }
    }

    /// Begins to make the link of the port named `name`; unlinked ports stay down.
    public func start(_ name: String, _ source: LinkSource) throws(WireError) {
        guard let index = ports.firstIndex(where: { $0.name == name }) else {
            preconditionFailure("the switch has no port named \(name)")
        }
        let ingress = SwitchPort(rawValue: UInt8(index))
        let handlers = EthernetPort.Handlers(
            frames: { [weak self] frames in self?.forward(frames, from: ingress) },
            link: { [weak self] isUp in self?.core.withLock { $0.setLink(isUp, on: ingress) } })
        try ports[index].start(source, handlers: handlers)
    }

    /// Ends all links.
    public func stop() { for port in ports { port.stop() } }

    /// Replaces the policy; every frame after the current batch is judged by the new one.
    public func setPolicy(_ policy: ForwardingPolicy) { core.withLock { $0.policy = policy } }

    /// The stations heard within the ageing time.
    public var stations: [(address: MACAddress, port: String)] {
        core.withLock { $0.stations(at: .now) }.map { ($0.address, ports[Int($0.port.rawValue)].name) }
    }

    private func forward(_ frames: EthernetPort.Frames, from ingress: SwitchPort) {
        var touched: SwitchPortSet = []
        var dropped = 0
        core.withLock { core in
            let now = MonotonicTime.now
            frames { frame in
                switch core.decide(frame, from: ingress, at: now) {
                case .forward(let egress):
                    touched.formUnion(egress)
                    egress.forEach { ports[Int($0.rawValue)].enqueue(frame) }
                case .drop:
                    dropped += 1
                }
            }
        }
        touched.forEach { ports[Int($0.rawValue)].flush() }
        if dropped > 0 { ports[Int(ingress.rawValue)].countDropped(dropped) }
    }
}
