// The BMC's network stack as a value: a frame in, frames out. No clock, no socket, no thread.
//
// An answer goes back to the MAC address that asked, so answering needs no neighbour table. Only what the BMC says
// unasked (the export of console lines) does, and that knows exactly one neighbour: the collector.

public import Ethernet

/// ARP, IPv4, ICMP echo, and RMCP presence on UDP port 623, for one interface.
public struct ManagementStack: Sendable {
    /// What a frame led to.
    public enum Outcome: Hashable, Sendable {
        /// An answer was added to the batch.
        case answered
        /// Taken; nothing to say.
        case noted
        case refused(PacketRefusal)
    }

    /// Packets by what became of them.
    public struct Statistics: Hashable, Sendable {
        public var arpReplies: UInt64 = 0
        public var echoReplies: UInt64 = 0
        public var presencePongs: UInt64 = 0
        public var datagramsSent: UInt64 = 0
        public var refused: [PacketRefusal: UInt64] = [:]
    }

    public let mac: MACAddress
    public let interface: IPv4Interface
    /// Where `sendToCollector` sends; nil for nowhere.
    public let collector: IPv4Address?
    /// Whether UDP port 623 is open.
    public var answersRMCP = true
    public private(set) var statistics = Statistics()
    private var collectorMAC: MACAddress?
    private var identification: UInt16 = 0

    /// - Parameter collector: a station of the interface's own network, since there is no router.
    public init(mac: MACAddress, interface: IPv4Interface, collector: IPv4Address? = nil) {
        precondition(!mac.isMulticast && mac != .unspecified, "an interface has a unicast address")
        precondition(collector.map(interface.isUsable) ?? true, "the collector is a station of the network")
        self.mac = mac
        self.interface = interface
        self.collector = collector
    }

    /// Tells the network where the address is now. Spec: RFC 5227 §2.3 (ARP announcement).
    public mutating func announce(into batch: inout FrameBatch) {
        _ = ARPPacket(
            .request, senderMAC: mac, sender: interface.address, targetMAC: .unspecified, target: interface.address
        ).append(to: &batch, destination: .broadcast)
    }

    /// Takes a frame; answers are added to `batch`.
    @discardableResult
    public mutating func receive(_ frame: Span<UInt8>, into batch: inout FrameBatch) -> Outcome {
        do throws(PacketRefusal) {
            return try process(frame, &batch)
        } catch {
            statistics.refused[error, default: 0] &+= 1
            return .refused(error)
        }
    }

    private mutating func process(
        _ frame: Span<UInt8>, _ batch: inout FrameBatch
    ) throws(PacketRefusal) -> Outcome {
        guard let header = EthernetHeader(of: frame) else { throw .malformedFrame }
        guard !header.source.isMulticast, header.source != .unspecified else { throw .groupSource }
        guard header.destination == mac || header.destination == .broadcast else { throw .notForUs }
        let payload = frame.extracting(EthernetFrame.headerLength..<frame.count)
        switch header.etherType {
        case .arp: return try processARP(payload, &batch)
        case .ipv4: return try processIPv4(payload, from: header, &batch)
        default: throw .unknownEtherType
        }
    }

    // Spec: RFC 826 "Packet reception".
    private mutating func processARP(
        _ bytes: Span<UInt8>, _ batch: inout FrameBatch
    ) throws(PacketRefusal) -> Outcome {
        let packet = try ARPPacket(bytes)
        if packet.sender == collector, packet.senderMAC != .unspecified { collectorMAC = packet.senderMAC }
        guard packet.target == interface.address else { throw .notForUs }
        guard packet.operation == .request else { return .noted }
        let reply = ARPPacket(
            .reply, senderMAC: mac, sender: interface.address, targetMAC: packet.senderMAC, target: packet.sender)
        guard reply.append(to: &batch, destination: packet.senderMAC) else { throw .noRoom }
        statistics.arpReplies &+= 1
        return .answered
    }

    private mutating func processIPv4(
        _ bytes: Span<UInt8>, from header: EthernetHeader, _ batch: inout FrameBatch
    ) throws(PacketRefusal) -> Outcome {
        let packet = try IPv4Header(bytes)
        let isBroadcast = packet.destination == .limitedBroadcast || packet.destination == interface.broadcast
        guard packet.destination == interface.address || isBroadcast else { throw .notForUs }
        let source = packet.source
        guard source != interface.address, source != interface.broadcast, source.rawValue >> 24 != 0,
            !source.isMulticast, !source.isLoopback, !source.isReserved
        else { throw .badIPv4Source }
        let payload = bytes.extracting(packet.headerLength..<packet.totalLength)
        let route = IPv4Route(
            sourceMAC: mac, source: interface.address, destinationMAC: header.source, destination: source)
        switch packet.transportProtocol {
        case IPv4Header.TransportProtocol.icmp:
            try ICMPMessage.checkEchoRequest(payload)
            guard !isBroadcast, header.destination == mac else { throw .broadcastEcho }
            guard
                ICMPMessage.appendEchoReply(
                    to: payload, route, identification: nextIdentification(), into: &batch)
            else { throw .noRoom }
            statistics.echoReplies &+= 1
            return .answered
        case IPv4Header.TransportProtocol.udp:
            let datagram = try UDPHeader(payload, in: packet)
            guard datagram.destinationPort == RMCPMessage.port, answersRMCP else { throw .closedPort }
            // A source port of 0 says that no answer is expected. Spec: RFC 768 "Source Port".
            guard datagram.sourcePort != 0 else { throw .malformedUDP }
            return try processRMCP(
                payload.extracting(UDPHeader.length..<datagram.totalLength), from: datagram, route, &batch)
        default:
            throw .unknownProtocol
        }
    }

    private mutating func processRMCP(
        _ bytes: Span<UInt8>, from datagram: UDPHeader, _ route: IPv4Route, _ batch: inout FrameBatch
    ) throws(PacketRefusal) -> Outcome {
        let message = try RMCPMessage(bytes)
        guard message.messageClass == RMCPMessage.asfClass else { throw .unknownRMCP }
        let tag = try ASFMessage.presencePingTag(bytes)
        var answers = [ASFMessage.pong(tag: tag)]
        if let acknowledge = message.acknowledge { answers.insert(acknowledge, at: 0) }
        for answer in answers {
            guard
                batch.appendDatagram(
                    answer.span, from: RMCPMessage.port, to: datagram.sourcePort, route,
                    identification: nextIdentification())
            else { throw .noRoom }
        }
        statistics.presencePongs &+= 1
        return .answered
    }

    /// Sends `data` to `port` of the collector. False when nothing was sent: there is no collector, no room, or its MAC
    /// address is not known yet; in that case a question for it was added, and the caller may try again on the answer.
    public mutating func sendToCollector(_ data: Span<UInt8>, port: UInt16, into batch: inout FrameBatch) -> Bool {
        guard let collector else { return false }
        guard let collectorMAC else {
            _ = ARPPacket(
                .request, senderMAC: mac, sender: interface.address, targetMAC: .unspecified, target: collector
            ).append(to: &batch, destination: .broadcast)
            return false
        }
        let route = IPv4Route(
            sourceMAC: mac, source: interface.address, destinationMAC: collectorMAC, destination: collector)
        let sent = batch.appendDatagram(
            data, from: port, to: port, route, identification: nextIdentification())
        if sent { statistics.datagramsSent &+= 1 }
        return sent
    }

    /// True when the collector can be sent to.
    public var isCollectorKnown: Bool { collectorMAC != nil }

    private mutating func nextIdentification() -> UInt16 {
        identification &+= 1
        return identification
    }
}
