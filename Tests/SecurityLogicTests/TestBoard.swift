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
            var pages = WholePages(around: offset, count: count)
            do throws(SerprogError) {
                try client.readFlash(offset: UInt32(pages.start), count: Int(pages.end - pages.start)) { piece in
                    pages.take(piece, body)
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

    /// - Parameters:
    ///   - arguments: of the security logic.
    ///   - chip: where the logic finds the chip, instead of the flash process.
    ///   - cards: those that are linked, by sideband and flash port.
    init(
        image: [UInt8], fuses: Fuses, _ arguments: [String] = [], chip: String? = nil, cards: [String] = [],
        folder: TemporaryFolder = TemporaryFolder()
    ) throws {
        self.folder = folder
        try Data(image).write(to: URL(fileURLWithPath: folder.file("flash.img")))
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        flash = try ComponentProcess(
            "flash", in: folder, listens: ["spi"], ["--image", folder.file("flash.img"), "--writable"])
        let ports =
            [
                "spi-adapter", "spi-host", "spi-bmc", "spi-external", "sideband-adapter", "sideband-host",
                "sideband-bmc",
            ] + cards.flatMap { ["spi-\($0)", "sideband-\($0)"] }
        logic = try RunningProcess(
            binary("security-logic"),
            [
                "--fuses", folder.file("fuses.json"), "--connect", "flash=\(chip ?? folder.file("flash.spi"))",
                "--listen",
                "control=\(folder.file("control"))", "--die-with-parent",
            ] + ports.flatMap { ["--listen", "\($0)=\(folder.file($0))"] } + arguments)
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

    /// The adapter's procedure up to the verdict of one slot: the verdict, and the slot that the logic asked for.
    func look() throws -> (FirmwareVerdict, FirmwareSlot) {
        #expect(try command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .success))
        #expect(try command(.holdReset) == .status(.holdReset, .success))
        guard case .fuses(let values) = try command(.readFuses), case .slot(let number) = try command(.nextSlot),
            let slot = FirmwareSlot(rawValue: number)
        else {
            Issue.record("no fuses or no slot")
            throw CancellationError()
        }
        var reader = SlotReader(SerprogClient.Reader(client: try spi("adapter")), layout: .server, slot: slot)
        let verdict = FirmwareVerifier.verify(
            &reader,
            fuses: Fuses(
                rootKeyDigest: values.rootKeyDigest, minimumSecurityVersion: values.minimumSecurityVersion,
                boardCompatibility: values.board))
        return (verdict, slot)
    }

    func report(_ verdict: FirmwareVerdict, _ slot: FirmwareSlot) throws {
        for measurement in verdict.measurements {
            let request = SecurityRequest.extend(
                .init(
                    register: measurement.register, type: measurement.type.rawValue, digest: measurement.digest,
                    text: measurement.text))
            #expect(try command(request) == .status(request, .success))
        }
        let report: SecurityRequest =
            switch verdict {
            case .verified(let manifest, let digest):
                .reportVerification(
                    .init(
                        slot: slot.rawValue, isVerified: true, digest: digest,
                        securityVersion: manifest.securityVersion, reason: verdict.reportText))
            case .refused:
                .reportVerification(
                    .init(
                        slot: slot.rawValue, isVerified: false, digest: [UInt8](repeating: 0, count: 48),
                        securityVersion: 0, reason: verdict.reportText))
            }
        #expect(try command(report) == .status(report, .success))
    }

    /// The adapter's procedure for one slot, by the library's own verifier, through the logic.
    func verify() throws -> FirmwareVerdict {
        let (verdict, slot) = try look()
        try report(verdict, slot)
        return verdict
    }

    /// The names of the logic's events so far.
    func events() throws -> [String] {
        try control.execute("query-events").arrayValue?.compactMap { $0["event"]?.stringValue } ?? []
    }

    /// MCTP packets between host and BMC that were `forwarded` or `dropped`.
    func sidebandCounter(_ name: String) -> Int64? {
        (try? control.execute("query-security-state"))?["sideband"]?[name]?.integerValue
    }
}
