import Foundation
import SPINOR
import SecurityLogic
import Serprog
import Sideband
import Synchronization
import TestKit
import Testing
import Wire

/// A chip behind a gate, each behind serprog on a socket.
final class GatedChip {
    let folder = TemporaryFolder()
    let device: SPINORDevice
    let gate: FlashGate
    let denials = Denials()
    private var servers: [SerprogServer] = []
    private var clients: [FlashMaster: SerprogClient] = [:]
    /// What host, BMC and cards see in these tests: the second quarter of the chip.
    static let slot: Range<UInt64> = 0x80_0000..<0x100_0000
    static let unprotected = FlashGateState(phase: .unprotected)
    static let everyone = Set(HeldComponent.allCases)
    static let locked = FlashGateState(phase: .locked, released: everyone, slot: slot)

    final class Denials: Sendable {
        let all = Mutex<[FlashGate.Denial]>([])
    }

    /// - Parameter tamper: may change what a connection to the chip reads.
    init(tamper: Tamper? = nil) throws {
        try Data(repeating: 0xFF, count: SPINORModel.mx25l25635f.size).write(
            to: URL(fileURLWithPath: folder.file("chip.img")))
        let content = try FlashContent(
            path: folder.file("chip.img"), count: SPINORModel.mx25l25635f.size, writable: false)
        let device = SPINORDevice(SPINORChip(content: content))
        self.device = device
        let path = folder.file("chip")
        let denials = denials
        gate = FlashGate(connect: { () throws(WireError) in try Socket.connect(to: path) }) { denial in
            denials.all.withLock { $0.append(denial) }
        }
        servers.append(
            SerprogServer(try Listener(path: path), programmerName: "chip", report: { _ in }) {
                TamperedTarget(inner: device.target(), tamper: tamper)
            })
    }

    /// The chip without a gate before it.
    func direct() throws -> SerprogClient { try SerprogClient(socket: Socket.connect(to: folder.file("chip"))) }

    /// Programs `bytes` past the gate.
    func program(_ address: UInt32, _ bytes: [UInt8]) throws {
        let chip = try direct()
        _ = try chip.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
        _ = try chip.spiTransaction(
            write: [SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(address) + bytes, readCount: 0)
    }

    /// Has the adapter read `range`, as a verifier does.
    func verify(_ range: Range<UInt32>) throws {
        gate.setState(Self.unprotected)
        _ = try port(.adapter).readFlash(offset: range.lowerBound, count: range.count)
    }

    deinit { for server in servers { server.stop() } }

    /// A port for `master`, as a client.
    func port(_ master: FlashMaster, suffix: String? = nil) throws -> SerprogClient {
        if suffix == nil, let known = clients[master] { return known }
        let path = folder.file(master.rawValue + (suffix ?? ""))
        let gate = gate
        servers.append(
            SerprogServer(try Listener(path: path), programmerName: master.rawValue, report: { _ in }) {
                gate.target(for: master)
            })
        let client = try SerprogClient(socket: Socket.connect(to: path))
        if suffix == nil { clients[master] = client }
        return client
    }

    /// A port for `master` on TCP.
    func loopbackPort(_ master: FlashMaster) throws -> UInt16 {
        let (listener, port) = try Listener.loopback(port: 0)
        let gate = gate
        servers.append(
            SerprogServer(listener, programmerName: master.rawValue, report: { _ in }) { gate.target(for: master) })
        return port
    }

    /// Content and registers, read past the gate.
    func snapshot() throws -> [[UInt8]] {
        let chip = try direct()
        return try [SPIFlash.readStatus, SPIFlash.readConfiguration, SPIFlash.readExtendedAddress].map {
            try chip.spiTransaction(write: [$0], readCount: 1)
        } + [try chip.readFlash(offset: 0, count: SPINORModel.mx25l25635f.size)]
    }

    func cutChip() { servers[0].disconnectAll() }
}

/// A man in the middle of the chip's wire: changes what is read while it is on.
final class Tamper: Sendable {
    private struct State {
        var isOn = false
        var address: UInt64 = 0
        /// Reads since it was made, and the one from which on it is on.
        var reads = 0
        var from = Int.max
    }
    private let state = Mutex(State())

    /// From now on the byte at `address` reads inverted.
    func begin(at address: UInt64) {
        state.withLock { state in
            state.address = address
            state.isOn = true
        }
    }

    /// The byte at `address` reads inverted once it was read `count` times.
    func begin(at address: UInt64, after count: Int) {
        state.withLock { state in
            state.address = address
            state.from = count
        }
    }

    func apply(_ start: UInt64, _ bytes: inout [UInt8]) {
        state.withLock { state in
            guard state.address >= start, state.address < start + UInt64(bytes.count) else { return }
            defer { state.reads += 1 }
            if state.isOn || state.reads >= state.from { bytes[Int(state.address - start)] ^= 0xFF }
        }
    }
}

struct TamperedTarget: SPITarget {
    var inner: SPINORDevice.Target
    let tamper: Tamper?

    mutating func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError) {
        guard let tamper, write.count == 6, write[0] == SPIFlash.fastRead4Byte else {
            return try inner.transact(write: write, readCount: readCount, reply: reply)
        }
        var bytes: [UInt8] = []
        try inner.transact(write: write, readCount: readCount) { piece in
            piece.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
        tamper.apply(write[1...4].reduce(0) { $0 << 8 | UInt64($1) }, &bytes)
        try reply(bytes.span.bytes)
    }
}

@Suite struct FlashGateTests {
    @Test func `a denied transaction never reaches the chip and reads as an undriven line`() throws {
        let chip = try GatedChip()
        let host = try chip.port(.host)
        #expect(try host.spiTransaction(write: [0x9F], readCount: 3) == [0xFF, 0xFF, 0xFF])
        #expect(try host.readFlash(offset: 0, count: 10_000) == [UInt8](repeating: 0xFF, count: 10_000))
        #expect(chip.device.counters == SPINORChip.Counters())
        #expect(chip.gate.counters(.host).denied == 2)
        #expect(chip.gate.counters(.host).lastDeniedOpcode == SPIFlash.fastRead4Byte)
        #expect(chip.gate.counters(.bmc).denied == 0)
        #expect(chip.denials.all.withLock { $0.count } == 2, "the first and the second are powers of two")
    }

    @Test func `denials are told when their number is a power of two`() throws {
        let chip = try GatedChip()
        let host = try chip.port(.host)
        for _ in 0..<20 { _ = try host.spiTransaction(write: [0x06], readCount: 0) }
        #expect(chip.denials.all.withLock { $0.map(\.count) } == [1, 2, 4, 8, 16])
        #expect(chip.gate.counters(.host).denied == 20)
    }

    @Test func `a released host reads its slot from 0 and nothing beyond it`() throws {
        let chip = try GatedChip()
        try chip.program(0x80_0000, [1, 2, 3, 4])
        try chip.program(0xFF_FFFC, [5, 6, 7, 8])
        try chip.program(0x100_0000, [9])
        try chip.verify(0x80_0000..<0x100_0000)
        chip.gate.setState(GatedChip.locked)
        let host = try chip.port(.host)
        #expect(try host.spiTransaction(write: [0x9F], readCount: 3) == [0xC2, 0x20, 0x19])
        #expect(try host.readFlash(offset: 0, count: 4) == [1, 2, 3, 4])
        #expect(try host.spiTransaction(write: [0x03, 0, 0, 1], readCount: 2) == [2, 3])
        #expect(try host.readFlash(offset: 0x7F_FFFE, count: 4) == [7, 8, 0xFF, 0xFF])
        #expect(try host.readFlash(offset: 0x80_0000, count: 1) == [0xFF])
        #expect(chip.gate.counters(.host).cut == 1)
        #expect(chip.gate.counters(.host).denied == 1)
    }

    @Test func `a card reads its slot while it is released, and learns of a page that changed as the host does`() throws
    {
        let tamper = Tamper()
        let chip = try GatedChip(tamper: tamper)
        try chip.program(0x80_0000, [1, 2, 3, 4])
        try chip.verify(0x80_0000..<0x80_2000)
        let card = try chip.port(.card2)
        chip.gate.setState(FlashGateState(phase: .locked, released: [.host, .bmc, .card0], slot: GatedChip.slot))
        #expect(try card.readFlash(offset: 0, count: 4) == [0xFF, 0xFF, 0xFF, 0xFF], "in reset it has no flash")
        #expect(chip.gate.counters(.card2).denied == 1 && chip.gate.counters(.card0).denied == 0)
        chip.gate.setState(FlashGateState(phase: .released, released: [.card2], slot: GatedChip.slot))
        #expect(try card.readFlash(offset: 0, count: 4) == [1, 2, 3, 4])
        #expect(try card.readFlash(offset: 0x2000, count: 1) == [0xFF], "nobody verified that page")
        tamper.begin(at: 0x80_1000)
        #expect(try card.readFlash(offset: 0x1000, count: 1) == [0xFF])
        #expect(chip.gate.current == FlashGateState(phase: .failed))
    }

    @Test func `a page that nobody verified is not driven`() throws {
        let chip = try GatedChip()
        for page in 0..<3 { try chip.program(0x80_0000 + 4096 * UInt32(page), [UInt8(page)]) }
        try chip.verify(0x80_0000..<0x80_1000)
        // Half a page is no page.
        try chip.verify(0x80_2000..<0x80_2800)
        chip.gate.setState(GatedChip.locked)
        let host = try chip.port(.host)
        let bytes = try host.readFlash(offset: 0, count: 3 * 4096)
        #expect(bytes[0] == 0)
        #expect(bytes[4096] == 0xFF)
        #expect(bytes[8192] == 0xFF)
        #expect(chip.gate.current == GatedChip.locked, "nothing has changed")
    }

    @Test func `of all 256 opcodes of host, BMC and cards none changes the chip, before lock and after it`() throws {
        let chip = try GatedChip()
        for place in [0, 0x80_0000, 0x112_3400] as [UInt32] { try chip.program(place, [0x55, 0xAA]) }
        try chip.verify(0x80_0000..<0x81_0000)
        let before = try chip.snapshot()
        for phase in [FlashPhase.released, .locked] {
            chip.gate.setState(FlashGateState(phase: phase, released: GatedChip.everyone, slot: GatedChip.slot))
            for master in FlashMaster.allCases where master.seesSlotOnly {
                let port = try chip.port(master, suffix: "\(phase)")
                for opcode in UInt8.min...UInt8.max {
                    // Each with the latch asked for first, as short, three- and four-byte address, and with data.
                    for tail in [[], [0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0, 0]] as [[UInt8]] {
                        _ = try port.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
                        _ = try port.spiTransaction(write: [opcode] + tail, readCount: 0)
                    }
                    _ = try port.spiTransaction(write: [opcode, 0, 0, 0, 0, 0], readCount: 2)
                }
                #expect(try port.spiTransaction(write: [SPIFlash.readStatus], readCount: 1) == [0])
            }
        }
        #expect(try chip.snapshot() == before)
        let counters = chip.device.counters
        #expect(counters.programs == 3 && counters.erases == 0 && counters.refusedWrites == 0)
        #expect(counters.unknownOpcodes == 0, "what is unknown never arrives")
    }

    @Test func `the gate closes between two transactions of one connection`() throws {
        let chip = try GatedChip()
        chip.gate.setState(GatedChip.unprotected)
        let adapter = try chip.port(.adapter)
        #expect(try adapter.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
        chip.gate.setState(.held)
        #expect(try adapter.spiTransaction(write: [0x9F], readCount: 1) == [0xFF])
    }

    @Test func `a large read passes whole`() throws {
        let chip = try GatedChip()
        chip.gate.setState(GatedChip.unprotected)
        for address in stride(from: UInt32(0), to: 0x200_0000, by: 0x10_0000) {
            try chip.program(address, [UInt8(address >> 20)])
        }
        let adapter = try chip.port(.adapter)
        let bytes = try adapter.readFlash(offset: 0, count: SPINORModel.mx25l25635f.size)
        #expect(bytes.count == SPINORModel.mx25l25635f.size)
        for index in 0..<32 { #expect(bytes[index << 20] == UInt8(index)) }
        #expect(chip.gate.digests.count == SPINORModel.mx25l25635f.size / 4096)
    }

    @Test func `a chip that goes is refused to the master and found again`() throws {
        let chip = try GatedChip()
        chip.gate.setState(GatedChip.unprotected)
        let adapter = try chip.port(.adapter)
        #expect(try adapter.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
        chip.cutChip()
        #expect(throws: SerprogError.refused(.spiOperation)) {
            try adapter.spiTransaction(write: [0x9F], readCount: 1)
        }
        #expect(try adapter.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
    }

    @Test func `a master that does not take its answers holds up no other`() throws {
        let chip = try GatedChip()
        try chip.verify(0x80_0000..<0x100_0000)
        chip.gate.setState(FlashGateState(phase: .unprotected, released: [.host, .bmc], slot: GatedChip.slot))
        for (name, master) in [("host", FlashMaster.host), ("external", .external)] {
            _ = try chip.port(master)
            let stuck = try Socket.connect(to: chip.folder.file(name))
            let request = SerprogRequest.spiOperation(
                write: [SPIFlash.fastRead4Byte, 0, 0, 0, 0, 0], readCount: 1 << 20)
            for _ in 0..<4 { try stuck.send(request.encoded) }
            // Some of the answer is there: the port is in the middle of sending it.
            try stuck.wait(for: .readable, until: .after(.seconds(20)))
            #expect(try chip.port(.adapter, suffix: name).readFlash(offset: 0, count: 100_000).count == 100_000)
            stuck.shutdown()
        }
    }
}
