import Sideband
import TestKit
import Testing

@Suite struct UpdateCommandTests {
    private static let requests: [(UpdateRequest, [UInt8])] = [
        (.begin(size: 0x0102_0304, manifestSize: 5), [0x10, 4, 3, 2, 1, 5, 0, 0, 0]),
        (.manifest(offset: 0x800, data: [7]), [0x11, 0, 8, 0, 0, 7]),
        (.data(offset: 0x10, data: [8, 9]), [0x12, 0x10, 0, 0, 0, 8, 9]),
        (.finish, [0x13]), (.cancel, [0x14]), (.query, [0x15]),
    ]

    @Test(arguments: requests.indices)
    func `a command is these bytes, both ways`(index: Int) throws {
        let (request, bytes) = Self.requests[index]
        let body = [0x7E, 0x1B, 0x36] + bytes
        #expect(request.encoded == body)
        #expect(try UpdateRequest(decoding: body) == request)
        #expect(UpdateRequest.isUpdate(body))
        #expect(throws: SecurityStatus.invalidLength) {
            try UpdateRequest(decoding: Array(body.prefix(body.count > 4 ? 5 : 4)) + (body.count > 4 ? [] : [0]))
        }
    }

    @Test func `what is no command is refused with its status`() {
        for body in [[], [0x7E], [0x7E, 0x1B, 0x37, 0x10], [0x7E, 0x1B, 0x36, 0x16], [0x7E, 0x1B, 0x36, 0x05]]
            as [[UInt8]]
        {
            #expect(throws: SecurityStatus.invalidCommand) { try UpdateRequest(decoding: body) }
        }
        let long = [0x7E, 0x1B, 0x36, 0x12, 0, 0, 0, 0] + [UInt8](repeating: 1, count: UpdateRequest.maximumPiece + 1)
        #expect(throws: SecurityStatus.invalidLength) { try UpdateRequest(decoding: long) }
        #expect(!UpdateRequest.isUpdate([0x7E, 0x1B, 0x36, 0x05]))
    }

    private static let responses: [(UpdateResponse, [UInt8])] = [
        (.done(command: 0x12), [0x12, 0]),
        (.refused(command: 0x10, .notPermitted, reason: "no"), [0x10, 4, 2, 0x6E, 0x6F]),
        (.refused(command: 0x11, .refused, reason: ""), [0x11, 5, 0]),
        (
            .status(.receiving, slot: 1, received: 0x0102, size: 0x0304, reason: "x"),
            [0x15, 0, 2, 1, 2, 1, 0, 0, 4, 3, 0, 0, 1, 0x78]
        ),
    ]

    @Test(arguments: responses.indices)
    func `an answer is these bytes, both ways`(index: Int) {
        let (response, bytes) = Self.responses[index]
        let body = [0x7E, 0x1B, 0x36] + bytes
        #expect(response.encoded == body)
        #expect(UpdateResponse(decoding: body) == response)
        #expect(UpdateResponse(decoding: body + [0]) == nil)
    }

    @Test func `a status alone is a refusal, a long reason is cut between characters`() {
        #expect(
            UpdateResponse(decoding: [0x7E, 0x1B, 0x36, 0x12, 2]) == .refused(command: 0x12, .invalidLength, reason: "")
        )
        let long = UpdateResponse.refused(
            command: 0x10, .refused, reason: "x" + String(repeating: "é", count: 200))
        guard case .refused(_, _, let reason) = UpdateResponse(decoding: long.encoded) else {
            Issue.record("not decoded")
            return
        }
        #expect(reason == "x" + String(repeating: "é", count: 127))
        for body in [[0x7E, 0x1B, 0x36, 0x15, 0, 9, 0], [0x7E, 0x1B, 0x36, 0x10, 9], [0x7E, 0x1B, 0x36, 0x10]]
            as [[UInt8]]
        {
            #expect(UpdateResponse(decoding: body) == nil)
        }
    }

    @Test func `noise is never a trap`() {
        var generator = SeededGenerator.fresh()
        for _ in 0..<20_000 {
            let body =
                [0x7E, 0x1B, 0x36, UInt8.random(in: 0x0E...0x17, using: &generator)]
                + generator.bytes(Int.random(in: 0...40, using: &generator))
            if let request = try? UpdateRequest(decoding: body) {
                #expect(request.encoded == body, "seed \(generator.seed)")
            }
            if let response = UpdateResponse(decoding: body), body.count > 5 {
                #expect(response.encoded == body, "seed \(generator.seed)")
            }
        }
    }
}
