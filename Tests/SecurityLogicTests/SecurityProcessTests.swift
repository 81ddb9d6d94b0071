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

extension SerprogClient {
    /// An image behind the wire, as a verifier reads it: in whole pages.
    struct Reader: ImageReader {
        let client: SerprogClient
        var byteCount: UInt64 { FlashLayout.chipSize }

        mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
            let start = offset & ~0xFFF
            let end = (offset + count + 0xFFF) & ~0xFFF
            var place = start
            do throws(SerprogError) {
                try client.readFlash(offset: UInt32(start), count: Int(end - start)) { piece in
                    let from = max(place, offset)
                    let upTo = min(place + UInt64(piece.byteCount), offset + count)
                    if from < upTo { body(piece.extracting(Int(from - place)..<Int(upTo - place))) }
                    place += UInt64(piece.byteCount)
                }
            } catch {
                throw ImageReadError(error.description)
            }
        }
    }
}

/// flash and security-logic as processes; the test plays adapter, BMC and host.
final class Board {
    let folder: TemporaryFolder
    let control: QMPClient
    let adapter: SidebandLink
    let flash: ComponentProcess
    let logic: RunningProcess
    private var nextTag: UInt8 = 0

    init(image: [UInt8], fuses: Fuses) throws {
        let folder = TemporaryFolder()
        self.folder = folder
        try Data(image).write(to: URL(fileURLWithPath: folder.file("flash.img")))
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        flash = try ComponentProcess("flash", in: folder, listens: ["spi"], ["--image", folder.file("flash.img")])
        let ports = ["spi-adapter", "spi-host", "spi-bmc", "sideband-adapter", "sideband-host", "sideband-bmc"]
        logic = try RunningProcess(
            binary("security-logic"),
            [
                "--fuses", folder.file("fuses.json"), "--connect", "flash=\(folder.file("flash.spi"))", "--listen",
                "control=\(folder.file("control"))", "--die-with-parent",
            ] + ports.flatMap { ["--listen", "\($0)=\(folder.file($0))"] })
        var client: QMPClient?
        _ = eventually {
            client = try? QMPClient(path: folder.file("control"))
            return client != nil
        }
        let control = try #require(client, "\(logic.text)")
        self.control = control
        // Ready is that every port is listened on.
        #expect(
            eventually {
                (try? control.execute("query-events"))?.arrayValue?.contains { $0["event"] == "COMPONENT_READY" }
                    ?? false
            })
        adapter = SidebandLink(socket: try Socket.connect(to: folder.file("sideband-adapter"), kind: .seqpacket))
        #expect(try adapter.receive(until: .after(.seconds(10))) == .signal(.reset, level: true))
    }

    func sideband(_ name: String) throws -> SidebandLink {
        SidebandLink(socket: try Socket.connect(to: folder.file("sideband-\(name)"), kind: .seqpacket))
    }

    func spi(_ name: String) throws -> SerprogClient {
        try SerprogClient(socket: Socket.connect(to: folder.file("spi-\(name)")))
    }

    /// Sends a raw vendor-defined body on `link`; the body of the answer.
    func exchange(_ body: [UInt8], on link: SidebandLink? = nil) throws -> [UInt8] {
        let link = link ?? adapter
        nextTag = (nextTag + 1) & 7
        try link.send(
            MCTPMessage(destination: .securityLogic, source: .adapter, isTagOwner: true, tag: nextTag, body: body))
        var assembler = MCTPAssembler(address: .adapter)
        while true {
            guard let message = try link.receive(until: .after(.seconds(10))) else { return [] }
            guard case .mctp(let packet) = message, let whole = assembler.receive(packet) else { continue }
            #expect(whole.tag == nextTag && !whole.isTagOwner)
            return whole.body
        }
    }

    func command(_ request: SecurityRequest) throws -> SecurityResponse {
        try #require(SecurityResponse(decoding: exchange(request.encoded)))
    }

    /// The adapter's procedure, by the library's own verifier, through the logic.
    func verify() throws -> FirmwareVerdict {
        #expect(try command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .success))
        #expect(try command(.holdReset) == .status(.holdReset, .success))
        guard case .fuses(let digest, let minimum) = try command(.readFuses) else {
            Issue.record("no fuses")
            throw CancellationError()
        }
        var reader = SerprogClient.Reader(client: try spi("adapter"))
        let verdict = FirmwareVerifier.verify(
            &reader, fuses: Fuses(rootKeyDigest: digest, minimumSecurityVersion: minimum))
        let report: SecurityRequest =
            switch verdict {
            case .verified(let manifest, let digest):
                .reportVerification(
                    .init(
                        isVerified: true, digest: digest, securityVersion: manifest.securityVersion,
                        reason: verdict.reportText))
            case .refused:
                .reportVerification(
                    .init(
                        isVerified: false, digest: [UInt8](repeating: 0, count: 48), securityVersion: 0,
                        reason: verdict.reportText))
            }
        #expect(try command(report) == .status(report, .success))
        return verdict
    }
}

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
        #expect(try board.command(.queryState) == .state(.held))

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
        #expect(try board.command(.queryState) == .state(.locked))

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
        let refused = try board.control.waitForEvent("FIRMWARE_REFUSED", until: deadline())
        #expect(refused.data["image"] == "server")
        let failed = try board.control.waitForEvent("BOARD_FAILED", until: deadline())
        #expect(failed.data["image"] == "server")
        #expect(failed.data["reason"] == "component OpenSBI: digest mismatch")
        #expect(try board.command(.queryState) == .state(.failed))
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
        #expect(try board.command(.queryState) == .state(.held))
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
        #expect(try board.command(.queryState) == .state(.held))
    }

    @Test(
        arguments: [
            ([0x7E, 0x1B, 0x36], 0, SecurityStatus.invalidCommand),
            ([0x7E, 0x1B, 0x36, 0x09], 9, .invalidCommand), ([0x7E, 0x1B, 0x37, 0x05], 5, .invalidCommand),
            ([0x7E, 0x1B, 0x36, 0x05, 1], 5, .invalidLength), ([0x7E, 0x1B, 0x36, 0x02], 2, .invalidLength),
            ([0x7E, 0x1B, 0x36, 0x02, 2], 2, .invalidData), ([0x7E, 0x1B, 0x36, 0x04, 1], 4, .invalidLength),
            ([0x7E, 0x1B, 0x36, 0x04, 2] + [UInt8](repeating: 0, count: 53), 4, .invalidData),
        ] as [([UInt8], UInt8, SecurityStatus)])
    func `a malformed command is answered with its status`(body: [UInt8], command: UInt8, status: SecurityStatus) throws
    {
        let board = try Board(image: image, fuses: fuses)
        #expect(try board.exchange(body) == [0x7E, 0x1B, 0x36, command, status.rawValue])
        #expect(try board.command(.queryState) == .state(.held))
    }

    @Test func `datagrams that are no messages are ignored`() throws {
        let board = try Board(image: image, fuses: fuses)
        for bytes in [[9], [1, 0], [1, 0, 2], [2], [2, 9, 9, 9, 9, 9]] as [[UInt8]] {
            try board.adapter.socket.send(bytes)
        }
        var generator = SeededGenerator.fresh()
        for _ in 0..<200 { try board.adapter.socket.send(generator.bytes(Int.random(in: 1...80, using: &generator))) }
        #expect(try board.command(.queryState) == .state(.held), "seed \(generator.seed)")
    }

    @Test func `a second adapter is turned away`() throws {
        let board = try Board(image: image, fuses: fuses)
        let second = try board.sideband("adapter")
        #expect(try second.receive(until: deadline()) == nil)
        #expect(try board.command(.queryState) == .state(.held))
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
