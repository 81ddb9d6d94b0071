import Foundation
import SPINOR
import SecurityLogic
import Serprog
import Sideband
import Synchronization
import TestKit
import Testing
import Wire

@Suite struct FlashGateRulesTests {
    static let writes: [UInt8] = [
        SPIFlash.writeEnable, SPIFlash.writeDisable, SPIFlash.writeStatus, SPIFlash.pageProgram,
        SPIFlash.pageProgram4Byte, SPIFlash.sectorErase, SPIFlash.sectorErase4Byte, SPIFlash.blockErase32K,
        SPIFlash.blockErase32K4Byte, SPIFlash.blockErase64K, SPIFlash.blockErase64K4Byte, SPIFlash.chipErase,
        SPIFlash.chipEraseAlternative, SPIFlash.enter4ByteMode, SPIFlash.exit4ByteMode, SPIFlash.resetEnable,
        SPIFlash.resetMemory, SPIFlash.deepPowerDown, SPIFlash.writeExtendedAddress,
    ]
    static let reads: [UInt8] = [
        SPIFlash.read, SPIFlash.fastRead, SPIFlash.read4Byte, SPIFlash.fastRead4Byte, SPIFlash.readStatus,
        SPIFlash.readIdentification, SPIFlash.readSFDP,
    ]

    /// Who may read under which rules.
    static let readers: [(FlashGateRules, Set<FlashMaster>)] = [
        (.closed, []), (FlashGateRules(mode: .unprotected, released: []), [.adapter]),
        (FlashGateRules(mode: .protected, released: [.bmc]), [.bmc]),
        (FlashGateRules(mode: .protected, released: [.host, .bmc]), [.host, .bmc]),
    ]

    @Test(arguments: readers)
    func `a master reads when the rules let it, and nobody writes ever`(
        rules: FlashGateRules, readers: Set<FlashMaster>
    ) {
        for master in FlashMaster.allCases {
            let reads = readers.contains(master)
            for opcode in Self.reads {
                #expect(rules.decide(master, opcode: opcode) == (reads ? .pass : .denyMaster))
            }
            for opcode in Self.writes {
                #expect(rules.decide(master, opcode: opcode) == (reads ? .denyOpcode : .denyMaster))
            }
        }
    }

    @Test func `of all 256 opcodes only the known reading ones pass`() {
        let rules = FlashGateRules(mode: .unprotected, released: [.host, .bmc])
        for master in FlashMaster.allCases {
            let passing = (0...255).map { UInt8($0) }.filter { rules.decide(master, opcode: $0) == .pass }
            #expect(Set(passing) == FlashGateRules.readOnlyOpcodes)
        }
    }
}

/// A chip behind a gate, each behind serprog on a socket.
final class GatedChip {
    let folder = TemporaryFolder()
    let device: SPINORDevice
    let gate: FlashGate
    let denials = Denials()
    private var servers: [SerprogServer] = []

    final class Denials: Sendable {
        let all = Mutex<[FlashGate.Denial]>([])
    }

    init() throws {
        try Data(repeating: 0xFF, count: SPINORModel.mx25l25635f.size).write(to: URL(fileURLWithPath: folder.file("chip.img")))
        let content = try FlashContent(path: folder.file("chip.img"), count: SPINORModel.mx25l25635f.size, writable: false)
        let device = SPINORDevice(SPINORChip(content: content))
        self.device = device
        let path = folder.file("chip")
        let denials = denials
        gate = FlashGate(connect: { () throws(WireError) in try Socket.connect(to: path) }) { denial in
            denials.all.withLock { $0.append(denial) }
        }
        servers.append(
            SerprogServer(try Listener(path: path), programmerName: "chip", report: { _ in }) { device.target() })
    }

    deinit { for server in servers { server.stop() } }

    /// A port for `master`, as a client.
    func port(_ master: FlashMaster) throws -> SerprogClient {
        let path = folder.file(master.rawValue)
        let gate = gate
        servers.append(
            SerprogServer(try Listener(path: path), programmerName: master.rawValue, report: { _ in }) {
                gate.target(for: master)
            })
        return try SerprogClient(socket: Socket.connect(to: path))
    }

    /// A port for `master` on TCP.
    func loopbackPort(_ master: FlashMaster) throws -> UInt16 {
        let (listener, port) = try Listener.loopback(port: 0)
        let gate = gate
        servers.append(
            SerprogServer(listener, programmerName: master.rawValue, report: { _ in }) { gate.target(for: master) })
        return port
    }

    func cutChip() { servers[0].disconnectAll() }
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

    @Test func `a released host reads, and its writes change nothing, not even the latch`() throws {
        let chip = try GatedChip()
        chip.gate.setRules(FlashGateRules(mode: .protected, released: [.host]))
        let host = try chip.port(.host)
        #expect(try host.spiTransaction(write: [0x9F], readCount: 3) == [0xC2, 0x20, 0x19])
        for opcode in FlashGateRulesTests.writes {
            #expect(try host.spiTransaction(write: [opcode, 0, 0, 0, 0, 0], readCount: 0).isEmpty)
        }
        #expect(try host.spiTransaction(write: [SPIFlash.readStatus], readCount: 1) == [0], "the latch is clear")
        #expect(try host.spiTransaction(write: [SPIFlash.pageProgram], readCount: 2) == [0xFF, 0xFF])
        #expect(chip.device.counters.programs == 0)
        #expect(chip.device.counters.unknownOpcodes == 0)
        #expect(chip.gate.counters(.host).denied == UInt64(FlashGateRulesTests.writes.count + 1))
    }

    @Test func `the gate closes between two transactions of one connection`() throws {
        let chip = try GatedChip()
        chip.gate.setRules(FlashGateRules(mode: .unprotected, released: []))
        let adapter = try chip.port(.adapter)
        #expect(try adapter.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
        chip.gate.setRules(.closed)
        #expect(try adapter.spiTransaction(write: [0x9F], readCount: 1) == [0xFF])
    }

    @Test func `a large read passes whole`() throws {
        let chip = try GatedChip()
        chip.gate.setRules(FlashGateRules(mode: .unprotected, released: []))
        let direct = try SerprogClient(socket: Socket.connect(to: chip.folder.file("chip")))
        for address in stride(from: UInt32(0), to: 0x200_0000, by: 0x10_0000) {
            _ = try direct.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
            _ = try direct.spiTransaction(
                write: [SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(address) + [UInt8(address >> 20)],
                readCount: 0)
        }
        let adapter = try chip.port(.adapter)
        let bytes = try adapter.readFlash(offset: 0, count: SPINORModel.mx25l25635f.size)
        #expect(bytes.count == SPINORModel.mx25l25635f.size)
        for index in 0..<32 { #expect(bytes[index << 20] == UInt8(index)) }
    }

    @Test func `a chip that goes is refused to the master and found again`() throws {
        let chip = try GatedChip()
        chip.gate.setRules(FlashGateRules(mode: .unprotected, released: []))
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
        chip.gate.setRules(FlashGateRules(mode: .unprotected, released: [.host, .bmc]))
        let adapter = try chip.port(.adapter)
        _ = try chip.port(.host)
        let stuck = try Socket.connect(to: chip.folder.file("host"))
        let request = SerprogRequest.spiOperation(write: [SPIFlash.fastRead4Byte, 0, 0, 0, 0, 0], readCount: 1 << 20)
        for _ in 0..<4 { try stuck.send(request.encoded) }
        // Some of the answer is there: the port is in the middle of sending it.
        try stuck.wait(for: .readable, until: .after(.seconds(10)))
        #expect(try adapter.readFlash(offset: 0, count: 100_000).count == 100_000)
        stuck.shutdown()
    }

    @Test func `flashrom reads through the gate and cannot write`() throws {
        let chip = try GatedChip()
        chip.gate.setRules(FlashGateRules(mode: .unprotected, released: []))
        let port = try chip.loopbackPort(.adapter)
        let programmer = ["-p", "serprog:ip=127.0.0.1:\(port)"]
        let read = try run("/usr/sbin/flashrom", programmer + ["-r", chip.folder.file("read.img")])
        #expect(read.status == 0, "\(read.output)")
        #expect(
            FileManager.default.contentsEqual(
                atPath: chip.folder.file("read.img"), andPath: chip.folder.file("chip.img")))

        try Data("0:fff part\n".utf8).write(to: URL(fileURLWithPath: chip.folder.file("layout")))
        try Data(repeating: 0x12, count: SPINORModel.mx25l25635f.size)
            .write(to: URL(fileURLWithPath: chip.folder.file("new.img")))
        let write = try run(
            "/usr/sbin/flashrom",
            programmer + [
                "-l", chip.folder.file("layout"), "-i", "part", "-N", "-w", chip.folder.file("new.img"),
            ])
        #expect(write.status != 0 && write.output.contains("FAILED"), "\(write.output)")
        #expect(chip.device.counters.programs == 0)
        #expect(chip.device.counters.erases == 0)
        #expect(chip.gate.counters(.adapter).lastDeniedOpcode != nil)

        chip.gate.setRules(.closed)
        let locked = try run("/usr/sbin/flashrom", programmer)
        #expect(locked.output.contains("No EEPROM/flash device found"), "\(locked.output)")
    }
}
