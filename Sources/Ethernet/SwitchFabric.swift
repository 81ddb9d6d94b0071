// The shell of a switch: ports around one `EthernetSwitch` value, on one loop's thread.

import Synchronization
public import Wire

/// A learning switch with its ports: links over sockets, and functions in this process.
///
/// One thread serves all ports: a frame costs one look-up and one copy, from the receive buffer of the port it came by
/// into the queues of those it leaves by; each queue is sent once a batch. A function's frames are copied once out of
/// the guest's memory, judged, and copied from there straight into the receive queues of the functions they leave to.
public final class SwitchFabric: Sendable {
    /// In the order of their numbers: links, then functions.
    public let ports: [any SwitchedPort]
    /// Ports to functions in this process.
    public let functions: [FunctionPort]
    private let links: [EthernetPort]
    private let core: Mutex<EthernetSwitch>

    /// - Parameters:
    ///   - names: the ports over sockets; with the functions at most ``SwitchPort/maximumCount``.
    ///   - functions: the ports to functions in this process, whose worker runs on the same loop.
    ///   - report: called with one line when a port's peer breaks the framing.
    public init(
        ports names: [String], functions functionNames: [String] = [], loop: EventLoop,
        core: EthernetSwitch = EthernetSwitch(), report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        precondition(
            names.count + functionNames.count <= SwitchPort.maximumCount, "a switch has at most 32 ports")
        self.core = Mutex(core)
        links = names.map { EthernetPort(named: $0, loop: loop, report: report) }
        functions = functionNames.map { FunctionPort(named: $0, loop: loop) }
        ports = links + functions
        for (index, function) in functions.enumerated() {
            let ingress = SwitchPort(rawValue: UInt8(names.count + index))
            function.start(
                FunctionPort.Handlers(
                    frames: { [weak self] in self?.forward($0, from: ingress) },
                    link: { [weak self] isUp in self?.core.withLock { $0.setLink(isUp, on: ingress) } }))
        }
    }

    /// Begins to make the link of the port named `name`; unlinked ports stay down.
    public func start(_ name: String, _ source: LinkSource) throws(WireError) {
        guard let index = links.firstIndex(where: { $0.name == name }) else {
            preconditionFailure("the switch has no port named \(name)")
        }
        let ingress = SwitchPort(rawValue: UInt8(index))
        let handlers = EthernetPort.Handlers(
            frames: { [weak self] frames in self?.forward(frames, from: ingress) },
            link: { [weak self] isUp in self?.core.withLock { $0.setLink(isUp, on: ingress) } })
        try links[index].start(source, handlers: handlers)
    }

    /// Ends all links.
    public func stop() { for port in links { port.stop() } }

    /// Replaces the policy; every frame after the current batch is judged by the new one.
    public func setPolicy(_ policy: ForwardingPolicy) { core.withLock { $0.policy = policy } }

    /// Holds the switch in reset, or releases it: while it is held what comes is dropped, and its stations are forgotten.
    public func setHeld(_ isHeld: Bool) { core.withLock { $0.isHeld = isHeld } }

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

    /// Forwards what a function sends: all frames are judged, then each port takes its share at once.
    private func forward(_ stage: FrameStage, from ingress: SwitchPort) {
        var touched: SwitchPortSet = []
        var dropped = 0
        core.withLock { core in
            let now = MonotonicTime.now
            for index in 0..<stage.count {
                let decision = stage.withFrame(index) { core.decide($0, from: ingress, at: now) }
                switch decision {
                case .forward(let egress):
                    touched.formUnion(egress)
                    stage.setEgress(index, egress)
                case .drop:
                    stage.setEgress(index, [])
                    dropped += 1
                }
            }
        }
        touched.forEach { ports[Int($0.rawValue)].deliver(stage, leavingBy: $0) }
        if dropped > 0 { ports[Int(ingress.rawValue)].countDropped(dropped) }
    }
}
