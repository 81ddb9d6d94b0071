import Crypto
import DeviceFirmware
import Foundation
import LPC
import QMP
import Sideband
import TestKit
import Testing
import Trust
import Wire

/// The BMC's firmware: the executable with a chip that does as the test says, and with the real chip and logic.
struct BMCFirmwareTests {
    /// The executable, a logic that is the test, and a chip.
    private final class Bench {
        let folder = TemporaryFolder()
        let flash: ScriptedFlash
        let bmc: ComponentProcess
        let logic: SidebandLink
        let host: Socket
        private let listeners: [Listener]

        init(_ arguments: [String] = []) throws {
            flash = try ScriptedFlash(path: folder.file("spi"))
            let lpc = try Listener(path: folder.file("lpc"), kind: .seqpacket)
            let sideband = try Listener(path: folder.file("sideband"), kind: .seqpacket)
            listeners = [lpc, sideband]
            bmc = try ComponentProcess(
                "bmc", in: folder, listens: ["serial"],
                connects: ["lpc": "lpc", "sideband": "sideband", "spi": "spi"], arguments)
            host = try lpc.accept(until: .after(.seconds(20)))
            logic = SidebandLink(socket: try sideband.accept(until: .after(.seconds(20))))
        }

        func set(_ package: FirmwarePackage?, _ manner: ScriptedFlash.Manner = .good) {
            flash.set(package.map { [Int(DeviceTarget.bmc.place.lowerBound): $0.encoded()] } ?? [:], manner)
        }

        func release() throws { try logic.send(.signal(.reset, level: true)) }

        func hold() throws {
            try logic.send(.signal(.reset, level: false))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: false))
        }

        /// Releases the reset; what the BMC says of its firmware when it has power good.
        func boot() throws -> JSONValue {
            try release()
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: true))
            return try bmc.control.execute("query-firmware")
        }

        func events(_ name: String) throws -> [JSONValue] {
            (try bmc.control.execute("query-events").arrayValue ?? []).filter { $0["event"]?.stringValue == name }
        }

        private func cycle(_ message: LPCMessage) throws -> UInt8 {
            try host.send(message.encoded)
            while true {
                let bytes = try host.receiveBytes(limit: 16, until: .after(.seconds(20))) ?? []
                if case .sync(_, .ready, let data) = try LPCMessage(decoding: bytes) { return data }
            }
        }

        /// One request over KCS, as a host makes it; the response.
        func ask(_ request: [UInt8]) throws -> [UInt8] {
            func write(_ port: UInt16, _ byte: UInt8) throws {
                _ = try cycle(.write(tag: 1, port: port, data: byte))
            }
            try write(0xCA3, 0x61)
            for byte in request.dropLast() { try write(0xCA2, byte) }
            try write(0xCA3, 0x62)
            try write(0xCA2, request.last ?? 0)
            var response: [UInt8] = []
            while try cycle(.read(tag: 2, port: 0xCA3)) >> 6 == 1 {
                response.append(try cycle(.read(tag: 3, port: 0xCA2)))
                try write(0xCA2, 0x68)
            }
            _ = try cycle(.read(tag: 4, port: 0xCA2))
            return response
        }
    }

    private static let first = try! FirmwarePackage(
        target: .bmc, version: FirmwareVersion("3.21.7")!,
        settings: [
            "boot-line": .text("first line"), "device-id": .unsigned(0x42), "manufacturer-id": .unsigned(0xABCDE),
            "product-id": .unsigned(0x1234),
        ])
    /// Get Device ID, LUN 0.
    private static let getDeviceID: [UInt8] = [0x18, 0x01]

    @Test func `each release from reset loads what the flash holds then, and the BMC acts by it`() throws {
        let bench = try Bench()
        bench.set(Self.first)
        let firmware = try bench.boot()
        #expect(firmware["source"] == "flash" && firmware["version"] == "3.21.7", "\(firmware)")
        #expect(firmware["settings"]?["boot-line"] == "first line")
        #expect(try bench.bmc.control.execute("query-status")["firmware"] == "3.21.7")
        // Spec: IPMI 2.0 §20.1
        #expect(
            try bench.ask(Self.getDeviceID) == [
                0x1C, 0x01, 0x00, 0x42, 0x01, 3, 0x21, 0x02, 0x80, 0xDE, 0xBC, 0x0A, 0x34, 0x12, 7, 0, 0, 0,
            ])
        let serial = try bench.bmc.connect("serial")
        try serial.send(Array("Baseboard firmware: ready\nfirst line\n".utf8))
        #expect(eventually { (try? bench.events("BOOT_COMPLETE").count) == 1 })

        // An erased place: what is built in, and its boot line.
        try bench.hold()
        #expect(try bench.bmc.control.execute("query-firmware") == ["state": "none"])
        bench.set(nil)
        #expect(try bench.boot() == ["state": "loaded", "source": "built-in", "version": "1.0.0", "settings": [:]])
        #expect(try bench.ask(Self.getDeviceID)[3...6] == [0x20, 0x01, 1, 0x00])
        try serial.send(Array("first line\n".utf8))
        try serial.send(Array("Baseboard firmware: ready\n".utf8))
        #expect(eventually { (try? bench.events("BOOT_COMPLETE").count) == 2 })
        let loaded = try bench.events("FIRMWARE_LOADED").map { ($0["data"]?["source"], $0["data"]?["version"]) }
        #expect(loaded.map(\.0) == ["flash", "built-in"] && loaded.map(\.1) == ["3.21.7", "1.0.0"])
    }

    @Test func `what the command line says wins over the package`() throws {
        let bench = try Bench(["--boot-line", "mine"])
        bench.set(Self.first)
        _ = try bench.boot()
        let serial = try bench.bmc.connect("serial")
        try serial.send(Array("first line\nBaseboard firmware: ready\nmine\n".utf8))
        #expect(eventually { (try? bench.events("BOOT_COMPLETE").count) == 1 })
        let console = try bench.bmc.control.execute("ringbuf-read", ["device": "serial", "size": 100])
        #expect(console == "first line\nBaseboard firmware: ready\nmine\n")
    }

    @Test func `a package that is refused, and a wire that fails, leave the BMC dead until the next release`() throws {
        let bench = try Bench()
        let place = Int(DeviceTarget.bmc.place.lowerBound)
        let foreign = try FirmwarePackage(target: .adapter, version: FirmwareVersion("1.0.0")!)
        let cases: [([Int: [UInt8]], ScriptedFlash.Manner, String)] = [
            ([place: [UInt8](repeating: 0x5A, count: 4096)], .good, "no firmware package"),
            ([place: foreign.encoded()], .good, "the package is for adapter, not for bmc"),
            ([place: Self.first.encoded()], .cuts, "the flash port: "),
            ([place: Self.first.encoded()], .refuses, "the flash port: "),
            ([place: Self.first.encoded()], .dead, "no flash chip answers"),
        ]
        for (number, (content, manner, reason)) in cases.enumerated() {
            bench.flash.set(content, manner)
            try bench.release()
            #expect(eventually { (try? bench.events("FIRMWARE_LOAD_FAILED").count) == number + 1 })
            let told = try bench.events("FIRMWARE_LOAD_FAILED").last?["data"]?["reason"]?.stringValue ?? ""
            #expect(told.contains(reason), "\(told)")
            let status = try bench.bmc.control.execute("query-status")
            #expect(status["status"] == "failed" && status["reason"] == .string(told) && status["running"] == false)
            #expect(try bench.bmc.control.execute("query-firmware") == ["state": "failed", "reason": .string(told)])
            // It drives no line: neither a cycle nor a reset's end is answered by power good.
            try bench.host.send(LPCMessage.read(tag: 1, port: 0xCA3).encoded)
            #expect(throws: (any Error).self) {
                try bench.bmc.control.execute("update-firmware", ["file": "/dev/null"])
            }
            try bench.hold()
        }
        #expect(try bench.events("POWER_GOOD").isEmpty)
        bench.set(Self.first, .slow(.milliseconds(80)))
        #expect(try bench.boot()["version"] == "3.21.7", "a slow chip only takes its time")
        #expect(try bench.ask(Self.getDeviceID).count == 18, "and nothing of the dead time is answered now")
    }

    @Test func `a reset in the middle of a load leaves nothing of it`() throws {
        let bench = try Bench()
        bench.set(Self.first, .slow(.milliseconds(150)))
        try bench.release()
        #expect(eventually { !bench.flash.reads.isEmpty })
        try bench.hold()
        let second = try FirmwarePackage(target: .bmc, version: FirmwareVersion("4.0.0")!)
        bench.set(second)
        #expect(try bench.boot()["version"] == "4.0.0")
        #expect(try bench.events("FIRMWARE_LOADED").count == 1)
    }

    @Test func `without RMCP in its firmware no presence ping is answered`() throws {
        let folder = TemporaryFolder()
        let flash = try ScriptedFlash(path: folder.file("spi"))
        let package = try FirmwarePackage(
            target: .bmc, version: FirmwareVersion("1.1.0")!, settings: ["rmcp": .boolean(false)])
        flash.set([Int(DeviceTarget.bmc.place.lowerBound): package.encoded()])
        // Without a sideband it leaves reset at once, by what the flash holds.
        let bmc = try ComponentProcess("bmc", in: folder, listens: ["eth0"], connects: ["spi": "spi"])
        #expect(eventually { (try? bmc.control.execute("query-firmware"))?["version"] == "1.1.0" })
        let network = FramePeer(socket: try bmc.connect("eth0"))
        _ = try network.next()
        try network.send(udp(presencePing), echo())
        #expect(try network.next()?[34] == 0, "the echo is answered, the ping before it was not")
        #expect(try bmc.control.execute("query-bmc")["network"]?["presence-pongs"] == 0)
    }

    // MARK: With the real chip and the real logic

    /// A chip with one image, a logic that verifies it by itself, and what it takes to start a BMC beside them.
    private final class SecuredBench {
        let folder = TemporaryFolder()
        let flash: ComponentProcess
        let logic: ComponentProcess

        init(bmc package: [UInt8]) throws {
            let key = try P384PrivateKey.generate()
            let image = try FirmwareImage.build(
                firstStage: [1], opensbi: [2], nextStage: [3], bmc: package, key: key, name: "image", securityVersion: 1
            )
            try Data(FirmwareImage.chip(a: image)).write(to: URL(fileURLWithPath: folder.file("chip.img")))
            try Data(Fuses(root: key.publicKey, minimumSecurityVersion: 1).json.utf8)
                .write(to: URL(fileURLWithPath: folder.file("fuses.json")))
            flash = try ComponentProcess("flash", in: folder, listens: ["spi"], ["--image", folder.file("chip.img")])
            logic = try ComponentProcess(
                "security-logic", in: folder, listens: ["spi-bmc", "sideband-bmc"], connects: ["flash": "flash.spi"],
                ["--fuses", folder.file("fuses.json"), "--verifier", "logic"])
            #expect(eventually { (try? self.security())?["state"] == "locked" }, "\(logic.child.text)")
        }

        func security() throws -> JSONValue { try logic.control.execute("query-security-state") }

        func startBMC() throws -> ComponentProcess {
            try ComponentProcess(
                "bmc", in: folder,
                connects: ["spi": "security-logic.spi-bmc", "sideband": "security-logic.sideband-bmc"])
        }
    }

    @Test func `through the real logic it runs what was verified, and nothing that is not in the manifest`() throws {
        let bench = try SecuredBench(bmc: Self.first.encoded())
        let bmc = try bench.startBMC()
        #expect(
            eventually { (try? bmc.control.execute("query-firmware"))?["version"] == "3.21.7" }, "\(bmc.child.text)")
    }

    @Test func `a byte that changes after the verification fails the board, and the BMC is held`() throws {
        let bench = try SecuredBench(bmc: Self.first.encoded())
        // Between the verdict and the BMC's power cycle.
        let address = Int64(DeviceTarget.bmc.place.lowerBound) + 20
        _ = try bench.flash.control.execute(
            "flash-inject-fault", ["kind": "bit-flip", "address": .integer(address), "mask": 0x04])
        let bmc = try bench.startBMC()
        #expect(eventually { (try? bench.security())?["state"] == "failed" }, "\(bench.logic.child.text)")
        let told = try bench.logic.control.execute("query-events").arrayValue ?? []
        let reason = told.last { $0["event"] == "BOARD_FAILED" }?["data"]?["reason"]?.stringValue ?? ""
        #expect(reason.contains("flash changed after verification at 0x200000"), "\(reason)")
        #expect(eventually { (try? bmc.control.execute("query-bmc"))?["power"] == "held" })
        #expect(try bmc.control.execute("query-firmware") == ["state": "none"])
        // Nothing was run, neither the changed page nor what is built in.
        let events = try bmc.control.execute("query-events").arrayValue ?? []
        #expect(!events.contains { ["FIRMWARE_LOADED", "POWER_GOOD"].contains($0["event"]) }, "\(events)")
    }
}
