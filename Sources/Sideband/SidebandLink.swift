public import Wire

/// One end of a sideband wire: datagrams as messages.
public final class SidebandLink: Sendable {
    public let socket: Socket

    public init(socket: Socket) { self.socket = socket }

    /// Why nothing came.
    public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case wire(WireError)
        case refused(SidebandMessage.Refusal)

        public static func == (left: Failure, right: Failure) -> Bool { left.description == right.description }
        public func hash(into hasher: inout Hasher) { hasher.combine(description) }
        public var description: String {
            switch self {
            case .wire(let error): error.description
            case .refused(let refusal): refusal.description
            }
        }
    }

    public func send(_ message: SidebandMessage) throws(WireError) { try socket.send(message.encoded) }

    /// Sends a whole MCTP message, packet by packet.
    public func send(_ message: MCTPMessage) throws(WireError) {
        for packet in message.packets() { try send(.mctp(packet)) }
    }

    /// The next message, waiting until `deadline` (nil: forever); nil when the peer is gone. A refused datagram
    /// throws and leaves the link usable.
    public func receive(until deadline: MonotonicTime? = nil) throws(Failure) -> SidebandMessage? {
        let bytes: [UInt8]?
        do throws(WireError) {
            bytes = try socket.receiveBytes(limit: SidebandMessage.maximumLength, until: deadline)
        } catch { throw .wire(error) }
        guard let bytes else { return nil }
        do throws(SidebandMessage.Refusal) { return try SidebandMessage(decoding: bytes) } catch {
            throw .refused(error)
        }
    }
}
