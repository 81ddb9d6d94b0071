// Why a file cannot be run as a bare-metal program.

/// A program that was refused: the file, the reason and the way out in one line.
public struct ELFError: Error, Equatable, CustomStringConvertible {
    public var path: String
    public var problem: Problem

    /// What is wrong with the file.
    public enum Problem: Error, Equatable {
        /// The system's reason.
        case unreadable(String)
        case tooLarge(UInt64)
        case notELF
        /// `what` does not lie inside the file's `count` bytes.
        case truncated(what: String, count: Int)
        case class32
        case bigEndian
        case machine(UInt16)
        case type(UInt16)
        case badHeader(String)
        case nothingToLoad
        /// `size` bytes at `address` in memory are shorter than what the file holds for them.
        case segmentShorterThanFile(index: Int)
        case segmentOutsideMemory(index: Int, address: UInt64, size: UInt64, memory: AddressRange)
        case segmentsOverlap(first: Int, second: Int)
        case entryOutsideProgram(UInt64)
        case symbolMissing(String)
        /// A symbol that must lie in memory, aligned, does not.
        case symbolMisplaced(String, UInt64, memory: AddressRange)
        case signatureReversed(begin: UInt64, end: UInt64)
        case signatureOutsideMemory(begin: UInt64, end: UInt64, memory: AddressRange)
    }

    public init(path: String, problem: Problem) {
        self.path = path
        self.problem = problem
    }

    public var description: String { "\(path): \(problem.text)" }
}

extension ELFError.Problem {
    var text: String {
        switch self {
        case .unreadable(let reason): "cannot be read (\(reason)): name a readable file"
        case .tooLarge(let size):
            "has \(size) bytes and a program may have \(ELFImage.maximumFileSize): strip its debug information"
        case .notELF:
            "is not an ELF file: link a bare-metal RV64 program (ld.lld writes ELF, objcopy -O binary does not)"
        case .truncated(let what, let count):
            "its \(what) lies outside of the file's \(count) bytes: the file is cut short or broken, build it again"
        case .class32: "is a 32-bit program and the harts are RV64: build it with -march=rv64gc -mabi=lp64d"
        case .bigEndian: "is big-endian and the harts are little-endian: build it for riscv64, not riscv64be"
        case .machine(let number):
            "is for machine \(number) and not RISC-V (243): build it with --target=riscv64-unknown-elf"
        case .type(let number):
            "has ELF type \(number) and is no executable (2, or 3 where it needs no relocation): link it"
        case .badHeader(let what): "\(what): the file is broken, build it again"
        case .nothingToLoad: "has no loadable segment (PT_LOAD): link it with a linker script that places sections"
        case .segmentShorterThanFile(let index):
            "segment \(index) holds more bytes in the file than in memory: the file is broken, build it again"
        case .segmentOutsideMemory(let index, let address, let size, let memory):
            """
            segment \(index) (\(size) bytes at physical address \(hex(address))) does not fit into RAM \
            (\(hex(memory.base)) to \(hex(memory.end))): link it to \(hex(memory.base)) or give more --memory
            """
        case .segmentsOverlap(let first, let second):
            "segments \(first) and \(second) overlap in physical memory: correct the linker script"
        case .entryOutsideProgram(let entry):
            "its entry \(hex(entry)) lies in no segment that was loaded to RAM: set ENTRY to a symbol of the program"
        case .symbolMissing(let name): "has no symbol \(name): define it, and do not strip the file"
        case .symbolMisplaced(let name, let address, let memory):
            """
            its symbol \(name) (\(hex(address))) is not 8-byte aligned in RAM (\(hex(memory.base)) to \
            \(hex(memory.end))): correct the linker script
            """
        case .signatureReversed(let begin, let end):
            "end_signature (\(hex(end))) lies before begin_signature (\(hex(begin))): correct the program"
        case .signatureOutsideMemory(let begin, let end, let memory):
            """
            its signature (\(hex(begin)) to \(hex(end))) does not lie in RAM (\(hex(memory.base)) to \
            \(hex(memory.end))): correct the linker script
            """
        }
    }
}

private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
