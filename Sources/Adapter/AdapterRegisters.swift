// The adapter's management register file, BAR0: who the card is and what its ports carry.
//
// It stays when the virtio-net function comes: that one has BARs of its own. docs/wiring.md "Adapter card" has the table.

public import Ethernet

/// What the register file shows; read-only but for what the card itself changes.
public struct AdapterRegisters: Sendable {
    /// "ADBD".
    static let identifierValue: UInt32 = 0x4442_4441
    static let versionValue: UInt32 = 0x0001_0000
    /// Where port 0's block begins, and how far it is to the next.
    static let portBase: UInt64 = 0x100
    static let portStride: UInt64 = 0x40

    /// What became of the board's firmware, as the master sees it.
    public enum Verification: UInt32, Hashable, Sendable {
        /// Not the master, or nothing verified yet.
        case none = 0
        case verifying = 1
        case verified = 2
        case refused = 3
    }

    /// One port: its link and its counters.
    public struct Port: Sendable {
        public var isUp: Bool
        public var statistics: PortStatistics

        public init(isUp: Bool, statistics: PortStatistics) {
            self.isUp = isUp
            self.statistics = statistics
        }
    }

    public var mac: MACAddress
    public var isMaster: Bool
    public var verification: Verification
    public var ports: [Port]

    public init(mac: MACAddress, isMaster: Bool, verification: Verification, ports: [Port]) {
        self.mac = mac
        self.isMaster = isMaster
        self.verification = verification
        self.ports = ports
    }

    /// The 32-bit register at `offset`, a multiple of 4; 0 where there is none.
    public func read(_ offset: UInt64) -> UInt32 {
        switch offset {
        case 0x00: return Self.identifierValue
        case 0x04: return Self.versionValue
        // The address in the order of its octets, the first in the lowest byte.
        case 0x08: return (0..<4).reduce(0) { $0 | UInt32(mac[$1]) << UInt32(8 * $1) }
        case 0x0C: return UInt32(mac[4]) | UInt32(mac[5]) << 8
        case 0x10: return UInt32(clamping: ports.count)
        case 0x14: return isMaster ? 1 : 0
        case 0x18: return verification.rawValue
        default: break
        }
        guard offset >= Self.portBase else { return 0 }
        let index = (offset - Self.portBase) / Self.portStride
        guard index < UInt64(ports.count) else { return 0 }
        return read(ports[Int(index)], (offset - Self.portBase) % Self.portStride)
    }

    private func read(_ port: Port, _ offset: UInt64) -> UInt32 {
        let counter: UInt64
        switch offset & ~7 {
        case 0x00: return offset == 0 && port.isUp ? 1 : 0
        case 0x08: counter = port.statistics.receivedFrames
        case 0x10: counter = port.statistics.receivedBytes
        case 0x18: counter = port.statistics.receivedDropped
        case 0x20: counter = port.statistics.sentFrames
        case 0x28: counter = port.statistics.sentBytes
        case 0x30: counter = port.statistics.sentDropped
        default: return 0
        }
        return UInt32(truncatingIfNeeded: offset & 4 == 0 ? counter : counter >> 32)
    }
}
