public import Wire

/// One end of an lpc wire on an event loop: datagrams as messages, nothing ever waits.
public struct LPCLink: Sendable {
    public let socket: Socket

    /// Messages that are taken at a turn: a peer that talks without end must not keep its hearer from everything else.
    public static let messagesATurn = 64

    public init(socket: Socket) { self.socket = socket }

    /// What a look at the wire brought.
    public enum Received: Hashable, Sendable {
        case message(LPCMessage)
        /// Not a message; the link goes on.
        case refused(String)
        case nothing
        /// The peer is gone, or the link is broken and why.
        case ended(String?)
    }

    /// The next message that is there.
    public func next() -> Received {
        var bytes = [UInt8](repeating: 0, count: LPCMessage.maximumLength + 1)
        var descriptors: [Descriptor] = []
        let room = bytes.count
        // Safety: the kernel writes at most as much as the array holds, which outlives the call.
        let received = unsafe bytes.withUnsafeMutableBytes { raw -> Result<Socket.Received, WireError> in
            do throws(WireError) {
                return .success(unsafe try socket.receive(into: raw, descriptors: &descriptors, waiting: false))
            } catch { return .failure(error) }
        }
        switch received {
        case .success(.nothing): return .nothing
        case .success(.end): return .ended(nil)
        case .success(.bytes(let count)):
            bytes.removeLast(room - count)
            do throws(LPCMessage.Refusal) { return .message(try LPCMessage(decoding: bytes)) } catch {
                return .refused(error.description)
            }
        // The kernel has thrown the rest of the datagram away.
        case .failure(.truncated): return .refused("lpc datagram longer than \(LPCMessage.maximumLength) bytes")
        case .failure(let error): return .ended(error.description)
        }
    }

    /// Sends without waiting. False: the peer is gone or does not read, and the link is of no more use.
    public func send(_ message: LPCMessage) -> Bool {
        let bytes = message.encoded
        // Safety: the array outlives the call.
        return unsafe bytes.withUnsafeBytes { raw in
            (unsafe try? socket.trySend(raw)) == bytes.count
        }
    }
}
