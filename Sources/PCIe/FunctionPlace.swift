/// Where a card's function is plugged: a root port, and which of its eight functions. Written `rp3` for function 0 of
/// root port 3, `rp3.1` for function 1.
public struct FunctionPlace: Hashable, Sendable, CustomStringConvertible {
    /// From 0.
    public var port: Int
    /// 0…7. Function 0 is the card: software looks for the others only behind it.
    public var function: Int

    public init(port: Int, function: Int = 0) {
        self.port = port
        self.function = function
    }

    /// Reads a name as `description` writes it; nil for anything else.
    public init?(_ name: some StringProtocol) {
        guard name.hasPrefix("rp") else { return nil }
        let parts = name.dropFirst(2).split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let port = Self.number(Substring(first)), port < 31 else { return nil }
        self.init(port: port)
        guard parts.count == 2 else { return }
        guard let function = Self.number(Substring(parts[1])), (1...7).contains(function) else { return nil }
        self.function = function
    }

    private static func number(_ text: Substring) -> Int? {
        guard (1...2).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            text.utf8.count == 1 || text.utf8.first != 0x30
        else { return nil }
        return Int(text)
    }

    public var description: String { function == 0 ? "rp\(port)" : "rp\(port).\(function)" }
}
