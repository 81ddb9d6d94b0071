// Bare-metal RV64 programs in ELF files: what to load where, where to start, and the symbols that matter.
//
// Spec: System V ABI "Object Files" (ELF header, program headers, symbol table); RISC-V ELF psABI (EM_RISCV).
//
// Segments are loaded by physical address (p_paddr). Every number of the file is checked before it is used; the file is
// kept, because a reset of the machine loads it again.
import Wire

/// A checked program.
public struct ELFImage: Sendable {
    /// A PT_LOAD segment that occupies memory.
    public struct Segment: Sendable, Equatable {
        /// Its number among all program headers.
        public var index: Int
        public var physicalAddress: UInt64
        /// Where its bytes are in the file; the rest of `memorySize` is zero.
        public var content: Range<Int>
        public var memorySize: UInt64
    }

    /// A program of this size, with its debug information, has not been seen; memory for it is taken only once.
    public static let maximumFileSize: UInt64 = 1 << 30

    public let path: String
    /// `e_entry`, a physical address: the harts start without translation.
    public let entry: UInt64
    /// In ascending order of address.
    public let segments: [Segment]
    let bytes: [UInt8]
    private let symbolTable: SymbolTable?

    /// Reads and checks a file. It must fit into `memory`.
    public init(path: String, memory: AddressRange) throws(ELFError) {
        try self.init(path: path, bytes: Self.read(path), memory: memory)
    }

    /// Checks the bytes of a file. `path` is only for messages.
    public init(path: String, bytes: [UInt8], memory: AddressRange) throws(ELFError) {
        do throws(ELFError.Problem) {
            let header = try ELFHeader(bytes)
            self.path = path
            self.bytes = bytes
            entry = header.entry
            segments = try Self.segments(header, bytes, memory)
            symbolTable = try SymbolTable(header, bytes)
            guard
                segments.contains(where: {
                    AddressRange(base: $0.physicalAddress, size: $0.memorySize).contains(header.entry, count: 2)
                })
            else { throw .entryOutsideProgram(header.entry) }
        } catch { throw ELFError(path: path, problem: error) }
    }

    private static func read(_ path: String) throws(ELFError) -> [UInt8] {
        let file: Descriptor
        do throws(WireError) {
            // O_RDONLY is zero; a FIFO must not make us wait for a writer (O_NONBLOCK).
            file = try Descriptor.open(path, flags: 0o4000)
        } catch { throw ELFError(path: path, problem: .unreadable("\(error)")) }
        let size = file.fileSize ?? 0
        guard size <= maximumFileSize else { throw ELFError(path: path, problem: .tooLarge(size)) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(size))
        do throws(WireError) {
            while bytes.count < Int(size),
                let more = try file.readSome(limit: min(Int(size) - bytes.count, 1 << 20), subject: path),
                !more.isEmpty
            {
                bytes += more
            }
        } catch { throw ELFError(path: path, problem: .unreadable("\(error)")) }
        return bytes
    }

    private static func segments(
        _ header: ELFHeader, _ bytes: [UInt8], _ memory: AddressRange
    ) throws(ELFError.Problem) -> [Segment] {
        var list: [Segment] = []
        for index in 0..<header.programHeaderCount {
            let place = header.programHeaders + index * ELFHeader.programHeaderSize
            guard bytes.word(place) == 1 else { continue }
            let memorySize = bytes.double(place + 40)
            let fileSize = bytes.double(place + 32)
            if memorySize == 0 && fileSize == 0 { continue }
            guard fileSize <= memorySize else { throw .segmentShorterThanFile(index: index) }
            guard let content = bytes.range(at: bytes.double(place + 8), count: fileSize) else {
                throw .truncated(what: "segment \(index)", count: bytes.count)
            }
            let address = bytes.double(place + 24)
            guard memory.contains(address, count: memorySize) else {
                throw .segmentOutsideMemory(index: index, address: address, size: memorySize, memory: memory)
            }
            list.append(
                Segment(index: index, physicalAddress: address, content: content, memorySize: memorySize))
        }
        guard !list.isEmpty else { throw .nothingToLoad }
        list.sort { $0.physicalAddress < $1.physicalAddress }
        for (lower, upper) in zip(list, list.dropFirst())
        where upper.physicalAddress - lower.physicalAddress < lower.memorySize {
            throw .segmentsOverlap(first: min(lower.index, upper.index), second: max(lower.index, upper.index))
        }
        return list
    }

    // MARK: symbols

    /// The value of a defined symbol; of several with the name, a global one.
    public func symbol(_ name: String) -> UInt64? { symbolTable?.value(of: name, in: bytes) }

    /// The value of a symbol that must be there.
    public func requireSymbol(_ name: String) throws(ELFError) -> UInt64 {
        guard let value = symbol(name) else { throw ELFError(path: path, problem: .symbolMissing(name)) }
        return value
    }

    /// The value of a symbol of 8 aligned bytes in memory, or `nil` where there is none of the name.
    public func doubleword(_ name: String, in memory: AddressRange) throws(ELFError) -> UInt64? {
        guard let value = symbol(name) else { return nil }
        guard value & 7 == 0, memory.contains(value, count: 8) else {
            throw ELFError(path: path, problem: .symbolMisplaced(name, value, memory: memory))
        }
        return value
    }

    // MARK: loading

    /// Copies the segments into `memory`, which begins at `base` and is the one that the image was checked for.
    /// `isFresh`: it holds only zeroes, so what the file does not fill need not be touched.
    func load(into memory: SharedMemory, base: UInt64, isFresh: Bool) {
        for segment in segments {
            let offset = segment.physicalAddress &- base
            precondition(
                memory.mapping.contains(offset: offset, count: segment.memorySize), "an image checked for other memory")
            // Safety: the range was just checked, the content's when the file was read. No hart runs.
            let target = unsafe UnsafeMutableRawBufferPointer(
                rebasing: memory.mapping.bytes[Int(offset)..<Int(offset) + Int(segment.memorySize)])
            unsafe bytes.withUnsafeBytes { source in
                unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[segment.content]))
            }
            if !isFresh {
                let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: target[segment.content.count...])
                unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
            }
        }
    }
}
