// YAML as a topology needs it: a tree of scalars, sequences and mappings with text keys, each with its place.
//
// Yams composes the tree; three things are done around it. Anchors and aliases are refused before composing: a board
// reuses by `extends`, and a chain of aliases can stand for billions of nodes. Yams stops at a repeated key, which
// would hide every other mistake: the key is made unique, remembered, and the text composed again. Depth is bounded.

import Yams

struct YAMLValue {
    enum Content {
        /// `isPlain`: written without quotes, so that `null` and `true` are not text.
        case scalar(String, isPlain: Bool)
        case sequence([YAMLValue])
        case mapping([YAMLEntry])
    }

    var content: Content
    var position: SourcePosition

    var isNull: Bool {
        if case .scalar(let text, isPlain: true) = content { return ["", "~", "null", "Null", "NULL"].contains(text) }
        return false
    }

    /// What it is, for "expected …, found …".
    var kindName: String {
        switch content {
        case _ where isNull: "nothing"
        case .scalar(let text, _): "'\(text)'"
        case .sequence: "a list"
        case .mapping: "a map"
        }
    }
}

struct YAMLEntry {
    var key: String
    var position: SourcePosition
    var value: YAMLValue
}

enum YAMLDocument {
    /// Topologies use four levels; the bound keeps recursion shallow.
    static let maximumDepth = 16
    static let maximumNodes = 65_536
    /// Repeated keys that are told apart before giving up on the file.
    static let maximumDuplicates = 32

    /// The tree of `file`, or nil where it has none; mistakes go to `diagnostics`.
    static func parse(_ file: SourceFile, _ diagnostics: inout Diagnostics) -> YAMLValue? {
        let scanner = AnchorScanner(file)
        if let reference = scanner.firstReference {
            diagnostics.error(
                "anchors and aliases are not part of a topology; write the value out, or share it by 'extends'",
                at: reference)
            return nil
        }
        guard scanner.possibleAliases <= 8 else {
            diagnostics.error(
                "\(scanner.possibleAliases) words begin with '*' as aliases do; a topology has none",
                at: SourcePosition(file, line: 1, column: 1))
            return nil
        }
        var text = file.text
        for _ in 0...maximumDuplicates {
            do {
                guard let root = try Yams.compose(yaml: text, .basic) else {
                    diagnostics.error(
                        "the file is empty; a topology has 'name' and 'components'",
                        at: SourcePosition(file, line: 1, column: 1))
                    return nil
                }
                var builder = TreeBuilder(file: file)
                return builder.value(root, depth: 0, &diagnostics)
            } catch YamlError.duplicatedKeysInMapping(let duplicates, let context) {
                if let renamed = renamingKey(in: text, line: context.mark.line, column: context.mark.column) {
                    text = renamed
                    continue
                }
                diagnostics.error(
                    "key '\(duplicates.first ?? "")' is written twice; keep one",
                    at: SourcePosition(file, line: context.mark.line, column: context.mark.column))
                return nil
            } catch {
                let (message, line, column) = describe(error)
                diagnostics.error(message, at: SourcePosition(file, line: line, column: column))
                return nil
            }
        }
        diagnostics.error(
            "more than \(maximumDuplicates) repeated keys; is this a topology?",
            at: SourcePosition(file, line: 1, column: 1))
        return nil
    }

    /// Stands for the first letter of a key whose name comes again; from Unicode's private use area.
    static let duplicateMarks = (0xE000...0xE000 + maximumDuplicates).compactMap(UnicodeScalar.init)

    /// `text` with the first letter of the key at `line`, `column` replaced by a mark of its own (columns stay), or nil
    /// where the key cannot be found or begins with an escape.
    private static func renamingKey(in text: String, line: Int, column: Int) -> String? {
        var scalars = Array(text.unicodeScalars)
        var index = 0
        var currentLine = 1
        while currentLine < line, index < scalars.count {
            if scalars[index] == "\n" { currentLine += 1 }
            index += 1
        }
        index += column - 1
        if scalars.indices.contains(index), scalars[index] == "\"" || scalars[index] == "'" { index += 1 }
        guard scalars.indices.contains(index), !"\\'\"\n:".unicodeScalars.contains(scalars[index]) else { return nil }
        guard let mark = duplicateMarks.first(where: { !scalars.contains($0) }) else { return nil }
        scalars[index] = mark
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    private static func describe(_ error: any Error) -> (String, line: Int, column: Int) {
        switch error as? YamlError {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            let place = context.map { " (\($0.text) at line \($0.mark.line))" } ?? ""
            return ("not YAML: \(problem)\(place)", mark.line, mark.column)
        case .reader(let problem, _, let value, _):
            return ("not YAML: \(problem) (character \(value))", 1, 1)
        default:
            return ("not YAML: \(error)", 1, 1)
        }
    }
}

/// Turns Yams' nodes into values with places, checking depth and keys.
private struct TreeBuilder {
    let file: SourceFile
    var nodes = 0

    func position(_ mark: Mark?) -> SourcePosition {
        SourcePosition(file, line: mark?.line ?? 1, column: mark?.column ?? 1)
    }

    mutating func value(_ node: Node, depth: Int, _ diagnostics: inout Diagnostics) -> YAMLValue? {
        let place = position(node.mark)
        guard depth < YAMLDocument.maximumDepth else {
            diagnostics.error("nested more than \(YAMLDocument.maximumDepth) deep; a topology needs four", at: place)
            return nil
        }
        nodes += 1
        guard nodes <= YAMLDocument.maximumNodes else {
            if nodes == YAMLDocument.maximumNodes + 1 {
                diagnostics.error("more than \(YAMLDocument.maximumNodes) values; is this a topology?", at: place)
            }
            return nil
        }
        switch node {
        case .scalar(let scalar):
            let isPlain = scalar.style == .plain
            return YAMLValue(content: .scalar(scalar.string, isPlain: isPlain), position: place)
        case .sequence(let sequence):
            var values: [YAMLValue] = []
            for element in sequence {
                if let value = value(element, depth: depth + 1, &diagnostics) { values.append(value) }
            }
            return YAMLValue(content: .sequence(values), position: place)
        case .mapping(let mapping):
            return YAMLValue(content: .mapping(entries(mapping, depth: depth, &diagnostics)), position: place)
        case .alias:
            return nil
        }
    }

    private mutating func entries(_ mapping: Node.Mapping, depth: Int, _ diagnostics: inout Diagnostics) -> [YAMLEntry]
    {
        var entries: [YAMLEntry] = []
        for (keyNode, valueNode) in mapping {
            let place = position(keyNode.mark)
            guard case .scalar(let scalar) = keyNode else {
                diagnostics.error("a key must be a word, not a list or a map", at: place)
                continue
            }
            let key = original(scalar.string, at: place)
            guard let value = value(valueNode, depth: depth + 1, &diagnostics) else { continue }
            if let earlier = entries.first(where: { $0.key == key }) {
                diagnostics.error(
                    "key '\(key)' is written twice (first at line \(earlier.position.line)); keep one", at: place)
                continue
            }
            entries.append(YAMLEntry(key: key, position: place, value: value))
        }
        return entries
    }

    /// The key as the file has it: undoes the renaming of repeated keys.
    private func original(_ key: String, at place: SourcePosition) -> String {
        guard let first = key.unicodeScalars.first, YAMLDocument.duplicateMarks.contains(first),
            file.lines.indices.contains(place.line - 1)
        else { return key }
        var rest = file.lines[place.line - 1].unicodeScalars.dropFirst(place.column - 1)
        if let quote = rest.first, quote == "\"" || quote == "'" { rest = rest.dropFirst() }
        guard let letter = rest.first else { return key }
        return String(Character(letter)) + String(key.unicodeScalars.dropFirst())
    }
}

/// Finds `&anchor` and `*alias` outside quotes and comments.
private struct AnchorScanner {
    /// The first place where one certainly stands.
    private(set) var firstReference: SourcePosition?
    /// How many `*` could be aliases if every quote and comment were misjudged: YAML lets a quote be plain text in some
    /// places, so a hostile file can hide aliases from this scan. A few of them cannot multiply to much.
    private(set) var possibleAliases = 0

    init(_ file: SourceFile) {
        var quote: UnicodeScalar?
        for (lineIndex, line) in file.lines.enumerated() {
            // A token may begin after a line's start or an indicator.
            var tokenMayBegin = true
            var afterIndicator = true
            var afterSpace = true
            var inComment = false
            var skipNext = false
            for (column, scalar) in line.unicodeScalars.enumerated() {
                if scalar == "*", afterIndicator { possibleAliases += 1 }
                if scalar != " ", scalar != "\t" { afterIndicator = Self.indicators.contains(scalar) }
                if inComment { continue }
                if skipNext {
                    skipNext = false
                    continue
                }
                if let open = quote {
                    if open == "\"", scalar == "\\" { skipNext = true }
                    if scalar == open { (quote, tokenMayBegin) = (nil, false) }
                    continue
                }
                switch scalar {
                case " ", "\t":
                    afterSpace = true
                    continue
                case "#" where afterSpace:
                    inComment = true
                case "&" where tokenMayBegin, "*" where tokenMayBegin:
                    if firstReference == nil {
                        firstReference = SourcePosition(file, line: lineIndex + 1, column: column + 1)
                    }
                case "\"" where tokenMayBegin, "'" where tokenMayBegin:
                    quote = scalar
                default:
                    tokenMayBegin = Self.indicators.contains(scalar)
                }
                afterSpace = false
            }
        }
    }

    private static let indicators: Set<UnicodeScalar> = [":", "-", "?", "[", ",", "{", "!", "\"", "'"]
}
