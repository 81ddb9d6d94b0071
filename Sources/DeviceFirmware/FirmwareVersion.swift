/// The version of a device's firmware: `1.12.3`.
///
/// Major and minor are what IPMI's Get Device ID can say. Spec: IPMI 2.0 §20.1 (7 bits, then two decimal digits in BCD)
public struct FirmwareVersion: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// 0…127
    public let major: UInt8
    /// 0…99
    public let minor: UInt8
    /// 0…255
    public let patch: UInt8

    /// Nil when a number is out of range.
    public init?(major: UInt64, minor: UInt64, patch: UInt64) {
        guard major <= 127, minor <= 99, patch <= 255 else { return nil }
        self.major = UInt8(major)
        self.minor = UInt8(minor)
        self.patch = UInt8(patch)
    }

    /// Three decimal numbers with dots between them.
    public init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        let numbers = parts.compactMap { part in
            part.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt64(part) : nil
        }
        guard parts.count == 3, numbers.count == 3 else { return nil }
        self.init(major: numbers[0], minor: numbers[1], patch: numbers[2])
    }

    /// What devices have built in.
    static let builtIn = FirmwareVersion(major: 1)

    private init(major: UInt8) {
        self.major = major
        minor = 0
        patch = 0
    }

    public var description: String { "\(major).\(minor).\(patch)" }

    public static func < (left: Self, right: Self) -> Bool {
        (left.major, left.minor, left.patch) < (right.major, right.minor, right.patch)
    }

    /// The version in at most 8 characters, as NVM Express has them: with dots where that fits, otherwise three, two and
    /// three digits without any (`127.99.255` is `12799255`).
    public var revision: String {
        func digits(_ number: UInt8, _ count: Int) -> String {
            let text = String(number)
            return String(repeating: "0", count: count - text.count) + text
        }
        let text = description
        return text.utf8.count <= 8 ? text : digits(major, 3) + digits(minor, 2) + digits(patch, 3)
    }

    /// The minor number as two decimal digits of four bits each.
    public var minorBCD: UInt8 { (minor / 10) << 4 | minor % 10 }
}
