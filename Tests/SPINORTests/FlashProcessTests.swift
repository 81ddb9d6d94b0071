import Foundation
import QMP
import SPINOR
import Serprog
import TestKit
import Testing
import Wire

/// The executable itself, and flashrom driving it.
@Suite struct FlashProcessTests {
    /// A flash on an erased image, serving TCP.
    struct Chip {
        let folder = TemporaryFolder()
        let child: RunningProcess
        let port: String

        init(_ arguments: [String] = []) throws {
            try Data(repeating: 0xFF, count: MX25L25635F.size)
                .write(to: URL(fileURLWithPath: folder.file("chip.img")))
            child = try RunningProcess(
                binary("flash"),
                [
                    "--image", folder.file("chip.img"), "--tcp", "0", "--listen", "spi=\(folder.file("spi"))",
                    "--listen", "control=\(folder.file("control"))", "--die-with-parent",
                ] + arguments)
            #expect(child.waitForOutput("serprog on 127.0.0.1:"))
            let text = child.text
            let start = try #require(text.range(of: "serprog on 127.0.0.1:")).upperBound
            port = String(text[start...].prefix { $0.isNumber })
            #expect(eventually { (try? Socket.connect(to: folder.file("control"))) != nil })
        }

        func flashrom(_ arguments: String...) throws -> (status: Int32?, output: String) {
            try run("/usr/sbin/flashrom", ["-p", "serprog:ip=127.0.0.1:\(port)"] + arguments)
        }
    }

    @Test func `flashrom knows the chip, writes a region, verifies it and reads it back`() throws {
        let chip = try Chip(["--writable"])
        #expect(
            try chip.flashrom("--flash-name").output.contains("vendor=\"Macronix\" name=\"MX25L25635F/MX25L25645G\""))

        // In the upper half, where only 4-byte addresses reach, and not aligned to a block of 64 KiB.
        let start = 0x180_3000
        var generator = SeededGenerator.fresh()
        let content = generator.bytes(0x5000)
        let layout = String(start, radix: 16) + ":" + String(start + content.count - 1, radix: 16) + " part\n"
        try Data(layout.utf8).write(to: URL(fileURLWithPath: chip.folder.file("layout")))
        var whole = Data(repeating: 0xFF, count: MX25L25635F.size)
        whole.replaceSubrange(start..<start + content.count, with: content)
        try whole.write(to: URL(fileURLWithPath: chip.folder.file("whole.img")))
        let written = try chip.flashrom(
            "-l", chip.folder.file("layout"), "-i", "part", "-N", "-w", chip.folder.file("whole.img"))
        #expect(written.status == 0 && written.output.contains("VERIFIED"), "\(written.output)")

        let handle = try #require(FileHandle(forReadingAtPath: chip.folder.file("chip.img")))
        try handle.seek(toOffset: UInt64(start - 1))
        let file = try #require(try handle.read(upToCount: content.count + 2))
        #expect(Array(file) == [0xFF] + content + [0xFF], "seed \(generator.seed)")

        let read = try chip.flashrom("-r", chip.folder.file("read.bin"))
        #expect(read.status == 0, "\(read.output)")
        #expect(
            FileManager.default.contentsEqual(
                atPath: chip.folder.file("read.bin"), andPath: chip.folder.file("chip.img")))
    }

    @Test func `flashrom parses the discoverable parameters`() throws {
        let chip = try Chip()
        let output = try chip.flashrom("-c", "SFDP-capable chip", "-VV").output
        #expect(output.contains("SFDP revision = 1.6"))
        #expect(output.contains("3-Byte (and optionally 4-Byte) addressing."))
        #expect(output.contains("Flash chip size is 32768 kB."))
        #expect(output.contains("ID 0x84, version 1.0"))
    }

    @Test func `masters share the chip and see each other's writes, and the file stays`() throws {
        let chip = try Chip()
        let first = try SerprogClient(socket: Socket.connect(to: chip.folder.file("spi")))
        let second = try SerprogClient(socket: Socket.connect(to: chip.folder.file("spi")))
        _ = try first.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
        _ = try first.spiTransaction(
            write: [SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(0x42) + [0x5A], readCount: 0)
        #expect(try second.readFlash(offset: 0x42, count: 1) == [0x5A])

        let control = try QMPClient(path: chip.folder.file("control"))
        let state = try control.execute("query-flash")
        #expect(state["model"] == "MX25L25635F")
        #expect(state["programs"] == 1)
        #expect(state["writable"] == false)

        chip.child.terminate()
        #expect(chip.child.waitForExit() == 0)
        let handle = try #require(FileHandle(forReadingAtPath: chip.folder.file("chip.img")))
        try handle.seek(toOffset: 0x42)
        #expect(try handle.read(upToCount: 1) == Data([0xFF]))
    }

    @Test func `a peer that sends garbage loses its link and nobody else does`() throws {
        let chip = try Chip()
        let good = try SerprogClient(socket: Socket.connect(to: chip.folder.file("spi")))
        let bad = try Socket.connect(to: chip.folder.file("spi"))
        var generator = SeededGenerator.fresh()
        try bad.send(generator.bytes(4000))
        try bad.send([SerprogCommand.spiOperation.rawValue, 0xFF, 0xFF, 0xFF])
        bad.shutdown()
        #expect(try good.spiTransaction(write: [0x9F], readCount: 3) == [0xC2, 0x20, 0x19], "seed \(generator.seed)")
    }

    @Test(arguments: [(nil, "No such file or directory"), (1000, "is it truncated?"), (33_554_433, "another chip")])
    func `an image that is missing or of another size is one clear error`(size: Int?, text: String) throws {
        let folder = TemporaryFolder()
        if let size {
            try Data(repeating: 0, count: size).write(to: URL(fileURLWithPath: folder.file("x.img")))
        }
        let (status, output) = try run(
            binary("flash"), ["--image", folder.file("x.img"), "--listen", "spi=\(folder.file("spi"))"])
        #expect(status == 1)
        #expect(output.contains("\(folder.file("x.img")): ") && output.contains(text), "\(output)")
        #expect(output.split(separator: "\n").count == 1, "\(output)")
    }
}
