// What a component writes to its standard output and error: into its log file, and the last lines kept at hand for the
// report of its death.

internal import Glibc
package import Wire

package final class ComponentOutput {
    /// A log larger than this becomes NAME.log.old and a new one begins: a component that spews fills no disk.
    static let maximumSize: UInt64 = 16 << 20
    static let keptLines = 10
    private static let keptLineLength = 400

    private let path: String
    private let folder: String
    private var file: Descriptor
    private var size: UInt64 = 0
    private var line: [UInt8] = []
    private var hasCrashed = false
    private(set) var lastLines: [String] = []
    let pipe: Descriptor

    /// Opens the log; returns the pipe's writing end for the component.
    package init(path: String, folder: String) throws(LaunchError) {
        self.path = path
        self.folder = folder
        var ends: [Int32] = [-1, -1]
        // Safety: pipe2 writes two numbers into an array of two.
        guard unsafe pipe2(&ends, O_CLOEXEC) == 0 else { throw .file(path: path, call: "pipe2", errno: errno) }
        pipe = Descriptor(adopting: ends[0])
        writing = Descriptor(adopting: ends[1])
        file = try Self.open(path, folder)
        do throws(WireError) { try pipe.setNonblocking(true) } catch { throw .wire(error) }
    }

    /// The component's end; let go once the component has it, so that the pipe ends with the component.
    package var writing: Descriptor?

    private static func open(_ path: String, _ folder: String) throws(LaunchError) -> Descriptor {
        do throws(WireError) {
            return try .open(path, flags: O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, mode: 0o600)
        } catch { throw .wire(error, in: folder) }
    }

    package enum Drained { case waiting, ended }

    /// Moves what the pipe holds, at most `limit` bytes, into the log.
    package func drain(limit: Int = 256 << 10) throws(LaunchError) -> Drained {
        var moved = 0
        while moved < limit {
            let bytes: [UInt8]?
            do throws(WireError) { bytes = try pipe.readSome(limit: 65_536) } catch { return .ended }
            guard let bytes else { return .waiting }
            if bytes.isEmpty { return .ended }
            moved += bytes.count
            keep(bytes)
            try write(bytes)
        }
        return .waiting
    }

    private func write(_ bytes: [UInt8]) throws(LaunchError) {
        if size > Self.maximumSize {
            _ = unsafe rename(path, path + ".old")
            file = try Self.open(path, folder)
            size = 0
        }
        do throws(WireError) { try file.writeAll(bytes, subject: path) } catch { throw .wire(error, in: folder) }
        size += UInt64(bytes.count)
    }

    private func keep(_ bytes: [UInt8]) {
        // Only the end of a large piece can still be among the last lines.
        for byte in bytes.suffix(Self.keptLines * Self.keptLineLength) {
            if byte == 0x0A {
                finishLine()
            } else if line.count < Self.keptLineLength {
                line.append(byte)
            }
        }
    }

    private func finishLine() {
        guard !line.isEmpty, !hasCrashed else {
            line = []
            return
        }
        let text = printable(String(decoding: line, as: UTF8.self))
        // The Swift runtime's backtrace goes on for pages: the log has it, the report of the death ends here.
        hasCrashed = text.contains("Program crashed:")
        lastLines.append(text)
        if lastLines.count > Self.keptLines { lastLines.removeFirst() }
        line = []
    }

    /// The last lines, the one that was not finished with them.
    package func takeLastLines() -> [String] {
        finishLine()
        return lastLines
    }
}

/// `text` with control characters replaced: what a component says must not steer the reader's terminal.
public func printable(_ text: String) -> String {
    String(
        String.UnicodeScalarView(
            text.unicodeScalars.map { $0.value < 0x20 && $0 != "\t" || $0.value == 0x7F ? "\u{FFFD}" : $0 }))
}
