import PCIe
import Synchronization
import Testing
import VFIOUser
import Wire

/// Cards that come and go while the machine runs, over in-memory links.
struct HotPlugTests {
    private let slotStatus = 0x48 + 0x1A
    private let slotControl = 0x48 + 0x18

    /// Present, powered, with a link.
    private func slot(_ board: Board) -> [Bool] {
        let slot = board.root.slot(port: 0)
        return [slot.isPresent, slot.isPowered, slot.isLinkActive]
    }

    @Test func `a card that is plugged in is there at once, and the slot says so`() throws {
        let board = try Board()
        _ = board.enumerate()
        #expect(board.read(0, 1, slotStatus, width: 2) == 0)
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client(), isHotPlug: true)
        #expect(board.read(0, 1, slotStatus, width: 2) == 0x148)
        #expect(board.read(1, 0, 0) == 0x0B0A_1B36)
        #expect(slot(board) == [true, true, true])
    }

    @Test func `a card that dies while nobody asks it is removed at once`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        board.write(0, 1, slotStatus, width: 2, 0xFFFF)
        served.die()
        // Nothing but the slot's own registers is read.
        #expect(eventually { board.read(0, 1, slotStatus, width: 2) == 0x108 })
        #expect(!board.root.isLinkUp(port: 0))
        #expect(eventually { board.events.all == ["lost rp0"] }, "\(board.events.all)")
        #expect(board.log.all.count == 1)
        // The place is free for the next one.
        let next = try ServedCard()
        try board.root.attach(port: 0, client: next.client(), isHotPlug: true)
        #expect(board.read(1, 0, 0) == 0x0B0A_1B36)
        #expect(board.read(1, 0, 4, width: 2) == 0 && board.read(1, 0, 0x10) == 0)
    }

    @Test func `the attention button asks, and power off lets every function go`() throws {
        let board = try Board()
        let cards = try (0..<2).map { _ in try ServedCard() }
        for (index, card) in cards.enumerated() {
            try board.root.attach(port: 1, function: index, client: card.client())
        }
        _ = board.enumerate()
        board.write(0, 2, slotStatus, width: 2, 0xFFFF)
        try board.root.requestRemoval(port: 1)
        #expect(board.read(0, 2, slotStatus, width: 2) == 0x41 && board.root.isLinkUp(port: 1))
        board.write(0, 2, slotControl, width: 2, 0x07C0)
        #expect(board.events.all == ["released rp1 rp1.1"])
        #expect(!board.root.isLinkUp(port: 1))
        // Presence, link, command completed, and the button that was pressed.
        #expect(board.read(0, 2, slotStatus, width: 2) == 0x119)
        #expect(throws: RootComplexError.self) { try board.root.requestRemoval(port: 1) }
        #expect(throws: RootComplexError.self) { try board.root.requestRemoval(port: 9) }
        #expect(board.log.all.isEmpty)
    }

    @Test func `power off without a request keeps the card, which comes back reset`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        board.root.memoryWrite(0x4000_0008, width: 4, value: 5)
        board.write(0, 1, slotControl, width: 2, 0x07C0)
        #expect(board.read(1, 0, 0) == 0xFFFF_FFFF && board.root.memoryRead(0x4000_0000, width: 4) == 0xFFFF_FFFF)
        #expect(slot(board) == [true, false, false])
        #expect(served.endpoint.dma.ranges.isEmpty)
        board.write(0, 1, slotControl, width: 2, 0x03C0)
        #expect(board.read(1, 0, 0) == 0x0B0A_1B36 && board.read(1, 0, 4, width: 2) == 0)
        #expect(served.card.resets == 2 && board.events.all.isEmpty)
    }

    @Test func `a device may ask for its own removal`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        #expect(served.endpoint.interrupts.raise(.request))
        #expect(eventually { board.read(0, 1, slotStatus, width: 2) & 1 != 0 })
    }

    // MARK: Errors

    private let advanced = 0x100

    private func enableErrors(_ board: Board) throws {
        board.write(0, 1, 0x48 + 8, width: 2, 0x281F)
        board.write(0, 1, 0x3E, width: 2, 2)
        board.write(0, 1, advanced + 0x2C, 7)
        let express = try #require(TestCard.description.makeConfigurationSpace().capability(CapabilityID.express))
        board.write(1, 0, express + 8, width: 2, 0x281F)
    }

    @Test func `an access to a card that is gone is an error of its port`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        try enableErrors(board)
        #expect(board.root.memoryRead(0x4000_0000, width: 4) == 0x4442_464F)
        served.die()
        #expect(eventually { !board.root.slot(port: 0).isPresent })
        #expect(board.root.memoryRead(0x4000_0010, width: 4) == 0xFFFF_FFFF)
        #expect(board.read(0, 1, advanced + 4) == 0x10_0000)
        #expect(board.read(0, 1, advanced + 0x30) & 0x7F == 0x24)
        #expect(board.read(0, 1, 0x1E, width: 2) & 0x2000 != 0)
        // The header of the packet: a read of one word by the port.
        #expect((0..<3).map { board.read(0, 1, advanced + 0x1C + $0 * 4) } == [1, 0x0008_000F, 0x4000_0010])
        // Configuration accesses to nobody are how software looks for cards: no error.
        board.write(0, 1, advanced + 4, 0xFFFF_FFFF)
        #expect(board.read(1, 0, 0) == 0xFFFF_FFFF && board.read(0, 1, advanced + 4) == 0)
    }

    @Test func `an injected error is in the card's registers and reported by its port`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        try enableErrors(board)
        let place = FunctionPlace(port: 0)
        #expect(try board.root.inject(.correctable(6), at: place))
        #expect(board.read(0, 1, advanced + 0x30) & 0x7F == 1)
        #expect(board.read(0, 1, advanced + 0x34, width: 2) == 0x100)
        #expect(throws: RootComplexError.self) {
            try board.root.inject(.correctable(6), at: FunctionPlace(port: 0, function: 1))
        }
        #expect(throws: RootComplexError.self) { try board.root.inject(.correctable(6), at: FunctionPlace(port: 7)) }
        // The port's own.
        board.write(0, 1, advanced + 0x30, 0x7F)
        #expect(try board.root.inject(.uncorrectable(18), at: place, onPort: true))
        #expect(board.read(0, 1, advanced + 0x36, width: 2) == 0x08)
    }

    @Test func `a card's error interrupt is an error message`() throws {
        let board = try Board()
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        try enableErrors(board)
        served.endpoint.bus.report(.uncorrectable(12), header: [5, 6, 7, 8])
        #expect(eventually { board.read(0, 1, advanced + 0x30) & 0x7F == 0x24 })
        #expect(board.read(0, 1, advanced + 0x36, width: 2) == 0x100)
        // Which it was, and of which packet, is in the function's registers as software reads them.
        #expect(board.read(1, 0, advanced + 4) == 1 << 12)
        #expect((0..<4).map { board.read(1, 0, advanced + 0x1C + $0 * 4) } == [5, 6, 7, 8])
        board.write(1, 0, advanced + 4, 0xFFFF_FFFF)
        #expect(board.read(1, 0, advanced + 4) == 0)
    }
}
