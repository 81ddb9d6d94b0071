// One topology file as written, before merging: its shape is checked, its meaning not yet.

/// A word and its place.
struct Located {
    var text: String
    var position: SourcePosition
}

/// `wire: [end, end]` as written.
struct WrittenLink {
    var wire: Located
    var ends: [Located]
    var position: SourcePosition
}

/// One component as written in one file: settings by key, null to remove one that was inherited.
struct WrittenComponent {
    var name: Located
    var entries: [YAMLEntry]
    /// `name: null` takes an inherited component away.
    var isRemoval = false
    /// No map was written: reported already, and what follows from it is not.
    var isBroken = false
}

struct TopologyLayer {
    var file: SourceFile
    var name: Located?
    var extends: Located?
    var components: [WrittenComponent] = []
    var removedLinks: [WrittenLink] = []
    var links: [WrittenLink] = []

    static let keys = ["name", "extends", "components", "links", "remove-links"]

    /// Nil where the file is no map at all.
    init?(_ root: YAMLValue, file: SourceFile, _ diagnostics: inout Diagnostics) {
        self.file = file
        guard case .mapping(let entries) = root.content else {
            diagnostics.error(
                "a topology is a map with 'name' and 'components', found \(root.kindName)", at: root.position)
            return nil
        }
        for entry in entries {
            switch entry.key {
            case "name": name = Self.word(entry, &diagnostics)
            case "extends": extends = Self.word(entry, &diagnostics)
            case "components": components = Self.components(entry, &diagnostics)
            case "links": links = Self.links(entry, &diagnostics)
            case "remove-links": removedLinks = Self.links(entry, &diagnostics)
            default:
                diagnostics.error(
                    "unknown key '\(entry.key)'"
                        + Spelling.suggestion(for: entry.key, among: Self.keys, kind: "keys"),
                    at: entry.position)
            }
        }
    }

    private static func word(_ entry: YAMLEntry, _ diagnostics: inout Diagnostics) -> Located? {
        if case .scalar(let text, _) = entry.value.content, !entry.value.isNull {
            return Located(text: text, position: entry.value.position)
        }
        diagnostics.error("'\(entry.key)' must be a word, found \(entry.value.kindName)", at: entry.value.position)
        return nil
    }

    private static func components(_ entry: YAMLEntry, _ diagnostics: inout Diagnostics) -> [WrittenComponent] {
        guard case .mapping(let entries) = entry.value.content else {
            diagnostics.error(
                "'components' must be a map of names to settings, found \(entry.value.kindName)",
                at: entry.value.position)
            return []
        }
        return entries.map { entry in
            let name = Located(text: entry.key, position: entry.position)
            if entry.value.isNull { return WrittenComponent(name: name, entries: [], isRemoval: true) }
            guard case .mapping(let settings) = entry.value.content else {
                diagnostics.error(
                    "component '\(entry.key)' must be a map such as {type: flash, image: flash.img}, "
                        + "found \(entry.value.kindName)",
                    at: entry.value.position)
                return WrittenComponent(name: name, entries: [], isBroken: true)
            }
            return WrittenComponent(name: name, entries: settings)
        }
    }

    private static func links(_ entry: YAMLEntry, _ diagnostics: inout Diagnostics) -> [WrittenLink] {
        guard case .sequence(let values) = entry.value.content else {
            if entry.value.isNull { return [] }
            diagnostics.error(
                "'\(entry.key)' must be a list such as '- spi: [host0, flash0]', found \(entry.value.kindName)",
                at: entry.value.position)
            return []
        }
        return values.compactMap { link($0, &diagnostics) }
    }

    private static func link(_ value: YAMLValue, _ diagnostics: inout Diagnostics) -> WrittenLink? {
        guard case .mapping(let entries) = value.content, let entry = entries.first, entries.count == 1 else {
            diagnostics.error(
                "a link is one wire with its two ends, such as 'spi: [host0, flash0]', found \(value.kindName)",
                at: value.position)
            return nil
        }
        guard case .sequence(let values) = entry.value.content else {
            diagnostics.error(
                "the ends of '\(entry.key)' must be a list of two, such as [host0, flash0], "
                    + "found \(entry.value.kindName)",
                at: entry.value.position)
            return nil
        }
        guard values.count == 2 else {
            diagnostics.error("'\(entry.key)' has \(values.count) ends; a link has two", at: entry.value.position)
            return nil
        }
        var ends: [Located] = []
        for value in values {
            guard case .scalar(let text, _) = value.content, !value.isNull else {
                diagnostics.error(
                    "an end of a link is 'component', 'component.port', 'external:/path.sock' or 'listen:name', "
                        + "found \(value.kindName)",
                    at: value.position)
                return nil
            }
            ends.append(Located(text: text, position: value.position))
        }
        return WrittenLink(
            wire: Located(text: entry.key, position: entry.position), ends: ends, position: entry.position)
    }
}
