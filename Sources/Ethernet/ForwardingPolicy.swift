// Who may talk to whom through a switch. The switch learns and looks up; this value has the last word.

/// A forwarding policy: asked once for each frame, after the switch knows where it would go.
///
/// It sees the whole frame, so that rules on addresses and protocols fit behind the same call; today it holds the
/// reachability of ports. It is a value: replacing it is an assignment between two frames, never half a change.
public struct ForwardingPolicy: Hashable, Sendable {
    /// For each port the ports that its frames may leave by.
    @usableFromInline var reachable: [SwitchPortSet]

    /// Everyone may talk to everyone.
    public static let permitAll = ForwardingPolicy(
        reachable: Array(repeating: SwitchPortSet(first: 32), count: SwitchPort.maximumCount))

    /// No one may talk to anyone.
    public static let denyAll = ForwardingPolicy(
        reachable: Array(repeating: [], count: SwitchPort.maximumCount))

    init(reachable: [SwitchPortSet]) { self.reachable = reachable }

    /// Lets frames that enter by `ingress` leave by `egress`, or no longer; one direction only.
    public mutating func set(_ permitted: Bool, from ingress: SwitchPort, to egress: SwitchPort) {
        if permitted {
            reachable[Int(ingress.rawValue)].insert(SwitchPortSet(egress))
        } else {
            reachable[Int(ingress.rawValue)].remove(SwitchPortSet(egress))
        }
    }

    /// The part of `egress` that `frame`, which entered by `ingress`, may leave by.
    @inlinable
    public func permitted(
        _ frame: Span<UInt8>, _ header: EthernetHeader, from ingress: SwitchPort, to egress: SwitchPortSet
    ) -> SwitchPortSet {
        egress.intersection(reachable[Int(ingress.rawValue)])
    }
}
