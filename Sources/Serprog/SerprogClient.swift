internal import Synchronization
public import Wire

/// A master's end of a serprog connection: SPI transactions and flash reads.
///
/// May be used from several threads: transactions happen one after another. A call waits for its answer.
public final class SerprogClient: Sendable {
    /// What the programmer calls itself.
    public let programmerName: String
    /// The most bytes that one transaction may write and read.
    public let maximumWrite: Int
    public let maximumRead: Int

    private let socket: Socket
    private let state: Mutex<State>

    private struct State {
        var wait = AdaptiveWait()
        /// Set when the stream's position is unknown.
        var isOutOfStep = false
        /// Reused for pieces of large answers.
        var buffer = [UInt8](repeating: 0, count: SerprogClient.pieceLength)
    }

    /// Bytes of a flash read asked for at once, and how many such requests are under way: one is sent while another
    /// is read while a third is used. Larger pieces leave the processor's cache.
    static let pieceLength = 256 * 1024
    private static let requestsUnderWay = 3

    /// Makes sure that a programmer for SPI answers, and asks for its limits. Waits until the peer serves.
    public init(socket: Socket) throws(SerprogError) {
        self.socket = socket
        var exchange = Exchange(socket: socket)
        try exchange.synchronize()
        let version = try exchange.query(.queryInterface, count: 2)
        guard version[0] == Serprog.interfaceVersion & 0xFF, version[1] == Serprog.interfaceVersion >> 8 else {
            throw .unknownVersion(UInt16(version[0]) | UInt16(version[1]) << 8)
        }
        let map = try exchange.query(.queryCommandMap, count: 32)
        func supports(_ command: SerprogCommand) -> Bool {
            map[Int(command.rawValue / 8)] & (1 << (command.rawValue % 8)) != 0
        }
        guard supports(.spiOperation) else { throw .unsupported(.spiOperation) }
        if supports(.queryProgrammerName) {
            let name = try exchange.query(.queryProgrammerName, count: 16)
            programmerName = String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
        } else {
            programmerName = ""
        }
        if supports(.setBusType) { try exchange.request(.setBusType(Serprog.busSPI), .setBusType) }
        func limit(_ command: SerprogCommand) throws(SerprogError) -> Int {
            guard supports(command) else { return Serprog.lengthLimit - 1 }
            let bytes = try exchange.query(command, count: 3)
            let value = Int(bytes[0]) | Int(bytes[1]) << 8 | Int(bytes[2]) << 16
            return value == 0 ? Serprog.lengthLimit - 1 : value
        }
        maximumWrite = try limit(.queryMaximumWrite)
        maximumRead = try limit(.queryMaximumRead)
        state = Mutex(State())
    }

    /// Ends the connection; a call that waits throws.
    public func close() {
        socket.shutdown()
    }

    // MARK: Transactions

    /// One transaction: `write` out, then `readCount` bytes in, which are returned.
    public func spiTransaction(write: [UInt8], readCount: Int) throws(SerprogError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(readCount)
        try spiTransaction(write: write, readCount: readCount) { (piece) throws(SerprogError) in
            // Safety: the buffer is valid in the closure, and copied there.
            unsafe piece.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        return bytes
    }

    /// One transaction whose answer goes to `body` in pieces as it arrives; `body` is called only after the
    /// programmer has accepted. When `body` throws, the rest of the answer is still taken off the wire.
    public func spiTransaction(
        write: [UInt8], readCount: Int, _ body: (RawSpan) throws(SerprogError) -> Void
    ) throws(SerprogError) {
        precondition(readCount >= 0, "a count of bytes is never negative")
        guard write.count <= maximumWrite else { throw .tooLong(count: write.count, limit: maximumWrite) }
        guard readCount <= maximumRead else { throw .tooLong(count: readCount, limit: maximumRead) }
        try state.withLock { (state) throws(SerprogError) in
            guard !state.isOutOfStep else { throw .outOfStep }
            do throws(WireError) {
                try socket.send(SerprogRequest.spiOperation(write: write, readCount: readCount).encoded)
            } catch {
                state.isOutOfStep = true
                throw .wire(error)
            }
            try takeAnswer(readCount, &state, body)
        }
    }

    /// Takes one answer off the wire: ACK and `readCount` bytes, or NAK. In step afterwards unless the wire failed.
    private func takeAnswer(
        _ readCount: Int, _ state: inout State, _ body: (RawSpan) throws(SerprogError) -> Void
    ) throws(SerprogError) {
        var failure: SerprogError?
        var isAccepted = false
        var left = 1 + readCount
        while left > 0 {
            let limit = min(left, state.buffer.count)
            let count: Int
            do throws(WireError) {
                count = try receive(limit, &state)
            } catch {
                state.isOutOfStep = true
                throw .wire(error)
            }
            left -= count
            var start = 0
            if !isAccepted {
                switch state.buffer[0] {
                case Serprog.acknowledge: isAccepted = true
                case Serprog.refuse where count == 1: throw .refused(.spiOperation)
                default:
                    state.isOutOfStep = true
                    throw .badAnswer(state.buffer[0], to: .spiOperation)
                }
                start = 1
            }
            guard failure == nil, count > start else { continue }
            do throws(SerprogError) {
                // Safety: every byte of an array is initialised.
                unsafe try body(state.buffer.span.bytes.extracting(start..<count))
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    private func receive(_ limit: Int, _ state: inout State) throws(WireError) -> Int {
        var descriptors: [Descriptor] = []
        while true {
            // Safety: `limit` is at most the array's count.
            let result: Result<Socket.Received, WireError> = unsafe state.buffer.withUnsafeMutableBytes { buffer in
                do throws(WireError) {
                    return .success(
                        unsafe try socket.receive(
                            into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<limit]), descriptors: &descriptors,
                            polling: &state.wait))
                } catch {
                    return .failure(error)
                }
            }
            switch try result.get() {
            case .bytes(let count): return count
            case .end: throw .closed(inMessage: true)
            case .nothing: continue
            }
        }
    }

    // MARK: Flash

    /// Reads `count` bytes of the flash chip from `offset` and gives them to `body` in order, in pieces. Several
    /// requests are under way at once, so that the chip works while `body` does.
    ///
    /// Uses FAST READ with a 4-byte address (opcode 0x0C), which needs no mode of the chip. On an error the rest of
    /// what was asked for is taken off the wire and dropped.
    public func readFlash(offset: UInt32, count: Int, _ body: (RawSpan) -> Void) throws(SerprogError) {
        precondition(count >= 0 && UInt64(offset) + UInt64(count) <= 1 << 32, "a flash has 32-bit addresses")
        let length = min(maximumRead, Self.pieceLength)
        try state.withLock { (state) throws(SerprogError) in
            guard !state.isOutOfStep else { throw .outOfStep }
            var asked = 0
            var taken = 0
            var failure: SerprogError?
            while taken < count {
                // After a failure nothing more is asked for, but what is under way must come in.
                if failure != nil, taken >= asked { break }
                var requests: [UInt8] = []
                while failure == nil, asked < count, asked - taken < Self.requestsUnderWay * length {
                    let size = min(length, count - asked)
                    let address = UInt32(UInt64(offset) + UInt64(asked))
                    let write = [SPIFlash.fastRead4Byte] + SPIFlash.addressBytes(address) + [0]
                    requests += SerprogRequest.spiOperation(write: write, readCount: size).encoded
                    asked += size
                }
                if !requests.isEmpty {
                    do throws(WireError) { try socket.send(requests) } catch {
                        state.isOutOfStep = true
                        throw .wire(error)
                    }
                }
                let size = min(length, count - taken)
                do throws(SerprogError) {
                    try takeFlashAnswer(size, &state) { piece in if failure == nil { body(piece) } }
                } catch {
                    guard !state.isOutOfStep else { throw error }
                    failure = error
                }
                taken += size
            }
            if let failure { throw failure }
        }
    }

    /// As `takeAnswer`, with another answer behind it: a NAK must not be read together with what follows.
    private func takeFlashAnswer(
        _ count: Int, _ state: inout State, _ body: (RawSpan) -> Void
    ) throws(SerprogError) {
        do throws(WireError) {
            _ = try receive(1, &state)
        } catch {
            state.isOutOfStep = true
            throw .wire(error)
        }
        switch state.buffer[0] {
        case Serprog.acknowledge: break
        case Serprog.refuse: throw .refused(.spiOperation)
        case let byte:
            state.isOutOfStep = true
            throw .badAnswer(byte, to: .spiOperation)
        }
        var left = count
        do throws(WireError) {
            while left > 0 {
                let received = try receive(min(left, state.buffer.count), &state)
                left -= received
                // Safety: every byte of an array is initialised.
                unsafe body(state.buffer.span.bytes.extracting(0..<received))
            }
        } catch {
            state.isOutOfStep = true
            throw .wire(error)
        }
    }

    /// Reads `count` bytes of the flash chip from `offset`.
    public func readFlash(offset: UInt32, count: Int) throws(SerprogError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        try readFlash(offset: offset, count: count) { piece in
            // Safety: the buffer is valid in the closure, and copied there.
            unsafe piece.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        return bytes
    }
}
