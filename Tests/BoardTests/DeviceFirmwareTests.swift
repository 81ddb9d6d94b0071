import Foundation
import QMP
import TestKit
import Testing
import Trust

/// Firmware of BMC and cards on whole boards: verified with the host's, loaded at release, updated with it.
@Suite(.serialized) struct DeviceFirmwareTests {
    private func firmware(_ board: LiveBoard, _ component: String) throws -> JSONValue {
        try board.qmp(component, "query-firmware")
    }

    @Test func `the board's own image holds firmware of every device, and they run it`() throws {
        let board = try LiveBoard()
        try #require(board.up.status == 0, "\(board.up.output)")
        for component in ["bmc0", "adapter0", "offload0"] {
            let firmware = try firmware(board, component)
            #expect(firmware["source"] == "flash" && firmware["version"] == "1.1.0", "\(component): \(firmware)")
        }
        // Loaded between the release from reset and power good.
        let steps = ["RESET_RELEASED", "FIRMWARE_LOADED", "POWER_GOOD"]
        for component in ["bmc0", "offload0"] {
            let told = steps.map { "\(component) \($0)" }
            #expect(try board.timeline().filter { told.contains($0) } == told)
        }
    }

    @Test func `an update brings the devices' firmware with it, which runs from the power cycle on`() throws {
        let own = try ProvisionedBoard()
        let old = try own.image("old", version: 1)
        try own.fill(a: old, b: old)
        // The host firmware's first line is what this BMC takes for the host's boot.
        let new = try own.image(
            "new", version: 1,
            devices: [
                "--bmc", own.package("bmc", "5.6.7", ["boot-line=Baseboard host firmware"]),
                "--adapter", own.package("adapter", "6.7.8", ["forwarding=deny-all"]),
                "--offload", own.package("offload", "7.8.9", ["maximum-instances=12"]),
            ])
        let board = try own.start()
        try #require(board.up.status == 0, "\(board.up.output)")
        for component in ["bmc0", "adapter0", "offload0"] {
            #expect(try firmware(board, component)["source"] == "built-in", "an image without device firmware")
        }
        let update = try board.baseboard(["update", new])
        #expect(update.status == 0, "\(update.output)")
        #expect(try firmware(board, "bmc0")["source"] == "built-in", "nothing changes before the power cycle")
        _ = try board.qmp("logic0", "system_reset")
        #expect(
            eventually {
                let state = try? board.security()
                return state?["image"] == "new" && state?["state"] == "locked"
            })
        #expect(try firmware(board, "bmc0")["version"] == "5.6.7")
        #expect(try firmware(board, "bmc0")["settings"] == ["boot-line": "Baseboard host firmware"])
        #expect(try firmware(board, "adapter0")["version"] == "6.7.8")
        #expect(try firmware(board, "adapter0")["settings"] == ["forwarding": "deny-all"])
        #expect(try firmware(board, "offload0")["version"] == "7.8.9")
        #expect(try firmware(board, "offload0")["settings"] == ["maximum-instances": 12])
        // It saw its own line, before the host had come to its last one.
        #expect(eventually { (try? board.qmp("bmc0", "query-bmc"))?["boot-complete"] == true })
    }

    @Test(arguments: [("--bmc", 0x20_0000), ("--adapter", 0x30_0000), ("--offload", 0x38_0000)])
    func `a byte changed in a device's firmware has the slot refused`(option: String, offset: Int) throws {
        let own = try ProvisionedBoard()
        let target = String(option.dropFirst(2))
        let image = try own.image("changed", version: 1, devices: [option, own.package(target, "1.2.3")])
        try own.fill(a: image, b: own.image("whole", version: 1))
        let chip = try FileHandle(forUpdating: URL(fileURLWithPath: own.chip))
        try chip.seek(toOffset: UInt64(offset + 9))
        let byte = try #require(try chip.read(upToCount: 1)?.first)
        try chip.seek(toOffset: UInt64(offset + 9))
        try chip.write(contentsOf: Data([byte ^ 0x10]))
        try chip.close()
        let board = try own.start()
        try #require(board.up.status == 0, "\(board.up.output)")
        #expect(try board.security()["image"] == "whole")
        let refused = try board.events("SLOT_REFUSED")
        #expect(refused.first?["data"]?["reason"]?.stringValue?.contains("digest mismatch") == true, "\(refused)")
    }

    @Test func `a signed image whose BMC firmware is none leaves the BMC dead, and up says why`() throws {
        let own = try ProvisionedBoard()
        // 'image build' takes no such thing: this is another tool's work.
        func part(_ name: String) throws -> [UInt8] {
            try WholeFile.read(packageFolder + "/.build/firmware/" + name, limit: 1 << 20)
        }
        let image = try FirmwareImage.build(
            firstStage: part("first-stage.bin"), opensbi: part("fw_dynamic.bin"), nextStage: part("host.bin"),
            bmc: Array(repeating: 0x5A, count: 100), key: Provisioning.readKey(own.files.file("keys/root.pem")),
            name: "dead", securityVersion: 1)
        try WholeFile.write(own.files.file("dead.slot.img"), image)
        try own.fill(a: own.files.file("dead.slot.img"))
        let board = try own.start()
        #expect(board.up.status == 3, "\(board.up.output)")
        #expect(board.up.output.contains("bmc0 has no firmware: no firmware package"), "\(board.up.output)")
        #expect(try board.component("bmc0")["status"] == "failed")
    }
}
