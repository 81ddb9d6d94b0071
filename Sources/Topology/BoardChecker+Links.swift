// Links: wires, ends, ports and roles. Ports that are named are taken first, so that a port left out can be inferred
// as the only free one whatever the order of the links.

import Component

/// An end as written, split at its dot or colon.
private enum WrittenEnd {
    case component(name: String, port: String?)
    case external(String)
    case listen(String)

    init(_ text: String) {
        if text.hasPrefix("external:") {
            self = .external(String(text.dropFirst("external:".count)))
        } else if text.hasPrefix("listen:") {
            self = .listen(String(text.dropFirst("listen:".count)))
        } else if let dot = text.firstIndex(of: ".") {
            self = .component(name: String(text[..<dot]), port: String(text[text.index(after: dot)...]))
        } else {
            self = .component(name: text, port: nil)
        }
    }
}

/// A link while its ports are being found.
private struct OpenLink {
    var written: WrittenLink
    var wire: WireKind
    var ends: [OpenEnd]
}

private enum OpenEnd {
    /// The candidates that are left; one when found.
    case ports(component: String, [PortDescription], isNamed: Bool)
    case external(String)
    case listen(String)
}

extension BoardChecker {
    func checkLinks(_ diagnostics: inout Diagnostics) -> [BoardLink] {
        guard topology.links.count <= Self.maximumLinks else {
            diagnostics.error(
                "\(topology.links.count) links; a board has at most \(Self.maximumLinks)",
                at: SourcePosition(root, line: 1, column: 1))
            return []
        }
        var open: [OpenLink] = []
        /// A link that is wrong in another way still is somebody's attempt to link its components.
        var attempted: Set<String> = []
        for written in topology.links {
            if let link = openLink(written, &diagnostics) {
                open.append(link)
            } else {
                for end in written.ends {
                    guard case .component(let name, _) = WrittenEnd(end.text) else { continue }
                    attempted.insert(Spelling.nearest(to: name, among: components.map(\.name)) ?? name)
                }
            }
        }

        var taken: [BoardPort: SourcePosition] = [:]
        var blamed: Set<Int> = []
        for index in open.indices { takeNamed(open[index], index, &taken, &blamed, &diagnostics) }
        var links: [BoardLink] = []
        var listeners: [String: SourcePosition] = [:]
        for (index, link) in open.enumerated() {
            let resolved = blamed.contains(index) ? nil : resolve(link, &taken, &diagnostics)
            guard let resolved else {
                for case .ports(let component, _, _) in link.ends { attempted.insert(component) }
                continue
            }
            for case .listen(let name) in [resolved.first, resolved.second] {
                if let earlier = listeners[name] {
                    diagnostics.error(
                        "'listen:\(name)' is already used at \(earlier.description); choose another name",
                        at: resolved.position)
                }
                listeners[name] = resolved.position
            }
            links.append(resolved)
        }
        checkCompanions(taken, &diagnostics)
        checkHeld(links, &diagnostics)
        for component in components where !attempted.contains(component.name) {
            for port in component.kind.ports where port.isRequired {
                let wanted = BoardPort(component: component.name, port: port.name)
                guard taken[wanted] == nil, !component.settings.contains(where: { $0.name == port.substitute }) else {
                    continue
                }
                diagnostics.error(
                    "component '\(component.name)' (\(component.kind.name)) needs a link at its port '\(port.name)', "
                        + "such as '\(port.wire): [\(wanted), \(example(for: port, of: component))]'",
                    at: component.position)
            }
        }
        return links
    }

    /// Blames links at ports that are of no use without another one.
    private func checkCompanions(_ taken: [BoardPort: SourcePosition], _ diagnostics: inout Diagnostics) {
        for component in components {
            for port in component.kind.ports {
                let end = BoardPort(component: component.name, port: port.name)
                guard let companion = port.companion, let position = taken[end] else { continue }
                let wanted = BoardPort(component: component.name, port: companion.port)
                if taken[wanted] == nil {
                    diagnostics.error(
                        "'\(end)' is linked and '\(wanted)' is not: \(companion.reason); link that too",
                        at: position)
                }
            }
        }
    }

    /// An end that could be linked to `port`: one of the board's if there is any.
    private func example(for port: PortDescription, of component: BoardComponent) -> String {
        for other in components where other.name != component.name {
            if let match = other.kind.ports.first(where: { $0.wire == port.wire && $0.role.joins(port.role) }) {
                return "\(other.name).\(match.name)"
            }
        }
        return port.role == .serves ? "listen:name" : "external:/path.sock"
    }

    /// What can be said of a link on its own: its wire, its ends, and which of their ports could be meant.
    private func openLink(_ written: WrittenLink, _ diagnostics: inout Diagnostics) -> OpenLink? {
        let known = WireKind.allCases.filter(\.isLinked).map(\.rawValue)
        guard let wire = WireKind(rawValue: written.wire.text), wire.isLinked else {
            let word = written.wire.text
            let reason =
                WireKind(rawValue: word) == nil
                ? "unknown wire '\(word)'" + Spelling.suggestion(for: word, among: known, kind: "wires")
                : "'\(word)' is not linked: every component that serves one has its own socket"
            diagnostics.error(reason, at: written.wire.position)
            return nil
        }
        let before = diagnostics.all.count
        let ends = written.ends.map { openEnd($0, wire, &diagnostics) }
        guard diagnostics.all.count == before, let first = ends[0], let second = ends[1] else { return nil }
        switch (first, second) {
        case (.ports(let one, _, _), .ports(let other, _, _)) where one == other:
            diagnostics.error("'\(one)' is linked to itself; a link joins two components", at: written.position)
            return nil
        case (.ports, _), (_, .ports):
            return OpenLink(written: written, wire: wire, ends: [first, second])
        default:
            diagnostics.error("at least one end of a link must be a component of the board", at: written.position)
            return nil
        }
    }

    private func openEnd(_ end: Located, _ wire: WireKind, _ diagnostics: inout Diagnostics) -> OpenEnd? {
        switch WrittenEnd(end.text) {
        case .external(let path):
            guard path.hasPrefix("/"), (2...107).contains(path.utf8.count) else {
                diagnostics.error(
                    "'external:' takes the absolute path of a socket, at most 107 bytes, such as external:/tmp/x.sock",
                    at: end.position)
                return nil
            }
            return .external(path)
        case .listen(let name):
            guard Board.isName(name) else {
                diagnostics.error("'\(name)' cannot be a socket's name; \(Board.nameRule)", at: end.position)
                return nil
            }
            return .listen(name)
        case .component(let name, let portName):
            if unjudged.contains(name) { return nil }
            guard let component = components.first(where: { $0.name == name }) else {
                let names = components.map(\.name)
                diagnostics.error(
                    "unknown component '\(name)'" + Spelling.suggestion(for: name, among: names, kind: "components"),
                    at: end.position)
                return nil
            }
            guard let portName else {
                let fitting = component.kind.ports.filter { $0.wire == wire && $0.isInferred }
                guard fitting.isEmpty else { return .ports(component: name, fitting, isNamed: false) }
                diagnostics.error("'\(name)' (\(component.kind.name)) has no \(wire) port", at: end.position)
                return nil
            }
            guard let port = component.kind.port(named: portName) else {
                let names = component.kind.ports.filter(\.wire.isLinked).map(\.name)
                diagnostics.error(
                    "'\(name)' (\(component.kind.name)) has no port '\(portName)'"
                        + Spelling.suggestion(for: portName, among: names, kind: "ports"),
                    at: end.position)
                return nil
            }
            guard port.wire == wire else {
                diagnostics.error("'\(name).\(portName)' is a \(port.wire) port, not \(wire)", at: end.position)
                return nil
            }
            return .ports(component: name, [port], isNamed: true)
        }
    }

    /// Marks the ports that a link names as taken, and blames links that name one twice.
    private func takeNamed(
        _ link: OpenLink, _ index: Int, _ taken: inout [BoardPort: SourcePosition], _ blamed: inout Set<Int>,
        _ diagnostics: inout Diagnostics
    ) {
        for (end, written) in zip(link.ends, link.written.ends) {
            guard case .ports(let component, let ports, isNamed: true) = end else { continue }
            let port = BoardPort(component: component, port: ports[0].name)
            if let earlier = taken[port] {
                diagnostics.error(
                    "port '\(port)' is already linked at \(earlier.description); a port has one link",
                    at: written.position)
                blamed.insert(index)
            } else {
                taken[port] = written.position
            }
        }
    }

    /// The link with both ports found, or nil with the reason reported.
    private func resolve(
        _ link: OpenLink, _ taken: inout [BoardPort: SourcePosition], _ diagnostics: inout Diagnostics
    ) -> BoardLink? {
        let candidates = link.ends.map { end -> [PortDescription?] in
            guard case .ports(let component, let ports, let isNamed) = end else { return [nil] }
            return isNamed ? ports : ports.filter { taken[BoardPort(component: component, port: $0.name)] == nil }
        }
        for (index, ports) in candidates.enumerated() where ports.isEmpty {
            diagnostics.error(
                "'\(link.written.ends[index].text)' has no free \(link.wire) port left",
                at: link.written.ends[index].position)
            return nil
        }
        var pairs: [(PortDescription?, PortDescription?)] = []
        for first in candidates[0] {
            for second in candidates[1] where joins(first, link.ends[0], second, link.ends[1]) {
                pairs.append((first, second))
            }
        }
        guard let pair = pairs.first else {
            diagnostics.error(roleMistake(link, candidates), at: link.written.position)
            return nil
        }
        for index in 0..<2 {
            let names = Set(pairs.compactMap { index == 0 ? $0.0?.name : $0.1?.name })
            guard names.count > 1 else { continue }
            let choices = candidates[index].compactMap { $0?.name }.filter(names.contains)
            diagnostics.error(
                "'\(link.written.ends[index].text)' has several free \(link.wire) ports; write which one: "
                    + choices.map { "\(link.written.ends[index].text).\($0)" }.joined(separator: ", "),
                at: link.written.ends[index].position)
            return nil
        }
        let first = finish(link.ends[0], pair.0)
        let second = finish(link.ends[1], pair.1)
        for (end, written) in zip([first, second], link.written.ends) {
            if case .port(let port) = end { taken[port] = written.position }
        }
        return BoardLink(
            wire: link.wire, first: first, second: second,
            listener: listener(first, pair.0, second, pair.1), position: link.written.position)
    }

    private func joins(
        _ first: PortDescription?, _ firstEnd: OpenEnd, _ second: PortDescription?, _ secondEnd: OpenEnd
    ) -> Bool {
        func role(_ port: PortDescription?, _ end: OpenEnd) -> PortRole {
            if let port { return port.role }
            // A program outside serves `external:`; it uses what a component serves for it at `listen:`.
            if case .external = end { return .serves }
            return .uses
        }
        return role(first, firstEnd).joins(role(second, secondEnd))
    }

    private func finish(_ end: OpenEnd, _ port: PortDescription?) -> LinkEnd {
        switch end {
        case .ports(let component, _, _): .port(BoardPort(component: component, port: port?.name ?? ""))
        case .external(let path): .external(path)
        case .listen(let name): .listen(name)
        }
    }

    /// Which port listens: the one that serves; of two that could do either, the first.
    private func listener(
        _ first: LinkEnd, _ firstPort: PortDescription?, _ second: LinkEnd, _ secondPort: PortDescription?
    ) -> BoardPort? {
        switch (first, second) {
        case (.external, _), (_, .external): return nil
        case (.port(let port), .listen), (.listen, .port(let port)): return port
        case (.port(let one), .port(let other)):
            if firstPort?.role == .serves || secondPort?.role == .uses { return one }
            if secondPort?.role == .serves || firstPort?.role == .uses { return other }
            return one
        case (.listen, .listen): return nil
        }
    }

    private func roleMistake(_ link: OpenLink, _ candidates: [[PortDescription?]]) -> String {
        let texts = link.written.ends.map(\.text)
        switch (link.ends[0], link.ends[1]) {
        case (.external, _), (_, .external):
            let text = texts.first { !$0.hasPrefix("external:") } ?? texts[0]
            return "'\(text)' serves this \(link.wire) link itself and cannot connect to a socket outside; "
                + "write 'listen:name' to let a program outside connect to it"
        case (.listen, _), (_, .listen):
            let text = texts.first { !$0.hasPrefix("listen:") } ?? texts[0]
            return "'\(text)' connects and cannot listen; write 'external:/path.sock' for a socket outside"
        default:
            let serves = candidates[0].contains { $0?.role == .serves }
            return serves
                ? "'\(texts[0])' and '\(texts[1])' both serve \(link.wire); one end of a link must connect"
                : "'\(texts[0])' and '\(texts[1])' both connect to \(link.wire); one end of a link must serve it"
        }
    }
}
