/// An IPv4 address. Spec: RFC 791 §2.3.
public struct IPv4Address: Hashable, Sendable {
    /// The address as a number, the first octet on the wire in bits 31…24.
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// 255.255.255.255. Spec: RFC 919 §7.
    public static let limitedBroadcast = IPv4Address(rawValue: .max)
    /// 0.0.0.0: no address yet.
    public static let unspecified = IPv4Address(rawValue: 0)

    /// Spec: RFC 5771 §3 (224.0.0.0/4).
    public var isMulticast: Bool { rawValue >> 28 == 0xE }
    /// Spec: RFC 1122 §3.2.1.3 (127.0.0.0/8).
    public var isLoopback: Bool { rawValue >> 24 == 127 }
    /// Spec: RFC 1112 §4 (240.0.0.0/4, the limited broadcast address among them).
    public var isReserved: Bool { rawValue >> 28 == 0xF }
}

extension IPv4Address: LosslessStringConvertible {
    /// Reads four decimal octets with dots; no octet has a leading zero (some read those as octal).
    public init?(_ text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard let octet = decimal(part, maximum: 255) else { return nil }
            value = value << 8 | octet
        }
        self.init(rawValue: value)
    }

    public var description: String {
        "\(rawValue >> 24).\(rawValue >> 16 & 255).\(rawValue >> 8 & 255).\(rawValue & 255)"
    }
}

/// An interface's address and the length of its network's prefix, written `192.168.7.2/24`. Spec: RFC 4632 §3.1.
public struct IPv4Interface: Hashable, Sendable {
    public let address: IPv4Address
    /// 1…30: a network with at least two stations.
    public let prefixLength: Int

    /// nil when the prefix length is out of range or the address is not one that a station of the network can have.
    public init?(address: IPv4Address, prefixLength: Int) {
        guard (1...30).contains(prefixLength) else { return nil }
        self.address = address
        self.prefixLength = prefixLength
        guard isUsable(address) else { return nil }
    }

    var mask: UInt32 { UInt32.max << UInt32(32 - prefixLength) }

    /// The address that reaches every station of the network. Spec: RFC 922 §7.
    public var broadcast: IPv4Address { IPv4Address(rawValue: address.rawValue | ~mask) }

    /// True of addresses in this network.
    public func contains(_ other: IPv4Address) -> Bool { other.rawValue & mask == address.rawValue & mask }

    /// True of addresses that a single station of this network can have.
    public func isUsable(_ other: IPv4Address) -> Bool {
        contains(other) && other.rawValue & ~mask != 0 && other != broadcast && !other.isMulticast
            && !other.isLoopback && !other.isReserved && other.rawValue >> 24 != 0
    }
}

extension IPv4Interface: LosslessStringConvertible {
    public init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let address = IPv4Address(String(parts[0])),
            let length = decimal(parts[1].utf8, maximum: 32)
        else { return nil }
        self.init(address: address, prefixLength: Int(length))
    }

    public var description: String { "\(address)/\(prefixLength)" }
}

private func decimal(_ digits: some Collection<UInt8>, maximum: UInt32) -> UInt32? {
    guard (1...3).contains(digits.count), digits.count == 1 || digits.first != UInt8(ascii: "0") else { return nil }
    var value: UInt32 = 0
    for digit in digits {
        guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
        value = value * 10 + UInt32(digit - UInt8(ascii: "0"))
    }
    return value <= maximum ? value : nil
}
