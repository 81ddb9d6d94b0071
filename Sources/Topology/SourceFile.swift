// Where the words of a topology come from: files, read once and whole, and `--set` arguments. Both are kept, so that a
// mistake found late (after merging, after port inference) still shows the line that caused it.

import Glibc

/// A text with a name: a topology file, or one `--set` argument.
public final class SourceFile: Sendable {
    /// As the user wrote it, or relative to what the user wrote; `--set` for an argument.
    public let path: String
    /// Folder that relative paths inside start from, without a trailing slash.
    let folder: String
    let text: String
    let lines: [Substring]

    /// A topology larger than this is not one; the largest board we know is under 8 KiB.
    static let maximumSize = 1 << 20

    init(path: String, folder: String, text: String) {
        self.path = path
        self.folder = folder
        self.text = text
        self.lines = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
    }

    /// The argument of one `--set`; relative paths in it start from the working directory.
    convenience init(override: String) {
        self.init(path: "--set", folder: ".", text: override)
    }

    enum ReadError: Error {
        case system(Int32)
        case notRegular
        case tooLarge
        /// The offset of the first byte that is not UTF-8 lies on this line.
        case notUTF8(line: Int)

        var text: String {
            switch self {
            case .system(ENOENT): "no such file"
            case .system(let code): String(cString: strerror(code))
            case .notRegular: "is not a regular file"
            case .tooLarge: "is larger than 1MiB, too large for a topology"
            case .notUTF8(let line): "is not UTF-8 text (line \(line))"
            }
        }
    }

    /// Reads `path`, which must be a regular file: a FIFO would block, a device would not end.
    static func read(_ path: String) -> Result<SourceFile, ReadError> {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return .failure(.system(errno)) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return .failure(.system(errno)) }
        guard status.st_mode & S_IFMT == S_IFREG else { return .failure(.notRegular) }
        guard status.st_size <= maximumSize else { return .failure(.tooLarge) }

        var bytes = [UInt8](repeating: 0, count: maximumSize + 1)
        var count = 0
        while count < bytes.count {
            let space = bytes.count - count
            let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress! + count, space) }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { return .failure(.system(errno)) }
            if got == 0 { break }
            count += got
        }
        guard count <= maximumSize else { return .failure(.tooLarge) }
        bytes.removeSubrange(count...)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            return .failure(.notUTF8(line: lineOfFirstInvalidByte(bytes)))
        }
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        return .success(SourceFile(path: path, folder: folder, text: text))
    }

    private static func lineOfFirstInvalidByte(_ bytes: [UInt8]) -> Int {
        for (index, line) in bytes.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated()
        where String(validating: line, as: UTF8.self) == nil {
            return index + 1
        }
        return 1
    }
}

/// A place in a source; lines and columns count from 1, columns in Unicode scalars.
public struct SourcePosition: Sendable {
    public let file: SourceFile
    public let line: Int
    public let column: Int

    init(_ file: SourceFile, line: Int, column: Int) {
        self.file = file
        self.line = line
        self.column = column
    }

    /// `topology/server.yaml:12:5`; just `--set` for an argument, whose text follows on its own line.
    public var description: String {
        file.path == "--set" ? "--set" : "\(file.path):\(line):\(column)"
    }
}
