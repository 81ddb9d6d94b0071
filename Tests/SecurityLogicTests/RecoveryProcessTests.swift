import Crypto
import Foundation
import QMP
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

/// Recovery, boot watch and rollback with the real flash, the real logic and the real adapter card.
@Suite struct RecoveryProcessTests {
    private static let made = Result { () throws -> (key: P384PrivateKey, slot: [UInt8]) in
        let key = try P384PrivateKey.generate()
        let part = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 13 ^ $0 >> 5) }
        return (
            key,
            try FirmwareImage.build(
                firstStage: Array(part[..<5000]), opensbi: part, nextStage: Array(part[..<100_000]), key: key,
                name: "server", securityVersion: 3)
        )
    }
    let slot: [UInt8]
    let key: P384PrivateKey
    let folder = TemporaryFolder()

    init() throws { (key, slot) = try Self.made.get() }

    private var bad: [UInt8] {
        var image = slot
        image[0x2_0100] ^= 1
        return image
    }

    private struct Parts {
        let flash: ComponentProcess
        let logic: ComponentProcess
        let adapter: ComponentProcess?

        func event(_ name: String) throws -> QMPEvent {
            try logic.control.waitForEvent(name, until: .after(.seconds(60)))
        }
        /// The names of the logic's events, without what every start has.
        func events() throws -> [String] {
            try logic.control.execute("query-events").arrayValue?.compactMap { $0["event"]?.stringValue }
                .filter { $0 != "COMPONENT_READY" && $0 != "RESET_ASSERTED" && $0 != "RESET_RELEASED" } ?? []
        }
        func state(_ member: String) throws -> JSONValue? {
            try logic.control.execute("query-security-state")[member]
        }
    }

    /// Starts flash, logic and, with `adapter`, the master.
    private func start(
        _ chip: [UInt8], minimum: UInt32 = 1, adapter: Bool = true, writable: Bool = true, _ arguments: [String] = []
    ) throws -> Parts {
        try Data(chip).write(to: URL(fileURLWithPath: folder.file("chip.img")))
        let fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: minimum)
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        let flash = try ComponentProcess(
            "flash", in: folder, listens: ["spi"],
            ["--image", folder.file("chip.img")] + (writable ? ["--writable"] : []))
        let logic = try ComponentProcess(
            "security-logic", in: folder,
            listens: ["spi-adapter", "spi-host", "sideband-adapter", "sideband-host", "sideband-bmc"],
            connects: ["flash": "flash.spi"],
            ["--fuses", folder.file("fuses.json"), "--state", folder.file("state.json")] + arguments)
        let card =
            adapter
            ? try ComponentProcess(
                "adapter-card", in: folder,
                connects: ["spi": "security-logic.spi-adapter", "sideband": "security-logic.sideband-adapter"],
                ["--master"]) : nil
        return Parts(flash: flash, logic: logic, adapter: card)
    }

    private func record() throws -> BootRecord {
        let (record, warning) = BootRecordFile(path: folder.file("state.json")).load()
        #expect(warning == nil)
        return record
    }

    static let verifiers = ["adapter", "logic", "both"]

    @Test(arguments: verifiers)
    func `a board whose slot A is bad and B good comes up from B, whoever verifies`(verifier: String) throws {
        let board = try start(
            FirmwareImage.chip(a: bad, b: slot, golden: slot), adapter: verifier != "logic", ["--verifier", verifier])
        let locked = try board.event("BOARD_LOCKED")
        #expect(locked.name == "BOARD_LOCKED")
        #expect(try board.events() == ["FIRMWARE_VERIFYING", "SLOT_REFUSED", "FIRMWARE_VERIFIED", "BOARD_LOCKED"])
        #expect(try board.state("slot") == "B")
        #expect(try board.state("refused-slots")?[0]?["slot"] == "A")
        #expect(eventually { (try? record())?.active == .b })
        // The host sees slot B from address 0.
        let host = try SerprogClient(socket: board.logic.connect("spi-host"))
        #expect(try host.readFlash(offset: 0x2_0000, count: 4096) == Array(slot[0x2_0000..<0x2_1000]))
        let measured = try board.logic.control.execute("query-measurements")["events"]?.arrayValue ?? []
        #expect(measured.contains { $0["text"] == "OpenSBI" && $0["register"] == 2 })
        #expect(measured.last?["text"] == "slot B runs")
    }

    @Test(arguments: verifiers)
    func `when only golden is good slot A is written from it and runs`(verifier: String) throws {
        let board = try start(
            FirmwareImage.chip(a: bad, golden: slot), adapter: verifier != "logic", ["--verifier", verifier])
        _ = try board.event("BOARD_LOCKED")
        #expect(
            try board.events() == [
                "FIRMWARE_VERIFYING", "SLOT_REFUSED", "SLOT_REFUSED", "RECOVERY_STARTED", "RECOVERY_COMPLETE",
                "FIRMWARE_VERIFYING", "FIRMWARE_VERIFIED", "BOARD_LOCKED",
            ])
        #expect(try board.state("slot") == "A")
        let chip = try SerprogClient(socket: board.flash.connect("spi"))
        #expect(try chip.readFlash(offset: 0, count: slot.count) == slot)
        #expect(eventually { (try? record())?.active == .a })
    }

    @Test func `a chip that takes no writes leaves golden to run in place`() throws {
        let board = try start(FirmwareImage.chip(a: bad, golden: slot), ["--verifier", "adapter"])
        _ = try board.event("BOARD_LOCKED")
        // Protect the whole chip, then power-cycle with slot A bad again.
        let chip = try SerprogClient(socket: board.flash.connect("spi"))
        for write in [[SPIFlash.writeEnable], [SPIFlash.sectorErase4Byte, 0, 2, 0, 0]] as [[UInt8]] {
            _ = try chip.spiTransaction(write: write, readCount: 0)
        }
        #expect(
            eventually { (try? chip.spiTransaction(write: [SPIFlash.readStatus], readCount: 1)).map { $0[0] & 1 } == 0 }
        )
        for write in [[SPIFlash.writeEnable], [SPIFlash.writeStatus, 0x3C]] as [[UInt8]] {
            _ = try chip.spiTransaction(write: write, readCount: 0)
        }
        _ = try board.logic.control.execute("system_reset")
        let complete = try board.logic.control.waitForEvent("BOARD_LOCKED", until: .after(.seconds(60)))
        #expect(complete.name == "BOARD_LOCKED")
        #expect(eventually { (try? board.state("slot")) == "golden" })
        let last = try board.logic.control.execute("query-events").arrayValue?.last {
            $0["event"] == "RECOVERY_COMPLETE"
        }
        #expect(last?["data"]?["reason"]?.stringValue?.contains("does not keep what is written") == true)
    }

    @Test func `every slot bad fails the board with every reason`() throws {
        let board = try start(FirmwareImage.chip(a: bad, golden: bad))
        let failed = try board.event("BOARD_FAILED")
        #expect(
            failed.data["reason"]
                == "slot A: component OpenSBI: digest mismatch; slot B: no manifest; slot golden: component OpenSBI: digest mismatch"
        )
        #expect(failed.data["image"] == "server")
        #expect(
            eventually {
                let history = (try? board.adapter?.control.execute("query-events").arrayValue) ?? []
                return history.contains { $0["event"] == "FIRMWARE_REFUSED" }
            }, "the adapter says so too")
    }

    @Test func `a host that does not boot has its slots tried one after the other, golden last`() throws {
        let board = try start(
            FirmwareImage.chip(a: slot, b: slot, golden: slot), ["--boot-timeout", "100ms"])
        let failed = try board.event("BOARD_FAILED")
        #expect(failed.data["reason"]?.stringValue?.hasPrefix("golden did not boot") == true)
        let slots = try board.logic.control.execute("query-events").arrayValue?
            .filter { $0["event"] == "BOOT_FAILED" }.compactMap { $0["data"]?["slot"]?.stringValue }
        #expect(slots == ["A", "B", "golden"])
        #expect(try record().failed == [.a, .b])
    }

    static let floors: [(floor: UInt32, golden: UInt32, expected: UInt32)] = [(3, 5, 3), (3, 2, 2), (1, 5, 1)]

    @Test(arguments: floors.indices)
    func `a boot raises the fuses to the manifest's floor, never above golden`(index: Int) throws {
        let (floor, golden, expected) = Self.floors[index]
        let part = [UInt8](repeating: 7, count: 9000)
        func image(_ version: UInt32, floor: UInt32) throws -> [UInt8] {
            try FirmwareImage.build(
                firstStage: part, opensbi: part, nextStage: part, key: key, name: "v\(version)",
                securityVersion: version, rollbackFloor: floor)
        }
        let chip = try FirmwareImage.chip(a: image(5, floor: floor), golden: image(golden, floor: 1))
        let board = try start(chip, minimum: 1)
        _ = try board.event("BOARD_LOCKED")
        if expected > 1 {
            #expect(eventually { (try? board.state("minimum-security-version")) == .integer(Int64(expected)) })
        } else {
            #expect(eventually { (try? record()) != nil })
        }
        if floor > golden {
            #expect(board.logic.child.waitForOutput("the fuses now ask for security version \(expected)"))
        }
        #expect(try Fuses(path: folder.file("fuses.json")).minimumSecurityVersion == expected)
    }

    @Test func `a broken record is told, and the board comes up`() throws {
        try Data("{".utf8).write(to: URL(fileURLWithPath: folder.file("state.json")))
        let board = try start(FirmwareImage.chip(a: slot, golden: slot))
        _ = try board.event("BOARD_LOCKED")
        #expect(board.logic.child.waitForOutput("no boot record of this board"))
    }
}
