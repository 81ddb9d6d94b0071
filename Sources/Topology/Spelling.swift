/// Suggestions for words that are not known.
enum Spelling {
    /// The known word nearest to `word`, if it is near enough to be meant: at most a third of its letters differ.
    static func nearest(to word: String, among known: [String]) -> String? {
        // Longer words than any key are not misspelt keys; the bound also caps the work an input can ask for.
        guard word.count <= 64 else { return nil }
        let candidates = known.map { (word: $0, distance: distance($0, word)) }
        guard let best = candidates.min(by: { $0.distance < $1.distance }) else { return nil }
        return best.distance <= max(1, max(word.count, best.word.count) / 3) ? best.word : nil
    }

    /// `; did you mean 'memory'?`, or the list of what is known where nothing is near.
    static func suggestion(for word: String, among known: [String], kind: String) -> String {
        if let nearest = nearest(to: word, among: known) { return "; did you mean '\(nearest)'?" }
        if known.isEmpty { return "; there are no \(kind)" }
        return "; known \(kind): \(known.sorted().joined(separator: ", "))"
    }

    /// Edit distance counting insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
    static func distance(_ left: String, _ right: String) -> Int {
        let a = Array(left.lowercased().unicodeScalars)
        let b = Array(right.lowercased().unicodeScalars)
        var beforePrevious: [Int] = []
        var previous = Array(0...b.count)
        for i in 0..<a.count {
            var current = [i + 1]
            for j in 0..<b.count {
                var best = min(previous[j + 1] + 1, current[j] + 1, previous[j] + (a[i] == b[j] ? 0 : 1))
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { best = min(best, beforePrevious[j - 1] + 1) }
                current.append(best)
            }
            beforePrevious = previous
            previous = current
        }
        return previous[b.count]
    }
}
