/// A port of a switch: 0…31.
public struct SwitchPort: RawRepresentable, Hashable, Sendable {
    /// The most ports a switch can have: a ``SwitchPortSet`` is one word.
    public static let maximumCount = 32

    public let rawValue: UInt8

    @inlinable
    public init(rawValue: UInt8) {
        precondition(rawValue < Self.maximumCount, "a switch has at most 32 ports")
        self.rawValue = rawValue
    }
}

/// A set of switch ports; bit n is port n.
public struct SwitchPortSet: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    @inlinable
    public init(_ port: SwitchPort) { rawValue = 1 &<< UInt32(port.rawValue) }

    /// Ports 0 ..< `count`.
    @inlinable
    public init(first count: Int) {
        precondition(count >= 0 && count <= SwitchPort.maximumCount, "a switch has at most 32 ports")
        rawValue = count == 32 ? .max : 1 &<< UInt32(truncatingIfNeeded: count) &- 1
    }

    @inlinable
    public func contains(_ port: SwitchPort) -> Bool { rawValue &>> UInt32(port.rawValue) & 1 != 0 }

    /// Calls `body` with each port, lowest first.
    @inlinable
    public func forEach(_ body: (SwitchPort) -> Void) {
        var rest = rawValue
        while rest != 0 {
            body(SwitchPort(rawValue: UInt8(truncatingIfNeeded: rest.trailingZeroBitCount)))
            rest &= rest &- 1
        }
    }
}
