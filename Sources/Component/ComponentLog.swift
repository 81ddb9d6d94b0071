internal import CSystemd
public import Logging
internal import Wire

/// A component's log: journal fields under systemd, else one line a message on standard error.
///
/// ```
/// 12:34:56.789 warning flash0: the image is 3 bytes short  path=/tmp/flash.bin
/// ```
public struct ComponentLogHandler: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level
    private let name: String
    private let journal: Bool

    init(name: String, level: Logger.Level) {
        self.name = name
        logLevel = level
        // Safety: a constant string.
        unsafe journal = getenv("JOURNAL_STREAM") != nil
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let fields = metadata.merging(event.metadata ?? [:]) { _, new in new }
        if journal {
            sendToJournal(event, fields)
        } else {
            writeLine(event, fields)
        }
    }

    private func writeLine(_ event: LogEvent, _ fields: Logger.Metadata) {
        let milliseconds = wallClockNanoseconds() / 1_000_000
        func digits(_ value: UInt64, _ width: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        let second = milliseconds / 1000
        var line = digits(second / 3600 % 24, 2) + ":" + digits(second / 60 % 60, 2) + ":" + digits(second % 60, 2)
        line += "." + digits(milliseconds % 1000, 3) + " \(event.level.rawValue) \(name): \(event.message)"
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) { line += "  \(key)=\(value)" }
        // A guest's or a peer's text must not look like a line of ours.
        let safe = line.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? "\u{FFFD}" : Character($0) }
        // Nothing can be told when standard error is broken; the component goes on.
        try? standardError.writeAll(Array((String(safe) + "\n").utf8))
    }

    private func sendToJournal(_ event: LogEvent, _ fields: Logger.Metadata) {
        var entries = ["MESSAGE=\(event.message)", "PRIORITY=\(event.level.priority)", "SYSLOG_IDENTIFIER=\(name)"]
        for (key, value) in fields {
            let name = key.uppercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" }
            entries.append("BASEBOARD_\(String(name))=\(value)")
        }
        let bytes = entries.map { Array($0.utf8) }
        let flat = bytes.flatMap { $0 }
        // Safety: each part lies in `flat`, which outlives the call.
        unsafe flat.withUnsafeBytes { raw in
            var offset = 0
            var parts: [iovec] = unsafe []
            for entry in bytes {
                unsafe parts.append(
                    iovec(iov_base: UnsafeMutableRawPointer(mutating: raw.baseAddress! + offset), iov_len: entry.count))
                offset += entry.count
            }
            unsafe _ = sd_journal_sendv(parts, Int32(parts.count))
        }
    }
}

/// Standard error, never closed by us.
private let standardError = Descriptor(adopting: 2)

extension Logger.Level {
    /// The syslog priority. Spec: sd-daemon(3).
    fileprivate var priority: Int {
        switch self {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
