// A learning switch as a value: frame and port in, ports out. It owns no socket; `SwitchFabric` performs what it says.

public import Wire

/// Why a switch forwards a frame to nobody.
public enum SwitchDrop: Hashable, Sendable {
    /// Shorter than a header or longer than the maximum.
    case malformed
    /// A group address as source: no station has one.
    case groupSource
    /// A destination that bridges never forward (01:80:c2:00:00:0x).
    case reserved
    /// The station is behind the port the frame came from.
    case samePort
    /// The policy left no port.
    case policy
    /// No other port has a link.
    case noPort
    /// The switch is held in reset.
    case inReset
}

/// What a switch does with a frame.
public enum SwitchDecision: Hashable, Sendable {
    case forward(SwitchPortSet)
    case drop(SwitchDrop)
}

/// An IEEE 802.1D learning bridge without spanning tree: a board's links form no loop.
///
/// Spec: IEEE 802.1D-2004 §7.7 (forwarding), §7.8 (learning), §7.9 (filtering database).
public struct EthernetSwitch: Sendable {
    /// Spec: IEEE 802.1D-2004 table 7-5: the recommended default of the ageing time.
    public static let defaultAgeing = Duration.seconds(300)

    private var table: ForwardingTable
    /// The ports that have a link now.
    public private(set) var up: SwitchPortSet = []
    /// Asked for each frame; may be replaced between two frames.
    public var policy: ForwardingPolicy
    /// Whether it forwards nothing. It forgets its stations when that begins.
    public var isHeld = false {
        didSet {
            if isHeld, !oldValue {
                for port in 0..<SwitchPort.maximumCount { table.forget(SwitchPort(rawValue: UInt8(port))) }
            }
        }
    }

    /// - Parameters:
    ///   - stations: how many addresses are remembered at most, rounded up to a power of two. 1024 are 32 KiB.
    ///   - ageing: how long a silent station is remembered.
    public init(
        stations: Int = 1024, ageing: Duration = EthernetSwitch.defaultAgeing,
        policy: ForwardingPolicy = .permitAll
    ) {
        precondition(stations > 0 && stations <= 1 << 20, "a table of 1 to 1,048,576 stations")
        var sets = 1
        while sets * ForwardingTable.ways < stations { sets *= 2 }
        table = ForwardingTable(sets: sets, ageing: ageing)
        self.policy = policy
    }

    /// Tells that the link of `port` came up or went down; a port that goes down forgets its stations.
    public mutating func setLink(_ isUp: Bool, on port: SwitchPort) {
        if isUp {
            up.insert(SwitchPortSet(port))
        } else {
            up.remove(SwitchPortSet(port))
            table.forget(port)
        }
    }

    /// Learns from `frame`, which entered by `ingress`, and says where it goes.
    public mutating func decide(
        _ frame: Span<UInt8>, from ingress: SwitchPort, at now: MonotonicTime
    ) -> SwitchDecision {
        guard !isHeld else { return .drop(.inReset) }
        guard let header = EthernetHeader(of: frame) else { return .drop(.malformed) }
        guard !header.source.isMulticast else { return .drop(.groupSource) }
        guard !header.destination.isBridgeReserved else { return .drop(.reserved) }
        table.learn(header.source, on: ingress, at: now)

        var egress: SwitchPortSet
        if !header.destination.isMulticast, let known = table.port(of: header.destination, at: now) {
            guard known != ingress else { return .drop(.samePort) }
            egress = SwitchPortSet(known)
        } else {
            egress = up.subtracting(SwitchPortSet(ingress))
        }
        guard !egress.isEmpty else { return .drop(.noPort) }
        egress = policy.permitted(frame, header, from: ingress, to: egress)
        return egress.isEmpty ? .drop(.policy) : .forward(egress)
    }

    /// The stations heard within the ageing time, in address order.
    public func stations(at now: MonotonicTime) -> [(address: MACAddress, port: SwitchPort)] {
        table.stations(at: now)
    }
}
