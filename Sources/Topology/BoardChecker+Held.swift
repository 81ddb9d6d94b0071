// Links at the security logic: each of its ports is for one of those who are held in reset, or for the master.

import Component

extension BoardChecker {
    /// Blames links that join a port with a component of a kind for which it is not, a component that has ports of two
    /// at the logic, and an adapter card whose role is not that of its port.
    func checkHeld(_ links: [BoardLink], _ diagnostics: inout Diagnostics) {
        /// Where each component was linked to the logic first: the logic's port.
        var first: [String: BoardPort] = [:]
        for link in links {
            guard let (port, other) = judgedEnds(link) else { continue }
            guard let component = components.first(where: { $0.name == other.component }),
                let logic = components.first(where: { $0.name == port.component })
            else { continue }
            let peers = logic.kind.port(named: port.port)?.peers ?? []
            guard peers.contains(component.kind.name) else {
                diagnostics.error(
                    "'\(port)' is for a component of type \(peers.joined(separator: " or ")), and '\(component.name)' is "
                        + "of type \(component.kind.name)", at: link.position)
                continue
            }
            let role = Self.role(port)
            if let earlier = first[component.name], earlier.component == port.component, Self.role(earlier) != role {
                diagnostics.error(
                    "'\(component.name)' is linked to '\(port)' and to '\(earlier)': the logic would take it for two; "
                        + "link it to the ports of one", at: link.position)
                continue
            }
            first[component.name] = port
            guard component.kind.name == "adapter-card" else { continue }
            let isMaster = component.setting("master") == .boolean(true)
            if isMaster != (role == "adapter") {
                diagnostics.error(
                    isMaster
                        ? "'\(component.name)' is the master, which nobody holds in reset: link it to "
                            + "'\(port.component).\(port.port.prefix { $0 != "-" })-adapter'"
                        : "'\(component.name)' is not the master, and '\(port)' is the master's: write 'master: true', or "
                            + "link it to a port of a card, such as '\(port.component).sideband-card0'",
                    at: link.position)
            }
        }
    }

    /// The end that is for some kinds only, and the other one; nil where no kind was asked for.
    private func judgedEnds(_ link: BoardLink) -> (BoardPort, BoardPort)? {
        guard case .port(let one) = link.first, case .port(let other) = link.second else { return nil }
        func isJudged(_ end: BoardPort) -> Bool {
            let kind = components.first { $0.name == end.component }?.kind
            return kind?.port(named: end.port)?.peers.isEmpty == false
        }
        if isJudged(one) { return (one, other) }
        return isJudged(other) ? (other, one) : nil
    }

    /// Whose port of the logic it is: `card0` of `sideband-card0`.
    private static func role(_ port: BoardPort) -> Substring { port.port.drop { $0 != "-" }.dropFirst() }
}
