/// Writes ELF files for tests: right ones, and ones that are wrong in one place.
struct ELFBuilder {
    struct Segment {
        var address: UInt64
        var content: [UInt8]
        var memorySize: UInt64?
    }

    var entry: UInt64 = 0x8000_0000
    var segments: [Segment] = []
    /// Global symbols.
    var symbols: [(name: String, value: UInt64)] = []

    init() {}

    /// A program at the start of RAM and doublewords behind it, at 0x8000_1000 and on, named in order.
    init(code: [UInt8], data: [UInt8] = [], symbols: [(name: String, value: UInt64)] = []) {
        segments = [Segment(address: 0x8000_0000, content: code)]
        if !data.isEmpty { segments.append(Segment(address: 0x8000_1000, content: data)) }
        self.symbols = symbols
    }

    static let headerSize = 64
    static let programHeaderSize = 56

    var bytes: [UInt8] {
        var file: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        func put(_ value: UInt64, _ count: Int) {
            for index in 0..<count { file.append(UInt8(truncatingIfNeeded: value >> (index * 8))) }
        }
        let contentStart = Self.headerSize + segments.count * Self.programHeaderSize
        let contentSize = segments.reduce(0) { $0 + $1.content.count }
        let tableStart = contentStart + contentSize
        var names: [UInt8] = [0]
        var table = [UInt8](repeating: 0, count: 24)
        for symbol in symbols {
            table += Self.little(UInt64(names.count), 4) + [0x10, 0] + Self.little(1, 2)
            table += Self.little(symbol.value, 8) + Self.little(8, 8)
            names += Array(symbol.name.utf8) + [0]
        }
        let sectionStart = tableStart + table.count + names.count
        put(2, 2)
        put(243, 2)
        put(1, 4)
        put(entry, 8)
        put(UInt64(Self.headerSize), 8)
        put(symbols.isEmpty ? 0 : UInt64(sectionStart), 8)
        put(0, 4)
        put(64, 2)
        put(UInt64(Self.programHeaderSize), 2)
        put(UInt64(segments.count), 2)
        put(64, 2)
        put(symbols.isEmpty ? 0 : 3, 2)
        put(0, 2)
        var place = contentStart
        for segment in segments {
            put(1, 4)
            put(7, 4)
            put(UInt64(place), 8)
            put(segment.address, 8)
            put(segment.address, 8)
            put(UInt64(segment.content.count), 8)
            put(segment.memorySize ?? UInt64(segment.content.count), 8)
            put(8, 8)
            place += segment.content.count
        }
        for segment in segments { file += segment.content }
        guard !symbols.isEmpty else { return file }
        file += table + names
        file += [UInt8](repeating: 0, count: 64)
        func section(_ type: UInt64, _ offset: Int, _ size: Int, link: UInt64) {
            put(0, 4)
            put(type, 4)
            put(0, 8)
            put(0, 8)
            put(UInt64(offset), 8)
            put(UInt64(size), 8)
            put(link, 4)
            put(0, 4)
            put(8, 8)
            put(24, 8)
        }
        section(2, tableStart, table.count, link: 2)
        section(3, tableStart + table.count, names.count, link: 0)
        return file
    }

    static func little(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
}

extension [UInt8] {
    /// With other bytes from `offset` on.
    func patched(_ offset: Int, _ value: UInt64, _ count: Int) -> [UInt8] {
        var copy = self
        for (index, byte) in ELFBuilder.little(value, count).enumerated() { copy[offset + index] = byte }
        return copy
    }
}
