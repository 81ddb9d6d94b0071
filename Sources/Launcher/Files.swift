// The file operations of the launcher, each with an error that names the path.

internal import Glibc
internal import Wire

enum Files {
    /// Makes a folder that only this user may enter, if it is not there, and checks that it is one.
    static func makePrivateFolder(_ path: String, create: Bool = true) throws(LaunchError) {
        if create, unsafe mkdir(path, 0o700) != 0, errno != EEXIST {
            throw .last("mkdir", path, folder: path, code: errno)
        }
        var status = stat()
        // Safety: a local variable is filled.
        guard unsafe lstat(path, &status) == 0 else { throw .file(path: path, call: "stat", errno: errno) }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw .foreignFolder(path: path, reason: "it is not a folder")
        }
        guard status.st_uid == geteuid() else {
            throw .foreignFolder(path: path, reason: "it belongs to user \(status.st_uid)")
        }
        guard status.st_mode & 0o022 == 0 else {
            throw .foreignFolder(path: path, reason: "others may write in it")
        }
    }

    static func isFolder(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    static func isExecutable(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }

    static func size(_ path: String) -> UInt64? {
        var status = stat()
        return unsafe stat(path, &status) == 0 ? UInt64(clamping: status.st_size) : nil
    }

    /// The names in a folder, sorted; none where there is no folder.
    static func names(in folder: String) -> [String] {
        guard let stream = unsafe opendir(folder) else { return [] }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            // Safety: readdir fills d_name with a NUL-terminated name that is valid until the next call.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Removes a file, socket or folder with what is in it; links are removed, not followed.
    static func removeTree(_ path: String) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return }
        if status.st_mode & S_IFMT == S_IFDIR {
            for name in names(in: path) { removeTree("\(path)/\(name)") }
            _ = unsafe rmdir(path)
        } else {
            _ = unsafe unlink(path)
        }
    }

    /// The whole file, at most `limit` bytes of it; nil where it cannot be read.
    static func read(_ path: String, limit: Int = 16 << 20) -> [UInt8]? {
        guard let file = try? Descriptor.open(path, flags: O_RDONLY | O_NONBLOCK) else { return nil }
        var bytes: [UInt8] = []
        while bytes.count < limit, let some = try? file.readSome(limit: min(65_536, limit - bytes.count)), !some.isEmpty
        {
            bytes += some
        }
        return bytes
    }

    /// Replaces `path` by `bytes` in one step: a reader sees the old file or the new one.
    static func replace(_ path: String, _ bytes: [UInt8], folder: String) throws(LaunchError) {
        let temporary = path + ".new"
        do throws(WireError) {
            let file = try Descriptor.open(temporary, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
            try file.writeAll(bytes, subject: temporary)
        } catch {
            _ = unsafe unlink(temporary)
            throw .wire(error, in: folder)
        }
        guard unsafe rename(temporary, path) == 0 else { throw .last("rename", path, folder: folder, code: errno) }
    }
}
