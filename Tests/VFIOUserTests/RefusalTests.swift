import Synchronization
import Testing
import VFIOUser
import Wire

/// What a server does with clients that are wrong, and a client with servers that are.
struct RefusalTests {
    // MARK: Server

    @Test func `the version reply names only what was proposed and is no longer than the proposal`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.command(.version, [0, 0, 9, 0])
        let (header, payload) = try peer.reply()
        #expect(header.refusal == nil && payload == [0, 0, 1, 0])
        let other = try ServedDevice()
        let qemu = RawPeer(other.socket)
        let text =
            #"{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "max_msg_fds": 8, "#
            + #""max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}"#
        let request = [0, 0, 1, 0] + Array(text.utf8) + [0]
        try qemu.command(.version, request)
        let answer = try qemu.reply()
        #expect(answer.payload.count <= request.count)
        let version = try Version(answer.payload.span.bytes)
        #expect(version.capabilities.pageSizes == 4096 && version.capabilities.twinSocket == nil)
        #expect(version.capabilities.writeMultiple == true)
        // QEMU refuses a server that takes more descriptors than it asked for.
        #expect(version.capabilities.maximumMessageDescriptors == 8)
    }

    @Test(
        arguments: [
            ([1, 0, 0, 0], ErrorNumber.notSupported), ([0, 0], .invalid), ([0, 0, 1, 0, 0x7B, 0], .invalid),
            ([0, 0, 1, 0] + Array(#"{"capabilities":{"max_data_xfer_size":0}}"#.utf8) + [0], .invalid),
        ] as [([UInt8], ErrorNumber)])
    func `a version that cannot be is refused and the link closed`(payload: [UInt8], error: ErrorNumber) throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.command(.version, payload)
        #expect(try peer.reply().header.refusal == error)
        #expect(peer.isClosed())
        #expect(eventually { served.ended.load(ordering: .acquiring) })
        #expect(served.log.all.count == 1)
    }

    @Test func `a command before the version is refused and the link closed`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.command(.deviceReset, [])
        #expect(try peer.reply().header.refusal == .invalid)
        #expect(peer.isClosed())
        #expect(served.log.all == ["vfio-user: DEVICE_RESET before VERSION: link closed"])
    }

    @Test(
        arguments: [
            (14, bytes([u64(0), u64(0)]), ErrorNumber.notSupported), (17, [], .notSupported),
            (999, [1, 2, 3], .notSupported),
            (16, bytes([u32(8), u32(0x1_0001)]), .notSupported), (16, [1], .invalid),
            (6, bytes([u32(16), u32(0), u32(1), u32(0)]), .notSupported),
            (6, bytes([u32(16), u32(0), u32(4), u32(0)]), .invalid),
            (1, [0, 0, 1, 0], .invalid), (4, [1, 2], .invalid), (5, [], .invalid),
            (5, bytes([u32(32), u32(0), u32(4), u32(0), u64(0), u64(0)]), .invalid),
            (7, bytes([u32(16), u32(0), u32(5), u32(0)]), .invalid), (8, bytes([u32(20)]), .invalid),
            (8, bytes([u32(20), u32(0x24), u32(9), u32(0), u32(1)]), .invalid),
            (8, bytes([u32(20), u32(0x24), u32(2), u32(3), u32(2)]), .invalid),
            (9, bytes([u64(0), u32(0), u32(4), u8(0)]), .invalid), (9, bytes([u64(0), u32(0), u32(.max)]), .invalid),
            (9, bytes([u64(.max), u32(0), u32(1)]), .invalid), (10, bytes([u64(0), u32(0), u32(4), u8(0)]), .invalid),
            (11, bytes([u64(0), u64(4)]), .notSupported), (13, [0], .invalid), (15, [1], .invalid),
            (2, bytes([u32(32), u32(3), u64(0), u64(0), u64(0)]), .invalid), (3, [], .invalid),
            (2, bytes([u32(32), u32(7), u64(0), u64(0), u64(4096)]), .invalid),
        ] as [(UInt16, [UInt8], ErrorNumber)])
    func `a command that cannot be done is refused and the link stays`(
        number: UInt16, payload: [UInt8], error: ErrorNumber
    ) throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        let identifier = try peer.command(VFIOUserCommand(rawValue: number), payload)
        let (header, rest) = try peer.reply()
        #expect(header.id == identifier && header.refusal == error && rest.isEmpty)
        try peer.command(.regionRead, bytes([u64(0), u32(0), u32(4)]))
        #expect(try peer.reply().payload == bytes([u64(0), u32(0), u32(4), u32(0)]))
    }

    @Test func `descriptors where none belong are refused and closed`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        let file = try SharedMemory(create: "file", size: 4096)
        try peer.command(.deviceGetInfo, bytes([u32(16), u32(0), u32(0), u32(0)]), descriptors: [file.descriptor])
        #expect(try peer.reply().header.refusal == .invalid)
        let map = bytes([u32(32), u32(3), u64(0), u64(0), u64(4096)])
        try peer.command(.dmaMap, map, descriptors: [file.descriptor, file.descriptor])
        #expect(try peer.reply().header.refusal == .invalid)
        try peer.command(.dmaMap, map, descriptors: [file.descriptor])
        #expect(try peer.reply().header.refusal == nil)
    }

    @Test func `no reply is sent where none is wanted, not even a refusal`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.regionWrite, bytes([u64(0), u32(0), u32(1)]) + [7], noReply: true)
        try peer.command(VFIOUserCommand(rawValue: 99), [], noReply: true)
        let identifier = try peer.command(.regionRead, bytes([u64(0), u32(0), u32(1)]))
        let (header, payload) = try peer.reply()
        #expect(header.id == identifier && payload.last == 7)
    }

    @Test func `several writes in one message are done in order`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(
            .regionWriteMulti,
            bytes([u64(2), u64(0), u32(0), u32(4), u64(0x1111_1111), u64(2), u32(0), u32(4), u64(0x2222_2222)]))
        #expect(try peer.reply().payload == bytes([u64(2)]))
        try peer.command(.regionRead, bytes([u64(0), u32(0), u32(8)]))
        #expect(try peer.reply().payload.suffix(8) == [0x11, 0x11, 0x22, 0x22, 0x22, 0x22, 0, 0])
    }

    @Test(arguments: [0, 15, (1 << 20) + 33, .max] as [UInt32])
    func `a header whose size cannot be closes the link with one line`(size: UInt32) throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.send(MessageHeader(id: 1, command: .regionRead, messageSize: size, flags: 0), [])
        #expect(peer.isClosed())
        #expect(eventually { served.ended.load(ordering: .acquiring) })
        #expect(served.log.all.count == 1 && served.log.all[0].contains("\(Int(size)) bytes"))
    }

    @Test func `a reply that nothing waits for closes the link with one line`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.send(MessageHeader(id: 1, command: .dmaRead, messageSize: 16, flags: 1), [])
        #expect(peer.isClosed())
        #expect(served.log.all.count == 1)
    }

    // MARK: Client

    /// A server that negotiates, describes an empty device and then does what the test wants.
    private func lyingServer(_ behave: @escaping @Sendable (RawPeer, MessageHeader) throws -> Void) throws -> Socket {
        let (near, far) = try Socket.pair()
        WorkerThread("liar") {
            let peer = RawPeer(far)
            while let (header, _) = try? peer.reply() {
                switch header.command {
                case .version:
                    let payload: [UInt8] = [0, 0, 1, 0]
                    try? peer.send(header.reply(payload: 4), payload)
                case .deviceGetInfo:
                    try? peer.send(header.reply(payload: 16), bytes([u32(16), u32(2), u32(0), u32(0)]))
                default: do { try behave(peer, header) } catch { return }
                }
            }
        }
        return near
    }

    private func expectGone(_ behave: @escaping @Sendable (RawPeer, MessageHeader) throws -> Void) throws -> String {
        let log = LogLines()
        let client = try VFIOUserClient(
            socket: lyingServer(behave), timeout: .milliseconds(300), onGone: { log.add($0) })
        #expect(client.read(region: 0, offset: 0, width: 4) == 0xFFFF_FFFF)
        #expect(client.isGone && log.all.count == 1)
        let reason = client.goneReason ?? ""
        #expect(throws: VFIOUserError.gone(reason)) { try client.reset() }
        #expect(client.read(region: 0, offset: 0, width: 2) == 0xFFFF)
        #expect(log.all == [reason])
        return reason
    }

    @Test func `a server that dies is gone`() throws {
        #expect(
            try expectGone { peer, _ in
                peer.socket.shutdown(); throw WireError.timedOut
            }.contains("closed"))
    }

    @Test func `a server that hangs is gone`() throws {
        #expect(try expectGone { _, _ in }.contains("no reply to REGION_READ"))
    }

    @Test func `a server that answers with another id, command or access is gone`() throws {
        let answer = bytes([u64(0), u32(0), u32(4), u32(7)])
        for (identifier, command, payload) in [
            (1, VFIOUserCommand.regionRead, answer), (0, .regionWrite, answer), (0, .regionRead, []),
            (0, .regionRead, bytes([u64(0), u32(0), u32(4), u16(7)])),
            (0, .regionRead, bytes([u64(1), u32(0), u32(4), u32(7)])),
        ] as [(UInt16, VFIOUserCommand, [UInt8])] {
            _ = try expectGone { peer, header in
                var reply = header.reply(payload: payload.count)
                reply.id &+= identifier
                reply.command = command
                try peer.send(reply, payload)
            }
        }
    }

    @Test func `a server that sends a size that cannot be is gone`() throws {
        #expect(
            try expectGone { peer, header in
                try peer.send(MessageHeader(id: header.id, command: header.command, messageSize: 3, flags: 1), [])
            }.contains("3 bytes"))
    }

    @Test func `a server's command is answered inside a transaction`() throws {
        let client = try VFIOUserClient(
            socket: lyingServer { peer, header in
                try peer.send(.command(.dmaRead, id: 5, payload: 16), bytes([u64(0), u64(4)]))
                #expect(try peer.reply().header.refusal == .notSupported)
                try peer.send(.command(VFIOUserCommand(rawValue: 99), id: 6, payload: 0), [])
                #expect(try peer.reply().header.refusal == .notSupported)
                try peer.send(header.reply(payload: 20), bytes([u64(0), u32(0), u32(4), u32(7)]))
            })
        #expect(client.read(region: 0, offset: 0, width: 4) == 7)
    }

    @Test(arguments: [
        bytes([u16(1), u16(0)]), bytes([u16(0), u16(2)]), [0, 0], [0, 0, 1, 0, 1, 0],
        [0, 0, 1, 0] + Array(#"{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}"#.utf8) + [0],
    ]) func `a version reply that cannot be ends the client`(payload: [UInt8]) throws {
        let (near, far) = try Socket.pair()
        WorkerThread("liar") {
            let peer = RawPeer(far)
            guard let (header, _) = try? peer.reply() else { return }
            try? peer.send(header.reply(payload: payload.count), payload)
            _ = peer.isClosed()
        }
        #expect(throws: VFIOUserError.self) {
            try VFIOUserClient(socket: near, memory: ScratchMemory(base: 0, count: 16))
        }
    }
}

func u8(_ value: UInt8) -> any FixedWidthInteger & Sendable { value }
