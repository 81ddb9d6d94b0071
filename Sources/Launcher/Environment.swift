internal import Glibc

/// The environment that this process began with; the launcher changes none of it.
public struct Environment: Sendable {
    public var entries: [(String, String)]

    public static let current: Environment = {
        let text = (Files.read("/proc/self/environ") ?? []).split(separator: 0)
        return Environment(
            entries: text.compactMap { entry in
                guard let equals = entry.firstIndex(of: UInt8(ascii: "=")) else { return nil }
                return (
                    String(decoding: entry[..<equals], as: UTF8.self),
                    String(decoding: entry[(equals + 1)...], as: UTF8.self)
                )
            })
    }()

    /// The value of a variable; nil where it is missing or empty.
    public subscript(name: String) -> String? {
        entries.first { $0.0 == name && !$0.1.isEmpty }?.1
    }

    /// What a child gets: this, without what a service manager gave the launcher alone, and with `more`.
    public func adding(_ more: [(String, String)]) -> [(String, String)] {
        let own: Set = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]
        return entries.filter { entry in !own.contains(entry.0) && !more.contains { $0.0 == entry.0 } } + more
    }

    /// The path of this program's executable.
    public static var ownExecutable: String {
        var bytes = [UInt8](repeating: 0, count: 4096)
        // Safety: the call writes at most `count` bytes.
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}
