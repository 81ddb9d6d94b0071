public import Wire

/// Why the launcher cannot do what it was asked: what, where, and the way out.
public enum LaunchError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A system call on a file or folder failed.
    case file(path: String, call: String, errno: Int32)
    /// The runtime folder's file system is full.
    case diskFull(folder: String)
    case foreignFolder(path: String, reason: String)
    case boardRuns(name: String, pid: Int32)
    case socketPathTooLong(path: String, folder: String)
    case missingBinary(kind: String, component: String, path: String)
    case spawn(component: String, path: String, WireError)
    case wire(WireError)
    case noBoard(String)
    case message(String)

    public var description: String {
        switch self {
        case .file(let path, let call, let code): "\(path): \(call): \(systemErrorText(code))"
        case .diskFull(let folder):
            "no space left in the runtime folder \(folder): free some there, "
                + "or choose another folder by BASEBOARD_RUNTIME_DIR"
        case .foreignFolder(let path, let reason):
            "\(path) cannot be the runtime folder: \(reason); remove it, or choose another by BASEBOARD_RUNTIME_DIR"
        case .boardRuns(let name, let pid):
            "board '\(name)' runs already (pid \(pid)): stop it by 'baseboard down \(name)', "
                + "or start this one under another name by '--set name=NAME'"
        case .socketPathTooLong(let path, let folder):
            "\(path): a socket's path holds at most 107 bytes and this one has \(path.utf8.count): "
                + "the runtime folder \(folder) is too long, choose a shorter one by BASEBOARD_RUNTIME_DIR"
        case .missingBinary(let kind, let component, let path):
            "component '\(component)' needs the executable '\(kind)', and there is none at \(path): "
                + "build it by 'swift build -c release --product \(kind)'"
        case .spawn(let component, let path, let error):
            "component '\(component)': cannot start \(path): \(error)"
        case .wire(let error): error.description
        case .noBoard(let text), .message(let text): text
        }
    }

    /// The error of the last system call about `path`; a full disk is told as that of `folder`.
    static func last(_ call: String, _ path: String, folder: String? = nil, code: Int32) -> LaunchError {
        if let folder, code == noSpace || code == quotaExceeded { return .diskFull(folder: folder) }
        return .file(path: path, call: call, errno: code)
    }

    /// A wire error about something in `folder`.
    static func wire(_ error: WireError, in folder: String) -> LaunchError {
        if case .system(_, _, let code) = error, code == noSpace || code == quotaExceeded {
            return .diskFull(folder: folder)
        }
        return .wire(error)
    }
}

/// ENOSPC and EDQUOT.
private let noSpace: Int32 = 28
private let quotaExceeded: Int32 = 122
