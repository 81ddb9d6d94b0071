// A file that lies in RAM when the machine comes out of reset: a kernel, its initramfs, a firmware.
//
// Model: opened and looked at once, before anything runs; read again at every reset, straight into RAM, because the
// guest wrote over what was there. The surprise: the file may change meanwhile, so a reset can find it shorter.
import Wire

/// A boot file, open.
public final class BootImage: Sendable {
    public enum Role: String, Sendable {
        case firmware
        case kernel
        case initialRAMDisk = "initramfs"
    }

    public let role: Role
    public let path: String
    /// Bytes in the file.
    public let size: UInt64
    /// Bytes of RAM that it takes: what the header of a kernel says, or the file's size.
    public let memorySize: UInt64
    private let file: Descriptor

    /// Opens `path` and checks what can be known of it alone.
    public init(_ role: Role, path: String) throws(BootImageError) {
        self.role = role
        self.path = path
        do throws(WireError) {
            // A pipe would block the open.
            file = try .open(path, flags: Self.readOnlyNonblocking)
        } catch {
            throw .unreadable(role, "\(error)")
        }
        guard file.isRegularFile else { throw .notAFile(role, path) }
        size = file.fileSize ?? 0
        guard size > 0 else { throw .empty(role, path) }
        let header = try Self.read(file, upTo: 64, role, path)
        if role != .initialRAMDisk { try Self.checkFormat(header, role, path) }
        let kernel = role == .kernel ? try KernelHeader.read(header, path: path) : nil
        memorySize = max(size, kernel?.imageSize ?? 0)
    }

    /// O_RDONLY | O_NONBLOCK
    private static let readOnlyNonblocking: Int32 = 0o4000

    /// Reads the whole file to offset `offset` of RAM, where there is room for it.
    func load(into memory: SharedMemory, at offset: UInt64) throws(BootImageError) {
        precondition(memory.mapping.contains(offset: offset, count: size), "checked by BootLayout")
        memory.mapping.populate(offset: offset, count: size)
        let count: Int
        do throws(WireError) {
            // Safety: the range lies in the mapping, as just checked; no hart runs.
            let target = unsafe UnsafeMutableRawBufferPointer(
                rebasing: memory.mapping.bytes[Int(offset)..<Int(offset + size)])
            count = unsafe try file.fill(target, from: 0, subject: path)
        } catch {
            throw .unreadable(role, "\(error)")
        }
        guard count == Int(size) else { throw .shrank(role, path, from: size, to: UInt64(count)) }
    }

    private static func read(
        _ file: Descriptor, upTo limit: Int, _ role: Role, _ path: String
    ) throws(BootImageError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: limit)
        let result: Result<Int, WireError> = unsafe bytes.withUnsafeMutableBytes { buffer in
            // Safety: the buffer is the array's own, used during the call.
            do throws(WireError) { return .success(unsafe try file.fill(buffer, from: 0, subject: path)) } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let count): return Array(bytes.prefix(count))
        case .failure(let error): throw .unreadable(role, "\(error)")
        }
    }

    /// Formats that people take for a flat image, by their first bytes.
    private static let foreign: [(magic: [UInt8], name: String, wayOut: String)] = [
        ([0x7F, 0x45, 0x4C, 0x46], "an ELF file", "use the flat image (objcopy -O binary makes one)"),
        ([0x1F, 0x8B], "compressed by gzip", "unpack it first (gzip -d)"),
        ([0xFD, 0x37, 0x7A, 0x58, 0x5A], "compressed by xz", "unpack it first (xz -d)"),
        ([0x28, 0xB5, 0x2F, 0xFD], "compressed by zstd", "unpack it first (zstd -d)"),
        ([0x30, 0x37, 0x30, 0x37, 0x30, 0x31], "a cpio archive", "an initramfs is given by --initrd"),
    ]

    private static func checkFormat(_ header: [UInt8], _ role: Role, _ path: String) throws(BootImageError) {
        for format in foreign where header.starts(with: format.magic) {
            throw .format(role, path, what: format.name, wayOut: format.wayOut)
        }
    }
}

/// The header of a Linux image for RISC-V; other flat images (a boot loader, a test) have none.
///
/// ```
///  0 code (8 bytes)      16 u64 image size in RAM   32 u32 version           48 u64 magic "RISCV\0\0\0"
///  8 u64 text offset     24 u64 flags               36 12 bytes reserved     56 u32 magic "RSC\x05"
/// ```
/// Spec: Linux Documentation/arch/riscv/boot-image-header.rst
struct KernelHeader {
    let imageSize: UInt64

    private static let magic: UInt64 = 0x0000_0056_4353_4952
    private static let magic2: UInt32 = 0x0543_5352
    /// Images are linked for a multiple of this.
    private static let alignment: UInt64 = 2 << 20
    /// More RAM than a machine has: no kernel says so.
    private static let sizeLimit: UInt64 = 1 << 36

    /// Nil where `bytes` begin no such image. Throws where they do, and what they say cannot be.
    static func read(_ bytes: [UInt8], path: String) throws(BootImageError) -> KernelHeader? {
        guard bytes.count == 64 else { return nil }
        func little(_ offset: Int, _ count: Int) -> UInt64 {
            bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        let (hasMagic, hasMagic2) = (little(48, 8) == magic, little(56, 4) == UInt64(magic2))
        guard hasMagic || hasMagic2 else { return nil }
        func nonsense(_ what: String) -> BootImageError { .header(path, what) }
        guard hasMagic, hasMagic2 else { throw nonsense("one of its two magic numbers is wrong") }
        let (textOffset, imageSize, flags) = (little(8, 8), little(16, 8), little(24, 8))
        guard flags & 1 == 0 else { throw nonsense("it says that the kernel is big-endian") }
        guard imageSize > 0, imageSize <= sizeLimit else { throw nonsense("an image size of \(imageSize) bytes") }
        guard textOffset % alignment == 0, textOffset <= sizeLimit else {
            throw nonsense("a text offset of 0x\(String(textOffset, radix: 16)), no multiple of 2 MiB")
        }
        return KernelHeader(imageSize: imageSize)
    }
}

/// Why a boot file cannot be used.
public enum BootImageError: Error, Equatable, CustomStringConvertible {
    case unreadable(BootImage.Role, String)
    case notAFile(BootImage.Role, String)
    case empty(BootImage.Role, String)
    case format(BootImage.Role, String, what: String, wayOut: String)
    case header(String, String)
    case shrank(BootImage.Role, String, from: UInt64, to: UInt64)
    /// `needed` is the RAM of a machine that would hold it all, where one would.
    case tooLarge(BootImage.Role, String, size: UInt64, room: UInt64, needed: UInt64?)
    case withoutKernel(String)

    public var description: String {
        switch self {
        case .unreadable(let role, let reason): "\(role.rawValue): \(reason)"
        case .notAFile(let role, let path): "\(role.rawValue) \(path): not a regular file"
        case .empty(let role, let path):
            "\(role.rawValue) \(path): the file is empty; was it fetched or built to its end?"
        case .format(let role, let path, let what, let wayOut): "\(role.rawValue) \(path): is \(what): \(wayOut)"
        case .header(let path, let what):
            "kernel \(path): its RISC-V image header is damaged (\(what)): fetch or build the file again"
        case .shrank(let role, let path, let from, let to):
            "\(role.rawValue) \(path): had \(from) bytes at the start and now \(to): start again with the whole file"
        case .tooLarge(let role, let path, let size, let room, let needed):
            "\(role.rawValue) \(path): takes \(size) bytes of RAM where \(room) are free: "
                + (needed.map { "give the machine \($0 >> 20)MiB of memory or more" }
                    ?? "use a smaller one")
        case .withoutKernel(let path): "initramfs \(path): nothing would use it without a kernel: add --kernel"
        }
    }
}
