// From merged words to a board: names, kinds and settings here, links in BoardChecker+Links.swift.

import Component

struct BoardChecker {
    static let maximumComponents = 64
    static let maximumLinks = 256

    let topology: MergedTopology
    let root: SourceFile
    var components: [BoardComponent] = []
    /// Components whose kind is unknown: their links cannot be judged, and are not blamed.
    var unjudged: Set<String> = []

    init(_ topology: MergedTopology, root: SourceFile) {
        self.topology = topology
        self.root = root
    }

    /// The board, or nil with at least one mistake reported.
    consuming func check(_ diagnostics: inout Diagnostics) -> Board? {
        let start = SourcePosition(root, line: 1, column: 1)
        if let name = topology.name {
            if !Board.isName(name.text) {
                diagnostics.error("'\(name.text)' cannot be a board's name; \(Board.nameRule)", at: name.position)
            }
        } else {
            diagnostics.error("the board has no name; write one, such as 'name: server'", at: start)
        }
        if topology.components.isEmpty {
            diagnostics.error("the board has no components; write some below 'components:'", at: start)
        }
        if topology.components.count > Self.maximumComponents {
            diagnostics.error(
                "\(topology.components.count) components; a board has at most \(Self.maximumComponents)", at: start)
            return nil
        }
        for component in topology.components { check(component, &diagnostics) }
        let links = checkLinks(&diagnostics)
        guard diagnostics.isEmpty, let name = topology.name else { return nil }
        return Board(name: name.text, components: components, links: links)
    }

    private mutating func check(_ component: MergedTopology.Component, _ diagnostics: inout Diagnostics) {
        let name = component.name
        if !Board.isName(name.text) {
            diagnostics.error("'\(name.text)' cannot be a component's name; \(Board.nameRule)", at: name.position)
        }
        guard !component.isBroken, let kind = kind(of: component, &diagnostics) else {
            unjudged.insert(name.text)
            return
        }
        var settings: [BoardSetting] = []
        for entry in component.entries where entry.key != "type" {
            guard let description = kind.setting(named: entry.key) else {
                let known = kind.settings.map(\.name) + ["type"]
                diagnostics.error(
                    "unknown key '\(entry.key)' in component '\(name.text)'"
                        + Spelling.suggestion(for: entry.key, among: known, kind: "keys"),
                    at: entry.position)
                continue
            }
            switch description.type.value(of: entry.value) {
            case .success(let value): settings.append(BoardSetting(name: entry.key, value: value))
            case .failure(let mistake):
                diagnostics.error("'\(entry.key)' \(mistake.text)", at: entry.value.position)
            }
        }
        for description in kind.settings where description.isRequired {
            if !component.entries.contains(where: { $0.key == description.name }) {
                diagnostics.error(
                    "component '\(name.text)' (\(kind.name)) needs '\(description.name)': \(description.help)",
                    at: name.position)
            }
        }
        for rule in kind.rules { check(rule, of: component, settings, &diagnostics) }
        let order = kind.settings.map(\.name)
        settings.sort { order.firstIndex(of: $0.name) ?? 0 < order.firstIndex(of: $1.name) ?? 0 }
        components.append(
            BoardComponent(name: name.text, kind: kind, settings: settings, position: name.position))
    }

    private func check(
        _ rule: SettingRule, of component: MergedTopology.Component, _ settings: [BoardSetting],
        _ diagnostics: inout Diagnostics
    ) {
        func value(_ name: String) -> String? { settings.first { $0.name == name }?.value.description }
        guard let entry = component.entries.first(where: { $0.key == rule.setting }), let asks = value(rule.setting),
            rule.value == nil || rule.value == asks,
            // A value that was refused has had its error.
            value(rule.other) != nil || !component.entries.contains(where: { $0.key == rule.other })
        else { return }
        let found = value(rule.other) ?? rule.otherDefault
        if let wanted = rule.otherValue ?? found, wanted == found { return }
        let asking = rule.value.map { "'\(rule.setting): \($0)'" } ?? "'\(rule.setting)'"
        let asked = rule.otherValue.map { "'\(rule.other): \($0)'" } ?? "'\(rule.other)'"
        diagnostics.error(
            "\(asking) in component '\(component.name.text)' needs \(asked)" + (found.map { ", not \($0)" } ?? ""),
            at: entry.position)
    }

    private func kind(of component: MergedTopology.Component, _ diagnostics: inout Diagnostics) -> ComponentKind? {
        let known = ComponentCatalog.kinds.map(\.name)
        guard let type = component.entries.first(where: { $0.key == "type" }) else {
            diagnostics.error(
                "component '\(component.name.text)' has no type; known types: \(known.sorted().joined(separator: ", "))",
                at: component.name.position)
            return nil
        }
        guard case .scalar(let text, _) = type.value.content else {
            diagnostics.error(
                "'type' must be a word such as 'flash', found \(type.value.kindName)", at: type.value.position)
            return nil
        }
        guard let kind = ComponentCatalog.kind(named: text) else {
            diagnostics.error(
                "unknown component type '\(text)'" + Spelling.suggestion(for: text, among: known, kind: "types"),
                at: type.value.position)
            return nil
        }
        return kind
    }
}
