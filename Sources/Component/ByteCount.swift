// Quantities as people write them: `512MiB`, `50ms`. Shared by topologies and by every component's command line,
// so that a value copied from one means the same in the other.

/// A number of bytes.
///
/// Written as decimal digits and an optional unit: `4096`, `64KiB`, `512MiB`, `2GiB` (binary units only: `MB` would
/// leave a doubt about 1000 or 1024, so it is refused).
public struct ByteCount: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var bytes: UInt64

    public init(_ bytes: UInt64) { self.bytes = bytes }

    public static func kibibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 10) }
    public static func mebibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 20) }
    public static func gibibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 30) }

    private static let units: [(suffix: String, shift: UInt64)] = [
        ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0), ("", 0),
    ]

    /// The count that `text` says, or nil where it says none: no digits, another unit, more than 64 bits.
    public init?(parsing text: String) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let suffix = text.dropFirst(digits.count)
        guard !digits.isEmpty, let count = UInt64(digits),
            let shift = Self.units.first(where: { $0.suffix == suffix })?.shift
        else { return nil }
        let (bytes, overflow) = count.multipliedReportingOverflow(by: 1 << shift)
        guard !overflow else { return nil }
        self.bytes = bytes
    }

    /// The shortest exact spelling: `512MiB`, not `536870912`.
    public var description: String {
        for unit in Self.units.prefix(4) where bytes != 0 && bytes & ((1 << unit.shift) - 1) == 0 {
            return "\(bytes >> unit.shift)\(unit.suffix)"
        }
        return "\(bytes)"
    }

    public static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }
}

extension Duration {
    private static let units: [(suffix: String, nanoseconds: Int64)] = [
        ("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("min", 60_000_000_000), ("s", 1_000_000_000),
    ]

    /// The duration that `text` says: digits and one of `ns`, `us`, `ms`, `s`, `min`. Nil for a missing unit
    /// (seconds or milliseconds? a guess would be wrong half of the time), a sign, a fraction or too large a number.
    public init?(parsing text: String) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let suffix = text.dropFirst(digits.count)
        guard !digits.isEmpty, let count = Int64(digits),
            let unit = Self.units.first(where: { $0.suffix == suffix })?.nanoseconds
        else { return nil }
        let (nanoseconds, overflow) = count.multipliedReportingOverflow(by: unit)
        guard !overflow else { return nil }
        self = .nanoseconds(nanoseconds)
    }

    /// The shortest exact spelling in the units that `init(parsing:)` reads, for durations under 292 years.
    public var spelled: String {
        let parts = components
        let (scaled, overflow) = parts.seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let nanoseconds = overflow ? Int64.max : scaled &+ parts.attoseconds / 1_000_000_000
        let byLength = Self.units.sorted { $0.nanoseconds > $1.nanoseconds }
        for unit in byLength where nanoseconds != 0 && nanoseconds % unit.nanoseconds == 0 {
            return "\(nanoseconds / unit.nanoseconds)\(unit.suffix)"
        }
        return "\(nanoseconds)ns"
    }
}
