// From a path to a checked board: reads the file and those it extends, merges them from the base up, applies `--set`,
// and checks the whole.

import Glibc

public enum TopologyReader {
    /// Boards extending boards: nobody needs more, and a loop by changing names would end here too.
    static let maximumExtends = 16

    /// Reads, merges and checks the topology at `path`.
    ///
    /// - Parameters:
    ///   - path: the file, relative to the working directory or absolute.
    ///   - overrides: `--set` arguments, `components.NAME.KEY=VALUE`, `components.NAME=null` or `name=NAME`; later ones
    ///     win. They are checked as the file is.
    /// - Throws: every mistake found, in one error.
    public static func read(_ path: String, overrides: [String] = []) throws(TopologyError) -> Board {
        var diagnostics = Diagnostics()
        let layers = layers(path, &diagnostics)
        var merged = MergedTopology()
        for layer in layers { merged.apply(layer, &diagnostics) }
        for text in overrides { merged.apply(override: SourceFile(override: text), &diagnostics) }
        guard let root = layers.last else { throw TopologyError(diagnostics: diagnostics.sorted()) }
        let board = BoardChecker(merged, root: root.file).check(&diagnostics)
        guard let board, diagnostics.isEmpty else { throw TopologyError(diagnostics: diagnostics.sorted()) }
        return board
    }

    /// The files from the base to `path` itself. Where a base cannot be read the rest is still checked; then the
    /// mistake about the base is the one to mend first, and those that follow from it are left out.
    private static func layers(_ path: String, _ diagnostics: inout Diagnostics) -> [TopologyLayer] {
        var layers: [TopologyLayer] = []
        var seen: [String] = []
        var next: Located? = nil
        var nextPath = path
        while true {
            guard let layer = layer(nextPath, extendedAt: next?.position, &diagnostics) else { return [] }
            seen.append(canonical(nextPath))
            layers.insert(layer, at: 0)
            guard let base = layer.extends else { return layers }
            let basePath = base.text.hasPrefix("/") ? base.text : Path.join(layer.file.folder, base.text)
            if let index = seen.firstIndex(of: canonical(basePath)) {
                let loop = index == seen.count - 1 ? "itself" : "'\(base.text)', which extends this file"
                diagnostics.error("'extends' goes round in a loop: this file extends \(loop)", at: base.position)
                return []
            }
            guard layers.count < maximumExtends else {
                diagnostics.error("more than \(maximumExtends) topologies extend one another", at: base.position)
                return []
            }
            (next, nextPath) = (base, basePath)
        }
    }

    private static func layer(
        _ path: String, extendedAt position: SourcePosition?, _ diagnostics: inout Diagnostics
    ) -> TopologyLayer? {
        switch SourceFile.read(path) {
        case .success(let file):
            guard let root = YAMLDocument.parse(file, &diagnostics) else { return nil }
            return TopologyLayer(root, file: file, &diagnostics)
        case .failure(let error):
            if let position {
                diagnostics.error("cannot extend '\(path)': \(error.text)", at: position)
            } else {
                let file = SourceFile(path: path, folder: ".", text: "")
                diagnostics.error(
                    "cannot read the topology: \(error.text)", at: SourcePosition(file, line: 1, column: 1))
            }
            return nil
        }
    }

    /// The path that says which file it is, whatever links and dots led to it.
    private static func canonical(_ path: String) -> String {
        guard let resolved = realpath(path, nil) else { return path }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}

enum Path {
    /// `name` inside `folder`, without `./` in front.
    static func join(_ folder: String, _ name: String) -> String {
        folder == "." ? name : folder == "/" ? "/" + name : "\(folder)/\(name)"
    }

    /// An absolute path with `.` and `..` taken out by their text.
    static func absolute(_ path: String, from folder: String) -> String {
        var full = path
        if !full.hasPrefix("/") { full = join(folder, path) }
        if !full.hasPrefix("/") {
            guard let working = getcwd(nil, 0) else { return full }
            defer { free(working) }
            full = join(String(cString: working), full)
        }
        var parts: [Substring] = []
        for part in full.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return "/" + parts.joined(separator: "/")
    }
}
