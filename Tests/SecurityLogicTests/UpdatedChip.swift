import Crypto
import SPINOR
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

/// A chip without wires: 32 MiB, slots of 8 MiB, slot A with an image.
final class UpdatedChip {
    struct Medium: SlotMedium {
        let chip: UpdatedChip
        var byteCount: UInt64 { FlashLayout.chipSize }

        mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
            let bytes = chip.transact(
                [SPIFlash.fastRead4Byte] + SPIFlash.addressBytes(UInt32(offset)) + [0], Int(count))
            body(bytes.span.bytes)
        }

        mutating func erase(block address: UInt64) throws(ImageReadError) {
            try chip.write([SPIFlash.blockErase64K4Byte] + SPIFlash.addressBytes(UInt32(address)))
        }

        mutating func program(_ address: UInt64, _ bytes: ArraySlice<UInt8>) throws(ImageReadError) {
            try chip.write([SPIFlash.pageProgram4Byte] + SPIFlash.addressBytes(UInt32(address)) + bytes)
        }
    }

    static let layout = ChipLayout.server
    let content = FlashContent(erased: Int(FlashLayout.chipSize))
    var chip: SPINORChip
    let key: P384PrivateKey
    let fuses: Fuses
    let old: [UInt8]

    init(seed: UInt64 = 0) throws {
        chip = SPINORChip(content: content, seed: seed)
        key = try P384PrivateKey.generate()
        fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 2)
        old = try Self.image(key, "old", 2)
        place(old, .a)
    }

    static func image(_ key: P384PrivateKey, _ name: String, _ version: UInt32) throws -> [UInt8] {
        let part = { (count: Int) in (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ Int(version)) } }
        return try FirmwareImage.build(
            firstStage: part(900), opensbi: part(2100), nextStage: part(1500), key: key, name: name,
            securityVersion: version)
    }

    /// As a programmer would have written it.
    func place(_ image: [UInt8], _ slot: FirmwareSlot) {
        let base = Self.layout.base(of: slot)
        for block in stride(from: 0, to: image.count, by: 256)
        where image[block...].prefix(256).contains(where: { $0 != 0xFF }) {
            var medium = Medium(chip: self)
            try? medium.program(base + UInt64(block), image[block..<min(block + 256, image.count)])
        }
    }

    func transact(_ write: [UInt8], _ readCount: Int = 0) -> [UInt8] {
        var response = [UInt8](repeating: 0, count: readCount)
        chip.transact(write, readCount: readCount, into: &response)
        return response
    }

    func write(_ instruction: [UInt8]) throws(ImageReadError) {
        _ = transact([SPIFlash.writeEnable])
        _ = transact(instruction)
        guard chip.isPowered else { throw ImageReadError("no flash chip answers") }
    }

    /// Programs and erases since power-on.
    var writes: UInt64 { chip.counters.programs + chip.counters.erases }

    /// The name of the image that a slot would boot; nil when it is refused.
    func bootable(_ slot: FirmwareSlot) -> String? {
        var reader = SlotReader(Medium(chip: self), layout: Self.layout, slot: slot)
        guard case .verified(let manifest, _) = FirmwareVerifier.verify(&reader, fuses: fuses) else { return nil }
        return manifest.name
    }

    /// All commands of an update of `image`; what the first refusal said, or nil.
    func update(
        _ image: [UInt8], with update: inout FirmwareUpdate, inactive: FirmwareSlot? = .b, fuses: Fuses? = nil
    ) -> (UpdateRequest, SecurityStatus, String)? {
        var medium = Medium(chip: self)
        let start = Int(FlashLayout.manifest.offset)
        let length = (0..<4).reduce(0) { $0 | Int(image[start + $1]) << (8 * $1) }
        let message = image[start + 4..<start + 4 + length]
        var requests: [UpdateRequest] = [.begin(size: UInt32(image.count), manifestSize: UInt32(length))]
        for offset in stride(from: 0, to: length, by: 700) {
            requests.append(
                .manifest(
                    offset: UInt32(offset),
                    data: Array(message[start + 4 + offset..<min(start + 4 + offset + 700, message.endIndex)])))
        }
        for offset in stride(from: 0, to: image.count, by: 2000) {
            requests.append(
                .data(offset: UInt32(offset), data: Array(image[offset..<min(offset + 2000, image.count)])))
        }
        for request in requests + [.finish] {
            let response = update.handle(request, inactive: inactive, fuses: fuses ?? self.fuses, medium: &medium)
            if case .refused(_, let status, let reason) = response { return (request, status, reason) }
        }
        return nil
    }
}
