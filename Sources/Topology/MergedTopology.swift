// Topologies laid over one another. What a file does not write stays as the board it extends has it.

/// The words of all files together, still unchecked in meaning.
struct MergedTopology {
    struct Component {
        var name: Located
        var entries: [YAMLEntry] = []
        var isBroken = false
    }

    var name: Located?
    var components: [Component] = []
    var links: [WrittenLink] = []

    private func index(of name: String) -> Int? { components.firstIndex { $0.name.text == name } }

    mutating func apply(_ layer: TopologyLayer, _ diagnostics: inout Diagnostics) {
        name = layer.name ?? name
        for link in layer.removedLinks { remove(link, &diagnostics) }
        for component in layer.components {
            if component.isRemoval {
                remove(component.name, &diagnostics)
            } else if let index = index(of: component.name.text) {
                for entry in component.entries { set(entry, at: index, &diagnostics) }
            } else {
                components.append(Component(name: component.name, isBroken: component.isBroken))
                for entry in component.entries { set(entry, at: components.count - 1, &diagnostics) }
            }
        }
        links += layer.links
    }

    /// Applies one `--set` argument.
    mutating func apply(override source: SourceFile, _ diagnostics: inout Diagnostics) {
        let start = SourcePosition(source, line: 1, column: 1)
        guard let equals = source.text.firstIndex(of: "=") else {
            diagnostics.error("'--set' takes key=value, such as components.host0.memory=1GiB", at: start)
            return
        }
        let key = source.text[..<equals]
        let valueColumn = key.unicodeScalars.count + 2
        let value = YAMLValue(
            content: .scalar(String(source.text[equals...].dropFirst()), isPlain: true),
            position: SourcePosition(source, line: 1, column: valueColumn))
        let parts = key.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        switch (parts.first, parts.count) {
        case ("name", 1):
            guard case .scalar(let text, _) = value.content else { return }
            name = Located(text: text, position: value.position)
        case ("components", 2) where value.isNull:
            remove(Located(text: parts[1], position: SourcePosition(source, line: 1, column: 12)), &diagnostics)
        case ("components", 3):
            guard let index = index(of: parts[1]) else {
                diagnostics.error(
                    "unknown component '\(parts[1])'"
                        + Spelling.suggestion(
                            for: parts[1], among: components.map(\.name.text), kind: "components"),
                    at: SourcePosition(source, line: 1, column: 12))
                return
            }
            let column = "components.".count + parts[1].unicodeScalars.count + 2
            let entry = YAMLEntry(
                key: parts[2], position: SourcePosition(source, line: 1, column: column), value: value)
            set(entry, at: index, &diagnostics)
        case ("components", _):
            diagnostics.error(
                "'--set' takes components.NAME.KEY=VALUE, such as components.host0.memory=1GiB, "
                    + "or components.NAME=null",
                at: start)
        default:
            let word = parts.first ?? ""
            diagnostics.error(
                "'--set' knows 'name' and 'components.NAME.KEY', not '\(word)'"
                    + (Spelling.nearest(to: word, among: ["name", "components"]).map { "; did you mean '\($0)'?" }
                        ?? ""),
                at: start)
        }
    }

    private mutating func set(_ entry: YAMLEntry, at index: Int, _ diagnostics: inout Diagnostics) {
        let existing = components[index].entries.firstIndex { $0.key == entry.key }
        switch (existing, entry.value.isNull) {
        case (let existing?, true): components[index].entries.remove(at: existing)
        case (let existing?, false): components[index].entries[existing] = entry
        case (nil, false): components[index].entries.append(entry)
        case (nil, true):
            diagnostics.error(
                "'\(entry.key)' has no value; null takes away what an extended board sets, "
                    + "and none sets '\(entry.key)' of '\(components[index].name.text)'",
                at: entry.position)
        }
    }

    /// Takes a component away, and with it the links that were joined to it.
    private mutating func remove(_ name: Located, _ diagnostics: inout Diagnostics) {
        guard let index = index(of: name.text) else {
            diagnostics.error(
                "component '\(name.text)' is not there to be removed"
                    + Spelling.suggestion(for: name.text, among: components.map(\.name.text), kind: "components"),
                at: name.position)
            return
        }
        components.remove(at: index)
        links.removeAll { link in
            link.ends.contains { $0.text == name.text || $0.text.hasPrefix(name.text + ".") }
        }
    }

    /// Takes away the inherited links with this wire and these ends, in either order; an end without a port stands for
    /// every port of its component.
    private mutating func remove(_ removal: WrittenLink, _ diagnostics: inout Diagnostics) {
        func covers(_ written: String, _ end: String) -> Bool {
            written == end || (!written.contains(".") && !written.contains(":") && end.hasPrefix(written + "."))
        }
        let (first, second) = (removal.ends[0].text, removal.ends[1].text)
        let before = links.count
        links.removeAll { link in
            guard link.wire.text == removal.wire.text else { return false }
            let (a, b) = (link.ends[0].text, link.ends[1].text)
            return (covers(first, a) && covers(second, b)) || (covers(first, b) && covers(second, a))
        }
        guard links.count == before else { return }
        let inherited = links.filter { $0.wire.text == removal.wire.text }
            .map { "[\($0.ends[0].text), \($0.ends[1].text)]" }
        diagnostics.error(
            "no inherited link '\(removal.wire.text): [\(first), \(second)]' to remove; "
                + (inherited.isEmpty
                    ? "there are no '\(removal.wire.text)' links"
                    : "'\(removal.wire.text)' links are \(inherited.joined(separator: ", "))"),
            at: removal.position)
    }
}
