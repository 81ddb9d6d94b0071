import Foundation
import SPINOR
import SecurityLogic
import Serprog
import TestKit
import Testing

/// Debian's flashrom at the port of an external programmer.
@Suite struct FlashromTests {
    /// flashrom writing `new.img` to `part` of the chip, and verifying it.
    private func write(_ chip: GatedChip, _ port: UInt16, part: String = "1ff000:1ffffff") throws -> (Int32?, String) {
        try Data("\(part) part\n".utf8).write(to: URL(fileURLWithPath: chip.folder.file("layout")))
        try Data((0..<SPINORModel.mx25l25635f.size).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8) })
            .write(to: URL(fileURLWithPath: chip.folder.file("new.img")))
        let result = try run(
            "/usr/sbin/flashrom",
            [
                "-p", "serprog:ip=127.0.0.1:\(port)", "-l", chip.folder.file("layout"), "-i", "part", "-N", "-w",
                chip.folder.file("new.img"),
            ])
        return (result.status, result.output)
    }

    @Test func `flashrom reads through the gate while the adapter may`() throws {
        let chip = try GatedChip()
        chip.gate.setState(GatedChip.unprotected)
        let port = try chip.loopbackPort(.adapter)
        let read = try run(
            "/usr/sbin/flashrom", ["-p", "serprog:ip=127.0.0.1:\(port)", "-r", chip.folder.file("read.img")])
        #expect(read.status == 0, "\(read.output)")
        #expect(
            FileManager.default.contentsEqual(
                atPath: chip.folder.file("read.img"), andPath: chip.folder.file("chip.img")))
        chip.gate.setState(.held)
        let locked = try run("/usr/sbin/flashrom", ["-p", "serprog:ip=127.0.0.1:\(port)"])
        #expect(locked.output.contains("No EEPROM/flash device found"), "\(locked.output)")
    }

    @Test func `flashrom writes and verifies while the board is held, beyond 16 MiB too`() throws {
        let chip = try GatedChip()
        let (status, output) = try write(chip, try chip.loopbackPort(.external), part: "1fff000:1ffffff")
        #expect(status == 0 && output.contains("VERIFIED"), "\(output)")
        let place = 0x1FF_F123
        let byte = UInt8(truncatingIfNeeded: place ^ place >> 8)
        #expect(try chip.direct().readFlash(offset: UInt32(place), count: 1) == [byte])
        #expect(chip.device.counters.programs == 16)
        #expect(chip.gate.counters(.external).lastDeniedOpcode.map { !FlashInstruction.opcodes.contains($0) } ?? true)
    }

    @Test func `flashrom cannot write once the board is locked, and says so`() throws {
        let chip = try GatedChip()
        chip.gate.setState(GatedChip.locked)
        let (status, output) = try write(chip, try chip.loopbackPort(.external), part: "1fff000:1ffffff")
        #expect(status != 0 && output.contains("FAILED"), "\(output)")
        #expect(chip.device.counters.programs == 0)
        #expect(chip.device.counters.erases == 0)
        #expect(chip.gate.counters(.external).denied > 0)
    }
}
