internal import Glibc
internal import Wire

/// An image in a file.
public struct FileImageReader: ImageReader {
    public let byteCount: UInt64
    private let file: Descriptor
    private let path: String
    private var buffer: [UInt8]

    /// What is read at once: more leaves the processor's cache.
    private static let pieceLength = 256 * 1024

    public init(path: String) throws(ImageReadError) {
        do throws(WireError) {
            file = try Descriptor.open(path, flags: O_RDONLY)
        } catch {
            throw ImageReadError("cannot open the image: \(error)")
        }
        guard let size = file.fileSize else { throw ImageReadError("\(path): not a file with a size") }
        byteCount = size
        self.path = path
        buffer = [UInt8](repeating: 0, count: Self.pieceLength)
    }

    public mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
        var done: UInt64 = 0
        while done < count {
            let wanted = Int(min(count - done, UInt64(buffer.count)))
            guard let place = off_t(exactly: offset + done) else { throw ImageReadError("\(path): offset \(offset)") }
            let got = buffer.withUnsafeMutableBytes { pread(file.rawValue, $0.baseAddress, wanted, place) }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else {
                throw ImageReadError("\(path): \(got < 0 ? systemErrorText(errno) : "it ends at byte \(place)")")
            }
            body(buffer.span.bytes.extracting(0..<got))
            done += UInt64(got)
        }
    }
}

/// A file that could not be read or written.
public struct FileError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String
}

/// Whole files, as the tools read and write them.
public enum WholeFile {
    /// The file's bytes; refuses more than `limit`.
    public static func read(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        var bytes: [UInt8] = []
        do throws(WireError) {
            let file = try Descriptor.open(path, flags: O_RDONLY)
            while let piece = try file.readSome(limit: 1 << 20, subject: path), !piece.isEmpty {
                bytes += piece
                guard bytes.count <= limit else {
                    throw WireError.badLength(length: bytes.count, minimum: 0, maximum: limit)
                }
            }
        } catch {
            if case .badLength = error { throw FileError(description: "\(path): longer than \(limit) bytes") }
            throw FileError(description: error.description)
        }
        return bytes
    }

    /// Makes or replaces the file as a whole and durably: after a failure, or a power cut at any moment, there is the
    /// old file or the new one.
    public static func write(_ path: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws(FileError) {
        let new = "\(path).new-\(getpid())"
        // One that an earlier process of this number left behind.
        unlink(new)
        do throws(WireError) {
            let file = try Descriptor.open(new, flags: O_WRONLY | O_CREAT | O_EXCL, mode: mode)
            try file.writeAll(bytes, subject: new)
            try synchronize(file, new)
            guard rename(new, path) == 0 else {
                throw WireError.system(call: "rename", subject: path, errno: errno)
            }
            let folder = folder(of: path)
            try synchronize(try Descriptor.open(folder, flags: O_RDONLY | O_DIRECTORY), folder)
        } catch {
            unlink(new)
            throw FileError(description: error.description)
        }
    }

    /// EINVAL: the file system keeps nothing over a power cut anyway.
    private static func synchronize(_ file: Descriptor, _ subject: String) throws(WireError) {
        guard fsync(file.rawValue) == 0 || errno == EINVAL else {
            throw WireError.system(call: "fsync", subject: subject, errno: errno)
        }
    }

    /// The folder that holds the file.
    static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    public static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Makes the folder where it is not there.
    static func makeFolder(_ path: String, mode: UInt32) throws(FileError) {
        guard mkdir(path, mode) != 0, errno != EEXIST else { return }
        throw FileError(description: "\(path): mkdir: \(systemErrorText(errno))")
    }
}
