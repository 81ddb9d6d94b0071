import PCIe
import Synchronization
import Testing
import VFIOUser
import Wire

/// What went out of the root complex.
final class Outputs: Sendable {
    struct Message: Hashable, Sendable {
        var address: UInt64
        var data: UInt32
    }

    private let state = Mutex((messages: [Message](), lines: [String]()))
    var messages: [Message] { state.withLock { $0.messages } }
    var lines: [String] { state.withLock { $0.lines } }
    func deliver(_ address: UInt64, _ data: UInt32) {
        state.withLock { $0.messages.append(Message(address: address, data: data)) }
    }
    func set(_ device: Int, _ pin: Int, _ level: Bool) {
        state.withLock { $0.lines.append("\(device).\(pin) \(level)") }
    }
}

/// A machine without a hart: RAM, a root complex, and a walk over its buses as firmware does it.
final class Board: Sendable {
    static let ramBase: UInt64 = 0x8000_0000
    let ram: SharedMemory
    let outputs = Outputs()
    let log = Lines()
    let events = Lines()
    let root: RootComplex

    init(ports: Int = 2) throws {
        ram = try SharedMemory(create: "ram", size: 1 << 20)
        let (outputs, log, events) = (outputs, log, events)
        root = try RootComplex(
            ports: ports, memory: ram, memoryBase: Self.ramBase, deliverMessage: { outputs.deliver($0, $1) },
            setINTx: { outputs.set($0, $1, $2) }, log: { log.add($0) },
            onEvent: { event in
                switch event {
                case .lost(let place, _): events.add("lost \(place)")
                case .released(let places): events.add("released " + places.map(\.description).joined(separator: " "))
                }
            })
    }

    static func ecam(_ bus: Int, _ device: Int, _ register: Int, function: Int = 0) -> UInt64 {
        UInt64(bus << 20 | device << 15 | function << 12 | register)
    }

    func read(_ bus: Int, _ device: Int, _ register: Int, width: Int = 4, function: Int = 0) -> UInt64 {
        root.configRead(Self.ecam(bus, device, register, function: function), width: width)
    }

    func write(_ bus: Int, _ device: Int, _ register: Int, width: Int = 4, function: Int = 0, _ value: UInt64) {
        root.configWrite(Self.ecam(bus, device, register, function: function), width: width, value: value)
    }

    struct Function: Hashable {
        var bus: Int
        var device: Int
        var function = 0
        var identity: UInt64
        var bars: [Int: UInt64] = [:]
    }

    /// Numbers buses, sizes and assigns base addresses from 0x4000_0000 (32-bit) and 0x4_0000_0000 (prefetchable),
    /// opens bridges, enables everything.
    func enumerate() -> [Function] {
        var found: [Function] = []
        var nextBus = 1
        var low: UInt64 = 0x4000_0000
        var high: UInt64 = 0x4_0000_0000
        scan(0, &found, &nextBus, &low, &high)
        return found
    }

    private func scan(
        _ bus: Int, _ found: inout [Function], _ nextBus: inout Int, _ low: inout UInt64, _ high: inout UInt64
    ) {
        for device in 0..<32 where read(bus, device, 0, width: 2) != 0xFFFF {
            let header = read(bus, device, 0x0E, width: 1)
            let isBridge = header & 0x7F == 1
            for number in 0..<(header & 0x80 == 0 ? 1 : 8) {
                guard read(bus, device, 0, width: 2, function: number) != 0xFFFF else { continue }
                var function = Function(
                    bus: bus, device: device, function: number, identity: read(bus, device, 0, function: number))
                assign(&function, isBridge ? 2 : 6, &low, &high)
                found.append(function)
                if number > 0 { write(bus, device, 4, width: 2, function: number, 6) }
            }
            if isBridge {
                let secondary = nextBus
                nextBus += 1
                write(bus, device, 0x18, UInt64(0xFF << 16 | secondary << 8 | bus))
                low = (low + 0xF_FFFF) & ~0xF_FFFF
                high = (high + 0xF_FFFF) & ~0xF_FFFF
                let (lowStart, highStart) = (low, high)
                scan(secondary, &found, &nextBus, &low, &high)
                low = (low + 0xF_FFFF) & ~0xF_FFFF
                high = (high + 0xF_FFFF) & ~0xF_FFFF
                write(bus, device, 0x1A, width: 1, UInt64(nextBus - 1))
                write(bus, device, 0x20, window(lowStart, low))
                write(bus, device, 0x24, window(highStart, high))
                write(bus, device, 0x28, highStart >> 32)
                write(bus, device, 0x2C, (high - 1) >> 32)
            }
            write(bus, device, 4, width: 2, 6)
        }
    }

    /// Base and limit registers of a range; a range that is empty is closed.
    private func window(_ start: UInt64, _ end: UInt64) -> UInt64 {
        let limit = end > start ? end - 1 : start - 1
        return start >> 16 & 0xFFF0 | (limit >> 16 & 0xFFF0) << 16
    }

    private func assign(_ function: inout Function, _ count: Int, _ low: inout UInt64, _ high: inout UInt64) {
        var index = 0
        while index < count {
            let register = 0x10 + index * 4
            let flags = read(function.bus, function.device, register, function: function.function) & 0xF
            write(function.bus, function.device, register, function: function.function, 0xFFFF_FFFF)
            var mask =
                read(function.bus, function.device, register, function: function.function) & ~0xF
                | 0xFFFF_FFFF_0000_0000
            let is64Bit = flags & 4 != 0
            if is64Bit {
                write(function.bus, function.device, register + 4, function: function.function, 0xFFFF_FFFF)
                mask =
                    mask & 0xFFFF_FFFF | read(function.bus, function.device, register + 4, function: function.function)
                    << 32
            }
            if mask & 0xFFFF_FFFF != 0 {
                let size = ~mask + 1
                var cursor = is64Bit ? high : low
                cursor = (cursor + size - 1) & ~(size - 1)
                write(function.bus, function.device, register, function: function.function, cursor & 0xFFFF_FFFF)
                if is64Bit {
                    write(function.bus, function.device, register + 4, function: function.function, cursor >> 32)
                }
                function.bars[index] = cursor
                if is64Bit { high = cursor + size } else { low = cursor + size }
            }
            index += is64Bit ? 2 : 1
        }
    }
}

struct RootComplexTests {
    @Test func `a walk finds the host bridge, the root ports and what is behind them`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 1, client: served.client())
        let found = board.enumerate()
        #expect(found.map(\.identity) == [0x0008_1B36, 0x000C_1B36, 0x000C_1B36, 0x0B0A_1B36])
        #expect(found.map(\.bus) == [0, 0, 0, 2])
        #expect(found[3].bars == [0: 0x4000_0000, 2: 0x4_0000_0000])
        #expect(board.root.isLinkUp(port: 1) && !board.root.isLinkUp(port: 0))
        // The slots say the same.
        let express = 0x48
        #expect(board.read(0, 1, express + 0x12, width: 2) & 0x2000 == 0)
        #expect(board.read(0, 2, express + 0x12, width: 2) & 0x2000 != 0)
        #expect(board.read(0, 2, express + 0x1A, width: 2) & 0x40 != 0)
    }

    @Test func `a listing shows every function as a walk finds it, and changes nothing`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 1, client: served.client())
        let before = board.root.functions()
        #expect(before.map(\.device) == [0, 1, 2, 0])
        #expect(before.map(\.port) == [nil, nil, nil, 1])
        // No bus is numbered yet.
        #expect(before[3].bus == 0 && board.read(0, 2, 0x19, width: 1) == 0)
        let walked = board.enumerate()
        let found = board.root.functions()
        #expect(found.map { $0.register(0, width: 4) } == walked.map { UInt32($0.identity) })
        #expect(found.map(\.bus) == [0, 0, 0, 2])
        #expect(found[3].baseAddresses.map(\.size) == [4096, 1 << 16])
        // The card's second vendor-specific capability answers each access in its own way.
        var live = 0
        for place in stride(from: 0x40, to: 0x100, by: 4) where found[3].register(place, width: 1) == 9 { live = place }
        #expect(found[3].register(live + 2, width: 1) == 16)
        for it in found {
            for place in stride(from: 0, to: 4096, by: 4) where it.port == nil || !(live..<live + 16 ~= place) {
                let word = (0..<4).reduce(UInt64(0)) { $0 | UInt64(it.configuration[place + $1]) << UInt64($1 * 8) }
                #expect(board.read(Int(it.bus), Int(it.device), place) == word, "\(it.device): \(place)")
            }
        }
        // A card that is held in reset, or gone, is not there.
        board.write(0, 2, 0x3E, width: 2, 0x40)
        #expect(board.root.functions().count == 3)
        board.write(0, 2, 0x3E, width: 2, 0)
        #expect(board.root.functions().count == 4)
        served.die()
        #expect(eventually { board.root.functions().count == 3 })
    }

    @Test(arguments: [
        (0, 3, 0), (0, 31, 0), (1, 0, 0), (2, 0, 1), (2, 1, 0), (3, 0, 0), (255, 31, 7), (0, 0, 1), (0, 2, 7),
    ]) func `an absent function reads as all ones and takes no writes`(bus: Int, device: Int, function: Int) throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 1, client: served.client())
        _ = board.enumerate()
        for (width, ones) in [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF)] as [(Int, UInt64)] {
            let address = Board.ecam(bus, device, 0, function: function)
            board.root.configWrite(address, width: width, value: 0)
            #expect(board.root.configRead(address, width: width) == ones)
        }
    }

    @Test func `widths and offsets that cannot be read as all ones`() throws {
        let board = try Board()
        #expect(board.root.configRead(1 << 28, width: 4) == 0xFFFF_FFFF)
        #expect(board.root.configRead(.max, width: 4) == 0xFFFF_FFFF)
        #expect(board.root.configRead(0xFFE, width: 4) == 0xFFFF_FFFF)
        #expect(board.root.configRead(0, width: 8) == .max)
        #expect(board.root.memoryRead(.max, width: 8) == .max)
        #expect(board.root.memoryRead(0x4000_0000, width: 3) == 0xFF_FFFF)
        board.root.memoryWrite(.max, width: 8, value: 0)
    }

    @Test func `memory space reaches the card's registers in every width`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        let base: UInt64 = 0x4000_0000
        #expect(board.root.memoryRead(base, width: 4) == 0x4442_464F)
        for (width, value) in [(1, 0x11), (2, 0x2222), (4, 0x3333_3333), (8, 0x4444_4444_4444_4444)] as [(Int, UInt64)]
        {
            board.root.memoryWrite(base + 8, width: width, value: value)
            #expect(board.root.memoryRead(base + 8, width: width) == value)
        }
        #expect(board.root.memoryRead(base + 0x1000, width: 4) == 0xFFFF_FFFF)
    }

    @Test func `a closed window, disabled memory space or moved base address leads nowhere`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        let base: UInt64 = 0x4000_0000
        board.write(1, 0, 4, width: 2, 4)
        #expect(board.root.memoryRead(base, width: 4) == 0xFFFF_FFFF)
        board.write(1, 0, 4, width: 2, 6)
        #expect(board.root.memoryRead(base, width: 4) == 0x4442_464F)
        board.write(0, 1, 4, width: 2, 0)
        #expect(board.root.memoryRead(base, width: 4) == 0xFFFF_FFFF)
        board.write(0, 1, 4, width: 2, 6)
        board.write(0, 1, 0x20, 0x0000_FFF0)
        #expect(board.root.memoryRead(base, width: 4) == 0xFFFF_FFFF)
        board.write(0, 1, 0x20, 0x4000_4000)
        board.write(1, 0, 0x10, 0x4000_8000)
        #expect(board.root.memoryRead(base, width: 4) == 0xFFFF_FFFF)
        #expect(board.root.memoryRead(base + 0x8000, width: 4) == 0x4442_464F)
    }

    // MARK: Interrupts and DMA

    private func openMSIX(_ board: Board) throws {
        let msix = try #require(TestCard.description.makeConfigurationSpace().capability(CapabilityID.msix))
        #expect(board.read(1, 0, msix) & 0xFF == 0x11)
        for vector in 0..<3 as Range<UInt64> {
            let entry = 0x4_0000_1000 + vector * 16
            board.root.memoryWrite(entry, width: 4, value: 0x2800_0000)
            board.root.memoryWrite(entry + 4, width: 4, value: 0)
            board.root.memoryWrite(entry + 8, width: 4, value: 40 + vector)
            board.root.memoryWrite(entry + 12, width: 4, value: 0)
        }
        board.write(1, 0, msix + 2, width: 2, 0x8000)
        #expect(board.read(1, 0, msix + 2, width: 2) == 0x8002)
    }

    @Test func `a doorbell becomes DMA and an MSI-X message`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        try openMSIX(board)
        #expect(served.card.accessesOfBAR2 == 0)
        board.root.memoryWrite(0x4000_0010, width: 8, value: Board.ramBase + 0x100)
        board.root.memoryWrite(0x4000_0018, width: 4, value: 2)
        #expect(board.ram.mapping.bytes.load(fromByteOffset: 0x100, as: UInt32.self) == 1)
        #expect(eventually { board.outputs.messages == [.init(address: 0x2800_0000, data: 42)] })
    }

    @Test func `a masked vector is pending in the host's table and goes out later`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        try openMSIX(board)
        board.root.memoryWrite(0x4_0000_101C, width: 4, value: 1)
        board.root.memoryWrite(0x4000_0010, width: 8, value: Board.ramBase)
        board.root.memoryWrite(0x4000_0018, width: 4, value: 1)
        #expect(eventually { board.root.memoryRead(0x4_0000_2000, width: 8) == 2 })
        #expect(board.outputs.messages.isEmpty)
        board.root.memoryWrite(0x4_0000_101C, width: 4, value: 0)
        #expect(board.outputs.messages == [.init(address: 0x2800_0000, data: 41)])
        #expect(board.root.memoryRead(0x4_0000_2000, width: 8) == 0)
    }

    @Test func `MSI-X that is disabled sends nothing`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        try openMSIX(board)
        let msix = try #require(TestCard.description.makeConfigurationSpace().capability(CapabilityID.msix))
        board.write(1, 0, msix + 2, width: 2, 0)
        #expect(!served.endpoint.bus.raise(vector: 0))
        board.write(1, 0, msix + 2, width: 2, 0x8000)
        #expect(served.endpoint.bus.raise(vector: 0))
        #expect(eventually { board.outputs.messages.count == 1 })
    }

    @Test func `INTx is raised, and lowered by an access once the card lets go`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 1, client: served.client())
        _ = board.enumerate()
        board.root.memoryWrite(0x4000_0010, width: 8, value: Board.ramBase)
        board.root.memoryWrite(0x4000_0018, width: 4, value: 99)
        #expect(eventually { board.outputs.lines.last == "2.0 true" })
        // Still asserted: it comes again after the access. (The doorbell's own access may have lowered it once before.)
        let before = board.outputs.lines.count
        _ = board.root.memoryRead(0x4000_0000, width: 4)
        #expect(eventually { board.outputs.lines.count == before + 2 }, "\(board.outputs.lines)")
        #expect(Array(board.outputs.lines.suffix(3)) == ["2.0 true", "2.0 false", "2.0 true"])
        board.root.memoryWrite(0x4000_0020, width: 4, value: 0)
        #expect(eventually { board.outputs.lines.count == before + 3 && board.outputs.lines.last == "2.0 false" })
    }

    // MARK: Resets and loss

    @Test func `a secondary bus reset resets the card and hides it while it lasts`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        board.root.memoryWrite(0x4000_0008, width: 4, value: 7)
        board.write(0, 1, 0x3E, width: 2, 0x40)
        #expect(served.card.resets == 1)
        #expect(board.read(1, 0, 0) == 0xFFFF_FFFF)
        #expect(board.root.memoryRead(0x4000_0000, width: 4) == 0xFFFF_FFFF)
        board.write(0, 1, 0x3E, width: 2, 0)
        #expect(board.read(1, 0, 0) == 0x0B0A_1B36)
        #expect(board.read(1, 0, 4, width: 2) == 0 && board.read(1, 0, 0x10) == 0)
    }

    @Test func `a machine reset takes everything back to power-on and a walk finds it again`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        let first = board.enumerate()
        try openMSIX(board)
        board.root.reset()
        #expect(served.card.resets == 1 && board.read(1, 0, 0) == 0xFFFF_FFFF)
        #expect(board.read(0, 1, 0x18) == 0)
        #expect(board.root.memoryRead(0x4000_0000, width: 4) == 0xFFFF_FFFF)
        #expect(board.enumerate() == first)
        try openMSIX(board)
        board.root.memoryWrite(0x4000_0010, width: 8, value: Board.ramBase)
        board.root.memoryWrite(0x4000_0018, width: 4, value: 0)
        #expect(eventually { board.outputs.messages.count == 1 })
    }

    @Test func `a card that dies is an empty slot`() throws {
        let served = try ServedCard()
        let board = try Board()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        served.die()
        #expect(board.root.memoryRead(0x4000_0000, width: 4) == 0xFFFF_FFFF)
        #expect(board.read(1, 0, 0) == 0xFFFF_FFFF)
        #expect(!board.root.isLinkUp(port: 0))
        #expect(eventually { board.read(0, 1, 0x5A, width: 2) & 0x2000 == 0 })
        #expect(eventually { board.log.all.count == 1 })
        let other = try ServedCard()
        try board.root.attach(port: 0, client: other.client())
        #expect(board.read(1, 0, 0) == 0x0B0A_1B36)
    }

    @Test func `a port takes one device, and only ports that there are take any`() throws {
        let (one, two) = (try ServedCard(), try ServedCard())
        let board = try Board()
        try board.root.attach(port: 0, client: one.client())
        #expect(throws: RootComplexError.self) { try board.root.attach(port: 0, client: two.client()) }
        #expect(throws: RootComplexError.self) { try board.root.connect(port: 5, to: "/nowhere") }
        #expect(throws: RootComplexError.self) { try board.root.connect(port: 1, to: "/nowhere") }
    }
}
