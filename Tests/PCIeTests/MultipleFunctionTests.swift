import PCIe
import Testing
import VFIOUser
import Wire

/// Several functions behind one root port: cards of many functions.
struct MultipleFunctionTests {
    @Test(
        arguments: [
            ("rp0", FunctionPlace(port: 0)), ("rp7", FunctionPlace(port: 7)), ("rp30", FunctionPlace(port: 30)),
            ("rp3.1", FunctionPlace(port: 3, function: 1)), ("rp0.7", FunctionPlace(port: 0, function: 7)),
            ("rp", nil), ("rp31", nil), ("rp0.0", nil), ("rp0.8", nil), ("rp0.", nil), ("rp0.1.2", nil), ("rp00", nil),
            ("rp+1", nil), ("rp-1", nil), ("xp0", nil), ("", nil), ("rp999999999999999999999", nil), ("rp0.01", nil),
        ] as [(String, FunctionPlace?)])
    func `a place is read as it is written`(text: String, place: FunctionPlace?) {
        #expect(FunctionPlace(text) == place)
        if let place { #expect(place.description == text) }
    }

    @Test func `functions behind one port are found by function 0's multi-function bit`() throws {
        let cards = try (0..<3).map { _ in try ServedCard() }
        let board = try Board()
        try board.root.attach(port: 1, function: 3, client: cards[1].client())
        // Without function 0 there is no card.
        #expect(board.enumerate().count == 3 && !board.root.isLinkUp(port: 1))
        try board.root.attach(port: 1, client: cards[0].client())
        board.write(0, 2, 0x18, 0x02_02_00)
        #expect(board.read(2, 0, 0x0E, width: 1) == 0x80 && board.read(2, 0, 0x0C) == 0x80_0000)
        try board.root.attach(port: 1, function: 7, client: cards[2].client())
        let found = board.enumerate().filter { $0.bus == 2 }
        #expect(found.map(\.function) == [0, 3, 7])
        #expect(found.map { $0.bars[0] } == [0x4000_0000, 0x4000_1000, 0x4000_2000])
        #expect(board.read(2, 0, 0, function: 1) == 0xFFFF_FFFF)
        // Each answers at its own addresses.
        for (index, card) in cards.enumerated() {
            board.root.memoryWrite(0x4000_0008 + UInt64(index) * 0x1000, width: 4, value: UInt64(index) + 10)
            #expect(board.root.memoryRead(0x4000_0008 + UInt64(index) * 0x1000, width: 4) == UInt64(index) + 10)
            #expect(card.card.resets == 0)
        }
        // One function more or less, and the bit goes.
        board.root.detach(port: 1, function: 3)
        #expect(board.read(2, 0, 0x0E, width: 1) == 0x80)
        board.root.detach(port: 1, function: 7)
        #expect(board.read(2, 0, 0x0E, width: 1) == 0)
        #expect(throws: RootComplexError.self) { try board.root.connect(port: 1, function: 8, to: "/nowhere") }
    }

    @Test func `a function level reset is of one function, a secondary bus reset of all`() throws {
        let cards = try (0..<2).map { _ in try ServedCard() }
        let board = try Board()
        for (index, card) in cards.enumerated() {
            try board.root.attach(port: 0, function: index, client: card.client())
        }
        _ = board.enumerate()
        let express = try #require(TestCard.description.makeConfigurationSpace().capability(CapabilityID.express))
        board.write(1, 0, express + ExpressRegister.deviceControl, width: 2, function: 1, 0x8000)
        #expect(cards.map(\.card.resets) == [0, 1])
        #expect(board.read(1, 0, 4, width: 2) == 6 && board.read(1, 0, 4, width: 2, function: 1) == 0)
        #expect(board.read(1, 0, 0x10, function: 1) == 0 && board.read(1, 0, 0x10) == 0x4000_0000)
        board.write(0, 1, 0x3E, width: 2, 0x40)
        #expect(cards.map(\.card.resets) == [1, 2])
        #expect(board.read(1, 0, 0) == 0xFFFF_FFFF && board.read(1, 0, 0, function: 1) == 0xFFFF_FFFF)
        board.write(0, 1, 0x3E, width: 2, 0)
        #expect(board.read(1, 0, 4, width: 2) == 0)
    }

    @Test func `functions share a pin, which is high while one of them asserts it`() throws {
        let cards = try (0..<2).map { _ in try ServedCard() }
        let board = try Board()
        for (index, card) in cards.enumerated() {
            try board.root.attach(port: 2 - 1, function: index, client: card.client())
        }
        _ = board.enumerate()
        for card in cards { card.endpoint.bus.setINTx(true) }
        #expect(eventually { board.outputs.lines == ["2.0 true"] })
        // Interrupt Status tells whose it is, whatever the pin does.
        for function in 0..<2 {
            #expect(eventually { board.read(2, 0, 6, width: 2, function: function) & 8 != 0 })
        }
        cards[0].endpoint.bus.setINTx(false)
        _ = board.root.memoryRead(0x4000_0000, width: 4)
        #expect(board.read(2, 0, 6, width: 2) & 8 == 0)
        #expect(board.outputs.lines == ["2.0 true"])
        // INTx disable takes the other's away, though it is still pending.
        board.write(2, 0, 4, width: 2, function: 1, 0x406)
        #expect(board.outputs.lines == ["2.0 true", "2.0 false"])
        #expect(board.read(2, 0, 6, width: 2, function: 1) & 8 != 0)
        board.write(2, 0, 4, width: 2, function: 1, 6)
        #expect(board.outputs.lines.last == "2.0 true")
        cards[1].endpoint.bus.setINTx(false)
        _ = board.root.memoryRead(0x4000_1000, width: 4)
        #expect(eventually { board.outputs.lines == ["2.0 true", "2.0 false", "2.0 true", "2.0 false"] })
    }

    @Test func `each function has its own gate to memory, behind the port's`() throws {
        let cards = try (0..<2).map { _ in try ServedCard() }
        let board = try Board()
        for (index, card) in cards.enumerated() {
            try board.root.attach(port: 0, function: index, client: card.client())
        }
        #expect(cards.allSatisfy { $0.endpoint.dma.ranges.isEmpty })
        _ = board.enumerate()
        #expect(cards.allSatisfy { $0.endpoint.dma.ranges.count == 1 })
        // Bus mastering of one function off: its memory is taken back, not only its own flag lowered.
        board.write(1, 0, 4, width: 2, 2)
        #expect(cards.map(\.endpoint.dma.ranges.count) == [0, 1])
        board.write(1, 0, 4, width: 2, 6)
        #expect(cards.map(\.endpoint.dma.ranges.count) == [1, 1])
        // That of the port: nobody gets through.
        board.write(0, 1, 4, width: 2, 2)
        #expect(cards.map(\.endpoint.dma.ranges.count) == [0, 0])
        board.write(0, 1, 4, width: 2, 6)
        #expect(cards.map(\.endpoint.dma.ranges.count) == [1, 1])
    }
}
