import Ethernet
import Synchronization
import Testing
import VFIOUser
import Virtio
import Wire

/// Network functions on a switch.
struct NetTests {
    @Test(arguments: RingKind.all)
    func `frames go from function to function unchanged, in order`(_ kind: RingKind) throws {
        let rig = try NetRig(kind)
        for round in 0..<300 {
            let payload = (0..<(46 + round * 5 % 1455)).map { UInt8(truncatingIfNeeded: $0 &+ round) }
            let (from, to) = round % 2 == 0 ? (0, 1) : (1, 0)
            let frame = NetRig.frame(from, to, payload)
            rig.nodes[from].send(frame, inOne: round % 3 == 0)
            let received = try #require(rig.nodes[to].next())
            #expect(received.frame == frame)
            #expect(received.header == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
            rig.nodes[to].post()
        }
        let statistics = rig.fabric.functions.map(\.statistics)
        #expect(statistics[0].receivedFrames == 150 && statistics[1].receivedFrames == 150)
        #expect(statistics.allSatisfy { $0.sentDropped == 0 && $0.receivedDropped == 0 })
        #expect(rig.nodes.allSatisfy { $0.rig.log.all.isEmpty })
    }

    @Test(arguments: RingKind.all)
    func `a frame fills as many mergeable buffers as it needs`(_ kind: RingKind) throws {
        let rig = try NetRig(kind, bufferSize: 256)
        for length in [100, 230, 231, 500, 1486, 3000] {
            let frame = NetRig.frame(0, 1, (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 3) })
            rig.nodes[0].send(frame)
            let received = try #require(rig.nodes[1].next())
            #expect(received.frame == frame)
            #expect(Int(received.header[10]) == (12 + frame.count + 255) / 256)
            // All buffers go back before the next frame.
            rig.nodes[1].post()
        }
    }

    @Test(arguments: [RingKind.all[1], RingKind.all[3]])
    func `without mergeable buffers a frame too long is lost and the next one comes`(_ kind: RingKind) throws {
        let rig = try NetRig(kind, without: VirtioNetFeature.mergeableBuffers, bufferSize: 256)
        rig.nodes[0].send(NetRig.frame(0, 1, [UInt8](repeating: 1, count: 300)))
        let short = NetRig.frame(0, 1, [UInt8](repeating: 2, count: 100))
        rig.nodes[0].send(short)
        #expect(rig.nodes[1].next()?.frame == short)
        #expect(rig.fabric.functions[1].statistics.sentDropped == 1)
    }

    @Test(arguments: RingKind.all)
    func `frames wait for buffers, up to a bound`(_ kind: RingKind) throws {
        let rig = try NetRig(kind, posts: false)
        let frames = (0..<100).map { NetRig.frame(0, 1, [UInt8](repeating: UInt8($0), count: 200)) }
        for frame in frames { rig.nodes[0].send(frame) }
        for frame in frames {
            if !rig.nodes[1].receive.hasUsed { rig.nodes[1].post(7) }
            #expect(rig.nodes[1].next()?.frame == frame)
        }
        for _ in 0..<600 { rig.nodes[0].send(NetRig.frame(0, 1, [UInt8](repeating: 0, count: 1400))) }
        #expect(rig.fabric.functions[1].statistics.sentDropped > 0)
        rig.nodes[1].post()
        #expect(rig.nodes[1].next() != nil)
    }

    @Test func `a checksum left to the device is right when it arrives`() throws {
        let rig = try NetRig(RingKind.all[1])
        // UDP over IPv4: the checksum field holds the pseudo header's sum, as drivers leave it.
        var packet: [UInt8] = [0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
        packet += [0x12, 0x34, 0x56, 0x78, 0, 13, 0, 0, 1, 2, 3, 4, 5]
        func sum(_ bytes: [UInt8]) -> UInt32 {
            var total: UInt32 = 0
            for index in stride(from: 0, to: bytes.count, by: 2) {
                total += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
            }
            while total >> 16 != 0 { total = total & 0xFFFF + total >> 16 }
            return total
        }
        let pseudo = sum(Array(packet[12..<20]) + [0, 17, 0, 13])
        packet[26] = UInt8(pseudo >> 8)
        packet[27] = UInt8(truncatingIfNeeded: pseudo)
        let frame = NetRig.frame(0, 1, packet, type: 0x0800)
        rig.nodes[0].send(frame, header: [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0])
        let received = try #require(rig.nodes[1].next()).frame
        // With the right checksum everything sums to all ones.
        #expect(sum(Array(received[26..<34]) + [0, 17, 0, 13] + Array(received[34...])) == 0xFFFF)
        // One outside of the frame, and segmentation, which was not offered: lost.
        rig.nodes[0].send(frame, header: [1, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0])
        rig.nodes[0].send(frame, header: [1, 0, 0, 0, 0, 0, 34, 0, 0xFF, 0xFF, 0, 0])
        rig.nodes[0].send(frame, header: [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        let last = NetRig.frame(0, 1, [9])
        rig.nodes[0].send(last)
        #expect(rig.nodes[1].next()?.frame == last)
    }

    @Test func `the receive modes and tables filter`() throws {
        let rig = try NetRig(RingKind.all[1])
        let node = rig.nodes[1]
        let other = MACAddress(rawValue: 0x5254_0000_0077)
        func send(to address: MACAddress, tag: [UInt8] = []) -> [UInt8] {
            let frame =
                (0..<6).map { address[$0] } + (0..<6).map { NetRig.addresses[0][$0] } + tag + [0x88, 0xB5, 1, 2, 3]
            rig.nodes[0].send(frame)
            return frame
        }
        /// Whether a frame to an address arrives: one that surely does follows it.
        func arrives(_ address: MACAddress, tag: [UInt8] = []) throws -> Bool {
            let frame = send(to: address, tag: tag)
            let marker = send(to: NetRig.addresses[1])
            let first = try #require(node.next()).frame
            let isThere = first == frame
            if isThere, frame != marker { #expect(node.next()?.frame == marker) }
            node.post()
            return isThere
        }
        let group = MACAddress(rawValue: 0x3333_0000_0001)
        #expect(try arrives(other), "promiscuous until the driver says something")
        #expect(node.command([0, 0, 0]) == 0)
        #expect(try !arrives(other) && !arrives(group))
        #expect(try arrives(.broadcast))
        #expect(node.command([0, 1, 1]) == 0)
        #expect(try arrives(group))
        #expect(node.command([0, 1, 0]) == 0)
        let octets = { (address: MACAddress) in (0..<6).map { address[$0] } }
        #expect(node.command([1, 0, 1, 0, 0, 0] + octets(other) + [1, 0, 0, 0] + octets(group)) == 0)
        #expect(try arrives(other) && arrives(group))
        #expect(node.command([0, 5, 1]) == 0)
        #expect(try !arrives(.broadcast))
        // VLANs: none passes until it is added.
        #expect(try !arrives(NetRig.addresses[1], tag: [0x81, 0, 0, 5]))
        #expect(node.command([2, 0, 5, 0]) == 0)
        #expect(try arrives(NetRig.addresses[1], tag: [0x81, 0, 0, 5]))
        #expect(node.command([2, 1, 5, 0]) == 0)
        #expect(try !arrives(NetRig.addresses[1], tag: [0x81, 0, 0, 5]))
        // A new address of its own.
        #expect(node.command([1, 1] + octets(MACAddress(rawValue: 0x5254_0000_0099))) == 0)
        #expect(node.rig.driver.read(node.rig.driver.device, 0, 4) == 0x0000_5452)
        #expect(node.rig.driver.read(node.rig.driver.device, 4, 2) == 0x9900)
    }

    @Test(arguments: [
        [UInt8](arrayLiteral: 0, 9, 1), [0, 0, 2], [0, 0], [1, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0],
        [1, 0, 0xFF, 0xFF, 0xFF, 0xFF], [1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0x10],
        [4, 0, 2, 0],
        [4, 0, 0, 0], [3, 0, 0], [77, 77],
    ])
    func `a control command that makes no sense is refused and the next one works`(_ command: [UInt8]) throws {
        let rig = try NetRig(RingKind.all[1])
        #expect(rig.nodes[0].command(command) == 1)
        #expect(rig.nodes[0].command([0, 0, 1]) == 0)
        #expect(rig.nodes[0].rig.log.all.isEmpty)
    }

    @Test func `with several queue pairs a flow is received by the pair that it is sent by`() throws {
        let rig = try NetRig(RingKind.all[1], queuePairs: 4)
        let node = rig.nodes[0]
        var second = node.rig.queue(0x3_0000, size: 64, RingKind.all[1])
        var sending = node.rig.queue(0x4_0000, size: 64, RingKind.all[1])
        node.rig.driver.write(node.rig.driver.common, CommonField.queueSelect, 2, 2)
        node.rig.driver.enable(2, second)
        node.rig.driver.enable(3, sending)
        #expect(node.rig.driver.read(node.rig.driver.device, NetConfigurationField.maximumQueuePairs, 2) == 4)
        #expect(node.command([4, 0, 2, 0]) == 0)
        _ = second.added(.init(Memory.base + 0x28_0000, 2048, writable: true))
        if second.publish() { node.rig.driver.kick(2) }
        // An answer to what was sent by pair 1 comes by pair 1.
        let frame = NetRig.frame(0, 1, [1, 2, 3, 4])
        node.rig.memory.set([UInt8](repeating: 0, count: 12) + frame, 0x29_0000)
        _ = sending.added(.init(Memory.base + 0x29_0000, 12 + frame.count))
        if sending.publish() { node.rig.driver.kick(3) }
        #expect(rig.nodes[1].next()?.frame == frame)
        let answer = NetRig.frame(1, 0, [5, 6, 7, 8])
        rig.nodes[1].send(answer)
        let taken = second.awaitAnswer()
        #expect(taken?.written == UInt32(12 + answer.count))
        #expect(node.rig.memory.bytes(0x28_0000 + 12, answer.count) == answer)
        #expect(node.command([4, 0, 5, 0]) == 1)
    }

    @Test func `frames pass between a function and a link, and a capture sees them`() throws {
        let rig = try NetRig(RingKind.all[1])
        let (near, far) = try Socket.pair()
        try rig.fabric.start("eth", .connected(far))
        let fabric = rig.fabric
        #expect(eventually { fabric.ports[0].isUp })
        let seen = Observer()
        rig.fabric.functions[0].tap.insert(seen)
        let station = MACAddress(rawValue: 0x5254_0000_0003)
        let inbound =
            (0..<6).map { NetRig.addresses[0][$0] } + (0..<6).map { station[$0] } + [0x88, 0xB5]
            + [UInt8](repeating: 7, count: 50)
        try inbound.withUnsafeBytes { try near.send($0.prefixed()) }
        #expect(rig.nodes[0].next()?.frame == inbound)
        let outbound =
            (0..<6).map { station[$0] } + (0..<6).map { NetRig.addresses[0][$0] } + [0x88, 0xB5]
            + [UInt8](repeating: 8, count: 60)
        rig.nodes[0].send(outbound)
        var buffer = [UInt8](repeating: 0, count: 200)
        var descriptors: [Descriptor] = []
        let count = try buffer.withUnsafeMutableBytes { raw in
            try near.receive(into: raw, descriptors: &descriptors, waiting: true)
        }
        #expect(count == .bytes(4 + outbound.count))
        #expect(Array(buffer[4..<4 + outbound.count]) == outbound)
        #expect(seen.frames == [inbound, outbound])
        #expect(seen.directions == [.sent, .received])
        near.shutdown()
    }

    @Test func `a function with a link of its own carries frames both ways and shows the link's state`() throws {
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        let thread = WorkerThread("virtio") { worker.run() }
        defer {
            loop.stop()
            thread.join()
        }
        let port = EthernetPort(named: "eth0", loop: loop)
        let (near, far) = try Socket.pair()
        let net = try VirtioNet.joined(to: port, .connected(far), address: NetRig.addresses[0])
        let node = try NetNode(net, worker: worker, RingKind.all[3])
        node.post()
        #expect(eventually { net.isLinkUp })
        #expect(node.rig.driver.read(node.rig.driver.device, NetConfigurationField.status, 2) == 1)
        let outbound = NetRig.frame(0, 1, (0..<100).map { UInt8($0) })
        node.send(outbound)
        var buffer = [UInt8](repeating: 0, count: 200)
        var descriptors: [Descriptor] = []
        let count = try buffer.withUnsafeMutableBytes { raw in
            try near.receive(into: raw, descriptors: &descriptors, waiting: true)
        }
        #expect(count == .bytes(4 + outbound.count) && Array(buffer[4..<4 + outbound.count]) == outbound)
        for number: UInt8 in 0..<100 {
            let inbound = NetRig.frame(1, 0, [UInt8](repeating: number, count: 60 + Int(number)))
            try inbound.withUnsafeBytes { try near.send($0.prefixed()) }
            #expect(node.next()?.frame == inbound)
            node.post()
        }
        near.shutdown()
        #expect(eventually { !net.isLinkUp })
        #expect(node.rig.driver.read(node.rig.driver.device, NetConfigurationField.status, 2) == 0)
    }

    @Test func `an impairment of a function's port drops, replaces and cuts`() throws {
        let rig = try NetRig(RingKind.all[1])
        let seen = Observer()
        rig.fabric.functions[1].tap.insert(seen)
        seen.verdicts.withLock { $0 = [.drop, .replace([NetRig.frame(0, 1, [1]), NetRig.frame(0, 1, [2])]), .pass] }
        for number: UInt8 in [10, 11, 12] { rig.nodes[0].send(NetRig.frame(0, 1, [number])) }
        for expected: UInt8 in [1, 2, 12] { #expect(rig.nodes[1].next()?.frame.last == expected) }
        seen.verdicts.withLock { $0 = [.disconnect] }
        rig.nodes[0].send(NetRig.frame(0, 1, [13]))
        let port = rig.fabric.functions[1]
        #expect(eventually { port.isUp })
        rig.nodes[0].send(NetRig.frame(0, 1, [14]))
        rig.nodes[0].send(NetRig.frame(0, 1, [15]))
        #expect([14, 15].contains(try #require(rig.nodes[1].next()).frame.last))
    }

    @Test func `a driver that goes takes its port down, and the link's state interrupts`() throws {
        let rig = try NetRig(RingKind.all[1])
        let node = rig.nodes[0]
        let notifiers = try (0..<4).map { _ in try EventNotifier() }
        try node.rig.client.setInterrupts(.msix, notifiers: notifiers)
        node.rig.driver.write(node.rig.driver.common, CommonField.configVector, 2, 3)
        #expect(node.rig.driver.read(node.rig.driver.device, NetConfigurationField.status, 2) == 1)
        rig.loop.perform { [net = node.net] in net.setLink(false) }
        #expect(eventually { notifiers[3].drain() })
        #expect(node.rig.driver.read(node.rig.driver.device, NetConfigurationField.status, 2) == 0)
        let fabric = rig.fabric
        rig.nodes[1].rig.driver.reset()
        #expect(eventually { !fabric.functions[1].isUp })
        #expect(fabric.functions[0].isUp)
    }
}

private final class Observer: LinkObserver {
    let verdicts = Mutex<[LinkVerdict]>([])
    private let seen = Mutex<[([UInt8], LinkDirection)]>([])
    var frames: [[UInt8]] { seen.withLock { $0.map(\.0) } }
    var directions: [LinkDirection] { seen.withLock { $0.map(\.1) } }

    func message(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict {
        seen.withLock { $0.append((Array(bytes), direction)) }
        return verdicts.withLock { $0.isEmpty ? .pass : $0.removeFirst() }
    }
}

extension UnsafeRawBufferPointer {
    /// The frame behind its length, as on the wire.
    fileprivate func prefixed() -> UnsafeRawBufferPointer {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count + 4, alignment: 4)
        buffer.storeBytes(of: UInt32(count).bigEndian, as: UInt32.self)
        UnsafeMutableRawBufferPointer(rebasing: buffer[4...]).copyMemory(from: self)
        return UnsafeRawBufferPointer(buffer)
    }
}
