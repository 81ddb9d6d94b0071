import Sideband
import TestKit
import Testing
import Wire

@Suite struct SidebandMessageTests {
    @Test(arguments: [
        (SidebandMessage.signal(.reset, level: false), [UInt8]([1, 0, 0])),
        (.signal(.powerGood, level: true), [1, 1, 1]),
        (.signal(.attention, level: true), [1, 2, 1]),
        (
            .mctp(
                MCTPPacket(
                    destination: .securityLogic, source: .adapter, isFirst: true, isLast: true, sequence: 0,
                    isTagOwner: true, tag: 3, payload: [0x7E, 0x1B, 0x36, 5])),
            [2, 1, 8, 9, 0xCB, 0x7E, 0x1B, 0x36, 5]
        ),
    ])
    func `bytes both ways`(message: SidebandMessage, bytes: [UInt8]) throws {
        #expect(message.encoded == bytes)
        #expect(try SidebandMessage(decoding: bytes) == message)
    }

    @Test(arguments: [
        ([UInt8]([]), SidebandMessage.Refusal.empty),
        ([9, 0, 0], .unknownKind(9)),
        ([1, 0], .badSignalLength(2)),
        ([1, 0, 1, 1], .badSignalLength(4)),
        ([1, 0, 2], .badLevel(2)),
        ([2, 1, 8, 9, 0xC8], .badPacket(.badLength(4))),
        ([2, 2, 8, 9, 0xC8, 0], .badPacket(.badVersion(2))),
    ])
    func `a malformed datagram is refused with its reason`(bytes: [UInt8], refusal: SidebandMessage.Refusal) {
        #expect(throws: refusal) { try SidebandMessage(decoding: bytes) }
    }

    @Test func `no bytes trap the parser`() {
        var generator = SeededGenerator.fresh()
        for _ in 0..<20_000 {
            let bytes = generator.bytes(Int.random(in: 0...80, using: &generator))
            if let message = try? SidebandMessage(decoding: bytes) { #expect(message.encoded.count == bytes.count) }
            _ = try? SecurityRequest(decoding: [0x7E, 0x1B, 0x36] + bytes)
            _ = SecurityResponse(decoding: [0x7E, 0x1B, 0x36] + bytes)
        }
    }
}

@Suite struct MCTPTests {
    @Test func `a long message is cut at the baseline unit and put together again`() throws {
        let body = (0..<200).map { UInt8($0) }
        let message = MCTPMessage(destination: .securityLogic, source: .adapter, isTagOwner: true, tag: 1, body: body)
        let packets = message.packets()
        #expect(packets.map(\.payload.count) == [64, 64, 64, 8])
        #expect(packets.map(\.sequence) == [0, 1, 2, 3])
        var assembler = MCTPAssembler(address: .securityLogic)
        #expect(packets.dropLast().allSatisfy { assembler.receive($0) == nil })
        #expect(assembler.receive(packets[3]) == message)
        #expect(assembler.dropped == 0)
    }

    @Test func `packets for others, without a start, out of sequence or without end are dropped`() {
        let body = [UInt8](repeating: 1, count: 5000)
        let message = MCTPMessage(destination: .securityLogic, source: .adapter, isTagOwner: true, tag: 1, body: body)
        let packets = message.packets()
        var assembler = MCTPAssembler(address: .securityLogic)
        #expect(assembler.receive(packets[1]) == nil)
        #expect(assembler.dropped == 1)
        _ = assembler.receive(packets[0])
        #expect(assembler.receive(packets[2]) == nil)
        #expect(assembler.dropped == 2)
        for packet in packets { #expect(assembler.receive(packet) == nil) }
        #expect(assembler.dropped > 2)
        var other = MCTPAssembler(address: .host)
        #expect(other.receive(packets[0]) == nil)
        #expect(other.dropped == 1)
    }
}

private func bytes(_ value: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: value, count: count) }
private func zeros(_ count: Int) -> [UInt8] { bytes(0, count) }

@Suite struct SecurityCommandTests {
    /// A request or response of these pieces.
    private static func message(_ pieces: [UInt8]...) -> [UInt8] { [0x7E, 0x1B, 0x36] + pieces.flatMap { $0 } }

    static let report = SecurityRequest.Verification(
        slot: 2, isVerified: false, digest: bytes(0xAB, 48), securityVersion: 7,
        reason: "server: no")
    static let measurement = SecurityRequest.Extension(
        register: 3, type: 0x8000_0001, digest: bytes(0xCD, 48), text: "OpenSBI")

    static let requests: [(SecurityRequest, [UInt8])] = [
        (SecurityRequest.readFuses, [UInt8]([0x7E, 0x1B, 0x36, 1])),
        (.setMode(.unprotected), [0x7E, 0x1B, 0x36, 2, 1]),
        (.holdReset, [0x7E, 0x1B, 0x36, 3]),
        (
            .reportVerification(Self.report),
            message([4, 2, 0], bytes(0xAB, 48), [7, 0, 0, 0, 10], Array("server: no".utf8))
        ),
        (.queryState, [0x7E, 0x1B, 0x36, 5]),
        (.nextSlot, [0x7E, 0x1B, 0x36, 6]),
        (
            .extend(Self.measurement),
            message([7, 3, 1, 0, 0, 0x80], bytes(0xCD, 48), [7], Array("OpenSBI".utf8))
        ),
    ]

    @Test(arguments: requests.indices)
    func `requests, bytes both ways`(index: Int) throws {
        let (request, bytes) = Self.requests[index]
        #expect(request.encoded == bytes)
        #expect(try SecurityRequest(decoding: bytes) == request)
    }

    static let malformed: [([UInt8], SecurityStatus)] = [
        ([UInt8]([0x7E, 0x1B, 0x36]), SecurityStatus.invalidCommand),
        ([0x7E, 0x1B, 0x37, 1], .invalidCommand),
        ([0x7E, 0x1B, 0x36, 9], .invalidCommand),
        ([0x7E, 0x1B, 0x36, 1, 0], .invalidLength),
        ([0x7E, 0x1B, 0x36, 2], .invalidLength),
        ([0x7E, 0x1B, 0x36, 2, 2], .invalidData),
        ([0x7E, 0x1B, 0x36, 4, 0], .invalidLength),
        (message([4, 0, 0], zeros(48), [7, 0, 0, 0, 2, 65]), .invalidLength),
        (message([4, 0, 2], zeros(48), [7, 0, 0, 0, 1, 65]), .invalidData),
        (message([4, 0, 0], zeros(48), [7, 0, 0, 0, 1, 0xFF]), .invalidData),
        ([0x7E, 0x1B, 0x36, 6, 0], .invalidLength),
        ([0x7E, 0x1B, 0x36, 7], .invalidLength),
        (message([7], zeros(53), [2, 65]), .invalidLength),
        (message([7], zeros(53), [1, 65, 65]), .invalidLength),
        (message([7], zeros(53), [1, 0xFF]), .invalidData),
    ]

    @Test(arguments: malformed.indices)
    func `a malformed request is refused with its status`(index: Int) {
        let (bytes, status) = Self.malformed[index]
        #expect(throws: status) { try SecurityRequest(decoding: bytes) }
    }

    static let responses: [(SecurityResponse, [UInt8])] = [
        (
            SecurityResponse.fuses(
                FuseValues(
                    rootKeyDigest: bytes(3, 48), minimumSecurityVersion: 258,
                    cancelledKeys: bytes(4, 16), board: "a,b")),
            message([1, 0], bytes(3, 48), [2, 1, 0, 0], bytes(4, 16), [3], Array("a,b".utf8))
        ),
        (.state(.locked, slot: 1), [0x7E, 0x1B, 0x36, 5, 0, 3, 1]),
        (.state(.held, slot: nil), [0x7E, 0x1B, 0x36, 5, 0, 0, 0xFF]),
        (.slot(2), [0x7E, 0x1B, 0x36, 6, 0, 2]),
        (.status(.nextSlot, .notPermitted), [0x7E, 0x1B, 0x36, 6, 4]),
        (.status(.setMode(.protected), .notPermitted), [0x7E, 0x1B, 0x36, 2, 4]),
        (.status(.holdReset, .success), [0x7E, 0x1B, 0x36, 3, 0]),
    ]

    @Test(arguments: responses.indices)
    func `responses, bytes both ways`(index: Int) {
        let (response, bytes) = Self.responses[index]
        #expect(response.encoded == bytes)
        #expect(SecurityResponse(decoding: bytes) == response)
    }

    @Test(arguments: [
        [UInt8](), [0x7E, 0x1B, 0x36, 1, 0, 1], [0x7E, 0x1B, 0x36, 5, 0], [0x7E, 0x1B, 0x36, 5, 0, 99],
        [0x7E, 0x1B, 0x36, 5, 0, 99, 0], [0x7E, 0x1B, 0x36, 5, 0, 3], [0x7E, 0x1B, 0x36, 6, 0],
        [0x7E, 0x1B, 0x36, 6, 0, 1, 2], message([1, 0], zeros(68), [2, 65]),
        [0x7E, 0x1B, 0x36, 2, 77], [0x7E, 0x1B, 0x36, 2, 0, 1],
    ])
    func `a malformed response is none`(bytes: [UInt8]) { #expect(SecurityResponse(decoding: bytes) == nil) }

    @Test func `a refused datagram leaves the link usable`() throws {
        let (left, right) = try Socket.pair(kind: .seqpacket)
        let link = SidebandLink(socket: right)
        try left.send([9, 9, 9])
        #expect(throws: SidebandLink.Failure.refused(.unknownKind(9))) { try link.receive() }
        try left.send([1, 0, 1])
        #expect(try link.receive() == .signal(.reset, level: true))
    }
}
