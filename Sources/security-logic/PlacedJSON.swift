// JSON whose values know where they stand: a mistake in a file is named with its line. Beside JSON (RFC 8259) it takes
// comments from // to the line's end, and numbers in hexadecimal with underscores (0x0180_0000), as addresses are written.

/// A value and its place; lines and columns count from 1, columns in bytes.
struct PlacedJSON {
    indirect enum Content {
        case text(String)
        case number(UInt64)
        case list([PlacedJSON])
        case map([(key: PlacedJSON, value: PlacedJSON)])
        /// true, false, null: no file of ours has any.
        case word(String)
    }

    var content: Content
    var line: Int
    var column: Int

    var text: String? { if case .text(let text) = content { text } else { nil } }

    /// What it is, for "expected …, found …".
    var kindName: String {
        switch content {
        case .text(let text): "\"\(text)\""
        case .number(let number): "the number \(number)"
        case .list: "a list"
        case .map: "a map"
        case .word(let word): word
        }
    }
}

/// What is wrong with a text, and where.
struct PlacedJSONError: Error {
    var line: Int
    var column: Int
    var message: String
}

extension PlacedJSON {
    /// Files of ours nest four deep; the bound keeps recursion shallow.
    private static let maximumDepth = 16

    static func parse(_ bytes: [UInt8]) throws(PlacedJSONError) -> PlacedJSON {
        var scanner = Scanner(bytes: bytes)
        let value = try scanner.value(depth: 0)
        scanner.skipSpace()
        guard scanner.next == nil else { throw scanner.error("the file goes on behind its value") }
        return value
    }

    private struct Scanner {
        let bytes: [UInt8]
        var index = 0
        var line = 1
        var column = 1

        init(bytes: [UInt8]) { self.bytes = bytes }

        var next: UInt8? { index < bytes.count ? bytes[index] : nil }

        func error(_ message: String) -> PlacedJSONError {
            PlacedJSONError(line: line, column: column, message: message)
        }

        mutating func advance() {
            (line, column) = bytes[index] == 0x0A ? (line + 1, 1) : (line, column + 1)
            index += 1
        }

        mutating func skipSpace() {
            while let byte = next {
                if byte == 0x2F, index + 1 < bytes.count, bytes[index + 1] == 0x2F {
                    while let byte = next, byte != 0x0A { _ = byte; advance() }
                } else if [0x20, 0x09, 0x0A, 0x0D].contains(byte) {
                    advance()
                } else {
                    return
                }
            }
        }

        mutating func value(depth: Int) throws(PlacedJSONError) -> PlacedJSON {
            skipSpace()
            guard depth < PlacedJSON.maximumDepth else { throw error("nested too deep") }
            guard let byte = next else { throw error("the file ends where a value is expected") }
            let (line, column) = (line, column)
            let content: Content
            switch byte {
            case UInt8(ascii: "{"): content = .map(try map(depth))
            case UInt8(ascii: "["): content = .list(try list(depth))
            case UInt8(ascii: "\""): content = .text(try text())
            default: content = try word()
            }
            return PlacedJSON(content: content, line: line, column: column)
        }

        private mutating func map(_ depth: Int) throws(PlacedJSONError) -> [(key: PlacedJSON, value: PlacedJSON)] {
            var entries: [(key: PlacedJSON, value: PlacedJSON)] = []
            advance()
            while true {
                skipSpace()
                if next == UInt8(ascii: "}"), entries.isEmpty { break }
                let key = try value(depth: depth + 1)
                guard let name = key.text else {
                    throw PlacedJSONError(
                        line: key.line, column: key.column, message: "a key must be a text, found \(key.kindName)")
                }
                if let earlier = entries.first(where: { $0.key.text == name }) {
                    throw PlacedJSONError(
                        line: key.line, column: key.column,
                        message: "\"\(name)\" is written twice (first at line \(earlier.key.line)); keep one")
                }
                skipSpace()
                guard next == UInt8(ascii: ":") else { throw error("a ':' must follow the key \"\(name)\"") }
                advance()
                entries.append((key, try value(depth: depth + 1)))
                if try ends(UInt8(ascii: "}"), "map") { break }
            }
            advance()
            return entries
        }

        private mutating func list(_ depth: Int) throws(PlacedJSONError) -> [PlacedJSON] {
            var items: [PlacedJSON] = []
            advance()
            while true {
                skipSpace()
                if next == UInt8(ascii: "]"), items.isEmpty { break }
                items.append(try value(depth: depth + 1))
                if try ends(UInt8(ascii: "]"), "list") { break }
            }
            advance()
            return items
        }

        /// Whether the map or list ends here; takes the comma where it goes on.
        private mutating func ends(_ closing: UInt8, _ what: String) throws(PlacedJSONError) -> Bool {
            skipSpace()
            if next == closing { return true }
            guard next == UInt8(ascii: ",") else {
                throw error("a ',' or '\(Character(UnicodeScalar(closing)))' must follow in the \(what)")
            }
            advance()
            return false
        }

        private mutating func text() throws(PlacedJSONError) -> String {
            let begin = error("the text has no end on its line")
            advance()
            let start = index
            while let byte = next, byte != UInt8(ascii: "\"") {
                guard byte != 0x0A else { throw begin }
                // The words of our files need none.
                guard byte != UInt8(ascii: "\\") else { throw error("escapes are not used here: write the letters") }
                advance()
            }
            guard next != nil else { throw begin }
            guard let text = String(validating: bytes[start..<index], as: UTF8.self) else {
                throw error("the text is not UTF-8")
            }
            advance()
            return text
        }

        private mutating func word() throws(PlacedJSONError) -> Content {
            let start = index
            let begin = error("")
            while let byte = next,
                byte == UInt8(ascii: "_") || Character(UnicodeScalar(byte)).isLetter
                    || Character(UnicodeScalar(byte)).isNumber
            { advance() }
            let word = String(decoding: bytes[start..<index], as: UTF8.self)
            guard !word.isEmpty else {
                throw PlacedJSONError(line: begin.line, column: begin.column, message: "a value is expected here")
            }
            if let number = Self.number(word) { return .number(number) }
            guard ["true", "false", "null"].contains(word) else {
                throw PlacedJSONError(
                    line: begin.line, column: begin.column,
                    message: "'\(word)' must be in quotation marks, or a number")
            }
            return .word(word)
        }

        private static func number(_ text: String) -> UInt64? {
            let digits = text.filter { $0 != "_" }
            if digits.hasPrefix("0x") || digits.hasPrefix("0X") { return UInt64(digits.dropFirst(2), radix: 16) }
            return UInt64(digits)
        }
    }
}
