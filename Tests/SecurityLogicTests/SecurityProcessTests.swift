import CBOR
import Crypto
import Foundation
import QMP
import SPINOR
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

@Suite struct SecurityProcessTests {
    private static let built = Result { () throws -> (key: P384PrivateKey, image: [UInt8]) in
        let key = try P384PrivateKey.generate()
        let part = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 7) }
        return (
            key,
            try FirmwareImage.chip(
                a: FirmwareImage.build(
                    firstStage: Array(part[..<5000]), opensbi: part, nextStage: Array(part[..<100_000]), key: key,
                    name: "server", securityVersion: 2))
        )
    }
    let key: P384PrivateKey
    let image: [UInt8]
    let fuses: Fuses

    init() throws {
        (key, image) = try Self.built.get()
        fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 2)
    }

    private func deadline() -> MonotonicTime { .after(.seconds(20)) }

    @Test func `a verified board is released in order, reads its flash, and locks`() throws {
        let board = try Board(image: image, fuses: fuses)
        let bmc = try board.sideband("bmc")
        let host = try board.sideband("host")
        #expect(try bmc.receive(until: deadline()) == .signal(.reset, level: false))
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: false))
        let hostFlash = try board.spi("host")
        #expect(try hostFlash.readFlash(offset: 0, count: 4) == [0xFF, 0xFF, 0xFF, 0xFF], "held: nothing is read")
        #expect(try board.command(.queryState) == .state(.held, slot: nil))

        guard case .verified(let manifest, _) = try board.verify() else {
            Issue.record("refused")
            return
        }
        #expect(manifest.name == "server")
        #expect(try bmc.receive(until: deadline()) == .signal(.reset, level: true))
        try bmc.send(.signal(.powerGood, level: true))
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: true))
        try host.send(.signal(.powerGood, level: true))
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        #expect(try board.command(.queryState) == .state(.locked, slot: 0))

        #expect(try hostFlash.readFlash(offset: 0, count: 5000) == Array(image[..<5000]))
        _ = try hostFlash.spiTransaction(write: [SPIFlash.writeEnable], readCount: 0)
        _ = try hostFlash.spiTransaction(write: [SPIFlash.chipErase], readCount: 0)
        #expect(try hostFlash.readFlash(offset: 0, count: 4) == Array(image[..<4]))
        let adapterFlash = try board.spi("adapter")
        #expect(
            try adapterFlash.readFlash(offset: 0, count: 2) == [0xFF, 0xFF], "protected: the adapter reads no more")
        #expect(
            try board.command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .notPermitted))

        let state = try board.control.execute("query-security-state")
        #expect(state["state"] == "locked")
        #expect(state["mode"] == "protected")
        #expect(state["image"] == "server")
        #expect(state["released"] == ["bmc", "host"])
        #expect(state["masters"]?["host"]?["denied"] == 3)
        #expect(state["masters"]?["adapter"]?["denied"] == 1)
        let names = try board.control.execute("query-events").arrayValue?.compactMap { $0["event"]?.stringValue }
        let sequence = (names ?? []).filter { $0 != "COMPONENT_READY" }
        #expect(
            sequence == [
                "RESET_ASSERTED", "RESET_ASSERTED", "FIRMWARE_VERIFYING", "FIRMWARE_VERIFIED", "RESET_RELEASED",
                "RESET_RELEASED", "BOARD_LOCKED",
            ])
    }

    @Test func `a changed image leaves everything held and names image and reason`() throws {
        var changed = image
        changed[0x2_0100] ^= 1
        let board = try Board(image: changed, fuses: fuses)
        let host = try board.sideband("host")
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: false))
        #expect(try board.verify() == .refused(.digestMismatch("OpenSBI"), imageName: "server"))
        let refused = try board.control.waitForEvent("SLOT_REFUSED", until: deadline())
        #expect(refused.data["image"] == "server")
        #expect(refused.data["slot"] == "A")
        // Slot B and golden are erased.
        #expect(try board.verify() == .refused(.noManifest, imageName: nil))
        #expect(try board.verify() == .refused(.noManifest, imageName: nil))
        let reason: JSONValue =
            "slot A: component OpenSBI: digest mismatch; slot B: no manifest; slot golden: no manifest"
        let all = try board.control.waitForEvent("FIRMWARE_REFUSED", until: deadline())
        #expect(all.data["reason"] == reason)
        let failed = try board.control.waitForEvent("BOARD_FAILED", until: deadline())
        #expect(failed.data["reason"] == reason)
        #expect(try board.command(.nextSlot) == .status(.nextSlot, .notPermitted))
        #expect(try board.command(.queryState) == .state(.failed, slot: nil))
        #expect(try board.control.execute("query-status")["status"] == "failed")
        #expect(throws: SidebandLink.Failure.wire(.timedOut)) {
            try host.receive(until: .after(.milliseconds(150)))
        }
    }

    @Test func `another root's image is refused`() throws {
        let other = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 2)
        let board = try Board(image: image, fuses: other)
        #expect(try board.verify() == .refused(.keyMismatch(found: fuses.rootKeyDigest), imageName: "server"))
    }

    @Test func `a verifier that disconnects in the middle fails the board`() throws {
        let board = try Board(image: image, fuses: fuses)
        #expect(try board.command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .success))
        board.adapter.socket.shutdown()
        let failed = try board.control.waitForEvent("BOARD_FAILED", until: deadline())
        #expect(failed.data["reason"] == "the verifying adapter disconnected before its verdict")
    }

    @Test func `a power cycle holds, tells the adapter, and verifies again`() throws {
        let board = try Board(image: image, fuses: fuses)
        let bmc = try board.sideband("bmc")
        #expect(try bmc.receive(until: deadline()) == .signal(.reset, level: false))
        _ = try board.verify()
        #expect(try bmc.receive(until: deadline()) == .signal(.reset, level: true))
        // No power good comes: the bounded wait ends it.
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        _ = try board.control.execute("system_reset")
        #expect(try bmc.receive(until: deadline()) == .signal(.reset, level: false))
        #expect(try board.adapter.receive(until: deadline()) == .signal(.reset, level: false))
        #expect(try board.adapter.receive(until: deadline()) == .signal(.reset, level: true))
        #expect(try board.command(.queryState) == .state(.held, slot: nil))
        _ = try board.verify()
        #expect(try bmc.receive(until: deadline()) == .signal(.reset, level: true))
    }

    @Test func `only the adapter commands`() throws {
        let board = try Board(image: image, fuses: fuses)
        for name in ["bmc", "host"] {
            let link = try board.sideband(name)
            let answer = try board.exchange(SecurityRequest.setMode(.unprotected).encoded, on: link)
            #expect(
                SecurityResponse(decoding: answer) == .status(.setMode(.unprotected), .notPermitted), "\(name)")
        }
        #expect(try board.command(.queryState) == .state(.held, slot: nil))
    }

    @Test(
        arguments: [
            ([0x7E, 0x1B, 0x36], 0, SecurityStatus.invalidCommand),
            ([0x7E, 0x1B, 0x36, 0x09], 9, .invalidCommand), ([0x7E, 0x1B, 0x37, 0x05], 5, .invalidCommand),
            ([0x7E, 0x1B, 0x36, 0x05, 1], 5, .invalidLength), ([0x7E, 0x1B, 0x36, 0x02], 2, .invalidLength),
            ([0x7E, 0x1B, 0x36, 0x02, 2], 2, .invalidData), ([0x7E, 0x1B, 0x36, 0x04, 1], 4, .invalidLength),
            ([0x7E, 0x1B, 0x36, 0x04, 0, 2] + [UInt8](repeating: 0, count: 53), 4, .invalidData),
            ([0x7E, 0x1B, 0x36, 0x07, 1], 7, .invalidLength),
        ] as [([UInt8], UInt8, SecurityStatus)])
    func `a malformed command is answered with its status`(body: [UInt8], command: UInt8, status: SecurityStatus) throws
    {
        let board = try Board(image: image, fuses: fuses)
        #expect(try board.exchange(body) == [0x7E, 0x1B, 0x36, command, status.rawValue])
        #expect(try board.command(.queryState) == .state(.held, slot: nil))
    }

    @Test func `datagrams that are no messages are ignored`() throws {
        let board = try Board(image: image, fuses: fuses)
        for bytes in [[9], [1, 0], [1, 0, 2], [2], [2, 9, 9, 9, 9, 9]] as [[UInt8]] {
            try board.adapter.socket.send(bytes)
        }
        var generator = SeededGenerator.fresh()
        for _ in 0..<200 { try board.adapter.socket.send(generator.bytes(Int.random(in: 1...80, using: &generator))) }
        #expect(try board.command(.queryState) == .state(.held, slot: nil), "seed \(generator.seed)")
    }

    @Test func `a second adapter is turned away`() throws {
        let board = try Board(image: image, fuses: fuses)
        let second = try board.sideband("adapter")
        #expect(try second.receive(until: deadline()) == nil)
        #expect(try board.command(.queryState) == .state(.held, slot: nil))
    }

    @Test func `a chip that is not there is named in the log, once`() throws {
        let board = try Board(image: image, fuses: fuses)
        board.flash.child.terminate()
        #expect(board.flash.child.waitForExit() == 0)
        #expect(try board.command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .success))
        let adapter = try board.spi("adapter")
        for _ in 0..<3 {
            #expect(throws: SerprogError.refused(.spiOperation)) {
                try adapter.spiTransaction(write: [0x9F], readCount: 1)
            }
        }
        let line = "port 'flash': \(board.folder.file("flash.spi")): connect: No such file or directory"
        #expect(board.logic.waitForOutput(line), "\(board.logic.text)")
        #expect(board.logic.text.components(separatedBy: line).count == 2, "\(board.logic.text)")
    }

    @Test func `bytes that change between verification and execution fail the board and never run`() throws {
        let folder = TemporaryFolder()
        let tamper = Tamper()
        try Data(image).write(to: URL(fileURLWithPath: folder.file("held.img")))
        let content = try FlashContent(path: folder.file("held.img"), count: image.count, writable: false)
        let device = SPINORDevice(SPINORChip(content: content))
        // The man in the middle of the chip's wire.
        let server = SerprogServer(
            try Listener(path: folder.file("middle")), programmerName: "middle", report: { _ in }
        ) { TamperedTarget(inner: device.target(), tamper: tamper) }
        defer { server.stop() }
        let board = try Board(image: image, fuses: fuses, chip: folder.file("middle"), folder: folder)
        let host = try board.sideband("host")
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: false))
        _ = try board.verify()
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: true))
        let flash = try board.spi("host")
        #expect(try flash.readFlash(offset: 0x2_0000, count: 4096) == Array(image[0x2_0000..<0x2_1000]))
        tamper.begin(at: 0x2_0007)
        #expect(try flash.readFlash(offset: 0x2_0000, count: 4096).allSatisfy { $0 == 0xFF })
        let failed = try board.control.waitForEvent("BOARD_FAILED", until: deadline())
        #expect(failed.data["reason"] == "flash changed after verification at 0x20000")
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: false))
        #expect(try flash.readFlash(offset: 0, count: 4).allSatisfy { $0 == 0xFF })
        #expect(try board.control.execute("query-security-state")["released"] == [])
    }

    @Test func `host and BMC talk through the logic until it locks, and under their own names only`() throws {
        // Boot complete never comes: the board stays open.
        let board = try Board(image: image, fuses: fuses, ["--lock-at", "boot-complete"])
        let bmc = try board.sideband("bmc")
        let host = try board.sideband("host")
        for link in [bmc, host] { #expect(try link.receive(until: deadline()) == .signal(.reset, level: false)) }
        func packet(_ from: MCTPPacket.EndpointID, _ to: MCTPPacket.EndpointID) -> SidebandMessage {
            .mctp(
                MCTPPacket(
                    destination: to, source: from, isFirst: true, isLast: true, sequence: 0, isTagOwner: true, tag: 1,
                    payload: [1, 2, 3]))
        }
        try bmc.send(packet(.bmc, .host))
        #expect(eventually { board.sidebandCounter("dropped") == 1 }, "held: nothing passes")
        _ = try board.verify()
        for link in [bmc, host] {
            #expect(try link.receive(until: deadline()) == .signal(.reset, level: true))
            try link.send(.signal(.powerGood, level: true))
        }
        #expect(eventually { (try? board.control.execute("query-security-state"))?["bridged"] == true })
        try bmc.send(packet(.bmc, .host))
        #expect(try host.receive(until: deadline()) == packet(.bmc, .host))
        try host.send(packet(.host, .bmc))
        #expect(try bmc.receive(until: deadline()) == packet(.host, .bmc))
        // A name that is not the sender's, and an endpoint that is nobody's.
        try host.send(packet(.adapter, .bmc))
        try host.send(packet(.host, .adapter))
        #expect(eventually { board.sidebandCounter("dropped") == 3 })
        #expect(board.sidebandCounter("forwarded") == 2)
    }

    @Test func `after lock nothing passes between host and BMC`() throws {
        let board = try Board(image: image, fuses: fuses)
        let bmc = try board.sideband("bmc")
        _ = try board.verify()
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        let message = MCTPMessage(destination: .host, source: .bmc, isTagOwner: true, tag: 1, body: [1])
        for _ in 0..<3 { try bmc.send(message) }
        #expect(eventually { board.sidebandCounter("dropped") == 3 })
        #expect(board.sidebandCounter("forwarded") == 0)
        let line = "a packet for endpoint 11 is dropped"
        #expect(board.logic.waitForOutput("\(line) (2 so far)"))
        #expect(board.logic.text.components(separatedBy: line).count == 3, "the first and the second are told")
    }

    @Test func `a board with a secret says who it is and what it runs, for a verifier's question`() throws {
        let secret = (0..<32).map { UInt8($0) }
        let board = try Board(
            image: image,
            fuses: try Fuses(root: .p384(key.publicKey), minimumSecurityVersion: 2, uniqueDeviceSecret: secret))
        #expect(throws: QMPClient.Failure.self) { try board.control.execute("query-identity") }
        guard case .verified(_, let digest) = try board.verify() else {
            Issue.record("refused")
            return
        }
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        let answer = try board.control.execute("query-identity", ["nonce": "0102"])
        let identity = try DeviceIdentity(uniqueDeviceSecret: secret, measurement: digest)
        #expect(answer["name"] == .string(identity.name))
        #expect(answer["measurement"] == .string(Hex.encode(digest)))
        #expect(try answer["alias-certificate"]?.stringValue == identity.aliasCertificate.pem())
        let evidence = try #require(answer["evidence"]?.stringValue.flatMap { Data(base64Encoded: $0) })
        let message = try COSESign1(decoding: [UInt8](evidence))
        #expect(try message.isValid(for: .ed25519(identity.aliasPublicKey)))
        #expect(try CBOR.decode(message.payload)[1]?.bytesValue == [1, 2])
        for nonce in ["xyz", String(repeating: "00", count: 65)] {
            #expect(throws: QMPClient.Failure.self) {
                try board.control.execute("query-identity", ["nonce": .string(nonce)])
            }
        }
    }

    @Test func `a board without a secret has no identity`() throws {
        let board = try Board(image: image, fuses: fuses)
        _ = try board.verify()
        #expect(throws: QMPClient.Failure.self) { try board.control.execute("query-identity") }
    }

    @Test func `what was measured is kept in registers, in the TCG's form and in CBOR`() throws {
        let board = try Board(image: image, fuses: fuses)
        let verdict = try board.verify()
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        let answer = try board.control.execute("query-measurements")
        let cbor = try #require(answer["cbor-log"]?.stringValue.flatMap { Data(base64Encoded: $0) })
        let log = try MeasurementLog(cbor: [UInt8](cbor))
        #expect(answer["registers"]?.arrayValue?.compactMap(\.stringValue) == log.registers.map(Hex.encode))
        for measurement in verdict.measurements { #expect(log.events.contains(measurement)) }
        #expect(log.events.first?.text.contains("verifier adapter, lock at release, boot not watched") == true)
        #expect(log.events.last?.text == "slot A runs")
        let tcg = try #require(answer["tcg-log"]?.stringValue.flatMap { Data(base64Encoded: $0) })
        #expect([UInt8](tcg) == log.tcgEventLog())
        #expect(answer["events"]?.arrayValue?.count == log.events.count)
        _ = try board.control.execute("system_reset")
        #expect(
            eventually {
                (try? board.control.execute("query-measurements"))?["events"]?.arrayValue?.count == 1
            }, "a power cycle begins a new log")
    }

    @Test func `missing fuses or no chip is one clear error`() throws {
        let folder = TemporaryFolder()
        let missing = try run(
            binary("security-logic"), ["--fuses", folder.file("f.json"), "--connect", "flash=\(folder.file("chip"))"])
        #expect(missing.status == 1)
        #expect(missing.output.contains("\(folder.file("f.json")): cannot read the fuses"), "\(missing.output)")
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("f.json")))
        let unconnected = try run(binary("security-logic"), ["--fuses", folder.file("f.json")])
        #expect(unconnected.status == 1)
        #expect(unconnected.output.contains("port 'flash' is not connected"), "\(unconnected.output)")
    }
}
