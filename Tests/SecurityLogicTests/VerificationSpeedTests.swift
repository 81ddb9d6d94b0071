import Crypto
import Foundation
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

/// How fast firmware comes through the wires. The figures are printed; the bounds are far below them, since other
/// tests run at the same time: they catch a wire that lost its pipelining or copies byte by byte.
@Suite struct VerificationSpeedTests {
    /// An image whose components are the whole chip, signed by `key`.
    private func wholeChip(_ key: P384PrivateKey) throws -> [UInt8] {
        var generator = SeededGenerator(seed: 6)
        let block = generator.bytes(64 * 1024)
        var image = try FirmwareImage.build(
            firstStage: block, opensbi: block, nextStage: block, key: key, name: "whole", securityVersion: 1)
        for start in stride(from: 0x20_0000, to: image.count, by: block.count) {
            image.replaceSubrange(start..<start + block.count, with: block)
        }
        let message = Array(image[0x1_0004..<0x1_F000])
        let length = (0..<4).reduce(0) { $0 | Int(image[0x1_0000 + $1]) << (8 * $1) }
        let old = try FirmwareManifest(decoding: COSESign1(decoding: Array(message[..<length])).payload)
        let rest = image[0x20_0000...]
        let manifest = FirmwareManifest(
            name: old.name, boardCompatibility: old.boardCompatibility, securityVersion: old.securityVersion,
            components: old.components + [
                .init(
                    name: "rest", offset: 0x20_0000, size: UInt64(rest.count),
                    digest: try HashAlgorithm.sha384.digest(of: Array(rest)), loadAddress: 0x2020_0000)
            ])
        let signed = try COSESign1(signing: manifest.encoded(), with: key).encoded()
        let region = (0..<4).map { UInt8(truncatingIfNeeded: signed.count >> (8 * $0)) } + signed
        image.replaceSubrange(0x1_0000..<0x1_0000 + region.count, with: region)
        return image
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = MonotonicTime.now
        try body()
        return Double(MonotonicTime.now.nanoseconds - start.nanoseconds) / 1e9
    }

    @Test func `a whole chip is read and verified through the logic at the speed of its wires`() throws {
        let key = try P384PrivateKey.generate()
        let image = try wholeChip(key)
        let board = try Board(image: image, fuses: Fuses(root: key.publicKey, minimumSecurityVersion: 1))
        let megabytes = Double(image.count) / 1e6

        let chip = try SerprogClient(socket: Socket.connect(to: board.folder.file("chip")))
        var count = 0
        let direct = try (0..<3).map { _ in
            try seconds { try chip.readFlash(offset: 0, count: image.count) { count += $0.byteCount } }
        }.min()!
        #expect(count == 3 * image.count)

        var verdict: FirmwareVerdict?
        #expect(try board.command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .success))
        let adapter = try board.spi("adapter")
        let gated = try (0..<3).map { _ in
            try seconds { try adapter.readFlash(offset: 0, count: image.count) { _ in } }
        }.min()!
        var reader = SerprogClient.Reader(client: adapter)
        let fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 1)
        let verified = (0..<3).map { _ in
            seconds { verdict = FirmwareVerifier.verify(&reader, fuses: fuses) }
        }.min()!
        guard case .verified = verdict else {
            Issue.record("\(String(describing: verdict))")
            return
        }
        let openssl = try (0..<3).map { _ in
            try seconds {
                let process = Process()
                process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
                process.arguments = ["dgst", "-sha384", board.folder.file("flash.img")]
                process.standardOutput = FileHandle.nullDevice
                try process.run()
                process.waitUntilExit()
            }
        }.min()!
        print(
            """
            flash read directly \(Int(megabytes / direct)) MB/s, through the logic \(Int(megabytes / gated)) MB/s; \
            verified through the logic \(Int(megabytes / verified)) MB/s, openssl dgst -sha384 \
            \(Int(megabytes / openssl)) MB/s, ratio \(Double(Int(100 * openssl / verified)) / 100)
            """)
        #expect(megabytes / direct > 50)
        #expect(openssl / verified > 0.1)
    }
}
