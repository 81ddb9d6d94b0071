import Crypto
import DeviceFirmware
import Foundation
import QMP
import TestKit
import Testing
import Trust
import Wire

/// The adapter's own firmware: a component of the image that it verifies, and what its switch does by it.
struct AdapterFirmwareTests {
    /// Chip, logic and master, each its own process, with a peer at two ports of the switch.
    private final class Bench {
        let folder = TemporaryFolder()
        let flash: ComponentProcess
        let logic: ComponentProcess
        let card: ComponentProcess
        let peers: [FramePeer]

        init(adapter component: [UInt8]?) throws {
            let image = try FirmwareImage.build(
                firstStage: [1], opensbi: [2], nextStage: [3], adapter: component, key: AdapterProcessTests.key,
                name: "image", securityVersion: 1)
            try Data(FirmwareImage.chip(a: image)).write(to: URL(fileURLWithPath: folder.file("chip.img")))
            try Data(Fuses(root: AdapterProcessTests.key.publicKey, minimumSecurityVersion: 1).json.utf8)
                .write(to: URL(fileURLWithPath: folder.file("fuses.json")))
            flash = try ComponentProcess("flash", in: folder, listens: ["spi"], ["--image", folder.file("chip.img")])
            logic = try ComponentProcess(
                "security-logic", in: folder, listens: ["spi-adapter", "sideband-adapter"],
                connects: ["flash": "flash.spi"], ["--fuses", folder.file("fuses.json")])
            card = try ComponentProcess(
                "adapter-card", in: folder, listens: ["eth-bmc", "eth-ext"],
                connects: ["spi": "security-logic.spi-adapter", "sideband": "security-logic.sideband-adapter"],
                ["--master"])
            let card = card
            peers = try ["eth-bmc", "eth-ext"].map { FramePeer(socket: try card.connect($0)) }
            #expect(
                eventually {
                    let ports = (try? card.control.execute("query-ports"))?.arrayValue
                    return ports?[0]["link"] == true && ports?[2]["link"] == true
                })
            #expect(
                eventually {
                    let state = (try? card.control.execute("query-firmware"))?["state"]
                    return state == "loaded" || state == "failed"
                }, "\(card.child.text)\n\(logic.child.text)")
        }

        var firmware: JSONValue { get throws { try card.control.execute("query-firmware") } }

        /// Whether a broadcast at one port comes out of the other.
        func isForwarding() throws -> Bool {
            let frame = AdapterProcessTests.frame(
                to: "ff:ff:ff:ff:ff:ff", from: "52:54:00:00:00:01", payload: 86)
            try peers[0].send(frame)
            #expect(
                eventually { (try? self.card.control.execute("query-ports"))?[0]?["received-frames"] == 1 })
            let ports = try card.control.execute("query-ports")
            let dropped = ports[0]?["received-dropped"]
            #expect((ports[2]?["sent-frames"] == 1) == (dropped == 0))
            if dropped == 0 { #expect(try peers[1].next() == frame) }
            return dropped == 0
        }

        func events(_ name: String) throws -> [JSONValue] {
            (try card.control.execute("query-events").arrayValue ?? []).filter { $0["event"]?.stringValue == name }
        }
    }

    private static func package(_ forwarding: String?) throws -> [UInt8] {
        try FirmwarePackage(
            target: .adapter, version: FirmwareVersion("2.3.4")!,
            settings: forwarding.map { ["forwarding": .text($0)] } ?? [:]
        ).encoded()
    }

    @Test(arguments: ["permit-all", "deny-all", nil])
    func `the switch forwards as the verified package says`(forwarding: String?) throws {
        let bench = try Bench(adapter: Self.package(forwarding))
        let firmware = try bench.firmware
        #expect(firmware["source"] == "flash" && firmware["version"] == "2.3.4", "\(firmware)")
        #expect(try bench.isForwarding() == (forwarding != "deny-all"))
        let loaded = try bench.events("FIRMWARE_LOADED")
        #expect(loaded.count == 1 && loaded[0]["data"]?["version"] == "2.3.4")
        // What it runs is what was verified, whatever the chip says afterwards.
        _ = try bench.flash.control.execute(
            "flash-inject-fault",
            ["kind": "bit-flip", "address": .integer(Int64(DeviceTarget.adapter.place.lowerBound)), "mask": 1])
        #expect(try bench.firmware == firmware)
        // At the next power cycle the changed component is no longer what was signed.
        _ = try bench.logic.control.execute("system_reset")
        #expect(eventually { (try? bench.firmware)?["state"] == "none" }, "\(bench.card.child.text)")
    }

    @Test func `an image without its component leaves what is built in`() throws {
        let bench = try Bench(adapter: nil)
        #expect(try bench.firmware["source"] == "built-in")
        #expect(try bench.isForwarding())
        #expect(try bench.events("FIRMWARE_LOADED").first?["data"]?["source"] == "built-in")
    }

    @Test func `a verified component that is no package for it is refused: nothing is forwarded`() throws {
        let foreign = try FirmwarePackage(target: .offload, version: FirmwareVersion("1.0.0")!).encoded()
        for (component, reason) in [([1, 2, 3, 4, 5, 6, 7, 8, 9], "no firmware package"), (foreign, "for offload")] {
            let bench = try Bench(adapter: component)
            let firmware = try bench.firmware
            #expect(firmware["reason"]?.stringValue?.contains(reason) == true, "\(firmware)")
            #expect(try !bench.isForwarding())
            #expect(try bench.events("FIRMWARE_LOAD_FAILED").count == 1)
            #expect(try bench.card.control.execute("query-status")["status"] == "failed")
        }
    }

    @Test func `a card that is not the master runs what is built in`() throws {
        let card = try ComponentProcess("adapter-card", listens: ["eth-ext"])
        #expect(try card.control.execute("query-firmware")["source"] == "built-in")
    }
}
