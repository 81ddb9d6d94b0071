public import Crypto

/// Why an image cannot be built.
public enum FirmwareImageError: Error, Equatable, Sendable, CustomStringConvertible {
    case empty(String)
    case tooLarge(String, size: Int, limit: UInt64)
    case badName(String)
    case badRollbackFloor(UInt32, securityVersion: UInt32)
    /// What is to be signed again holds no manifest that can be read.
    case noManifest(String)
    /// The certificate is for another key than the one that signs.
    case certificateOfAnotherKey
    case certificateForAnotherBoard(found: String, image: String)
    case certificateForNewerImages(minimum: UInt32, image: UInt32)
    case chip(ChipLayoutError)
    case slotTooLarge(FirmwareSlot, size: Int, limit: UInt64)
    case crypto(CryptoError)

    public var description: String {
        switch self {
        case .empty(let what): "the \(what) is empty"
        case .tooLarge(let what, let size, let limit):
            "the \(what) has \(size) bytes, its place in the flash holds \(limit)"
        case .badName(let name):
            "the image name \"\(name)\" must have 1 to \(FirmwareManifest.maximumNameLength) bytes"
                + " and no control characters"
        case .badRollbackFloor(let floor, let version):
            "the rollback floor \(floor) is above the image's own security version \(version):"
                + " a board that booted it would refuse it the next time"
        case .noManifest(let why): "there is no manifest to sign: \(why)"
        case .certificateOfAnotherKey: "the certificate is for another key than the one that is to sign"
        case .certificateForAnotherBoard(let found, let image):
            "the certificate is for \(found), the image for \(image)"
        case .certificateForNewerImages(let minimum, let image):
            "the certificate's key may sign security version \(minimum) and above, the image has \(image)"
        case .chip(let error): error.description
        case .slotTooLarge(let slot, let size, let limit):
            "the image for slot \(slot) has \(size) bytes, a slot holds \(limit)"
        case .crypto(let error): error.description
        }
    }
}

/// What an image is made of; all but the host's parts may be missing.
public struct FirmwareParts: Sendable {
    public var firstStage: [UInt8]
    public var opensbi: [UInt8]
    public var nextStage: [UInt8]
    public var bmc: [UInt8]?
    public var adapter: [UInt8]?
    public var offload: [UInt8]?

    public init(
        firstStage: [UInt8], opensbi: [UInt8], nextStage: [UInt8], bmc: [UInt8]? = nil, adapter: [UInt8]? = nil,
        offload: [UInt8]? = nil
    ) {
        self.firstStage = firstStage
        self.opensbi = opensbi
        self.nextStage = nextStage
        self.bmc = bmc
        self.adapter = adapter
        self.offload = offload
    }
}

/// The builder of firmware images and of chips' contents.
public enum FirmwareImage {
    /// What erased flash reads as.
    public static let erasedByte: UInt8 = 0xFF

    /// A slot's content up to its last part, signed.
    ///
    /// - Parameters:
    ///   - key: the signer's private key. Without a certificate it is the root itself.
    ///   - rollbackFloor: what boards raise their least security version to once the image has booted.
    public static func build(
        firstStage: [UInt8], opensbi: [UInt8], nextStage: [UInt8], bmc: [UInt8]? = nil, adapter: [UInt8]? = nil,
        offload: [UInt8]? = nil, key: any SigningKey, certificate: SignerCertificate? = nil, name: String,
        securityVersion: UInt32, rollbackFloor: UInt32 = 0,
        boardCompatibility: String = FlashLayout.boardCompatibility
    ) throws(FirmwareImageError) -> [UInt8] {
        var image = try unsigned(
            FirmwareParts(
                firstStage: firstStage, opensbi: opensbi, nextStage: nextStage, bmc: bmc, adapter: adapter,
                offload: offload),
            name: name, securityVersion: securityVersion, rollbackFloor: rollbackFloor,
            boardCompatibility: boardCompatibility)
        try sign(&image, key: key, certificate: certificate)
        return image
    }

    /// A slot's content with the bare manifest where the signed message will be: no board accepts it.
    public static func unsigned(
        _ parts: FirmwareParts, name: String, securityVersion: UInt32, rollbackFloor: UInt32 = 0,
        boardCompatibility: String = FlashLayout.boardCompatibility
    ) throws(FirmwareImageError) -> [UInt8] {
        guard rollbackFloor <= securityVersion else {
            throw .badRollbackFloor(rollbackFloor, securityVersion: securityVersion)
        }
        let placed = placedParts(parts)
        var end: UInt64 = 0
        for part in placed {
            guard !part.bytes.isEmpty else { throw .empty(part.region.name) }
            guard UInt64(part.bytes.count) <= part.region.size else {
                throw .tooLarge(part.region.name, size: part.bytes.count, limit: part.region.size)
            }
            end = max(end, part.region.offset + UInt64(part.bytes.count))
        }
        var image = [UInt8](repeating: erasedByte, count: Int(end))
        var components: [FirmwareManifest.Component] = []
        for part in placed {
            place(part.bytes, at: part.region.offset, in: &image)
            components.append(
                .init(
                    name: part.region.name, offset: part.region.offset, size: UInt64(part.bytes.count),
                    digest: try digest(part.bytes), loadAddress: part.loadAddress, target: part.target))
        }
        let payload = FirmwareManifest(
            name: name, boardCompatibility: boardCompatibility, securityVersion: securityVersion,
            rollbackFloor: rollbackFloor, components: components
        ).encoded()
        // The decoder's rules hold for what we make, so that no image is built that no board accepts.
        guard (try? FirmwareManifest(decoding: payload)) != nil else { throw .badName(name) }
        try placeMessage(payload, in: &image)
        return image
    }

    /// Signs an image's manifest, whether it was signed before or not.
    public static func sign(
        _ image: inout [UInt8], key: any SigningKey, certificate: SignerCertificate? = nil
    ) throws(FirmwareImageError) {
        let payload: [UInt8]
        let manifest: FirmwareManifest
        do throws(FirmwareRefusal) {
            var reader = ByteArrayReader(image)
            (manifest, payload) = try FirmwareVerifier.bareManifest(&reader)
        } catch {
            throw .noManifest(error.description)
        }
        if let certificate {
            guard certificate.signerKey.publicKey == key.verifyingKey else { throw .certificateOfAnotherKey }
            guard certificate.boardCompatibility == manifest.boardCompatibility else {
                throw .certificateForAnotherBoard(
                    found: certificate.boardCompatibility, image: manifest.boardCompatibility)
            }
            guard certificate.minimumSecurityVersion <= manifest.securityVersion else {
                throw .certificateForNewerImages(
                    minimum: certificate.minimumSecurityVersion, image: manifest.securityVersion)
            }
        }
        let message: [UInt8]
        do throws(CryptoError) {
            message = try COSESign1(signing: payload, with: key, certificate: certificate).encoded()
        } catch {
            throw .crypto(error)
        }
        try placeMessage(message, in: &image)
    }

    /// A whole chip's content: images in their slots, the rest erased.
    public static func chip(
        a: [UInt8]? = nil, b: [UInt8]? = nil, golden: [UInt8]? = nil, layout: ChipLayout = .server
    ) throws(FirmwareImageError) -> [UInt8] {
        var chip = [UInt8](repeating: erasedByte, count: Int(layout.chipSize))
        for (slot, image) in [(FirmwareSlot.a, a), (.b, b), (.golden, golden)] {
            guard let image else { continue }
            guard UInt64(image.count) <= layout.slotSize else {
                throw .slotTooLarge(slot, size: image.count, limit: layout.slotSize)
            }
            place(image, at: layout.base(of: slot), in: &chip)
        }
        return chip
    }

    // MARK: Places

    private struct PlacedPart {
        let region: FlashLayout.Region
        let bytes: [UInt8]
        let loadAddress: UInt64
        var target = FirmwareManifest.Target.host
    }

    private static func placedParts(_ parts: FirmwareParts) -> [PlacedPart] {
        let directory = FirmwareDirectory(entries: [
            .init(
                offset: FlashLayout.openSBI.offset, size: UInt64(parts.opensbi.count),
                loadAddress: FlashLayout.openSBILoadAddress, kind: .openSBI),
            .init(
                offset: FlashLayout.nextStage.offset, size: UInt64(parts.nextStage.count),
                loadAddress: FlashLayout.nextStageLoadAddress, kind: .nextStage),
        ])
        let window = FlashLayout.hostWindow
        var placed = [
            PlacedPart(
                region: FlashLayout.firstStage, bytes: parts.firstStage,
                loadAddress: window + FlashLayout.firstStage.offset),
            PlacedPart(
                region: FlashLayout.directory, bytes: directory.encoded(),
                loadAddress: window + FlashLayout.directory.offset),
            PlacedPart(
                region: FlashLayout.openSBI, bytes: parts.opensbi, loadAddress: FlashLayout.openSBILoadAddress),
            PlacedPart(
                region: FlashLayout.nextStage, bytes: parts.nextStage, loadAddress: FlashLayout.nextStageLoadAddress),
        ]
        let others: [(FlashLayout.Region, [UInt8]?, FirmwareManifest.Target)] = [
            (FlashLayout.bmc, parts.bmc, .bmc), (FlashLayout.adapter, parts.adapter, .adapter),
            (FlashLayout.offload, parts.offload, .offload),
        ]
        for (region, bytes, target) in others {
            if let bytes { placed.append(PlacedPart(region: region, bytes: bytes, loadAddress: 0, target: target)) }
        }
        return placed
    }

    private static func placeMessage(_ message: [UInt8], in image: inout [UInt8]) throws(FirmwareImageError) {
        let region = FlashLayout.manifest
        guard UInt64(message.count) + 4 <= region.size else {
            throw .tooLarge("manifest", size: message.count + 4, limit: region.size)
        }
        guard UInt64(image.count) >= region.end else {
            throw .noManifest("the image ends at byte \(image.count), before its manifest does")
        }
        place([UInt8](repeating: erasedByte, count: Int(region.size)), at: region.offset, in: &image)
        place(LittleEndian.bytes(UInt32(message.count)) + message, at: region.offset, in: &image)
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
