// The folder of one board while it runs, and what stays of it afterwards.
//
//     NAME/                  mode 0700, this user's
//       lock                 held (an OFD lock) by the supervisor as long as it lives; holds its pid
//       board.json           the board's state, replaced whole at every change
//       timeline.jsonl       one event a line
//       logs/COMPONENT.log   what a component wrote to its standard output and error
//       COMPONENT.PORT.sock  listening sockets; NAME.sock for `listen:NAME` of a topology
//       COMPONENT.notify     readiness datagrams
//
// When a board ends, its sockets are removed; board.json, timeline.jsonl and logs stay, so that `ps`, `timeline` and
// `logs` tell what happened. The next `up` of that name clears them, once what still runs of a board whose supervisor was
// killed is gone (DeadBoard.swift). The surprise: `lock` is never removed, since two processes could then hold locks on
// two files of one name.

internal import Glibc
internal import Wire

public struct RuntimeFolder: Sendable, Equatable {
    public let path: String

    public init(path: String) { self.path = path }

    /// The folder that holds the folders of all boards: BASEBOARD_RUNTIME_DIR, else `baseboard` in XDG_RUNTIME_DIR,
    /// else `/tmp/baseboard-UID`.
    public static var base: String {
        if let folder = Environment.current["BASEBOARD_RUNTIME_DIR"] { return absolutePath(folder) }
        if let folder = Environment.current["XDG_RUNTIME_DIR"], folder.hasPrefix("/"), Files.isFolder(folder) {
            return folder + (folder.hasSuffix("/") ? "" : "/") + "baseboard"
        }
        return "/tmp/baseboard-\(getuid())"
    }

    /// The folder of the board `name`.
    public static func of(_ name: String) -> RuntimeFolder { RuntimeFolder(path: "\(base)/\(name)") }

    public var lockPath: String { path + "/lock" }
    public var recordPath: String { path + "/board.json" }
    public var timelinePath: String { path + "/timeline.jsonl" }
    public var logFolder: String { path + "/logs" }
    public func logPath(_ component: String) -> String { "\(logFolder)/\(component).log" }
    public func socketPath(_ component: String, _ port: String) -> String { "\(path)/\(component).\(port).sock" }
    public func socketPath(listen name: String) -> String { "\(path)/\(name).sock" }
    public func notifyPath(_ component: String) -> String { "\(path)/\(component).notify" }

    /// What was found when a folder was taken.
    public enum Found: Sendable, Equatable {
        /// Nothing, or what a board that ended in order leaves.
        case clean
        /// The sockets and records of a board whose supervisor died; `killed` are the components of it that still ran and
        /// did not end by themselves.
        case stale(pid: Int32?, killed: [String] = [])
    }

    /// How long the processes of a board whose supervisor died may take to follow it: as long as when a board ends in
    /// order. They take milliseconds, unless one hangs.
    private static let patience = SupervisorOptions().patience

    /// Makes the folder if need be, takes its lock, and clears what an earlier board left; what is left of its processes
    /// is gone when this returns.
    ///
    /// - Throws: `.boardRuns` where a supervisor holds the lock; nothing has been touched then.
    public func take() throws(LaunchError) -> (lock: RuntimeLock, found: Found) {
        let base = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        try makeParents(base)
        try Files.makePrivateFolder(base)
        try Files.makePrivateFolder(path)
        let file: Descriptor
        do throws(WireError) { file = try .open(lockPath, flags: O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600) } catch {
            throw .wire(error, in: path)
        }
        var lock = Self.wholeFile
        // Safety: F_OFD_SETLK reads one struct flock.
        guard unsafe fcntl(file.rawValue, F_OFD_SETLK, &lock) == 0 else {
            guard errno == EAGAIN || errno == EACCES else { throw .file(path: lockPath, call: "fcntl", errno: errno) }
            let name = path.split(separator: "/").last.map(String.init) ?? path
            throw .boardRuns(name: name, pid: ownerPID ?? 0)
        }
        let earlier = ownerPID
        let isStale = Files.names(in: path).contains { $0.hasSuffix(".sock") || $0.hasSuffix(".notify") }
        let killed = isStale ? DeadBoard(self).waitForEnd(patience: Self.patience) : []
        clear()
        guard ftruncate(file.rawValue, 0) == 0 else { throw .last("ftruncate", lockPath, folder: path, code: errno) }
        do throws(WireError) { try file.writeAll(Array("\(getpid())\n".utf8), subject: lockPath) } catch {
            throw .wire(error, in: path)
        }
        guard unsafe mkdir(logFolder, 0o700) == 0 else { throw .last("mkdir", logFolder, folder: path, code: errno) }
        return (RuntimeLock(file), isStale ? .stale(pid: earlier, killed: killed) : .clean)
    }

    /// The parents of the base folder that an override may lack; made for this user alone.
    private func makeParents(_ base: String) throws(LaunchError) {
        var path = ""
        for part in base.split(separator: "/").dropLast() {
            path += "/" + part
            if unsafe mkdir(path, 0o700) != 0, errno != EEXIST, !Files.isFolder(path) {
                throw .last("mkdir", path, folder: path, code: errno)
            }
        }
    }

    /// Removes everything but the lock.
    private func clear() {
        for name in Files.names(in: path) where name != "lock" { Files.removeTree("\(path)/\(name)") }
    }

    /// Removes what a board that has ended no longer needs.
    func removeSockets() {
        for name in Files.names(in: path) where name.hasSuffix(".sock") || name.hasSuffix(".notify") {
            Files.removeTree("\(path)/\(name)")
        }
    }

    /// The pid in the lock file, of the supervisor that holds or held it.
    var ownerPID: Int32? {
        guard let bytes = Files.read(lockPath, limit: 32) else { return nil }
        return Int32(String(decoding: bytes, as: UTF8.self).split(separator: "\n").first ?? "")
    }

    /// The supervisor's pid while one holds the lock.
    public var runningPID: Int32? {
        guard let file = try? Descriptor.open(lockPath, flags: O_RDONLY | O_NOFOLLOW) else { return nil }
        var lock = Self.wholeFile
        // Safety: F_OFD_GETLK reads and fills one struct flock. It asks without taking, so that a look at a board never
        // stands in the way of an `up`.
        guard unsafe fcntl(file.rawValue, F_OFD_GETLK, &lock) == 0 else { return nil }
        return lock.l_type == Int16(F_UNLCK) ? nil : ownerPID
    }

    /// A write lock on the whole file, bound to the open file description.
    private static var wholeFile: flock {
        var lock = flock()
        lock.l_type = Int16(F_WRLCK)
        lock.l_whence = Int16(SEEK_SET)
        return lock
    }

    /// The folders of boards below the base, running or not.
    public static func all() -> [RuntimeFolder] {
        let base = base
        return Files.names(in: base).map { RuntimeFolder(path: "\(base)/\($0)") }
            .filter { Files.isFolder($0.path) && Files.size($0.lockPath) != nil }
    }
}

/// The lock of a runtime folder, held until it is let go or the process ends.
public final class RuntimeLock: Sendable {
    private let file: Descriptor
    init(_ file: Descriptor) { self.file = file }
}

/// `path` from the working directory, with `.` and `..` taken out by their text.
public func absolutePath(_ path: String) -> String {
    var full = path
    if !full.hasPrefix("/") {
        // Safety: getcwd allocates the string, freed here.
        guard let working = unsafe getcwd(nil, 0) else { return path }
        full = unsafe String(cString: working) + "/" + path
        unsafe free(working)
    }
    var parts: [Substring] = []
    for part in full.split(separator: "/") where part != "." {
        if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return "/" + parts.joined(separator: "/")
}
