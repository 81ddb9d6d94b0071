import Serprog
import TestKit
import Testing
import Wire

@Suite struct SerprogSessionTests {
    @Test(
        arguments: [
            ([0x00], [0x06]), ([0x10], [0x15, 0x06]), ([0x01], [0x06, 1, 0]),
            ([0x02], [0x06, 0x3F, 0x01, 0x7F] + [UInt8](repeating: 0, count: 29)),
            ([0x03], [0x06] + Array("a name of more t".utf8)), ([0x04], [0x06, 0xFF, 0xFF]), ([0x05], [0x06, 0x08]),
            ([0x08], [0x06, 0, 0, 1]), ([0x11], [0x06, 0, 0, 0x10]), ([0x12, 0x08], [0x06]), ([0x12, 0x0F], [0x06]),
            ([0x14, 0x40, 0x42, 0x0F, 0x00], [0x06, 0x40, 0x42, 0x0F, 0x00]),
            ([0x14, 0xFF, 0xFF, 0xFF, 0xFF], [0x06, 0x40, 0x6B, 0xED, 0x07]), ([0x15, 1], [0x06]), ([0x16, 0], [0x06]),
            ([0x13, 1, 0, 0, 3, 0, 0, 0x9F], [0x06, 0xC2, 0x20, 0x19]),
        ] as [([UInt8], [UInt8])])
    func `a command is answered as the specification says`(request: [UInt8], answer: [UInt8]) throws {
        let served = try Served(.counting)
        #expect(try served.exchange(request, answer.count) == answer)
        #expect(try served.exchange([0x10], 2) == [0x15, 0x06], "nothing more came")
        #expect(served.finish() == nil)
    }

    @Test(
        arguments: [
            [0x06], [0x07], [0x09], [0x0A], [0x0B], [0x0F], [0x17], [0xFF], [0x12, 0x01], [0x14, 0, 0, 0, 0],
            [0x16, 1], [0x13, 1, 0, 0, 3, 0, 0, 0x42], [0x13, 1, 0, 0, 0x01, 0x00, 0x10, 0x9F],
            [0x13, 0x01, 0x00, 0x01, 0, 0, 0] + [UInt8](repeating: 0, count: 0x1_0001),
        ] as [[UInt8]])
    func `what is unsupported or out of range is refused and the stream stays in step`(request: [UInt8]) throws {
        let served = try Served(.counting)
        #expect(try served.exchange(request, 1) == [0x15])
        #expect(try served.exchange([0x10], 2) == [0x15, 0x06])
        #expect(served.finish() == nil)
    }

    @Test func `commands that come together are answered together and in order`() throws {
        let served = try Served(.counting)
        let requests: [UInt8] = [0x00, 0x10, 0x13, 1, 0, 0, 3, 0, 0, 0x9F, 0x01]
        #expect(try served.exchange(requests, 10) == [0x06, 0x15, 0x06, 0x06, 0xC2, 0x20, 0x19, 0x06, 1, 0])
        #expect(served.finish() == nil)
    }

    @Test func `a command may come byte by byte`() throws {
        let served = try Served(.counting)
        for byte in SerprogRequest.spiOperation(write: [0x9F], readCount: 2).encoded {
            try served.master.send([byte])
        }
        #expect(try served.receive(3) == [0x06, 0xC2, 0x20])
        #expect(served.finish() == nil)
    }

    @Test func `an undriven chip answers no operation until it is driven again`() throws {
        let served = try Served(.counting)
        let operation: [UInt8] = [0x13, 1, 0, 0, 1, 0, 0, 0x9F]
        #expect(
            try served.exchange([0x15, 0] + operation + [0x15, 1] + operation, 5) == [0x06, 0x15, 0x06, 0x06, 0xC2])
        #expect(served.finish() == nil)
    }

    @Test(
        arguments: [[0x13], [0x13, 2, 0, 0, 0, 0, 0, 1], [0x14, 1], [0x13, 0xFF, 0xFF, 0xFF, 0, 0, 0]] as [[UInt8]])
    func `a peer that goes in the middle of a command is noticed`(request: [UInt8]) throws {
        let served = try Served(.counting)
        try served.master.send(request)
        #expect(served.finish() == .wire(.closed(inMessage: true)))
    }

    @Test func `a target that answers too little or too much ends the connection`() throws {
        for piece in [[UInt8](), [1, 2, 3, 4]] {
            let served = try Served(FakeChip { _, _ in [piece] })
            try served.master.send([0x13, 1, 0, 0, 3, 0, 0, 0x9F])
            while try served.master.receiveBytes(limit: 16, until: .after(.seconds(10))) != nil {}
            #expect(served.finish() != nil, "\(piece)")
        }
    }

    @Test func `random bytes never end in a trap`() throws {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        for _ in 0..<200 {
            let served = try Served(.counting)
            let bytes = (0..<Int.random(in: 1...64, using: &generator)).map { _ in
                // Opcodes are more likely than chance to get into the interesting states.
                Bool.random(using: &generator)
                    ? UInt8.random(in: 0...0x17, using: &generator) : UInt8.random(in: 0...255, using: &generator)
            }
            try served.master.send(bytes)
            // Any end is good: in step, in the middle of a command.
            let end = served.finish()
            #expect(
                end == nil || end == .wire(.closed(inMessage: true)) || end == .wire(.closed(inMessage: false)),
                "seed \(seed)")
        }
    }
}
