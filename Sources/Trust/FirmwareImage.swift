public import Crypto

/// Why an image cannot be built.
public enum FirmwareImageError: Error, Equatable, Sendable, CustomStringConvertible {
    case empty(String)
    case tooLarge(String, size: Int, limit: UInt64)
    case badName(String)
    case crypto(CryptoError)

    public var description: String {
        switch self {
        case .empty(let what): "the \(what) is empty"
        case .tooLarge(let what, let size, let limit):
            "the \(what) has \(size) bytes, its place in the flash holds \(limit)"
        case .badName(let name):
            "the image name \"\(name)\" must have 1 to \(FirmwareManifest.maximumNameLength) bytes"
                + " and no control characters"
        case .crypto(let error): error.description
        }
    }
}

/// The builder of flash images.
public enum FirmwareImage {
    /// What erased flash reads as.
    public static let erasedByte: UInt8 = 0xFF

    /// A whole chip's content: the parts in their places, the signed manifest, the rest erased.
    ///
    /// - Parameters:
    ///   - key: the root's private key; its COSE_Key's digest must be in the fuses of the boards that shall accept it.
    public static func build(
        firstStage: [UInt8], opensbi: [UInt8], nextStage: [UInt8], key: P384PrivateKey, name: String,
        securityVersion: UInt32, boardCompatibility: String = FlashLayout.boardCompatibility
    ) throws(FirmwareImageError) -> [UInt8] {
        let directory = FirmwareDirectory(entries: [
            .init(
                offset: FlashLayout.openSBI.offset, size: UInt64(opensbi.count),
                loadAddress: FlashLayout.openSBILoadAddress, kind: .openSBI),
            .init(
                offset: FlashLayout.nextStage.offset, size: UInt64(nextStage.count),
                loadAddress: FlashLayout.nextStageLoadAddress, kind: .nextStage),
        ])
        let parts: [(region: FlashLayout.Region, bytes: [UInt8], loadAddress: UInt64)] = [
            (FlashLayout.firstStage, firstStage, FlashLayout.hostWindow + FlashLayout.firstStage.offset),
            (FlashLayout.directory, directory.encoded(), FlashLayout.hostWindow + FlashLayout.directory.offset),
            (FlashLayout.openSBI, opensbi, FlashLayout.openSBILoadAddress),
            (FlashLayout.nextStage, nextStage, FlashLayout.nextStageLoadAddress),
        ]
        var image = [UInt8](repeating: erasedByte, count: Int(FlashLayout.chipSize))
        var components: [FirmwareManifest.Component] = []
        for part in parts {
            guard !part.bytes.isEmpty else { throw .empty(part.region.name) }
            guard UInt64(part.bytes.count) <= part.region.size else {
                throw .tooLarge(part.region.name, size: part.bytes.count, limit: part.region.size)
            }
            place(part.bytes, at: part.region.offset, in: &image)
            components.append(
                .init(
                    name: part.region.name, offset: part.region.offset, size: UInt64(part.bytes.count),
                    digest: try digest(part.bytes), loadAddress: part.loadAddress))
        }
        let payload = FirmwareManifest(
            name: name, boardCompatibility: boardCompatibility, securityVersion: securityVersion,
            components: components
        ).encoded()
        // The decoder's rules hold for what we make, so that no image is built that no board accepts.
        guard (try? FirmwareManifest(decoding: payload)) != nil else { throw .badName(name) }
        let message: [UInt8]
        do throws(CryptoError) {
            message = try COSESign1(signing: payload, with: key).encoded()
        } catch {
            throw .crypto(error)
        }
        let region = LittleEndian.bytes(UInt32(message.count)) + message
        guard UInt64(region.count) <= FlashLayout.manifest.size else {
            throw .tooLarge("manifest", size: region.count, limit: FlashLayout.manifest.size)
        }
        place(region, at: FlashLayout.manifest.offset, in: &image)
        return image
    }

    private static func place(_ bytes: [UInt8], at offset: UInt64, in image: inout [UInt8]) {
        image.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
    }

    private static func digest(_ bytes: [UInt8]) throws(FirmwareImageError) -> [UInt8] {
        do throws(CryptoError) {
            return try HashAlgorithm.sha384.digest(of: bytes)
        } catch {
            throw .crypto(error)
        }
    }
}
