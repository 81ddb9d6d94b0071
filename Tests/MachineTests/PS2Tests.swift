import Machine
import Testing

private let (data, control): (UInt64, UInt64) = (0, 4)

@Suite struct `PS/2 port` {
    let board = WireBoard()
    let port: PS2Port

    init() { port = PS2Port(line: InterruptLine(board, source: 12)) }

    /// Everything in the receive queue, as the driver empties it: until RAVAIL (bits 31:16) is 0.
    private func drain() -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let value = port.word(data)
            guard value & 0xFFFF_0000 != 0 else { return bytes }
            #expect(value & 1 << 15 != 0)
            bytes.append(UInt8(truncatingIfNeeded: value))
        }
    }

    @Test func `the power key makes and breaks E0 37, with an interrupt until all is read`() {
        port.set(control, 1)
        #expect(!board.isAsserted(12))
        port.pressPower()
        #expect(board.isAsserted(12))
        #expect(port.word(control) == 0x101)
        #expect(port.word(data) == 5 << 16 | 1 << 15 | 0xE0)
        #expect(board.isAsserted(12))
        #expect(drain() == [0x37, 0xE0, 0xF0, 0x37])
        #expect(!board.isAsserted(12))
        #expect(port.word(control) == 1)
    }

    @Test func `without the enable bit it queues and does not interrupt`() {
        port.pressPower()
        #expect(!board.isAsserted(12))
        port.set(control, 1)
        #expect(board.isAsserted(12))
        port.set(control, 0)
        #expect(!board.isAsserted(12))
    }

    @Test(
        arguments: [
            ([0xF2], [0xFA, 0xAB, 0x83]),  // who are you
            ([0xED, 0x07], [0xFA, 0xFA]),  // LEDs
            ([0xF3, 0x20], [0xFA, 0xFA]),  // repeat rate
            ([0xF0, 0x00], [0xFA, 0xFA, 0x02]),  // which scan code set
            ([0xF0, 0x02], [0xFA, 0xFA]),
            ([0xF0, 0x03], [0xFA, 0xFE]),  // a set that it has not
            ([0xED, 0xF4], [0xFA, 0xFA]),  // a command in the place of an argument
            ([0xEE], [0xEE]),  // echo
            ([0xFF], [0xFA, 0xAA]),  // reset
            ([0x01], [0xFE]),  // no command
        ] as [([UInt32], [UInt8])])
    func `commands are answered as keyboards do`(_ sent: [UInt32], _ answer: [UInt8]) {
        for byte in sent { port.set(data, byte) }
        #expect(drain() == answer)
    }

    @Test func `disabled it sends no keys, enabled again it does`() {
        port.set(data, 0xF5)
        port.pressPower()
        #expect(drain() == [0xFA])
        port.set(data, 0xF4)
        port.pressPower()
        #expect(drain() == [0xFA, 0xE0, 0x37, 0xE0, 0xF0, 0x37])
    }

    @Test func `nobody reads: the queue stays bounded and holds whole scan codes`() {
        for _ in 0..<1000 { port.pressPower() }
        let bytes = drain()
        #expect(bytes.count <= 256 && bytes.count % 5 == 0 && bytes.count >= 250)
    }

    @Test func `reset empties it`() {
        port.set(control, 1)
        port.pressPower()
        port.reset()
        #expect(!board.isAsserted(12))
        #expect(drain() == [] && port.word(control) == 0)
    }
}
