import Wire

/// Bytes that wait for a stream socket, bounded; what does not fit is dropped, like a serial line's overrun.
struct ByteQueue: Sendable {
    private var bytes: [UInt8] = []
    private let capacity: Int
    /// Bytes dropped so far.
    private(set) var dropped: UInt64 = 0

    init(capacity: Int) { self.capacity = capacity }

    var isEmpty: Bool { bytes.isEmpty }

    mutating func append(_ more: [UInt8]) {
        let room = max(0, capacity - bytes.count)
        bytes.append(contentsOf: more.prefix(room))
        dropped &+= UInt64(max(0, more.count - room))
    }

    mutating func removeAll() { bytes.removeAll() }

    /// Sends what the socket takes now. Throws when the peer is gone.
    mutating func drain(to socket: Socket) throws(WireError) {
        while !bytes.isEmpty {
            let sent = try socket.sendSome(bytes)
            if sent == 0 { return }
            bytes.removeFirst(sent)
        }
    }
}

extension Socket {
    /// Sends what fits now of an array; the bytes taken.
    func sendSome(_ bytes: [UInt8]) throws(WireError) -> Int {
        let result: Result<Int, WireError> = bytes.withUnsafeBytes { raw in
            do throws(WireError) { return .success(try trySend(raw)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// What one receive call brings without waiting: bytes, nil at the end of the stream, empty when there is nothing.
    func receiveSome(limit: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: limit)
        var surplus: [Descriptor] = []
        let received = bytes.withUnsafeMutableBytes { raw in
            (try? receive(into: raw, descriptors: &surplus, waiting: false)) ?? .end
        }
        switch received {
        case .bytes(let count):
            bytes.removeLast(limit - count)
            return bytes
        case .nothing: return []
        case .end: return nil
        }
    }
}
