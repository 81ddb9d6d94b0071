internal import CSystem

/// A process that this one started.
public final class ChildProcess: Sendable {
    /// How a process ended.
    public enum Exit: Hashable, Sendable, CustomStringConvertible {
        case code(Int32)
        case signal(Int32)

        public var description: String {
            switch self {
            case .code(let code): "exit code \(code)"
            // Safety: sys_siglist text of a number the kernel gave.
            case .signal(let number): unsafe "killed by signal \(number) (\(String(cString: strsignal(number))))"
            }
        }
    }

    public let pid: Int32

    /// Starts `path` with `arguments` (without its own name) and exactly `environment`.
    ///
    /// `descriptors` become 0, 1, 2, 3, … in the child, in order; nothing else is passed on. With `newSession` the
    /// child leads a session of its own (it outlives the terminal).
    public init(
        _ path: String, _ arguments: [String], environment: [(String, String)], descriptors: [Descriptor],
        newSession: Bool = false
    ) throws(WireError) {
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        // Safety: both are initialised here and destroyed below; strings are duplicated by the calls that keep them.
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        // A descriptor whose number is a later one's place must not be overwritten before its turn: all are first
        // moved out of the way, then put in place. dup2 also clears close-on-exec.
        var lifted: [Descriptor] = []
        for descriptor in descriptors {
            var copy = try descriptor.duplicate()
            var low: [Descriptor] = []
            while copy.rawValue < Int32(descriptors.count) {
                low.append(copy)
                copy = try descriptor.duplicate()
            }
            lifted.append(copy)
        }
        for (place, descriptor) in lifted.enumerated() {
            unsafe posix_spawn_file_actions_adddup2(&actions, descriptor.rawValue, Int32(place))
        }
        unsafe posix_spawn_file_actions_addclosefrom_np(&actions, Int32(descriptors.count))
        unsafe cs_spawn_attributes(&attributes, newSession)
        var number: pid_t = 0
        let words = [path] + arguments
        let settings = environment.map { "\($0.0)=\($0.1)" }
        var argv: [UnsafeMutablePointer<CChar>?] = unsafe words.map { unsafe strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = unsafe settings.map { unsafe strdup($0) } + [nil]
        let code = unsafe posix_spawn(&number, path, &actions, &attributes, &argv, &envp)
        unsafe (argv + envp).forEach { unsafe free($0) }
        guard code == 0 else { throw .system(call: "posix_spawn", subject: path, errno: code) }
        pid = number
    }

    /// A descriptor that becomes readable when the process has ended.
    public func exitDescriptor() throws(WireError) -> Descriptor {
        let number = cs_pidfd_open(pid)
        guard number >= 0 else { throw .last("pidfd_open", "process \(pid)") }
        return Descriptor(adopting: number)
    }

    /// How it ended, waiting for the end; nil when `waiting` is false and it runs still. Reaps it: ask once.
    public func wait(waiting: Bool = true) -> Exit? {
        var status: Int32 = 0
        while true {
            // Safety: one local integer.
            let result = unsafe waitpid(pid, &status, waiting ? 0 : WNOHANG)
            if result == pid { break }
            if result == 0 { return nil }
            if errno != EINTR { return .code(-1) }
        }
        let signal = cs_wait_signal(status)
        return signal >= 0 ? .signal(signal) : .code(cs_wait_exit_code(status))
    }

    /// Sends a signal, e.g. SIGTERM = 15.
    public func signal(_ number: Int32) { kill(pid, number) }
}

/// This process.
public enum ProcessIdentifier {
    public static var current: Int32 { getpid() }

    /// Sends a signal to a process, whosever child it is.
    public static func signal(_ pid: Int32, _ number: Int32) { kill(pid, number) }

    /// A descriptor that becomes readable when the process `pid`, whosever child it is, has ended.
    public static func endDescriptor(of pid: Int32) throws(WireError) -> Descriptor {
        let number = cs_pidfd_open(pid)
        guard number >= 0 else { throw .last("pidfd_open", "process \(pid)") }
        return Descriptor(adopting: number)
    }
}
