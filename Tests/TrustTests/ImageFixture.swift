import Crypto
import Trust

/// An image that verifies, and the parts to spoil it with.
struct ImageFixture {
    let key: P384PrivateKey
    let fuses: Fuses
    let firstStage = [UInt8](repeating: 0x13, count: 4000)
    let opensbi = (0..<270_000).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8) }
    let nextStage = (0..<120_001).map { UInt8(truncatingIfNeeded: $0 &* 7) }

    init() throws {
        key = try P384PrivateKey.generate()
        fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 3)
    }

    func image(securityVersion: UInt32 = 3, board: String = FlashLayout.boardCompatibility) throws -> [UInt8] {
        try FirmwareImage.build(
            firstStage: firstStage, opensbi: opensbi, nextStage: nextStage, key: key, name: "test image",
            securityVersion: securityVersion, boardCompatibility: board)
    }

    /// `image` with another manifest, signed by this fixture's key.
    func resigned(_ image: [UInt8], payload: [UInt8]) throws -> [UInt8] {
        try replacing(image, message: COSESign1(signing: payload, with: key).encoded())
    }

    /// `image` with other bytes in the place of the message.
    func replacing(_ image: [UInt8], message: [UInt8], length: UInt32? = nil) -> [UInt8] {
        var image = image
        let start = Int(FlashLayout.manifest.offset)
        let length = length ?? UInt32(message.count)
        let region = (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + message
        image.replaceSubrange(start..<start + region.count, with: region)
        return image
    }

    func verdict(_ image: [UInt8], fuses: Fuses? = nil) -> FirmwareVerdict {
        var reader = ByteArrayReader(image)
        return FirmwareVerifier.verify(&reader, fuses: fuses ?? self.fuses)
    }

    func refusal(_ image: [UInt8], fuses: Fuses? = nil) -> FirmwareRefusal? {
        if case .refused(let refusal, _) = verdict(image, fuses: fuses) { refusal } else { nil }
    }

    static func message(in image: [UInt8]) -> [UInt8] {
        let start = Int(FlashLayout.manifest.offset)
        let length = (0..<4).reduce(0) { $0 | Int(image[start + $1]) << (8 * $1) }
        return Array(image[start + 4..<start + 4 + length])
    }
}
