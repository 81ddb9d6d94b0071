import PCIe
import Synchronization
import TestKit
import Testing
import VFIOUser
import Wire

/// Seeded noise from both sides: software that writes anything to any register, and cards that lie.
struct PCIeFuzzTests {
    private static let widths = [1, 2, 4]

    /// One access of hostile software: configuration of what is there, memory and I/O near where it could be.
    private func access(_ board: Board, _ generator: inout SeededGenerator) {
        let width = Self.widths.randomElement(using: &generator) ?? 4
        let value = generator.next() >> UInt64.random(in: 0...63, using: &generator)
        switch Int.random(in: 0..<10, using: &generator) {
        case 0..<3:
            // Root ports, most often their first 256 bytes and the error reporting behind.
            let register = Int.random(in: 0..<0x140, using: &generator)
            board.write(0, Int.random(in: 0...3, using: &generator), register, width: width, value)
            _ = board.read(0, Int.random(in: 0...3, using: &generator), register, width: width)
        case 3..<6:
            let bus = Int.random(in: 0...4, using: &generator)
            let function = Int.random(in: 0...7, using: &generator) & Int.random(in: 0...7, using: &generator)
            let register = Int.random(in: 0..<4096, using: &generator) & (Bool.random(using: &generator) ? 0xFF : 0xFFF)
            board.write(bus, 0, register, width: width, function: function, value)
            _ = board.read(bus, 0, register, width: width, function: function)
        case 6: board.root.configWrite(generator.next() & 0x1FFF_FFFF, width: width, value: value)
        case 7:
            let address = [0x4000_0000, 0x4_0000_0000, 0, 0xFFFF_F000].randomElement(using: &generator)! as UInt64
            let place = address &+ UInt64.random(in: 0..<0x40_0000, using: &generator)
            board.root.memoryWrite(place, width: [1, 2, 4, 8].randomElement(using: &generator)!, value: value)
            _ = board.root.memoryRead(place, width: [1, 2, 4, 8, 3].randomElement(using: &generator)!)
        case 8:
            let place = UInt64.random(in: 0..<0x1_0010, using: &generator)
            board.root.ioWrite(place, width: width, value: value)
            _ = board.root.ioRead(place, width: width)
        default: board.root.memoryWrite(generator.next(), width: 8, value: value)
        }
    }

    @Test func `software that writes anything anywhere does no harm that a reset does not undo`() throws {
        var generator = SeededGenerator.fresh()
        let board = try Board(ports: 3)
        var description = TestCard.description
        description.msiVectors = 8
        description.canRequestService = true
        description.keepsStateInD3 = false
        description.dataObjects = [.init(vendor: 0x1B36, type: 1) { request, reply in reply(request) }]
        description.dataObjectVector = 1
        let cards = try (0..<3).map { _ in try ServedCard(description) }
        for (index, card) in cards.enumerated() {
            try board.root.attach(port: index == 2 ? 1 : 0, function: index == 1 ? 5 : 0, client: card.client())
        }
        let before = board.enumerate()
        #expect(before.count == 7)
        for round in 0..<60_000 {
            access(board, &generator)
            // Back into a state in which accesses arrive.
            if round % 2048 == 0 { board.root.reset() }
            if round % 256 == 0 { _ = board.enumerate() }
            guard round % 16 == 0 else { continue }
            let card = cards[Int.random(in: 0..<3, using: &generator)].endpoint.bus
            switch Int.random(in: 0..<6, using: &generator) {
            case 0: card.raise(vector: Int.random(in: -1...40, using: &generator))
            case 1: card.setINTx(Bool.random(using: &generator))
            case 2: card.report(.uncorrectable(Int.random(in: 0...31, using: &generator)))
            case 3:
                let place = FunctionPlace(
                    port: Int.random(in: 0...3, using: &generator), function: Int.random(in: 0...7, using: &generator))
                let error = PCIError(
                    isCorrectable: Bool.random(using: &generator), bit: Int.random(in: 0...31, using: &generator))
                _ = try? board.root.inject(error, at: place, onPort: Bool.random(using: &generator))
            default: _ = try? board.root.requestService(at: FunctionPlace(port: 0, function: 5))
            }
        }
        // No power-off request was pending, so the cards are still in their slots.
        for card in cards { card.endpoint.bus.setINTx(false) }
        board.root.reset()
        #expect(board.enumerate() == before, "seed \(generator.seed)")
        for (index, card) in cards.enumerated() {
            let address = [0x4000_0000, 0x4000_1000, 0x4010_0000][index] as UInt64
            #expect(board.root.memoryRead(address, width: 4) == 0x4442_464F, "seed \(generator.seed)")
            board.root.memoryWrite(address + 8, width: 4, value: 3)
            #expect(board.root.memoryRead(address + 8, width: 4) == 3)
            #expect(card.endpoint.dma.ranges.count == 1, "seed \(generator.seed)")
        }
    }

    @Test func `cards that lie are refused, or judged and harmless`() throws {
        var generator = SeededGenerator.fresh()
        let board = try Board(ports: 1)
        var (refused, taken) = (0, 0)
        for round in 0..<150 {
            let (near, far) = try Socket.pair()
            let device = HostileDevice(&generator)
            let server = VFIOUserServer(
                listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: device
            ) { _ in }
            WorkerThread("hostile") { server.serve(far) }
            do {
                try board.root.attach(port: 0, client: VFIOUserClient(socket: near), isHotPlug: round % 2 == 0)
                taken += 1
            } catch {
                refused += 1
                far.shutdown()
                continue
            }
            _ = board.enumerate()
            for _ in 0..<100 {
                access(board, &generator)
                device.act(&generator)
            }
            if round % 3 == 0 {
                // It dies while it is used.
                far.shutdown()
                for _ in 0..<10 { access(board, &generator) }
                #expect(eventually { !board.root.slot(port: 0).isPresent }, "seed \(generator.seed)")
            } else {
                board.root.detach(port: 0)
                far.shutdown()
            }
            board.root.reset()
        }
        #expect(refused > 0 && taken > 20, "seed \(generator.seed): \(refused) refused, \(taken) taken")
        // After all of them an honest card works.
        let served = try ServedCard()
        try board.root.attach(port: 0, client: served.client())
        _ = board.enumerate()
        #expect(board.root.memoryRead(0x4000_0000, width: 4) == 0x4442_464F, "seed \(generator.seed)")
    }
}

/// A device whose configuration space, regions and interrupts are noise, in the shape of a device often enough to be
/// taken.
private final class HostileDevice: VFIODevice {
    let information: DeviceInfo
    let dma = DMAAddressSpace()
    let interrupts: InterruptTable
    private let lengths: [UInt64]
    private let file: SharedMemory?
    private let configuration: Mutex<[UInt8]>

    init(_ generator: inout SeededGenerator) {
        var space = TestCard.description.makeConfigurationSpace()
        if Bool.random(using: &generator) {
            for place in 0x40..<0x100 where generator.next() % 4 == 0 {
                space.set8(place, UInt8.random(in: 0...255, using: &generator))
            }
        }
        var bytes = (0..<4096).map { space.get8($0) }
        if generator.next() % 3 == 0 {
            for place in 0x00..<0x140 where generator.next() % 8 == 0 {
                bytes[place] = UInt8.random(in: 0...255, using: &generator)
            }
        }
        configuration = Mutex(bytes)
        let regions = UInt32.random(in: 6...9, using: &generator)
        information = DeviceInfo(
            flags: 2, regionCount: generator.next() % 4 == 0 ? regions : 9,
            irqCount: UInt32.random(in: 0...5, using: &generator))
        lengths = (0..<9).map { index in
            if index == 7 { return generator.next() % 8 == 0 ? 100 : 4096 }
            switch generator.next() % 4 {
            case 0: return 0
            case 1: return UInt64.random(in: 1...0x4000, using: &generator)
            case 2: return 4096
            default: return generator.next() >> UInt64.random(in: 0...63, using: &generator)
            }
        }
        interrupts = InterruptTable(
            intx: UInt32.random(in: 0...1, using: &generator), msi: UInt32.random(in: 0...32, using: &generator),
            msix: UInt32.random(in: 0...8, using: &generator), error: 1, request: 1)
        file = generator.next() % 2 == 0 ? try? SharedMemory(create: "hostile", size: 4096) : nil
    }

    func region(_ index: UInt32) -> VFIORegion {
        let length = lengths[Int(min(index, 8))]
        let shared = file.flatMap { file in
            length >= 4096 && index < 6 ? VFIORegion.Shared(descriptor: file.descriptor) : nil
        }
        return VFIORegion(length: length, shared: shared)
    }

    func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        guard index == 7 else {
            guard offset % 3 != 0 else { throw .invalid }
            return bytes.storeLittleEndian(offset &* 0x0101_0101)
        }
        let space = configuration.withLock { $0 }
        for place in 0..<bytes.byteCount {
            let at = Int(truncatingIfNeeded: offset) + place
            bytes.storeBytes(of: space.indices.contains(at) ? space[at] : 0xFF, toByteOffset: place, as: UInt8.self)
        }
    }

    /// What is written anywhere in configuration space stays, identity and capabilities too.
    func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber) {
        guard index == 7 else { return }
        configuration.withLock { space in
            for place in 0..<bytes.byteCount {
                let at = Int(truncatingIfNeeded: offset) + place
                if space.indices.contains(at) { space[at] = bytes.uint8(at: place) }
            }
        }
    }

    func reset() {}

    /// Interrupts of any kind and number, whenever it likes.
    func act(_ generator: inout SeededGenerator) {
        let kind = InterruptTable.Kind.allCases.randomElement(using: &generator) ?? .intx
        interrupts.raise(kind, vector: UInt32.random(in: 0...40, using: &generator))
        if generator.next() % 8 == 0 { interrupts.setINTx(Bool.random(using: &generator)) }
    }
}
