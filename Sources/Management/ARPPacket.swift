import Ethernet

/// An ARP packet for IPv4 on Ethernet. Spec: RFC 826 "Packet format".
///
/// ```
/// 0    2    4  5  6    8            14      18           24
/// |hrd |pro |hl|pl|op  |sender MAC  |sender |target MAC  |target |
/// | 1  |0800|6 |4 |1, 2|            |IPv4   |            |IPv4   |
/// ```
struct ARPPacket: Hashable {
    static let length = 28

    enum Operation: UInt16 {
        case request = 1
        case reply = 2
    }

    var operation: Operation
    var senderMAC: MACAddress
    var sender: IPv4Address
    var targetMAC: MACAddress
    var target: IPv4Address

    init(
        _ operation: Operation, senderMAC: MACAddress, sender: IPv4Address, targetMAC: MACAddress, target: IPv4Address
    ) {
        self.operation = operation
        self.senderMAC = senderMAC
        self.sender = sender
        self.targetMAC = targetMAC
        self.target = target
    }

    /// Reads a frame's payload; padding may follow.
    init(_ bytes: Span<UInt8>) throws(PacketRefusal) {
        guard bytes.count >= Self.length else { throw .malformedARP }
        guard bytes.networkUInt16(at: 0) == 1, bytes.networkUInt16(at: 2) == EtherType.ipv4.rawValue, bytes[4] == 6,
            bytes[5] == 4, let operation = Operation(rawValue: bytes.networkUInt16(at: 6))
        else { throw .foreignARP }
        self.operation = operation
        senderMAC = bytes.macAddress(at: 8)
        sender = IPv4Address(rawValue: bytes.networkUInt32(at: 14))
        targetMAC = bytes.macAddress(at: 18)
        target = IPv4Address(rawValue: bytes.networkUInt32(at: 24))
        guard !senderMAC.isMulticast else { throw .malformedARP }
    }

    /// Adds the packet as a frame from its sender to `destination`. False when there is no room.
    func append(to batch: inout FrameBatch, destination: MACAddress) -> Bool {
        guard batch.beginFrame(EthernetHeader(destination: destination, source: senderMAC, etherType: .arp)) else {
            return false
        }
        batch.appendNetwork(UInt16(1))
        batch.appendNetwork(EtherType.ipv4.rawValue)
        batch.append(6)
        batch.append(4)
        batch.appendNetwork(operation.rawValue)
        batch.append(senderMAC)
        batch.appendNetwork(sender.rawValue)
        batch.append(targetMAC)
        batch.appendNetwork(target.rawValue)
        batch.endFrame()
        return true
    }
}
