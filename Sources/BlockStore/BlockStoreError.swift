internal import Wire

/// Why a store cannot be opened or changed: operational, for whoever started the component.
public enum BlockStoreError: Error, Equatable, Sendable {
    case missing(path: String)
    case system(path: String, call: String, errno: Int32)
    /// A folder, a pipe, a terminal.
    case notBlocks(path: String)
    case empty(path: String)
    case notMultiple(path: String, byteCount: UInt64, blockSize: Int)
    /// Another program has it open and would be hurt, or would hurt.
    case inUse(path: String, readOnly: Bool)
    case blockSize(Int)
    /// It is larger than file offsets reach.
    case tooLarge(byteCount: UInt64)
}

extension BlockStoreError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .missing(let path):
            "\(path): there is no such file, and none is made silently: make one, for example by "
                + "`truncate -s 64M \(path)`"
        case .system(let path, let call, let code): "\(path): \(call): \(systemErrorText(code))"
        case .notBlocks(let path): "\(path): neither a file nor a block device: name a disk image"
        case .empty(let path): "\(path): it is empty: give it a size, for example by `truncate -s 64M \(path)`"
        case .notMultiple(let path, let bytes, let blockSize):
            "\(path): its \(bytes) bytes are not whole blocks of \(blockSize): make it longer, for example by "
                + "`truncate -s %\(blockSize) \(path)`"
        case .inUse(let path, readOnly: false):
            "\(path): another program has it open: end that one, or open it read-only on both sides"
        case .inUse(let path, readOnly: true):
            "\(path): another program has it open for writing: end that one, or use a copy"
        case .blockSize(let size): "a block size of \(size): use 512 or 4096"
        case .tooLarge(let bytes): "\(bytes) bytes: more than a file can hold"
        }
    }
}

/// Why one access of a store failed: what a device turns into its completion status.
public enum BlockFailure: Error, Hashable, Sendable {
    /// Not all of the range lies in the store.
    case outOfRange
    /// A write to a store that is open for reading only.
    case readOnly
    /// The medium failed: an injected fault, an I/O error of the file, a file that became shorter.
    case media
    /// The file system under the file is full.
    case noSpace
    /// The data did not match (compare).
    case mismatch
    /// The guest's memory could not be reached.
    case memory
}
