import Ethernet
import Management
import TestKit
import Testing

struct ManagementStackTests {
    @Test func `an ARP request for our address is answered to who asked`() {
        var stack = newStack()
        let (outcome, answers) = stack.take(arp())
        #expect(outcome == .answered)
        let reply =
            big(1) + big(0x0800) + [6, 4] + big(2) + octets(bmcMAC) + bmcAddress + octets(peerMAC) + peerAddress
        #expect(answers == [ethernet(to: peerMAC, from: bmcMAC, 0x0806, reply)])
        #expect(stack.statistics.arpReplies == 1)
    }

    @Test func `a padded ARP request is answered too`() {
        var stack = newStack()
        #expect(stack.take(arp() + Array(repeating: 0, count: 18)).outcome == .answered)
    }

    @Test(arguments: [0, 1, 56, 1472, 65_507])
    func `an echo request is answered with its own data`(length: Int) throws {
        var stack = newStack()
        let data = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let (outcome, answers) = stack.take(echo(data))
        #expect(outcome == .answered)
        let reply = try #require(answers.first)
        #expect(Array(reply[..<14]) == octets(peerMAC) + octets(bmcMAC) + [0x08, 0x00])
        #expect(Array(reply[26..<34]) == bmcAddress + peerAddress)
        #expect(checksum(Array(reply[14..<34])) == [0, 0])
        #expect(Array(reply[34..<36]) == [0, 0])
        #expect(checksum(Array(reply[34...])) == [0, 0])
        #expect(Array(reply[38...]) == big(0xABCD) + big(7) + data)
    }

    @Test func `options in a header are stepped over`() {
        var stack = newStack()
        var message: [UInt8] = [8, 0, 0, 0, 0, 1, 0, 1]
        message.replaceSubrange(2..<4, with: checksum(message))
        #expect(stack.take(ipv4(1, message, options: [1, 1, 1, 0])).outcome == .answered)
    }

    @Test(arguments: [false, true])
    func `a presence ping is answered with a pong, to us and to everyone`(isBroadcast: Bool) throws {
        var stack = newStack()
        let destination: [UInt8] = isBroadcast ? [192, 168, 7, 255] : bmcAddress
        let (outcome, answers) = stack.take(
            udp(presencePing, to: destination, mac: isBroadcast ? .broadcast : bmcMAC))
        #expect(outcome == .answered)
        let pong = try #require(answers.first)
        #expect(answers.count == 1)
        #expect(Array(pong[34..<40]) == big(623) + big(40_000) + big(8 + 28))
        #expect(checksum(bmcAddress + peerAddress + [0, 17] + big(36) + pong[34...]) == [0, 0])
        #expect(Array(pong[42...]) == presencePong)
    }

    @Test func `a ping that wants an acknowledge gets it before the pong`() {
        var stack = newStack()
        var ping = presencePing
        ping[2] = 5
        let (_, answers) = stack.take(udp(ping, withoutChecksum: true))
        #expect(answers.map { Array($0[42...]) } == [[6, 0, 5, 0x86], presencePong])
    }

    static let refused: [(PacketRefusal, [UInt8])] = [
        (.malformedFrame, Array(repeating: 0, count: 13)),
        (.malformedFrame, []),
        (.groupSource, ethernet(from: .broadcast, 0x0806, [])),
        (.groupSource, ethernet(from: .unspecified, 0x0800, [])),
        (.notForUs, ethernet(to: peerMAC, 0x0806, [])),
        (.notForUs, ethernet(to: MACAddress("01:00:5e:00:00:01")!, 0x0800, [])),
        (.unknownEtherType, ethernet(0x86DD, Array(repeating: 0, count: 40))),
        (.unknownEtherType, ethernet(0x0005, [1, 2, 3, 4, 5])),
        (.malformedARP, Array(arp().dropLast())),
        (.malformedARP, ethernet(0x0806, [])),
        (.foreignARP, arp(operation: 3)),
        (.foreignARP, ethernet(0x0806, big(6) + Array(arp()[16...]))),
        (.notForUs, arp(target: [192, 168, 7, 3])),
        (.malformedIPv4, ethernet(0x0800, [])),
        (.malformedIPv4, Array(echo()[..<33])),
        (.malformedIPv4, ipv4(1, [], edit: { $0[0] = 0x65 })),
        (.malformedIPv4, ipv4(1, [], edit: { $0[0] = 0x44 })),
        (.malformedIPv4, ipv4(1, [], edit: { $0[0] = 0x4F })),
        (
            .malformedIPv4,
            ipv4(
                1, [],
                edit: {
                    $0[2] = 0; $0[3] = 19
                })
        ),
        (
            .malformedIPv4,
            ipv4(
                1, [],
                edit: {
                    $0[2] = 0xFF; $0[3] = 0xFF
                })
        ),
        (.badIPv4Checksum, ipv4(1, [], edit: { $0[8] = 63 })),
        (.fragment, ipv4(1, [8, 0, 0, 0, 0, 0, 0, 0], flags: 0x2000)),
        (.fragment, ipv4(1, [8, 0, 0, 0, 0, 0, 0, 0], flags: 0x0001)),
        (.notForUs, echo(to: [192, 168, 7, 77])),
        (.badIPv4Source, echo(from: [127, 0, 0, 1])),
        (.badIPv4Source, echo(from: [0, 0, 0, 0])),
        (.badIPv4Source, echo(from: [224, 0, 0, 1])),
        (.badIPv4Source, echo(from: [255, 255, 255, 255])),
        (.badIPv4Source, echo(from: [192, 168, 7, 255])),
        (.badIPv4Source, echo(from: bmcAddress)),
        (.unknownProtocol, ipv4(6, Array(repeating: 0, count: 20))),
        (.malformedICMP, ipv4(1, [8, 0, 0xF7, 0xFF])),
        (.badICMPChecksum, echo(edit: { $0[9] ^= 1 })),
        (.unknownICMPType, echo(type: 0)),
        (.unknownICMPType, echo(type: 13)),
        (.unknownICMPType, echo(code: 1)),
        (.broadcastEcho, echo(to: [192, 168, 7, 255], mac: .broadcast)),
        (.broadcastEcho, echo(to: [255, 255, 255, 255], mac: .broadcast)),
        (.broadcastEcho, echo(mac: .broadcast)),
        (.malformedUDP, ipv4(17, [0, 1, 0, 2, 0, 8, 0])),
        (.malformedUDP, udp(presencePing, withoutChecksum: true, edit: { $0[5] = 7 })),
        (.malformedUDP, udp(presencePing, withoutChecksum: true, edit: { $0[5] = 21 })),
        (.malformedUDP, udp(presencePing, from: 0)),
        (.badUDPChecksum, udp(presencePing, edit: { $0[10] ^= 1 })),
        (.closedPort, udp(presencePing, port: 664)),
        (.malformedRMCP, udp([])),
        (.malformedRMCP, udp([6, 0, 0xFF])),
        (.malformedRMCP, udp([5] + presencePing.dropFirst())),
        (.malformedRMCP, udp(Array(presencePing.dropLast()))),
        (.malformedRMCP, udp(presencePing.dropLast() + [1])),
        (.unknownRMCP, udp([6, 0, 1, 0x86])),
        (.unknownRMCP, udp([6, 0, 0xFF, 7] + Array(repeating: 0, count: 10))),
        (.unknownRMCP, udp([6, 0, 0xFF, 6, 0, 0, 0x11, 0xBF] + presencePing[8...])),
        (.unknownRMCP, udp(presencePing[..<8] + [0x81] + presencePing[9...])),
        (.unknownRMCP, udp(presencePing[..<9] + [0xFF] + presencePing[10...])),
    ]

    @Test(arguments: refused.indices)
    func `a packet that must not be answered is not, for its own reason`(index: Int) {
        let (reason, frame) = Self.refused[index]
        var stack = newStack()
        let (outcome, answers) = stack.take(frame)
        #expect(outcome == .refused(reason))
        #expect(answers.isEmpty)
        #expect(stack.statistics.refused == [reason: 1])
    }

    @Test func `every reason to refuse that a frame can give has its case`() {
        #expect(Set(Self.refused.map(\.0)) == Set(PacketRefusal.allCases).subtracting([.noRoom]))
    }

    @Test func `without room for an answer there is none`() {
        var stack = newStack()
        var batch = FrameBatch(capacity: 65_557)
        let one = arp()
        #expect(stack.receive(one.span, into: &batch) == .answered)
        #expect(stack.receive(one.span, into: &batch) == .refused(.noRoom))
        let ping = echo()
        #expect(stack.receive(ping.span, into: &batch) == .refused(.noRoom))
        let presence = udp(presencePing)
        #expect(stack.receive(presence.span, into: &batch) == .refused(.noRoom))
    }

    @Test func `the collector is asked for, then sent to`() {
        var stack = ManagementStack(mac: bmcMAC, interface: bmcInterface, collector: IPv4Address("192.168.7.9")!)
        var batch = FrameBatch()
        let line = Array("hello".utf8)
        #expect(stack.sendToCollector(line.span, port: 514, into: &batch) == false)
        var frames: [[UInt8]] = []
        batch.forEachFrame { span in frames.append(span.indices.map { span[$0] }) }
        let question =
            big(1) + big(0x0800) + [6, 4] + big(1) + octets(bmcMAC) + bmcAddress + [0, 0, 0, 0, 0, 0] + peerAddress
        #expect(frames == [ethernet(to: .broadcast, from: bmcMAC, 0x0806, question)])
        #expect(stack.take(arp(operation: 2, to: bmcMAC)).outcome == .noted)
        #expect(stack.isCollectorKnown)
        batch.removeAll()
        #expect(stack.sendToCollector(line.span, port: 514, into: &batch) == true)
        frames = []
        batch.forEachFrame { span in frames.append(span.indices.map { span[$0] }) }
        #expect(frames.first.map { Array($0[..<6]) } == octets(peerMAC))
        #expect(frames.first.map { Array($0[42...]) } == line)
    }

    @Test func `tshark finds nothing wrong with what we send`() throws {
        var stack = ManagementStack(mac: bmcMAC, interface: bmcInterface, collector: IPv4Address("192.168.7.9")!)
        var writer = PcapngWriter()
        let eth0 = writer.addInterface(named: "bmc.eth0")
        var frames: [[UInt8]] = []
        var batch = FrameBatch()
        stack.announce(into: &batch)
        batch.forEachFrame { span in frames.append(span.indices.map { span[$0] }) }
        var acknowledged = presencePing
        acknowledged[2] = 9
        for question in [arp(), echo(), echo([]), udp(presencePing), udp(acknowledged)] {
            frames.append(question)
            frames += stack.take(question).answers
        }
        _ = stack.take(arp(operation: 2, to: bmcMAC))
        batch.removeAll()
        let line = SyslogMessage.encode(
            line: Array("Linux version 6.12".utf8), time: 1_709_210_096_123_456_789, hostname: "bmc0")
        #expect(stack.sendToCollector(line.span, port: SyslogMessage.port, into: &batch) == true)
        batch.forEachFrame { span in frames.append(span.indices.map { span[$0] }) }
        for frame in frames { writer.append(frame.span, time: 1, interface: eth0) }
        var capture: [UInt8] = []
        writer.take { span in capture = span.indices.map { span[$0] } }

        let checks = ["ip.check_checksum", "udp.check_checksum"].flatMap { ["-o", "\($0):TRUE"] }
        let rows = try tshark(
            capture,
            fields: [
                "_ws.col.Protocol", "arp.opcode", "ip.checksum.status", "icmp.type", "icmp.checksum.status",
                "udp.checksum.status", "rmcp.class", "asf.type", "asf.tag", "syslog.version", "_ws.malformed",
            ], options: checks)
        #expect(
            rows == [
                ["ARP", "1", "", "", "", "", "", "", "", "", ""],  // announcement
                ["ARP", "1", "", "", "", "", "", "", "", "", ""],
                ["ARP", "2", "", "", "", "", "", "", "", "", ""],
                ["ICMP", "", "1", "8", "1", "", "", "", "", "", ""],
                ["ICMP", "", "1", "0", "1", "", "", "", "", "", ""],
                ["ICMP", "", "1", "8", "1", "", "", "", "", "", ""],
                ["ICMP", "", "1", "0", "1", "", "", "", "", "", ""],
                ["ASF", "", "1", "", "", "1", "0x06", "0x80", "0x2a", "", ""],
                ["ASF", "", "1", "", "", "1", "0x06", "0x40", "0x2a", "", ""],
                ["ASF", "", "1", "", "", "1", "0x06", "0x80", "0x2a", "", ""],
                ["RMCP", "", "1", "", "", "1", "0x06", "", "", "", ""],
                ["ASF", "", "1", "", "", "1", "0x06", "0x40", "0x2a", "", ""],
                ["Syslog", "", "1", "", "", "1", "", "", "", "1", ""],
            ])
    }

    @Test func `random and mutated frames never trap the stack and get no more than they may`() {
        var random = SeededGenerator.fresh()
        var stack = ManagementStack(mac: bmcMAC, interface: bmcInterface, collector: IPv4Address("192.168.7.9")!)
        let good = [arp(), echo(), udp(presencePing), udp(presencePing, withoutChecksum: true), echo([])]
        for round in 0..<60_000 {
            var frame = good[round % good.count]
            switch Int.random(in: 0..<4, using: &random) {
            case 0: frame = random.bytes(Int.random(in: 0...90, using: &random))
            case 1: frame.removeLast(Int.random(in: 0...frame.count, using: &random))
            case 2: frame = Array(frame[..<14]) + random.bytes(Int.random(in: 0...90, using: &random))
            default:
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    frame[Int.random(in: 0..<frame.count, using: &random)] = .random(in: 0...255, using: &random)
                }
            }
            let (outcome, answers) = stack.take(frame)
            #expect(answers.count <= 2, "seed \(random.seed), round \(round)")
            #expect(answers.isEmpty == (outcome != .answered), "seed \(random.seed), round \(round)")
            #expect(
                answers.allSatisfy { $0.count <= max(frame.count, 70) }, "seed \(random.seed), round \(round)")
        }
    }
}
