import Wire

/// Commands and answers before a connection carries SPI operations: small, one at a time.
struct Exchange {
    let socket: Socket

    /// Sends SYNCNOP, which alone is answered with NAK and ACK, and waits for both.
    mutating func synchronize() throws(SerprogError) {
        try send(.plain(.syncNOP))
        let answer = try receive(2)
        guard answer == [Serprog.refuse, Serprog.acknowledge] else {
            throw .badAnswer(answer[0] == Serprog.refuse ? answer[1] : answer[0], to: .syncNOP)
        }
    }

    /// Sends a command without parameters; returns the `count` bytes behind its ACK.
    mutating func query(_ command: SerprogCommand, count: Int) throws(SerprogError) -> [UInt8] {
        try request(.plain(command), command)
        return try receive(count)
    }

    /// Sends a request and waits for its ACK.
    mutating func request(_ request: SerprogRequest, _ command: SerprogCommand) throws(SerprogError) {
        try send(request)
        let byte = try receive(1)[0]
        guard byte == Serprog.acknowledge else {
            throw byte == Serprog.refuse ? .refused(command) : .badAnswer(byte, to: command)
        }
    }

    private func send(_ request: SerprogRequest) throws(SerprogError) {
        do throws(WireError) { try socket.send(request.encoded) } catch { throw .wire(error) }
    }

    private func receive(_ count: Int) throws(SerprogError) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            do throws(WireError) {
                guard let piece = try socket.receiveBytes(limit: count - bytes.count) else {
                    throw .closed(inMessage: true)
                }
                bytes += piece
            } catch {
                throw .wire(error)
            }
        }
        return bytes
    }
}
