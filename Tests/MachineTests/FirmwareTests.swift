import FoundationEssentials
import LPC
import Machine
import RISCV
import TestKit
import Testing
import Wire

private let firmwareFolder = packageFolder + "/.build/firmware/"
private let parts = ["first-stage.bin", "fw_dynamic.bin", "host.bin"].map { firmwareFolder + $0 }

@Suite(.enabled(if: parts.allSatisfy(FileManager.default.fileExists(atPath:)), "run scripts/build-firmware"))
struct `Board firmware` {
    /// The flash layout of docs/wiring.md, unsigned: nobody verifies here.
    static func image() throws -> [UInt8] {
        let contents = try parts.map { Array(try Data(contentsOf: URL(filePath: $0))) }
        var image = [UInt8](repeating: 0xFF, count: 2 << 20)
        func put(_ bytes: [UInt8], at offset: Int) { image.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
        func little(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        }
        put(contents[0], at: 0)
        put(contents[1], at: 0x2_0000)
        put(contents[2], at: 0x10_0000)
        var directory = little(0x4452_4942, 4) + little(2, 4)
        let entries: [[UInt64]] = [
            [0x2_0000, UInt64(contents[1].count), 0x8000_0000, 1],
            [0x10_0000, UInt64(contents[2].count), 0x8020_0000, 2],
        ]
        for entry in entries { directory += entry.flatMap { little($0, 8) } }
        put(directory, at: 0x1_F000)
        return image
    }

    @Test(arguments: [
        (HartConfiguration.InterruptArchitecture.aia, 1), (.plic, 1), (.aia, 4),
    ])
    func `first stage, OpenSBI and host firmware run to the last line`(
        _ interrupts: HartConfiguration.InterruptArchitecture, _ harts: Int
    ) throws {
        let bench = try MachineBench(
            try Self.image(),
            MachineConfiguration(memorySize: 128 << 20, hartCount: harts, interrupts: interrupts))
        bench.run(within: .seconds(60)) { bench.text.contains("Baseboard firmware: ready") }
        let text = bench.text
        bench.stop()
        #expect(text.contains("OpenSBI v1."), "\(text)")
        #expect(text.contains("Baseboard firmware: ready"), "\(text)")
    }

    /// The POST codes of a boot whose flash holds `image`, until one of `last` comes.
    private func postCodes(_ image: [UInt8], until last: Set<UInt8>) throws -> [UInt8] {
        let (near, far) = try Socket.pair(kind: .seqpacket)
        let codes = Collected<UInt8>()
        let others = Collected<LPCMessage>()
        let logic = WorkerThread("test-lpc") {
            while let bytes = try? far.receiveBytes(limit: 16), let message = try? LPCMessage(decoding: bytes) {
                guard case .write(let tag, LPCPort.postCode, let code) = message else {
                    others.append(message)
                    continue
                }
                codes.append(code)
                try? far.send(LPCMessage.sync(tag: tag, .ready, data: 0xFF).encoded)
            }
        }
        let bench = try MachineBench(
            image, MachineConfiguration(memorySize: 128 << 20, hartCount: 2, hasLPC: true), lpc: near)
        bench.run(within: .seconds(60)) { codes.all.last.map(last.contains) ?? false }
        bench.stop()
        far.shutdown()
        logic.join()
        #expect(others.all == [], "the firmware has no other business on the bus")
        return codes.all
    }

    @Test func `a machine with an LPC bus hears how far the boot has come`() throws {
        let codes = try postCodes(try Self.image(), until: [0xAA, 0xE1])
        #expect(codes == [0x01, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0xAA])
    }

    @Test func `a directory that the first stage refuses is a POST code too`() throws {
        var image = try Self.image()
        image[0x1_F000] ^= 1
        #expect(try postCodes(image, until: [0xAA, 0xE1]) == [0x01, 0xE1])
        // The second entry's offset lies outside: found after the directory itself.
        image = try Self.image()
        image[0x1_F008 + 32 + 7] = 0xFF
        #expect(try postCodes(image, until: [0xAA, 0xE1]) == [0x01, 0x10, 0xE1])
    }

    /// In S-mode: prints by the SBI's console, powers off by the test finisher.
    private static var kernel: [UInt8] {
        var program = Assembler()
        for byte in "the machine's own kernel runs\n".utf8 {
            program.li(.a7, 1)
            program.li(.a0, UInt64(byte))
            program.ecall()
        }
        return program.bytes + Program.print("", then: 0x5555)
    }

    @Test(arguments: [1, 3])
    func `the first stage enters the machine's kernel instead of the flash's next stage`(_ harts: Int) throws {
        let folder = TemporaryFolder()
        try Data(Self.kernel).write(to: URL(filePath: folder.file("kernel")))
        let images = BootImages(kernel: try BootImage(.kernel, path: folder.file("kernel")))
        let bench = try MachineBench(
            try Self.image(), MachineConfiguration(memorySize: 128 << 20, hartCount: harts, images: images))
        bench.run(within: .seconds(60)) { bench.events.all == [.powerOff] }
        let text = bench.text
        bench.stop()
        let report = ", the machine's kernel (\(Self.kernel.count) bytes) at 0x80200000"
        for line in [report, "OpenSBI v1.", "the machine's own kernel runs"] {
            #expect(text.contains(line), "missing '\(line)' in:\n\(text)")
        }
        #expect(!text.contains("Baseboard host firmware"), "\(text)")
    }

    @Test(arguments: ["aia", "plic"])
    func `a card behind a root port is enumerated, does DMA and interrupts`(_ interrupts: String) throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"], ["--serial", "BB-TEST-0001"])
        let host = try HostProcess(
            try Self.image(),
            ["--interrupts", interrupts, "--connect", "rp0=\(card.folder.file("offload-card.pcie"))"])
        try host.setReset(released: true)
        let text = try host.serial.read(until: "Baseboard firmware: ready\r\n")
        #expect(text.contains("BB-TEST-0001"), "\(text)")
        // The machine's reset is the card's, too: the second boot finds it as it was.
        try host.setReset(released: false)
        try host.setReset(released: true)
        let again = try host.serial.read(until: "Baseboard firmware: ready\r\n")
        #expect(again.contains("BB-TEST-0001"), "\(again)")
        // A card that dies leaves an empty slot: the next reset notices, the next boot goes without it.
        card.child.terminate()
        #expect(card.child.waitForExit() == 0)
        try host.setReset(released: false)
        #expect(host.process.waitForOutput("root port rp0: the link is down"))
        try host.setReset(released: true)
        let without = try host.serial.read(until: "Baseboard firmware: ready\r\n")
        #expect(without.contains("no offload card answers"), "\(without)")
    }
}
