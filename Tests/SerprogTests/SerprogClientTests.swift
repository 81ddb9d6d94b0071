import Glibc
import Serprog
import Testing
import Wire

@Suite struct SerprogClientTests {
    @Test func `a client learns the programmer's name and limits`() throws {
        let served = try Served(.counting)
        let client = try SerprogClient(socket: served.master)
        #expect(client.programmerName == "a name of more t")
        #expect(client.maximumRead == Serprog.maximumRead)
        #expect(client.maximumWrite == Serprog.maximumWrite)
        #expect(served.finish() == nil)
    }

    @Test func `a transaction returns what the chip answers`() throws {
        let served = try Served(.counting)
        let client = try SerprogClient(socket: served.master)
        #expect(try client.spiTransaction(write: [0x9F], readCount: 3) == [0xC2, 0x20, 0x19])
        #expect(served.finish() == nil)
    }

    @Test(arguments: [(0, 0), (0, 1), (5, 1000), (3, 256 * 1024), (1, 256 * 1024 + 1), (77, 3_000_001)])
    func `a flash read of any length brings every byte once`(offset: Int, count: Int) throws {
        let served = try Served(.counting)
        let client = try SerprogClient(socket: served.master)
        let bytes = try client.readFlash(offset: UInt32(offset), count: count)
        #expect(bytes.count == count)
        let firstWrong = bytes.indices.first { bytes[$0] != FakeChip.pattern(offset + $0) }
        #expect(firstWrong == nil)
        #expect(try client.spiTransaction(write: [0x9F], readCount: 1) == [0xC2], "the stream is in step")
        #expect(served.finish() == nil)
    }

    @Test func `a refused transaction throws and the next one works`() throws {
        let served = try Served(.counting)
        let client = try SerprogClient(socket: served.master)
        #expect(throws: SerprogError.refused(.spiOperation)) { try client.spiTransaction(write: [0x42], readCount: 5) }
        #expect(try client.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
        #expect(served.finish() == nil)
    }

    @Test func `a flash read refused in the middle throws and the next transaction works`() throws {
        let served = try Served(
            FakeChip { (write, readCount) throws(SPITargetError) in
                // The second of several requests under way.
                if write.first == 0x0C, write[2] == 0x04 { throw SPITargetError("worn out") }
                return [[UInt8](repeating: 7, count: readCount)]
            })
        let client = try SerprogClient(socket: served.master)
        #expect(throws: SerprogError.refused(.spiOperation)) { try client.readFlash(offset: 0, count: 2_000_000) }
        #expect(try client.spiTransaction(write: [0x9F], readCount: 1) == [7])
        #expect(served.finish() == nil)
    }

    @Test func `more than the programmer takes is refused before it is sent`() throws {
        let served = try Served(.counting)
        let client = try SerprogClient(socket: served.master)
        #expect(throws: SerprogError.tooLong(count: 65537, limit: 65536)) {
            try client.spiTransaction(write: [UInt8](repeating: 0, count: 65537), readCount: 0)
        }
        #expect(throws: SerprogError.tooLong(count: 1_048_577, limit: 1_048_576)) {
            try client.spiTransaction(write: [0x9F], readCount: 1_048_577)
        }
        #expect(served.finish() == nil)
    }

    @Test func `a body that throws leaves the connection in step`() throws {
        let served = try Served(.counting)
        let client = try SerprogClient(socket: served.master)
        #expect(throws: SerprogError.targetFailed("enough")) {
            try client.spiTransaction(write: [0x0C, 0, 0, 0, 0, 0], readCount: 300_000) {
                (_) throws(SerprogError) in throw .targetFailed("enough")
            }
        }
        #expect(try client.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
        #expect(served.finish() == nil)
    }

    @Test(
        arguments: [
            ([0x00, 0x00], SerprogError.badAnswer(0, to: .syncNOP)),
            ([0x15, 0x15], .badAnswer(0x15, to: .syncNOP)),
            ([0x15, 0x06, 0x15], .refused(.queryInterface)),
            ([0x15, 0x06, 0x06, 2, 0], .unknownVersion(2)),
            ([0x15, 0x06, 0x06, 1, 1], .unknownVersion(257)),
            ([0x15, 0x06, 0x06, 1, 0, 0x06] + [UInt8](repeating: 0, count: 32), .unsupported(.spiOperation)),
            ([0x15, 0x06, 0x06, 1, 0, 0x77], .badAnswer(0x77, to: .queryCommandMap)),
            ([0x15], .wire(.closed(inMessage: true))),
        ] as [([UInt8], SerprogError)])
    func `a peer that is no usable programmer is refused`(answers: [UInt8], error: SerprogError) throws {
        let (master, device) = try Socket.pair()
        try device.send(answers)
        // Half-closed: the client's requests still find room.
        #expect(shutdown(device.descriptor.rawValue, Int32(SHUT_WR)) == 0)
        #expect(throws: error) { try SerprogClient(socket: master) }
    }

    @Test func `a peer that answers garbage puts the client out of step for good`() throws {
        let (master, device) = try Socket.pair()
        let map: [UInt8] = [0x02, 0, 0x08] + [UInt8](repeating: 0, count: 29)
        try device.send([0x15, 0x06, 0x06, 1, 0, 0x06] + map + [0x99])
        let client = try SerprogClient(socket: master)
        #expect(throws: SerprogError.badAnswer(0x99, to: .spiOperation)) {
            try client.spiTransaction(write: [0x9F], readCount: 3)
        }
        #expect(throws: SerprogError.outOfStep) { try client.spiTransaction(write: [0x9F], readCount: 3) }
        #expect(throws: SerprogError.outOfStep) { try client.readFlash(offset: 0, count: 3) }
    }

    @Test func `a peer that goes during an answer is an error`() throws {
        let (master, device) = try Socket.pair()
        let map: [UInt8] = [0x02, 0, 0x08] + [UInt8](repeating: 0, count: 29)
        try device.send([0x15, 0x06, 0x06, 1, 0, 0x06] + map + [0x06, 1, 2])
        let client = try SerprogClient(socket: master)
        device.shutdown()
        #expect(throws: SerprogError.self) { try client.spiTransaction(write: [0x9F], readCount: 3) }
    }
}
