// The parts of an ELF file before it is known to make sense, and little-endian reads of its bytes.
//
// ```
//  0 magic, class, data, …   16 type u16   18 machine u16   24 entry u64   32 program headers u64
// 40 section headers u64     54 program header size u16     56 count u16   58 section header size u16   60 count u16
// ```

/// A checked ELF header: RV64, little-endian, executable, both header tables inside the file.
struct ELFHeader {
    static let size = 64
    static let programHeaderSize = 56
    static let sectionHeaderSize = 64

    let entry: UInt64
    /// Offset in the file.
    let programHeaders: Int
    let programHeaderCount: Int
    /// Offset in the file.
    let sectionHeaders: Int
    let sectionHeaderCount: Int

    init(_ bytes: [UInt8]) throws(ELFError.Problem) {
        guard bytes.count >= 4, bytes[0..<4].elementsEqual([0x7F, 0x45, 0x4C, 0x46]) else { throw .notELF }
        guard bytes.count >= Self.size else { throw .truncated(what: "header", count: bytes.count) }
        switch bytes[4] {
        case 1: throw .class32
        case 2: break
        default: throw .badHeader("has the unknown ELF class \(bytes[4])")
        }
        switch bytes[5] {
        case 1: break
        case 2: throw .bigEndian
        default: throw .badHeader("has the unknown ELF data encoding \(bytes[5])")
        }
        guard bytes.half(18) == 243 else { throw .machine(bytes.half(18)) }
        guard bytes.half(16) == 2 || bytes.half(16) == 3 else { throw .type(bytes.half(16)) }
        entry = bytes.double(24)

        programHeaderCount = Int(bytes.half(56))
        // 0xFFFF says that the count is elsewhere: more segments than a program of this kind has.
        guard programHeaderCount > 0, programHeaderCount < 0xFFFF else { throw .nothingToLoad }
        guard Int(bytes.half(54)) == Self.programHeaderSize else {
            throw .badHeader("has program headers of \(bytes.half(54)) bytes and not \(Self.programHeaderSize)")
        }
        guard
            let programs = bytes.range(
                at: bytes.double(32), count: UInt64(programHeaderCount * Self.programHeaderSize))
        else { throw .truncated(what: "program header table", count: bytes.count) }
        programHeaders = programs.lowerBound

        let offset = bytes.double(40)
        var count = UInt64(bytes.half(60))
        guard offset != 0 else {
            (sectionHeaders, sectionHeaderCount) = (0, 0)
            return
        }
        guard Int(bytes.half(58)) == Self.sectionHeaderSize else {
            throw .badHeader("has section headers of \(bytes.half(58)) bytes and not \(Self.sectionHeaderSize)")
        }
        guard let first = bytes.range(at: offset, count: UInt64(Self.sectionHeaderSize)) else {
            throw .truncated(what: "section header table", count: bytes.count)
        }
        // 0xFF00 sections and more: the count is the first one's size.
        if count == 0 { count = bytes.double(first.lowerBound + 32) }
        let (length, overflow) = count.multipliedReportingOverflow(by: UInt64(Self.sectionHeaderSize))
        guard !overflow, let sections = bytes.range(at: offset, count: length) else {
            throw .truncated(what: "section header table", count: bytes.count)
        }
        sectionHeaders = sections.lowerBound
        sectionHeaderCount = Int(count)
    }
}

/// Where the symbols and their names are in the file.
struct SymbolTable: Sendable {
    private static let symbolSize = 24
    private let symbols: Range<Int>
    private let names: Range<Int>

    /// `nil` where the file has no symbols.
    init?(_ header: ELFHeader, _ bytes: [UInt8]) throws(ELFError.Problem) {
        func section(_ index: Int) throws(ELFError.Problem) -> Range<Int> {
            let place = header.sectionHeaders + index * ELFHeader.sectionHeaderSize
            guard let range = bytes.range(at: bytes.double(place + 24), count: bytes.double(place + 32)) else {
                throw .truncated(what: "symbol table", count: bytes.count)
            }
            return range
        }
        let table = (0..<header.sectionHeaderCount).first {
            bytes.word(header.sectionHeaders + $0 * ELFHeader.sectionHeaderSize + 4) == 2
        }
        guard let table else { return nil }
        let link = Int(bytes.word(header.sectionHeaders + table * ELFHeader.sectionHeaderSize + 40))
        guard link < header.sectionHeaderCount else { throw .badHeader("its symbol table has no names") }
        symbols = try section(table)
        names = try section(link)
    }

    func value(of name: String, in bytes: [UInt8]) -> UInt64? {
        let wanted = Array(name.utf8) + [0]
        var local: UInt64?
        for place in stride(from: symbols.lowerBound, to: symbols.upperBound, by: Self.symbolSize)
        where symbols.upperBound - place >= Self.symbolSize {
            let start = names.lowerBound + Int(bytes.word(place))
            // Undefined symbols are in section 0.
            guard bytes.half(place + 6) != 0, start < names.upperBound, names.upperBound - start >= wanted.count,
                bytes[start..<start + wanted.count].elementsEqual(wanted)
            else { continue }
            if bytes[place + 4] >> 4 != 0 { return bytes.double(place + 8) }
            if local == nil { local = bytes.double(place + 8) }
        }
        return local
    }
}

extension [UInt8] {
    /// `count` bytes at `offset`, if they are inside.
    func range(at offset: UInt64, count: UInt64) -> Range<Int>? {
        guard offset <= UInt64(self.count), count <= UInt64(self.count) - offset else { return nil }
        return Int(offset)..<Int(offset + count)
    }

    /// Little-endian, at an offset that was checked.
    func half(_ offset: Int) -> UInt16 { UInt16(self[offset]) | UInt16(self[offset + 1]) << 8 }
    func word(_ offset: Int) -> UInt32 { UInt32(half(offset)) | UInt32(half(offset + 2)) << 16 }
    func double(_ offset: Int) -> UInt64 { UInt64(word(offset)) | UInt64(word(offset + 4)) << 32 }
}
