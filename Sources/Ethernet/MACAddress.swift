// A 48-bit MAC address, held in the low bits of one word so that comparing and hashing cost one instruction.

/// An IEEE 802 MAC-48 address.
///
/// Spec: IEEE 802-2014 §8.2: the first octet on the wire holds the I/G bit (0x01) and the U/L bit (0x02).
public struct MACAddress: Hashable, Sendable {
    /// The address as a number: the first octet on the wire is bits 47…40. Bits 63…48 are zero.
    public let rawValue: UInt64

    /// Keeps the low 48 bits of `rawValue`.
    @inlinable
    public init(rawValue: UInt64) {
        self.rawValue = rawValue & 0xFFFF_FFFF_FFFF
    }

    /// ff:ff:ff:ff:ff:ff: every station.
    public static let broadcast = MACAddress(rawValue: 0xFFFF_FFFF_FFFF)

    /// 00:00:00:00:00:00: no station; what an ARP request holds for "unknown".
    public static let unspecified = MACAddress(rawValue: 0)

    /// True of group addresses, the broadcast address among them.
    @inlinable
    public var isMulticast: Bool { rawValue & 0x0100_0000_0000 != 0 }

    /// True of addresses that no manufacturer assigned.
    @inlinable
    public var isLocallyAdministered: Bool { rawValue & 0x0200_0000_0000 != 0 }

    /// True of 01:80:c2:00:00:00 … 0f, which a bridge never forwards.
    ///
    /// Spec: IEEE 802.1D-2004 §7.12.6 (reserved addresses).
    @inlinable
    public var isBridgeReserved: Bool { rawValue & 0xFFFF_FFFF_FFF0 == 0x0180_C200_0000 }

    /// Octet `index` in wire order; `index` is 0…5.
    @inlinable
    public subscript(index: Int) -> UInt8 {
        precondition(index >= 0 && index < 6, "a MAC address has 6 octets")
        return UInt8(truncatingIfNeeded: rawValue &>> UInt64(truncatingIfNeeded: 40 &- index &* 8))
    }
}

extension MACAddress: LosslessStringConvertible {
    /// Reads `52:54:00:12:34:56` or `52-54-00-12-34-56`; nil for anything else.
    public init?(_ text: String) {
        var value: UInt64 = 0
        var digits = 0
        var separator: UInt8?
        for (index, byte) in text.utf8.enumerated() {
            guard index < 17 else { return nil }
            if index % 3 == 2 {
                guard byte == UInt8(ascii: ":") || byte == UInt8(ascii: "-"), separator ?? byte == byte else {
                    return nil
                }
                separator = byte
            } else {
                guard let digit = hexadecimalDigit(byte) else { return nil }
                value = value &<< 4 | UInt64(digit)
                digits += 1
            }
        }
        guard digits == 12 else { return nil }
        self.init(rawValue: value)
    }

    /// Lower-case hexadecimal with colons.
    public var description: String {
        var text = ""
        text.reserveCapacity(17)
        for index in 0..<6 {
            if index > 0 { text.append(":") }
            let octet = String(self[index], radix: 16)
            if octet.utf8.count == 1 { text.append("0") }
            text.append(octet)
        }
        return text
    }
}

private func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}
