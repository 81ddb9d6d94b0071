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
        let folder: TemporaryFolder
        let process: ComponentProcess
        let port: String

        var child: RunningProcess { process.child }
        var control: QMPClient { process.control }

        /// - Parameter folder: with an image already, or nil for an erased one.
        init(
            _ arguments: [String] = [], in existing: TemporaryFolder? = nil, model: SPINORModel = .mx25l25635f
        ) throws {
            let folder = existing ?? TemporaryFolder()
            self.folder = folder
            if existing == nil {
                try Data(repeating: 0xFF, count: model.size).write(to: URL(fileURLWithPath: folder.file("chip.img")))
            }
            process = try ComponentProcess(
                "flash", in: folder, listens: ["spi"],
                ["--image", folder.file("chip.img"), "--tcp", "0", "--model", model.name] + arguments)
            #expect(process.child.waitForOutput("serprog on 127.0.0.1:"))
            let text = process.child.text
            let start = try #require(text.range(of: "serprog on 127.0.0.1:")).upperBound
            port = String(text[start...].prefix { $0.isNumber })
        }

        func master() throws -> SerprogClient { try SerprogClient(socket: process.connect("spi")) }

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
        var whole = Data(repeating: 0xFF, count: SPINORModel.mx25l25635f.size)
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

    @Test func `flashrom writes and verifies a region of the larger chip`() throws {
        let chip = try Chip(["--writable"], model: .mx66l1g45g)
        var generator = SeededGenerator.fresh()
        // Across the end of the first 16 MiB, and at the chip's end.
        for start in [0xFF_F000, 0x7FF_F000] {
            let content = generator.bytes(0x1000)
            let layout = String(start, radix: 16) + ":" + String(start + content.count - 1, radix: 16) + " part\n"
            try Data(layout.utf8).write(to: URL(fileURLWithPath: chip.folder.file("layout")))
            let whole = try FileHandle(forWritingTo: sparse(chip.folder.file("whole.img"), SPINORModel.mx66l1g45g.size))
            try whole.seek(toOffset: UInt64(start))
            try whole.write(contentsOf: Data(content))
            let written = try chip.flashrom(
                "-c", "MX66L1G45G", "-l", chip.folder.file("layout"), "-i", "part", "-N", "-w",
                chip.folder.file("whole.img"))
            #expect(written.status == 0 && written.output.contains("VERIFIED"), "\(written.output)")
            #expect(
                try chip.master().readFlash(offset: UInt32(start), count: content.count) == content,
                "seed \(generator.seed)")
        }
    }

    private func sparse(_ path: String, _ size: Int) throws -> URL {
        try Data().write(to: URL(fileURLWithPath: path))
        let url = URL(fileURLWithPath: path)
        try FileHandle(forWritingTo: url).truncate(atOffset: UInt64(size))
        return url
    }

    @Test func `a process that is killed in the middle of a program leaves a torn page, and the chip still works`()
        throws
    {
        let folder: TemporaryFolder
        do {
            let chip = try Chip(["--writable", "--busy-time", "10000", "--seed", "5"])
            folder = chip.folder
            let master = try chip.master()
            _ = try master.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
            let page = [UInt8](repeating: 0, count: 256)
            _ = try master.spiTransaction(
                write: [SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(0x1000) + page, readCount: 0)
            #expect(try master.spiTransaction(write: [SPIFlash.readStatus], readCount: 1) == [0x03])
            chip.child.signal(SIGKILL)
            #expect(chip.child.waitForExit() == 128 + SIGKILL)
        }
        let again = try Chip(["--writable"], in: folder)
        let page = try again.master().readFlash(offset: 0x1000, count: 256)
        #expect(page.contains { $0 != 0 } && page.contains { $0 != 0xFF }, "\(page)")
    }

    @Test func `protection bits stay in their file`() throws {
        let folder: TemporaryFolder
        do {
            let chip = try Chip(["--writable", "--busy-time", "0"])
            folder = chip.folder
            let master = try chip.master()
            _ = try master.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
            _ = try master.spiTransaction(write: [SPIFlash.writeStatus, 0x3C], readCount: 0)
            chip.child.terminate()
            #expect(chip.child.waitForExit() == 0)
        }
        let again = try Chip(["--writable"], in: folder)
        #expect(try again.master().spiTransaction(write: [SPIFlash.readStatus], readCount: 1) == [0x3C])
        let master = try again.master()
        _ = try master.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
        _ = try master.spiTransaction(write: [SPIFlash.pageProgram4Byte, 0, 0, 0, 0, 0], readCount: 0)
        #expect(try master.readFlash(offset: 0, count: 1) == [0xFF])
        #expect(try master.spiTransaction(write: [SPIFlash.readSecurity], readCount: 1) == [0x20])
    }

    @Test func `faults come and go by command, and mistakes are told`() throws {
        let chip = try Chip()
        let (master, control) = (try chip.master(), chip.control)
        _ = try control.execute("flash-inject-fault", ["kind": "bit-flip", "address": 16, "mask": 3])
        #expect(try master.readFlash(offset: 16, count: 1) == [0xFC])
        let dead = try control.execute("flash-inject-fault", ["kind": "dead"])
        #expect(try chip.flashrom("-r", chip.folder.file("r")).output.contains("No EEPROM/flash device found"))
        #expect(try control.execute("query-flash-faults")[0]?["kind"] == "dead")
        _ = try control.execute("flash-clear-faults", ["id": dead["id"] ?? .null])
        _ = try control.execute("flash-inject-fault", ["kind": "power-loss", "after": 1])
        _ = try master.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
        _ = try master.spiTransaction(write: [SPIFlash.sectorErase4Byte, 0, 0, 0, 0], readCount: 0)
        #expect(try control.execute("query-flash")["powered"] == false)
        _ = try control.execute("flash-power-on")
        #expect(try master.spiTransaction(write: [0x9F], readCount: 1) == [0xC2])
        _ = try control.execute("flash-inject-fault", ["kind": "slow", "delay": "30ms"])
        let begin = MonotonicTime.now
        _ = try master.spiTransaction(write: [0x9F], readCount: 1)
        #expect(MonotonicTime.now.since(begin) >= .milliseconds(30))
        for (arguments, text) in [
            (["kind": "tired"], "use bit-flip, dead"), (["kind": "stuck"], "'address' is 0 to 33554431"),
            (["kind": "stuck", "address": 33_554_432], "33554431"),
            (["kind": "bit-flip", "address": 0, "mask": 256], "'mask' is the bits"),
            (["kind": "dead", "after": 1], "'after' does not go with"),
            (["kind": "power-loss", "after": 0], "'after'"),
            (["kind": "slow"], "'delay' is how long"), (["kind": "slow", "delay": "2min"], "at most 60 s"),
        ] as [([String: JSONValue], String)] {
            let error = #expect(throws: QMPClient.Failure.self) { try control.execute("flash-inject-fault", arguments) }
            #expect("\(error.map { "\($0)" } ?? "")".contains(text), "\(arguments): \(String(describing: error))")
        }
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
        let first = try chip.master()
        let second = try chip.master()
        _ = try first.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
        _ = try first.spiTransaction(
            write: [SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(0x42) + [0x5A], readCount: 0)
        #expect(eventually { (try? second.spiTransaction(write: [SPIFlash.readStatus], readCount: 1)) == [0] })
        #expect(try second.readFlash(offset: 0x42, count: 1) == [0x5A])

        let control = chip.control
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
        let good = try chip.master()
        let bad = try chip.process.connect("spi")
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
