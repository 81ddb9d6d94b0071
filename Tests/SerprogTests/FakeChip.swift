import Serprog
import Synchronization
import Testing
import Wire

/// A target in memory: answers every transaction with what a closure says.
struct FakeChip: SPITarget {
    var answer: @Sendable (_ write: [UInt8], _ readCount: Int) throws(SPITargetError) -> [[UInt8]]

    mutating func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError) {
        for piece in try answer(write, readCount) { try reply(piece.span.bytes) }
    }

    /// Answers byte n with the low byte of address + n, in two pieces; refuses opcodes other than 0x0C and 0x9F.
    static let counting = FakeChip { (write, readCount) throws(SPITargetError) in
        if write == [0x9F] { return [Array([0xC2, 0x20, 0x19].prefix(readCount))] }
        guard write.count == 6, write[0] == 0x0C else { throw SPITargetError("unknown opcode") }
        let address = write[1...4].reduce(0) { $0 << 8 | Int($1) }
        let bytes = (0..<readCount).map { pattern(address + $0) }
        return [Array(bytes[..<(readCount / 2)]), Array(bytes[(readCount / 2)...])].filter { !$0.isEmpty }
    }

    static func pattern(_ address: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: address ^ address >> 8 ^ address >> 16)
    }
}

/// A session on a thread of its own, and the master's end of its wire.
struct Served {
    let master: Socket
    private let thread: WorkerThread
    private let outcome: Outcome

    private final class Outcome: Sendable {
        let error = Mutex<SerprogError?>(nil)
    }

    init(_ chip: FakeChip) throws {
        let (master, device) = try Socket.pair()
        self.master = master
        let outcome = Outcome()
        self.outcome = outcome
        thread = WorkerThread("served") {
            var session = SerprogSession(socket: device, programmerName: "a name of more than 16", target: chip)
            do throws(SerprogError) { try session.run() } catch {
                outcome.error.withLock { $0 = error }
            }
            device.shutdown()
        }
    }

    /// Closes the master's end and waits for the session to end; what it ended with.
    func finish() -> SerprogError? {
        master.shutdown()
        thread.join()
        return outcome.error.withLock { $0 }
    }

    /// Sends `request`, returns `count` bytes of answer.
    func exchange(_ request: [UInt8], _ count: Int) throws -> [UInt8] {
        try master.send(request)
        return try receive(count)
    }

    func receive(_ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let piece = try #require(
                try master.receiveBytes(limit: count - bytes.count, until: .after(.seconds(10))), "the peer closed")
            bytes += piece
        }
        return bytes
    }
}
