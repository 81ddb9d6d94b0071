/// The directory of the flash image: which part of it goes where in RAM.
///
/// ```
/// 0 u32 magic "BIRD"    8 + 32n u64 flash offset    24 + 32n u64 load address
/// 4 u32 count          16 + 32n u64 size            32 + 32n u64 kind
/// ```
/// Spec: docs/wiring.md "Flash layout".
struct Directory {
    let entries: Bytes
    let count: UInt

    private static let magic: UInt32 = 0x4452_4942
    private static let headerSize: UInt = 8
    private static let entrySize: UInt = 32

    enum Kind {
        static let opensbi: UInt64 = 1
        static let nextStage: UInt64 = 2
    }

    struct Entry {
        let offset: UInt64
        let size: UInt64
        let load: UInt64
        let kind: UInt64
    }

    enum Refusal {
        case noMagic
        case tooManyEntries

        var text: StaticString {
            switch self {
            case .noMagic: "the flash image has no directory at 0x1f000"
            case .tooManyEntries: "the directory claims more entries than fit into it"
            }
        }
    }

    static func read(_ bytes: Bytes) -> Result<Directory, Refusal> {
        guard bytes.little32(at: 0) == magic, let count = bytes.little32(at: 4) else { return .failure(.noMagic) }
        guard UInt(count) <= (bytes.count &- headerSize) / entrySize,
            let entries = bytes.slice(headerSize, UInt(count) &* entrySize)
        else { return .failure(.tooManyEntries) }
        return .success(Directory(entries: entries, count: UInt(count)))
    }

    func entry(_ index: UInt) -> Entry? {
        guard index < count, let bytes = entries.slice(index &* Self.entrySize, Self.entrySize),
            let offset = bytes.little64(at: 0), let size = bytes.little64(at: 8), let load = bytes.little64(at: 16),
            let kind = bytes.little64(at: 24)
        else { return nil }
        return Entry(offset: offset, size: size, load: load, kind: kind)
    }
}

extension Directory.Refusal: Error {}
