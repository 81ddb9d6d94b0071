// Console lines as syslog messages, so that any collector shows what the host printed.

/// Cuts a byte stream into lines of bounded length.
public struct LineSplitter: Sendable {
    /// The longest line kept whole; a longer one is handed over in pieces. Fits an Ethernet frame of 1514 bytes
    /// together with all headers.
    public static let maximumLine = 1024

    private var pending: [UInt8] = []

    public init() {}

    /// Takes the next bytes and hands every line they end to `body`, without its end, never empty.
    public mutating func feed(_ bytes: Span<UInt8>, _ body: ([UInt8]) -> Void) {
        for index in bytes.indices {
            let byte = bytes[index]
            if byte == UInt8(ascii: "\n") {
                flush(body)
            } else if byte != UInt8(ascii: "\r") {
                pending.append(byte)
                if pending.count == Self.maximumLine { flush(body) }
            }
        }
    }

    private mutating func flush(_ body: ([UInt8]) -> Void) {
        if !pending.isEmpty { body(pending) }
        pending.removeAll(keepingCapacity: true)
    }

    /// Forgets a line that has begun.
    public mutating func reset() { pending.removeAll(keepingCapacity: true) }
}

/// One syslog message. Spec: RFC 5424 §6; over UDP: RFC 5426.
public enum SyslogMessage {
    public static let port: UInt16 = 514
    /// Facility local0 (16), severity informational (6). Spec: RFC 5424 §6.2.1.
    static let priority = 16 * 8 + 6

    /// A message that carries `line` of the host's console.
    ///
    /// - Parameters:
    ///   - time: since 1970-01-01 UTC, in nanoseconds; written with microseconds, the most the format has.
    ///   - hostname: printable ASCII; other characters become `_`, an empty name `-`.
    public static func encode(line: [UInt8], time: UInt64, hostname: String) -> [UInt8] {
        let name = String(
            String.UnicodeScalarView(
                hostname.unicodeScalars.prefix(255).map { (0x21...0x7E).contains($0.value) ? $0 : "_" }))
        let head = "<\(priority)>1 \(timestamp(time)) \(name.isEmpty ? "-" : name) bmc - console - "
        // Control characters (escape sequences) would garble a collector's screen.
        return Array(head.utf8) + line.map { $0 < 0x20 || $0 == 0x7F ? UInt8(ascii: "?") : $0 }
    }

    /// Spec: RFC 3339 §5.6, in UTC.
    static func timestamp(_ nanoseconds: UInt64) -> String {
        let seconds = nanoseconds / 1_000_000_000
        let (year, month, day) = civilDate(daysSince1970: Int(seconds / 86_400))
        func digits(_ value: Int, _ width: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
        }
        let clock = Int(seconds % 86_400)
        return "\(digits(year, 4))-\(digits(month, 2))-\(digits(day, 2))T"
            + "\(digits(clock / 3600, 2)):\(digits(clock / 60 % 60, 2)):\(digits(clock % 60, 2))."
            + "\(digits(Int(nanoseconds / 1000 % 1_000_000), 6))Z"
    }

    /// The Gregorian date. The year is taken to begin in March, which puts the leap day at its end.
    private static func civilDate(daysSince1970 days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468  // days since 0000-03-01
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
    }
}
