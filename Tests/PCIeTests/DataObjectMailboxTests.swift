import PCIe
import Synchronization
import Testing
import VFIOUser

/// Data Object Exchange: the registers by tables, and a mailbox behind a server.
struct DataObjectMailboxTests {
    private typealias Register = DataObjectMailbox.Register
    private typealias Bits = DataObjectMailbox.Bits

    private func mailbox(vector: Int? = nil) -> DataObjectMailbox {
        DataObjectMailbox(protocols: [(1, 1), (0x1B36, 7)], vector: vector)
    }

    private func send(_ words: [UInt32], to mailbox: inout DataObjectMailbox) -> DataObjectMailbox.Action {
        for word in words { #expect(mailbox.write(Register.write, word) == .none) }
        return mailbox.write(Register.control, Bits.go)
    }

    private func receive(_ mailbox: inout DataObjectMailbox) -> [UInt32] {
        var words: [UInt32] = []
        while mailbox.read(Register.status) & Bits.ready != 0, words.count < 100 {
            words.append(mailbox.read(Register.read))
            _ = mailbox.write(Register.read, 0)
        }
        return words
    }

    @Test func `discovery names every protocol and ends`() {
        var mailbox = mailbox()
        var index: UInt32 = 0
        var found: [UInt32] = []
        repeat {
            #expect(send([1, 3, index], to: &mailbox) == .none)
            #expect(mailbox.read(Register.status) == Bits.ready)
            let words = receive(&mailbox)
            #expect(words.count == 3 && words[0] == 1 && words[1] == 3)
            found.append(words[2] & 0xFF_FFFF)
            index = words[2] >> 24
        } while index != 0 && found.count < 10
        #expect(found == [0x00_0001, 0x01_0001, 0x07_1B36])
        _ = send([1, 3, 9], to: &mailbox)
        #expect(receive(&mailbox).last == 0xFFFF)
        #expect(mailbox.read(Register.status) == 0 && mailbox.read(Register.read) == 0)
    }

    /// Objects that are dropped without a word.
    @Test(
        arguments: [
            [], [1], [1, 3], [1, 2], [1, 4, 0], [1, 3, 0, 0], [1, 4, 0, 0], [2, 3, 0], [0x02_0001, 3, 0], [1, 0, 0],
            [1, 0xFFFF_FFFF, 0],
        ] as [[UInt32]])
    func `a malformed or unknown object is dropped, and the next is answered`(words: [UInt32]) {
        var mailbox = mailbox()
        #expect(send(words, to: &mailbox) == .none)
        #expect(mailbox.read(Register.status) == 0)
        #expect(send([1, 3, 0], to: &mailbox) == .none)
        #expect(receive(&mailbox) == [1, 3, 0x01_00_0001])
    }

    @Test func `a request is busy until it is answered, and takes no words meanwhile`() {
        var mailbox = mailbox()
        let action = send([0x07_1B36, 4, 10, 20], to: &mailbox)
        #expect(action == .process(protocol: 1, payload: [10, 20], generation: 1))
        #expect(mailbox.read(Register.status) == Bits.busy)
        #expect(send([1, 3, 0], to: &mailbox) == .none)
        #expect(mailbox.read(Register.status) == Bits.busy)
        #expect(mailbox.complete(protocol: 1, generation: 1, payload: [30]) == false)
        #expect(mailbox.read(Register.status) == Bits.ready)
        #expect(receive(&mailbox) == [0x07_1B36, 3, 30])
        // Once is enough.
        #expect(mailbox.complete(protocol: 1, generation: 1, payload: [31]) == false)
        #expect(mailbox.read(Register.status) == 0)
    }

    @Test func `an abort ends what is under way, and a late answer is dropped`() {
        var mailbox = mailbox()
        _ = send([0x07_1B36, 2], to: &mailbox)
        #expect(mailbox.write(Register.control, Bits.abort) == .none)
        #expect(mailbox.read(Register.status) == 0)
        #expect(mailbox.complete(protocol: 1, generation: 1, payload: [30]) == false)
        #expect(mailbox.read(Register.status) == 0)
        // Words that were written before it are gone too.
        _ = mailbox.write(Register.write, 99)
        _ = mailbox.write(Register.control, Bits.abort)
        _ = send([1, 3, 0], to: &mailbox)
        #expect(receive(&mailbox).count == 3)
    }

    @Test func `an error stays until it is aborted`() {
        var mailbox = mailbox()
        _ = send([0x07_1B36, 2], to: &mailbox)
        #expect(mailbox.complete(protocol: 1, generation: 1, payload: nil) == false)
        #expect(mailbox.read(Register.status) == Bits.error)
        _ = send([1, 3, 0], to: &mailbox)
        #expect(mailbox.read(Register.status) == Bits.error)
        _ = mailbox.write(Register.control, Bits.abort)
        _ = send([1, 3, 0], to: &mailbox)
        #expect(mailbox.read(Register.status) == Bits.ready)
        // An object that never ends.
        var flooded = self.mailbox()
        for _ in 0...DataObjectMailbox.limit { _ = flooded.write(Register.write, 1) }
        #expect(flooded.read(Register.status) == Bits.error)
    }

    @Test func `interrupts come where they are enabled and can be`() {
        var silent = mailbox()
        #expect(silent.write(Register.control, Bits.interruptEnable) == .none && silent.read(Register.control) == 0)
        var mailbox = mailbox(vector: 5)
        #expect(mailbox.read(Register.capabilities) == 1 | 5 << 1)
        _ = mailbox.write(Register.control, Bits.interruptEnable)
        for word in [1, 3, 0] as [UInt32] { _ = mailbox.write(Register.write, word) }
        #expect(mailbox.write(Register.control, Bits.go | Bits.interruptEnable) == .interrupt)
        #expect(mailbox.read(Register.status) == Bits.ready | Bits.interruptStatus)
        _ = mailbox.write(Register.status, Bits.interruptStatus)
        #expect(mailbox.read(Register.status) == Bits.ready)
        _ = receive(&mailbox)
        for word in [0x07_1B36, 2] as [UInt32] { _ = mailbox.write(Register.write, word) }
        _ = mailbox.write(Register.control, Bits.go | Bits.interruptEnable)
        #expect(mailbox.complete(protocol: 1, generation: 1, payload: nil) == true)
        #expect(mailbox.read(Register.status) == Bits.error | Bits.interruptStatus)
    }

    @Test func `a client talks to a mailbox behind a server, and a reset aborts it`() throws {
        let waiting = Mutex<(@Sendable ([UInt32]?) -> Void)?>(nil)
        var description = TestCard.description
        description.dataObjects = [
            DataObjectProtocol(vendor: 0x1B36, type: 1) { request, reply in reply(request.reversed()) },
            DataObjectProtocol(vendor: 0x1B36, type: 2) { _, reply in waiting.withLock { $0 = reply } },
        ]
        let place = try #require(
            description.makeConfigurationSpace().extendedCapability(ExtendedCapabilityID.dataObjectExchange))
        let served = try ServedCard(description)
        let client = try served.client()
        func read(_ register: Int) -> UInt64 {
            client.read(region: 7, offset: UInt64(place + register), width: 4)
        }
        func write(_ register: Int, _ value: UInt32) {
            client.write(region: 7, offset: UInt64(place + register), width: 4, value: UInt64(value))
        }
        #expect(read(0) & 0xFFFF == 0x2E)
        for word in [0x01_1B36, 4, 1, 2] as [UInt32] { write(Register.write, word) }
        write(Register.control, Bits.go)
        #expect(read(Register.status) == UInt64(Bits.ready))
        var words: [UInt64] = []
        for _ in 0..<4 {
            words.append(read(Register.read))
            write(Register.read, 0)
        }
        #expect(words == [0x01_1B36, 4, 2, 1] && read(Register.status) == 0)
        // Narrow writes are none of its business; narrow reads are parts of the word.
        client.write(region: 7, offset: UInt64(place + Register.write), width: 2, value: 1)
        for word in [0x02_1B36, 2] as [UInt32] { write(Register.write, word) }
        write(Register.control, Bits.go)
        #expect(client.read(region: 7, offset: UInt64(place + Register.status), width: 1) == 1)
        try client.reset()
        #expect(read(Register.status) == 0)
        waiting.withLock { $0 }?([7])
        #expect(read(Register.status) == 0)
    }
}
