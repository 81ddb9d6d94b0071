import TestKit
import Testing
import Wire

/// The bytes and descriptor count of the next message.
private func take(_ reader: inout MessageReader) throws(WireError) -> (bytes: [UInt8], descriptors: Int)? {
    try unsafe reader.next { unsafe (Array($0), $1.count) }
}

@Suite struct MessageReaderTests {
    static let ethernet = Framing.bigEndianLength(minimum: 1, maximum: 1000)

    @Test func `messages come whole however the stream was cut`() throws {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        let messages = (0..<500).map { _ in generator.bytes(Int.random(in: 1...1000, using: &generator)) }
        let stream = messages.flatMap { message -> [UInt8] in
            [0, 0, UInt8(message.count >> 8), UInt8(message.count & 0xFF)] + message
        }
        let cuts = (0..<200).map { _ in Int.random(in: 0...stream.count, using: &generator) }.sorted() + [stream.count]
        let (left, right) = try Socket.pair()
        let sender = WorkerThread("sender") {
            var start = 0
            for cut in cuts where cut > start {
                try! left.send(Array(stream[start..<cut]))
                start = cut
            }
            left.shutdown()
        }
        var reader = MessageReader(socket: right, framing: Self.ethernet, batch: 512)
        var received: [[UInt8]] = []
        while let message = try take(&reader) { received.append(Array(message.bytes.dropFirst(4))) }
        sender.join()
        #expect(received == messages, "seed \(seed)")
    }

    @Test func `a descriptor stays with its message when others came before it`() throws {
        let (left, right) = try Socket.pair()
        func message(_ id: UInt8, _ size: UInt8) -> [UInt8] {
            [id, 0, 0, 0, size, 0, 0, 0] + [UInt8](repeating: 0, count: Int(size) - 8)
        }
        let event = try EventNotifier()
        try left.send(message(1, 16))
        try left.send(message(2, 20), descriptors: [event.descriptor])
        try left.send(message(3, 16))
        var reader = MessageReader(socket: right, framing: .vfioUser(maximum: 4096))
        let first = try #require(try take(&reader))
        let second = try #require(try take(&reader))
        let third = try #require(try take(&reader))
        #expect([first.bytes[0], second.bytes[0], third.bytes[0]] == [1, 2, 3])
        #expect([first.descriptors, second.descriptors, third.descriptors] == [0, 1, 0])
    }

    @Test(arguments: [
        (Self.ethernet, [UInt8]([0, 0, 0, 0]), 0),
        (Self.ethernet, [0, 0, 0x10, 0], 4096),
        (Self.ethernet, [0xFF, 0xFF, 0xFF, 0xFF], 0xFFFF_FFFF),
        (.vfioUser(maximum: 4096), [0, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 15),
        (.vfioUser(maximum: 4096), [0, 0, 0, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4097),
    ])
    func `a length outside the wire's bounds is refused`(framing: Framing, bytes: [UInt8], length: Int) throws {
        let (left, right) = try Socket.pair()
        try left.send(bytes)
        var reader = MessageReader(socket: right, framing: framing)
        do throws(WireError) {
            _ = try take(&reader)
            Issue.record("took a message of \(length) bytes")
        } catch {
            guard case .badLength(length, _, _) = error else {
                Issue.record("\(error)")
                return
            }
        }
    }

    @Test func `a stream that ends inside a message says so, one that ends between two does not`() throws {
        let (left, right) = try Socket.pair()
        try left.send([0, 0, 0, 2, 1, 2, 0, 0])
        left.shutdown()
        var reader = MessageReader(socket: right, framing: Self.ethernet)
        #expect(try take(&reader)?.bytes == [0, 0, 0, 2, 1, 2])
        do throws(WireError) {
            _ = try take(&reader)
            Issue.record("the cut message went unnoticed")
        } catch { #expect(error == .closed(inMessage: true)) }
    }
}

@Suite struct AdaptiveWaitTests {
    @Test func `polling fades while nothing comes and returns when sleeps are short`() {
        var wait = AdaptiveWait(limit: .microseconds(50))
        for _ in 0..<20 { wait.sleepWon(slept: 1_000_000) }
        #expect(wait.budget == 0)
        wait.sleepWon(slept: 10_000)
        #expect(wait.budget > 0)
        for _ in 0..<20 { wait.pollingWon() }
        #expect(wait.budget == wait.limit)
    }

    @Test func `a poll in vain before a short sleep is not repeated at once`() {
        var wait = AdaptiveWait(limit: .microseconds(50))
        for expected in [1, 3, 7, 15] {
            #expect(wait.takeBudget() == 25_000)
            wait.sleepWon(polled: 25_000, slept: 5_000)
            for _ in 0..<expected { #expect(wait.takeBudget() == 0) }
        }
        #expect(wait.takeBudget() == 25_000)
        wait.pollingWon()
        #expect(wait.takeBudget() == 50_000)
        wait.sleepWon(polled: 50_000, slept: 5_000)
        #expect(wait.takeBudget() == 0 && wait.takeBudget() == 50_000)
    }
}
