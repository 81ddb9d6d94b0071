public import Ethernet
internal import PCIe
internal import VFIOUser

/// Which frames a network function takes, as its driver has said: a value.
///
/// Until the driver says anything everything passes, for drivers that never do.
/// Spec: virtio 1.2 §5.1.6.5.1 (modes), §5.1.6.5.2 (addresses), §5.1.6.5.3 (VLANs).
public struct ReceiveFilter: Sendable {
    /// More addresses than these are not compared one by one: then all of their kind pass.
    public static let tableSize = 64

    public var isPromiscuous = true
    public var takesAllMulticast = false
    public var takesAllUnicast = false
    public var dropsMulticast = false
    public var dropsUnicast = false
    public var dropsBroadcast = false
    /// The function's own address.
    public var address: MACAddress
    private var unicast: [MACAddress] = []
    private var multicast: [MACAddress] = []
    private var unicastOverflows = false
    private var multicastOverflows = false
    /// Bit n: VLAN n passes. Nil: the driver does not filter VLANs.
    private var vlans: [UInt64]?

    public init(address: MACAddress) { self.address = address }

    /// From now on only VLANs that were added pass, and frames without one.
    public mutating func filterVLANs() { vlans = [UInt64](repeating: 0, count: 64) }

    public mutating func setVLAN(_ number: UInt16, passes: Bool) -> Bool {
        guard number < 4096, vlans != nil else { return false }
        let bit: UInt64 = 1 << UInt64(number & 63)
        if passes { vlans![Int(number >> 6)] |= bit } else { vlans![Int(number >> 6)] &= ~bit }
        return true
    }

    /// Replaces the tables of further addresses.
    public mutating func setTables(unicast: [MACAddress], multicast: [MACAddress]) {
        unicastOverflows = unicast.count > Self.tableSize
        multicastOverflows = multicast.count > Self.tableSize
        self.unicast = unicastOverflows ? [] : unicast
        self.multicast = multicastOverflows ? [] : multicast
    }

    // MARK: Migration

    private static let modes: [any WritableKeyPath<ReceiveFilter, Bool> & Sendable] = [
        \.isPromiscuous, \.takesAllMulticast, \.takesAllUnicast, \.dropsMulticast, \.dropsUnicast, \.dropsBroadcast,
        \.unicastOverflows, \.multicastOverflows,
    ]

    func save(_ state: inout StateWriter) {
        for mode in Self.modes { state.add(self[keyPath: mode]) }
        state.add(address.rawValue)
        for table in [unicast, multicast] {
            state.add(UInt8(table.count))
            for address in table { state.add(address.rawValue) }
        }
        state.add(vlans != nil)
        for word in vlans ?? [] { state.add(word) }
    }

    /// Refused: tables that no driver can have set.
    init(_ state: inout StateReader) throws(ErrorNumber) {
        self.init(address: .unspecified)
        for mode in Self.modes { self[keyPath: mode] = try state.takeBool() }
        address = try Self.address(&state)
        for table in [\ReceiveFilter.unicast, \ReceiveFilter.multicast] {
            let count = Int(try state.take(UInt8.self))
            guard count <= Self.tableSize else { throw .invalid }
            for _ in 0..<count { self[keyPath: table].append(try Self.address(&state)) }
        }
        guard try state.takeBool() else { return }
        var words: [UInt64] = []
        for _ in 0..<64 { words.append(try state.take(UInt64.self)) }
        vlans = words
    }

    static func address(_ state: inout StateReader) throws(ErrorNumber) -> MACAddress {
        let number = try state.take(UInt64.self)
        guard number < 1 << 48 else { throw .invalid }
        return MACAddress(rawValue: number)
    }

    /// Whether a frame passes.
    @inline(__always)
    public func passes(_ frame: Span<UInt8>) -> Bool {
        if isPromiscuous, vlans == nil { return true }
        return passesSlowly(frame)
    }

    private func passesSlowly(_ frame: Span<UInt8>) -> Bool {
        guard frame.count >= EthernetFrame.headerLength else { return false }
        if let vlans, frame.count >= EthernetFrame.headerLength + 4,
            frame.networkUInt16(at: 12) == EtherType.vlan.rawValue
        {
            let number = frame.networkUInt16(at: 14) & 0xFFF
            guard vlans[Int(number >> 6)] >> UInt64(number & 63) & 1 != 0 else { return false }
        }
        if isPromiscuous { return true }
        let destination = frame.macAddress(at: 0)
        if destination == .broadcast { return !dropsBroadcast }
        if destination.isMulticast {
            return !dropsMulticast
                && (takesAllMulticast || multicastOverflows || multicast.contains(destination))
        }
        return !dropsUnicast
            && (destination == address || takesAllUnicast || unicastOverflows || unicast.contains(destination))
    }
}
