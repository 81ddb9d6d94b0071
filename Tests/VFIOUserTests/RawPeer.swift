import FoundationEssentials
import Testing
import VFIOUser
import Wire

func removeFile(_ path: String) { try? FileManager.default.removeItem(atPath: path) }

/// A peer that says what a test wants it to say, right or wrong.
final class RawPeer {
    let socket: Socket
    private var buffer: [UInt8] = []
    private var identifier: UInt16 = 0x4000
    /// The payload of the message that came last.
    private(set) var lastPayload: [UInt8] = []
    /// Descriptors that came along.
    var descriptors: [Descriptor] = []

    init(_ socket: Socket) { self.socket = socket }

    func send(_ header: MessageHeader, _ payload: [UInt8], descriptors: [Descriptor] = []) throws {
        try socket.send(encoded(16) { header.encode(into: &$0) } + payload, descriptors: descriptors)
    }

    @discardableResult
    func command(
        _ command: VFIOUserCommand, _ payload: [UInt8], descriptors: [Descriptor] = [], noReply: Bool = false
    ) throws -> UInt16 {
        identifier &+= 1
        try send(
            .command(command, id: identifier, payload: payload.count, noReply: noReply), payload,
            descriptors: descriptors)
        return identifier
    }

    /// The next message, reply or command; throws when the link ends or nothing comes for seconds.
    func reply() throws -> (header: MessageHeader, payload: [UInt8]) {
        try fill(16)
        let header = MessageHeader(buffer.span.bytes)
        try fill(Int(header.messageSize))
        let message = Array(buffer[..<Int(header.messageSize)])
        buffer.removeFirst(message.count)
        lastPayload = Array(message[16...])
        return (header, lastPayload)
    }

    private func fill(_ count: Int) throws {
        while buffer.count < count {
            try socket.wait(for: .readable, until: .after(.seconds(10)))
            var room = [UInt8](repeating: 0, count: 65536)
            let received = try room.withUnsafeMutableBytes { raw in
                try socket.receive(into: raw, descriptors: &descriptors)
            }
            guard case .bytes(let got) = received else { throw WireError.closed(inMessage: !buffer.isEmpty) }
            buffer += room[..<got]
        }
    }

    /// True when the peer closed the link, after at most some seconds.
    func isClosed() -> Bool {
        do {
            while true { _ = try reply() }
        } catch WireError.closed {
            return true
        } catch {
            return false
        }
    }

    func negotiate() throws {
        try command(.version, [0, 0, 1, 0] + Array(#"{"capabilities":{"max_msg_fds":8}}"#.utf8) + [0])
        let (header, _) = try reply()
        #expect(header.command == .version && header.refusal == nil)
    }
}
