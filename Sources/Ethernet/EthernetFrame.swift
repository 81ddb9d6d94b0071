// What an Ethernet frame is, to everything that receives one: bounds and the fourteen bytes in front.
//
// A frame itself is a `Span<UInt8>` into some receive buffer; it is never copied to be looked at. The header is copied
// out of it into a value of three words.

/// The protocol of a frame's payload. Spec: IEEE 802.3-2018 §3.2.6; numbers from the IEEE registry.
public struct EtherType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16

    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let ipv4 = EtherType(rawValue: 0x0800)
    public static let arp = EtherType(rawValue: 0x0806)
    /// A customer VLAN tag follows. Spec: IEEE 802.1Q-2018 §9.5.
    public static let vlan = EtherType(rawValue: 0x8100)
    public static let ipv6 = EtherType(rawValue: 0x86DD)
    public static let lldp = EtherType(rawValue: 0x88CC)

    /// False of 0…1535, which are IEEE 802.3 lengths, not protocols.
    @inlinable
    public var isProtocol: Bool { rawValue >= 0x0600 }
}

/// The bounds of a frame on our wires. There is no preamble and no frame check sequence, and no padding to 60 bytes:
/// QEMU's stream wire has none of these either.
public enum EthernetFrame {
    /// Addresses and EtherType.
    public static let headerLength = 14
    /// The largest frame: an IPv4 packet of 65,535 bytes behind a header with one VLAN tag. QEMU itself takes up to
    /// 69,632; nothing that a network card's segmentation offload builds exceeds ours.
    public static let maximumLength = 65_553
    /// The shortest frame that an IEEE 802.3 medium carries, without its check sequence. Receivers here do not insist.
    public static let minimumMediumLength = 60
}

/// The first fourteen bytes of a frame.
///
/// ```
/// 0           6           12   14
/// | dest MAC  | source MAC | type | payload …
/// ```
public struct EthernetHeader: Hashable, Sendable {
    public var destination: MACAddress
    public var source: MACAddress
    public var etherType: EtherType

    @inlinable
    public init(destination: MACAddress, source: MACAddress, etherType: EtherType) {
        self.destination = destination
        self.source = source
        self.etherType = etherType
    }

    /// Reads the header of `frame`; nil when the frame is shorter than a header or longer than
    /// ``EthernetFrame/maximumLength``.
    @inlinable
    public init?(of frame: Span<UInt8>) {
        guard frame.count >= EthernetFrame.headerLength, frame.count <= EthernetFrame.maximumLength else { return nil }
        destination = frame.macAddress(at: 0)
        source = frame.macAddress(at: 6)
        etherType = EtherType(rawValue: frame.networkUInt16(at: 12))
    }
}
