/// One mistake in a topology: where, what is wrong, and what would be right.
public struct Diagnostic: Sendable, CustomStringConvertible {
    public let position: SourcePosition
    public let message: String

    /// As a compiler says it: `topology/server.yaml:12:5: error: …`, the line, and a caret below the column.
    public var description: String {
        var text = "\(position.description): error: \(message)"
        let index = position.line - 1
        guard position.file.lines.indices.contains(index) else { return text }
        let line = position.file.lines[index]
        // Keep tabs, so that the caret stands below its column whatever a tab's width.
        let indent = line.unicodeScalars.prefix(position.column - 1).map { $0 == "\t" ? "\t" : " " }.joined()
        text += "\n    \(line)\n    \(indent)^"
        return text
    }
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
