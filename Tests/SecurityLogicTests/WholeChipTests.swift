import Crypto
import Foundation
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

/// All 32 MiB of a chip through the wires.
@Suite struct WholeChipTests {
    /// An image whose components are the whole chip, signed by `key`.
    private func wholeChip(_ key: P384PrivateKey) throws -> [UInt8] {
        var generator = SeededGenerator(seed: 6)
        let block = generator.bytes(64 * 1024)
        var image = try FirmwareImage.chip(
            a: FirmwareImage.build(
                firstStage: block, opensbi: block, nextStage: block, key: key, name: "whole", securityVersion: 1))
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

    @Test func `a whole chip is read and verified through the logic`() throws {
        let key = try P384PrivateKey.generate()
        let image = try wholeChip(key)
        let board = try Board(image: image, fuses: Fuses(root: key.publicKey, minimumSecurityVersion: 1))
        #expect(try board.command(.setMode(.unprotected)) == .status(.setMode(.unprotected), .success))
        let adapter = try board.spi("adapter")
        var count = 0
        try adapter.readFlash(offset: 0, count: image.count) { count += $0.byteCount }
        #expect(count == image.count)
        var reader = SerprogClient.Reader(client: adapter)
        let fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 1)
        guard case .verified = FirmwareVerifier.verify(&reader, fuses: fuses) else {
            Issue.record("a chip signed by its own key was refused")
            return
        }
    }
}
