// Files that grow: what is there, and with -f what comes, until the board ends or Ctrl-C.

import Glibc
import Launcher
import Wire

/// One growing file, read from where it was left.
struct GrowingFile {
    let path: String
    private var file: Descriptor?
    private var offset: UInt64 = 0
    private var partial: [UInt8] = []

    init(_ path: String) { self.path = path }

    /// The whole lines that were added. A file that was replaced or cut (a log that grew too large) begins again.
    mutating func newLines() -> [[UInt8]] {
        if let known = file, isReplaced(known) {
            var lines = readLines()
            file = nil
            lines += newLines()
            return lines
        }
        return readLines()
    }

    private mutating func readLines() -> [[UInt8]] {
        if file == nil {
            file = try? Descriptor.open(path, flags: O_RDONLY)
            offset = 0
        }
        guard let file else { return [] }
        if let size = file.fileSize, size < offset {
            lseek(file.rawValue, 0, SEEK_SET)
            offset = 0
            partial = []
        }
        var lines: [[UInt8]] = []
        while let bytes = try? file.readSome(limit: 65_536), !bytes.isEmpty {
            offset += UInt64(bytes.count)
            partial += bytes
            var pieces = partial.split(separator: 0x0A, omittingEmptySubsequences: false).map { Array($0) }
            partial = pieces.popLast() ?? []
            lines += pieces
        }
        return lines
    }

    /// What follows the last line end.
    mutating func rest() -> [UInt8]? {
        defer { partial = [] }
        return partial.isEmpty ? nil : partial
    }

    private func isReplaced(_ known: Descriptor) -> Bool {
        var (now, then) = (stat(), stat())
        return stat(path, &now) == 0 && fstat(known.rawValue, &then) == 0 && now.st_ino != then.st_ino
    }
}

enum Follower {
    /// Calls `look` now, and again whenever something in `folder` changes, until the board in `runtime` ends or a signal
    /// asks for the end.
    static func follow(_ folder: String, of runtime: RuntimeFolder, _ look: () -> Void) throws {
        let termination = try takeTerminationSignals()
        let number = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard number >= 0 else { throw LaunchError.file(path: folder, call: "inotify_init1", errno: errno) }
        let changes = Descriptor(adopting: number)
        // Watch first, look then: nothing falls between.
        let mask = UInt32(IN_MODIFY | IN_CREATE | IN_MOVED_TO)
        guard inotify_add_watch(number, folder, mask) >= 0 else {
            throw LaunchError.file(path: folder, call: "inotify_add_watch", errno: errno)
        }
        let ended = runtime.runningPID.flatMap { try? ProcessIdentifier.endDescriptor(of: $0) }
        look()
        guard let ended else { return }
        while true {
            let ready = waitReadable([changes, ended, termination])
            if ready[0] { while let events = try? changes.readSome(limit: 65_536), !events.isEmpty {} }
            look()
            if ready[1] || ready[2] { return }
        }
    }
}
