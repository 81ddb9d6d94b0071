import Synchronization
import Testing
import VFIOUser
import Wire

/// Region I/O descriptors, batches of writes, memory maps of regions in parts.
struct DoorbellTests {
    // MARK: Bytes

    @Test func `DEVICE_GET_REGION_IO_FDS is 16 bytes and 40 a part`() throws {
        let offer = RegionIOFDs(
            index: 2,
            parts: [.init(offset: 8, length: 4, place: 1, flags: 1, match: 7), .init(offset: 16, length: 0, place: 0)])
        let wire = bytes([
            u32(96), u32(0), u32(2), u32(2), u64(8), u64(4), u32(1), u32(0), u32(1), u32(0), u64(7), u64(16), u64(0),
            u32(0), u32(0), u32(0), u32(0), u64(0),
        ])
        #expect(offer.replySize == 96)
        #expect(encoded(96) { _ = offer.encode(into: &$0, room: 96) } == wire)
        let (reply, needs) = try RegionIOFDs.reply(wire.span.bytes)
        #expect(reply == offer && needs == 96)
        #expect(encoded(16) { _ = offer.encode(into: &$0, room: 95) } == Array(wire[..<16]))
        let short = Array(wire[..<16])
        #expect(try RegionIOFDs.reply(short.span.bytes).reply.parts.isEmpty)
        let request = bytes([u32(96), u32(0), u32(2), u32(0)])
        #expect(encoded(16) { RegionIOFDs.encodeRequest(index: 2, room: 96, into: &$0) } == request)
        #expect(try RegionIOFDs.request(request.span.bytes) == (2, 96))
    }

    @Test func `libvfio-user's parts of 48 bytes are read too`() throws {
        let wire = bytes([
            u32(64), u32(0), u32(0), u32(1), u64(8), u64(4), u32(0), u32(0), u32(1), u32(9), u64(5), u64(7),
        ])
        #expect(
            try RegionIOFDs.reply(wire.span.bytes).reply.parts == [
                .init(offset: 8, length: 4, place: 0, flags: 1, match: 7)
            ])
    }

    @Test(arguments: [
        bytes([u32(16), u32(0), u32(0)]), bytes([u32(16), u32(0), u32(0), u32(1)]),
        bytes([u32(55), u32(0), u32(0), u32(1)]) + [UInt8](repeating: 0, count: 39),
        bytes([u32(96), u32(0), u32(0), u32(.max)]) + [UInt8](repeating: 0, count: 80),
        bytes([u32(8), u32(0), u32(0), u32(1)]),
    ]) func `a malformed reply to DEVICE_GET_REGION_IO_FDS is refused`(wire: [UInt8]) {
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try RegionIOFDs.reply(raw) } == .invalid)
    }

    @Test func `a batch of writes is 8 bytes and 24 a write`() throws {
        let writes = [
            RegionWrite(region: 1, offset: 16, width: 4, value: 5),
            RegionWrite(region: 0, offset: 0, width: 8, value: 9),
        ]
        let wire = bytes([u64(2), u64(16), u32(1), u32(4), u64(5), u64(0), u32(0), u32(8), u64(9)])
        #expect(encoded(56) { RegionWriteMulti.encode(writes, into: &$0) } == wire)
        #expect(try RegionWriteMulti(wire.span.bytes).count == 2)
    }

    // MARK: Doorbells

    /// A device with doorbells: in region 0 at 0x100 of 4 bytes; at 0x104 of any width; at 0x108 for the value 3.
    private func doorbells(_ device: ScratchDevice) throws -> [EventNotifier] {
        let notifiers = try (0..<3).map { _ in try EventNotifier() }
        device.doorbells.withLock {
            $0 = [
                .init(offset: 0x100, width: 4, notifier: notifiers[0]), .init(offset: 0x104, notifier: notifiers[1]),
                .init(offset: 0x108, width: 4, match: 3, notifier: notifiers[2]),
            ]
        }
        return notifiers
    }

    @Test func `a write to a doorbell signals its eventfd and sends nothing`() throws {
        let served = try ServedDevice()
        let notifiers = try doorbells(served.device)
        let client = try VFIOUserClient(socket: served.socket, ioEvents: true)
        #expect(client.doorbellCount == 3)
        #expect(client.write(region: 0, offset: 0x100, width: 4, value: 77))
        #expect(notifiers[0].drain())
        #expect(client.post(region: 0, offset: 0x104, width: 2, value: 77))
        #expect(client.write(region: 0, offset: 0x104, width: 8, value: 77))
        #expect(notifiers[1].drain())
        #expect(client.write(region: 0, offset: 0x108, width: 4, value: 3))
        #expect(notifiers[2].drain())
        #expect(client.read(region: 0, offset: 0x100, width: 8) == 0)
        #expect(client.read(region: 0, offset: 0x108, width: 4) == 0)
    }

    @Test func `a write that a doorbell does not match goes to the device`() throws {
        let served = try ServedDevice()
        let notifiers = try doorbells(served.device)
        let client = try VFIOUserClient(socket: served.socket, ioEvents: true)
        #expect(client.write(region: 0, offset: 0x100, width: 2, value: 7))
        #expect(client.write(region: 0, offset: 0x108, width: 4, value: 4))
        #expect(client.write(region: 0, offset: 0x101, width: 1, value: 1))
        #expect(client.read(region: 0, offset: 0x100, width: 4) == 0x107)
        #expect(client.read(region: 0, offset: 0x108, width: 4) == 4)
        #expect(!notifiers.contains { $0.drain() })
        // A client that did not ask sends them all.
        let plain = try ServedDevice()
        _ = try doorbells(plain.device)
        let other = try plain.client()
        #expect(other.write(region: 0, offset: 0x100, width: 4, value: 7))
        #expect(other.read(region: 0, offset: 0x100, width: 4) == 7)
    }

    @Test func `doorbells that share an eventfd pass it once, and a client with little room gets what fits`() throws {
        let served = try ServedDevice()
        let shared = try EventNotifier()
        let single = try EventNotifier()
        served.device.doorbells.withLock { doorbells in
            doorbells = (0..<3).map { .init(offset: $0 * 4, width: 4, notifier: shared) }
            doorbells.append(.init(offset: 16, width: 4, notifier: single))
        }
        let peer = RawPeer(served.socket)
        try peer.command(.version, [0, 0, 1, 0])
        #expect(try peer.reply().header.refusal == nil)
        try peer.command(.deviceGetRegionIOFDs, bytes([u32(16), u32(0), u32(0), u32(0)]))
        // One descriptor a message is what a client takes that says nothing.
        #expect(try peer.reply().payload == bytes([u32(136), u32(0), u32(0), u32(3)]))
        #expect(peer.descriptors.isEmpty)
        try peer.command(.deviceGetRegionIOFDs, bytes([u32(136), u32(0), u32(0), u32(0)]))
        #expect(try peer.reply().payload.count == 136)
        #expect(peer.descriptors.count == 1)
    }

    @Test(
        arguments: [
            (bytes([u32(15), u32(0), u32(0), u32(0)]), ErrorNumber.invalid),
            (bytes([u32(16), u32(1), u32(0), u32(0)]), .invalid), (bytes([u32(16), u32(0), u32(0), u32(1)]), .invalid),
            (bytes([u32(16), u32(0), u32(4), u32(0)]), .invalid),
            (bytes([u32(16), u32(0), u32(1), u32(0)]), .notSupported),
            (bytes([u32(16)]), .invalid),
        ] as [([UInt8], ErrorNumber)])
    func `a question for doorbells that cannot be is refused`(payload: [UInt8], error: ErrorNumber) throws {
        let served = try ServedDevice()
        _ = try doorbells(served.device)
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.deviceGetRegionIOFDs, payload)
        #expect(try peer.reply().header.refusal == error)
    }

    /// A server of one region that offers what it is told to.
    private func offering(
        _ parts: [RegionIOFDs.Part], _ descriptors: [Descriptor]
    ) throws -> VFIOUserClient {
        try VFIOUserClient(
            socket: scripted { peer, header in
                guard header.command == .deviceGetRegionIOFDs else { return false }
                let offer = RegionIOFDs(index: 0, parts: parts)
                let payload = encoded(offer.replySize) { _ = offer.encode(into: &$0, room: .max) }
                try peer.send(header.reply(payload: payload.count), payload, descriptors: descriptors)
                return true
            }, ioEvents: true)
    }

    @Test func `an offer that leaves the region, has no descriptor or no eventfd ends the client`() throws {
        let event = try EventNotifier().descriptor
        let file = try SharedMemory(create: "file", size: 4096).descriptor
        for (part, descriptor) in [
            (.init(offset: 4096, length: 4, place: 0), event), (.init(offset: 4094, length: 4, place: 0), event),
            (.init(offset: 0, length: .max, place: 0), event), (.init(offset: 0, length: 4, place: 1), event),
            (.init(offset: 0, length: 4, place: 0), file),
        ] as [(RegionIOFDs.Part, Descriptor)] {
            #expect(throws: VFIOUserError.self) { try offering([part], [descriptor]) }
        }
        let other = try offering(
            [.init(offset: 0, length: 4, place: 0, type: 1), .init(offset: 4, length: 4, place: 0, flags: 2)], [event])
        #expect(other.doorbellCount == 0 && !other.isGone)
    }

    // MARK: Batches

    @Test(arguments: [1, 2, 1024, 1025, 3000]) func `a batch of writes arrives whole and in order`(count: Int) throws {
        let served = try ServedDevice()
        let seen = Sequence()
        served.device.onDoorbell.withLock { $0 = { value in seen.values.withLock { $0.append(value) } } }
        let client = try served.client()
        #expect(client.capabilities.writeMultiple == true)
        let writes = (0..<count).map { RegionWrite(region: 1, offset: 0, width: 8, value: UInt64($0)) }
        try client.write(writes)
        #expect(seen.values.withLock { $0 } == (0..<UInt64(count)).map { $0 })
        #expect(client.post(writes))
        _ = client.read(region: 0, offset: 0, width: 4)
        #expect(seen.values.withLock { $0.count } == 2 * count)
        served.device.onDoorbell.withLock { $0 = nil }
    }

    @Test func `a batch with a write that is refused is refused, and those before it are done`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        #expect(throws: VFIOUserError.refused(.regionWriteMulti, .invalid)) {
            try client.write([
                RegionWrite(region: 0, offset: 0, width: 4, value: 5),
                RegionWrite(region: 3, offset: 0, width: 4, value: 5),
                RegionWrite(region: 0, offset: 4, width: 4, value: 5),
            ])
        }
        #expect(client.read(region: 0, offset: 0, width: 8) == 5)
    }

    @Test func `a server without write_multiple gets the batch one by one`() throws {
        let seen = Sequence()
        let client = try VFIOUserClient(
            socket: scripted { peer, header in
                guard header.command == .regionWrite else { return false }
                seen.values.withLock { $0.append(header.wantsReply ? 1 : 0) }
                if header.wantsReply {
                    try peer.send(header.reply(payload: 16), Array(peer.lastPayload[..<16]))
                }
                return true
            })
        #expect(client.capabilities.writeMultiple != true)
        try client.write([
            RegionWrite(region: 0, offset: 0, width: 4, value: 5),
            RegionWrite(region: 0, offset: 4, width: 4, value: 6),
        ])
        #expect(seen.values.withLock { $0 } == [1, 1])
        #expect(client.post([RegionWrite(region: 0, offset: 0, width: 4, value: 5)]))
    }

    // MARK: Regions in parts

    private func regionReply(_ capabilities: [UInt8], flags: UInt32 = 0xF, first: UInt32 = 32) -> [UInt8] {
        bytes([u32(UInt32(32 + capabilities.count)), u32(flags), u32(0), u32(first), u64(0x10000), u64(0x2000)])
            + capabilities
    }

    @Test func `areas of several capabilities in a chain are all read, unknown ones skipped`() throws {
        let chain = bytes([
            u16(3), u16(1), u32(48), u64(0), u16(1), u16(1), u32(0), u32(2), u32(0), u64(0), u64(0x1000), u64(0x8000),
            u64(0x2000),
        ])
        let (info, _) = try RegionInfo.reply(regionReply(chain).span.bytes)
        #expect(info.areas == [.init(offset: 0, length: 0x1000), .init(offset: 0x8000, length: 0x2000)])
        #expect(info.fileOffset == 0x2000)
    }

    @Test(arguments: [
        bytes([u16(3), u16(1), u32(32)]), bytes([u16(3), u16(1), u32(40), u16(3), u16(1), u32(32)]),
        bytes([u16(3), u16(1), u32(.max)]), bytes([u16(3), u16(1), u32(39)]), bytes([u16(3), u16(1), u32(8)]),
        bytes([u16(1), u16(1), u32(0)]), bytes([u16(1), u16(1), u32(0), u32(1), u32(0)]),
        bytes([u16(1), u16(1), u32(0), u32(.max), u32(0)]),
        bytes([u16(1), u16(1), u32(0), u32(1), u32(0), u64(0), u64(0x10001)]),
        bytes([u16(1), u16(1), u32(0), u32(1), u32(0), u64(.max), u64(2)]),
    ]) func `a chain that loops, leaves the reply or the region is refused`(chain: [UInt8]) {
        #expect(
            refusal(regionReply(chain)) { (raw) throws(ErrorNumber) in _ = try RegionInfo.reply(raw) } == .invalid)
    }
}

private final class Sequence: Sendable {
    let values = Mutex<[UInt64]>([])
}
