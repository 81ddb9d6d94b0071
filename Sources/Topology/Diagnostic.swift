/// One mistake in a topology: where, what is wrong, and what would be right.
public struct Diagnostic: Sendable, CustomStringConvertible {
    public let position: SourcePosition
    public let message: String

    /// As a compiler says it: `topology/server.yaml:12:5: error: …`, the line, and a caret below the column.
    public var description: String {
        var text = "\(position.description): error: \(message)"
        let index = position.line - 1
        guard position.file.lines.indices.contains(index) else { return text }
        let scalars = Array(position.file.lines[index].unicodeScalars)
        let column = min(max(position.column - 1, 0), scalars.count)
        // Of a line longer than a screen is wide, what stands around the place.
        let first = scalars.count > Self.excerpt ? max(0, column - Self.excerpt / 2) : 0
        let shown = scalars[first..<min(scalars.count, first + Self.excerpt)]
        // Keep tabs, so that the caret stands below its column whatever a tab's width.
        let indent = shown.prefix(column - first).map { $0 == "\t" ? "\t" : " " }.joined()
        var line = String.UnicodeScalarView()
        line.append(contentsOf: shown)
        text += "\n    \(String(line))\n    \(indent)^"
        return text
    }

    /// How many characters of a line are shown.
    private static let excerpt = 160
}

/// Every mistake of a topology, in order of file and line.
public struct TopologyError: Error, Sendable, CustomStringConvertible {
    public let diagnostics: [Diagnostic]

    public var description: String {
        diagnostics.map(\.description).joined(separator: "\n")
    }
}

/// Collects mistakes, so that one pass reports all of them.
struct Diagnostics {
    private(set) var all: [Diagnostic] = []

    var isEmpty: Bool { all.isEmpty }

    mutating func error(_ message: String, at position: SourcePosition) {
        all.append(Diagnostic(position: position, message: message))
    }

    /// Sorted by place; files in the order in which they were first blamed.
    func sorted() -> [Diagnostic] {
        var order: [ObjectIdentifier: Int] = [:]
        for diagnostic in all {
            let file = ObjectIdentifier(diagnostic.position.file)
            if order[file] == nil { order[file] = order.count }
        }
        return all.enumerated().sorted { left, right in
            let (a, b) = (left.element.position, right.element.position)
            let (fileA, fileB) = (order[ObjectIdentifier(a.file)] ?? 0, order[ObjectIdentifier(b.file)] ?? 0)
            return (fileA, a.line, a.column, left.offset) < (fileB, b.line, b.column, right.offset)
        }.map(\.element)
    }
}
