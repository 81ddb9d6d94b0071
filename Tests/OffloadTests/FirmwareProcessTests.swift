import DeviceFirmware
import Foundation
import QMP
import Sideband
import TestKit
import Testing
import VFIOUser
import Wire

/// The card as a process that loads its firmware out of a flash that the test plays, when the logic, which it plays too,
/// releases it.
struct FirmwareProcessTests {
    private final class Rig {
        let folder = TemporaryFolder()
        let flash: ScriptedFlash
        let card: ComponentProcess
        let logic: SidebandLink

        init() throws {
            flash = try ScriptedFlash(path: folder.file("flash"))
            let listener = try Listener(path: folder.file("sideband"), kind: .seqpacket)
            card = try ComponentProcess(
                "offload-card", in: folder, listens: ["pcie", "pcie-disk"],
                connects: ["sideband": "sideband", "spi": "flash"], ["--disk-size", "1MiB"])
            logic = SidebandLink(socket: try listener.accept(until: .after(.seconds(20))))
        }

        /// Puts a package, or bytes that are none, into the card's place of the flash.
        func set(_ bytes: [UInt8], _ manner: ScriptedFlash.Manner = .good) {
            flash.set([Int(DeviceTarget.offload.place.lowerBound): bytes], manner)
        }

        func reset(isReleased: Bool) throws {
            try logic.send(.signal(.reset, level: isReleased))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: isReleased))
        }

        /// What IDENTIFY says: the firmware's version, and how many instances there may be.
        func identify() throws -> (version: String, instances: UInt32) {
            let host = try OffloadProcessTests.Host(card)
            host.start()
            host.store(entry(response: responseAddress), at: ringAddress)
            host.write(0x1C, 1)
            #expect(host.waitForInterrupt(1))
            let version = host.load(responseAddress + 32, 16).prefix { $0 != 0 }
            let instances = host.load(responseAddress + 52, 4)
            return (
                String(decoding: version, as: UTF8.self), instances.reversed().reduce(0) { $0 << 8 | UInt32($1) }
            )
        }

        func events(_ name: String) throws -> [JSONValue] {
            (try card.control.execute("query-events").arrayValue ?? []).filter { $0["event"]?.stringValue == name }
        }
    }

    private static let package = try! FirmwarePackage(
        target: .offload, version: FirmwareVersion("3.21.7")!, settings: ["maximum-instances": .unsigned(70_000)])

    @Test func `each release loads what the flash holds then, and IDENTIFY tells it`() throws {
        let rig = try Rig()
        rig.set(Self.package.encoded())
        try rig.reset(isReleased: true)
        #expect(try rig.identify() == ("3.21.7", 70_000))
        let firmware = try rig.card.control.execute("query-firmware")
        #expect(firmware["source"] == "flash" && firmware["version"] == "3.21.7", "\(firmware)")
        #expect(try rig.card.control.execute("query-status")["firmware"] == "3.21.7")
        try rig.reset(isReleased: false)
        #expect(try rig.card.control.execute("query-firmware") == ["state": "none"])
        // Erased: what the card has built in.
        rig.flash.set([:])
        try rig.reset(isReleased: true)
        #expect(try rig.identify() == ("1.0.0", 0))
        #expect(try rig.events("FIRMWARE_LOADED").compactMap { $0["data"]?["source"] } == ["flash", "built-in"])
    }

    @Test func `a package that is refused leaves every function dead until the next release`() throws {
        let rig = try Rig()
        let foreign = try FirmwarePackage(target: .bmc, version: FirmwareVersion("1.0.0")!)
        let cases: [([UInt8], ScriptedFlash.Manner, String)] = [
            ([UInt8](repeating: 0x5A, count: 4096), .good, "no firmware package"),
            (foreign.encoded(), .good, "the package is for bmc, not for offload"),
            (Self.package.encoded(), .cuts, "the flash port: "),
            (Self.package.encoded(), .dead, "no flash chip answers"),
        ]
        let clients = try ["pcie", "pcie-disk"].map { try VFIOUserClient(socket: try rig.card.connect($0)) }
        for (number, (content, manner, reason)) in cases.enumerated() {
            rig.set(content, manner)
            try rig.logic.send(.signal(.reset, level: true))
            #expect(eventually { (try? rig.events("FIRMWARE_LOAD_FAILED").count) == number + 1 })
            let told = try rig.events("FIRMWARE_LOAD_FAILED").last?["data"]?["reason"]?.stringValue ?? ""
            #expect(told.contains(reason), "\(told)")
            #expect(try rig.card.control.execute("query-status")["status"] == "failed")
            #expect(try rig.card.control.execute("query-firmware") == ["state": "failed", "reason": .string(told)])
            for client in clients { #expect(client.read(region: 7, offset: 0, width: 4) == 0xFFFF_FFFF) }
            try rig.reset(isReleased: false)
        }
        #expect(try rig.events("POWER_GOOD").isEmpty)
        rig.set(Self.package.encoded())
        try rig.reset(isReleased: true)
        #expect(clients.map { $0.read(region: 7, offset: 0, width: 4) } == [0x0B0A_1B36, 0x0B0C_1B36])
    }
}
