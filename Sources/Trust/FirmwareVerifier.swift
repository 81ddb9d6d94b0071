import Crypto

/// Why an image may not run. Each says precisely what was looked at; `description` is what a person reads.
public enum FirmwareRefusal: Error, Equatable, Sendable, CustomStringConvertible {
    /// The medium could not be read; says nothing about the image.
    case unreadable(String)
    /// The image ends before the manifest, or before what the manifest says it has.
    case truncated(size: UInt64, needed: UInt64)
    /// The manifest region is erased or holds an impossible length.
    case noManifest
    /// The message or a part of it is not the CBOR that it must be.
    case badCBOR(CBORError)
    /// COSE or the manifest has another form.
    case malformed(String)
    /// Not signed with ES384.
    case unknownAlgorithm(Int64?)
    /// Signed by another key than the one whose digest the fuses hold.
    case keyMismatch(found: [UInt8])
    case invalidSignature
    case wrongBoard(found: String, expected: String)
    case securityVersionTooLow(found: UInt32, minimum: UInt32)
    case componentOutOfRange(String)
    /// Two components, or a component and the manifest, share bytes.
    case overlappingComponents(String, String)
    /// No component holds the byte that the host executes first.
    case noFirstStage
    case digestMismatch(String)
    /// OpenSSL failed.
    case cryptoFailure(String)

    public var description: String {
        switch self {
        case .unreadable(let why): "the image cannot be read: \(why)"
        case .truncated(let size, let needed): "truncated image: \(size) bytes, needs at least \(needed)"
        case .noManifest: "no manifest"
        case .badCBOR(let error): "bad CBOR in the manifest: \(error)"
        case .malformed(let what): "malformed manifest: \(what)"
        case .unknownAlgorithm(let algorithm): COSEError.unsupportedAlgorithm(algorithm).description
        case .keyMismatch(let found):
            "key digest does not match the fuses: signed by \(Hex.encode(found.prefix(8)))…"
        case .invalidSignature: "signature invalid"
        case .wrongBoard(let found, let expected): "wrong board: image is for \(found), this is \(expected)"
        case .securityVersionTooLow(let found, let minimum):
            "security version \(found) is below the minimum \(minimum)"
        case .componentOutOfRange(let name): "component \(name) lies outside the image"
        case .overlappingComponents(let first, let second): "components \(first) and \(second) overlap"
        case .noFirstStage: "no component covers the first instruction"
        case .digestMismatch(let name): "component \(name): digest mismatch"
        case .cryptoFailure(let why): why
        }
    }
}

/// A verification's outcome.
public enum FirmwareVerdict: Equatable, Sendable {
    /// Every check passed. `digest` is the SHA-384 of the manifest, which binds every component's digest.
    case verified(FirmwareManifest, digest: [UInt8])
    /// The image's name when a manifest could be read, though nothing in it is to be trusted.
    case refused(FirmwareRefusal, imageName: String?)
}

/// The check that stands between an image and the host's first instruction.
///
/// The order is the point: the manifest is read once and kept; the key is compared with the fuses before anything it
/// signed is believed; components are hashed last.
public enum FirmwareVerifier {
    /// Verifies the image that `reader` holds. No state, no effects but reading.
    ///
    /// - Parameter progress: called with each component's name before it is hashed.
    public static func verify<Reader: ImageReader>(
        _ reader: inout Reader, fuses: Fuses, progress: (String) -> Void = { _ in }
    ) -> FirmwareVerdict {
        var imageName: String?
        do throws(FirmwareRefusal) {
            let (manifest, payload) = try signedManifest(&reader, fuses: fuses, imageName: &imageName)
            try check(manifest, imageSize: reader.byteCount, messageEnd: payload.end)
            for component in manifest.components {
                progress(component.name)
                guard try digest(of: component, &reader) == component.digest else {
                    throw .digestMismatch(component.name)
                }
            }
            return .verified(manifest, digest: payload.digest)
        } catch {
            return .refused(error, imageName: imageName)
        }
    }

    /// Reads the manifest without asking who signed it: for people who look into an image.
    public static func inspect<Reader: ImageReader>(_ reader: inout Reader) throws(FirmwareRefusal) -> Inspection {
        let (message, _) = try message(&reader)
        let signer = try signer(message)
        return Inspection(
            manifest: try manifest(message.payload), signer: signer,
            signerDigest: try crypto { () throws(CryptoError) in try signer.digest() },
            signatureIsValid: try crypto { () throws(CryptoError) in try message.isValid(for: signer.publicKey) })
    }

    /// What `inspect` found.
    public struct Inspection: Sendable {
        public let manifest: FirmwareManifest
        public let signer: COSEKey
        public let signerDigest: [UInt8]
        /// Whether the key that the image itself carries made the signature: says nothing about whose key it is.
        public let signatureIsValid: Bool
    }

    // MARK: Steps

    private struct SignedPayload {
        let digest: [UInt8]
        /// Where the message ends in the image.
        let end: UInt64
    }

    private static func signedManifest<Reader: ImageReader>(
        _ reader: inout Reader, fuses: Fuses, imageName: inout String?
    ) throws(FirmwareRefusal) -> (FirmwareManifest, SignedPayload) {
        let (message, end) = try message(&reader)
        imageName = (try? FirmwareManifest(decoding: message.payload))?.name
        let signer = try signer(message)
        let keyDigest = try crypto { () throws(CryptoError) in try signer.digest() }
        guard message.unprotectedHeader[COSESign1.Header.keyIdentifier]?.bytesValue == keyDigest else {
            throw .malformed("the key identifier is not the digest of the key beside it")
        }
        guard keyDigest == fuses.rootKeyDigest else { throw .keyMismatch(found: keyDigest) }
        guard try crypto({ () throws(CryptoError) in try message.isValid(for: signer.publicKey) }) else {
            throw .invalidSignature
        }
        let manifest = try manifest(message.payload)
        guard manifest.boardCompatibility == fuses.boardCompatibility else {
            throw .wrongBoard(found: manifest.boardCompatibility, expected: fuses.boardCompatibility)
        }
        guard manifest.securityVersion >= fuses.minimumSecurityVersion else {
            throw .securityVersionTooLow(
                found: manifest.securityVersion, minimum: fuses.minimumSecurityVersion)
        }
        let digest = try crypto { () throws(CryptoError) in try HashAlgorithm.sha384.digest(of: message.payload) }
        return (manifest, SignedPayload(digest: digest, end: end))
    }

    private static func message<Reader: ImageReader>(
        _ reader: inout Reader
    ) throws(FirmwareRefusal) -> (COSESign1, end: UInt64) {
        let region = FlashLayout.manifest
        let start = region.offset + 4
        guard reader.byteCount >= start else { throw .truncated(size: reader.byteCount, needed: start) }
        let length = LittleEndian.uint32(try read(&reader, region.offset, 4), at: 0)
        guard length != 0, length != .max else { throw .noManifest }
        guard UInt64(length) <= region.size - 4 else { throw .noManifest }
        let end = start + UInt64(length)
        guard reader.byteCount >= end else { throw .truncated(size: reader.byteCount, needed: end) }
        let bytes = try read(&reader, start, Int(length))
        do throws(COSEError) {
            return (try COSESign1(decoding: bytes), end)
        } catch {
            throw refusal(error)
        }
    }

    private static func signer(_ message: COSESign1) throws(FirmwareRefusal) -> COSEKey {
        guard let item = message.unprotectedHeader[COSESign1.Header.signerKey] else {
            throw .malformed("the signer's key is missing")
        }
        do throws(COSEError) {
            return try COSEKey(item)
        } catch {
            throw refusal(error)
        }
    }

    private static func manifest(_ payload: [UInt8]) throws(FirmwareRefusal) -> FirmwareManifest {
        do throws(FirmwareManifestError) {
            return try FirmwareManifest(decoding: payload)
        } catch {
            if case .cbor(let error) = error { throw .badCBOR(error) }
            throw .malformed(error.description)
        }
    }

    /// Ranges: inside the image, apart from each other and from the message, and one over the first instruction.
    private static func check(
        _ manifest: FirmwareManifest, imageSize: UInt64, messageEnd: UInt64
    ) throws(FirmwareRefusal) {
        var ranges = [(name: "manifest", start: FlashLayout.manifest.offset, end: messageEnd)]
        for component in manifest.components {
            let (end, overflow) = component.offset.addingReportingOverflow(component.size)
            guard !overflow, end <= FlashLayout.chipSize else { throw .componentOutOfRange(component.name) }
            guard end <= imageSize else { throw .truncated(size: imageSize, needed: end) }
            for range in ranges where component.offset < range.end && range.start < end {
                throw .overlappingComponents(range.name, component.name)
            }
            ranges.append((component.name, component.offset, end))
        }
        guard manifest.components.contains(where: { $0.offset == FlashLayout.firstStage.offset }) else {
            throw .noFirstStage
        }
    }

    private static func digest<Reader: ImageReader>(
        of component: FirmwareManifest.Component, _ reader: inout Reader
    ) throws(FirmwareRefusal) -> [UInt8] {
        var count: UInt64 = 0
        var failure: CryptoError?
        do {
            var hash = try StreamingHash(.sha384)
            try reader.read(offset: component.offset, count: component.size) { piece in
                count += UInt64(piece.byteCount)
                do throws(CryptoError) {
                    try hash.update(piece)
                } catch {
                    failure = failure ?? error
                }
            }
            if let failure { throw failure }
            guard count == component.size else {
                throw ImageReadError("\(count) bytes of \(component.size) came")
            }
            return try hash.finalize()
        } catch let error as ImageReadError {
            throw .unreadable(error.description)
        } catch {
            throw .cryptoFailure("\(error)")
        }
    }

    // MARK: Errors into refusals

    private static func read<Reader: ImageReader>(
        _ reader: inout Reader, _ offset: UInt64, _ count: Int
    ) throws(FirmwareRefusal) -> [UInt8] {
        do throws(ImageReadError) {
            return try reader.read(offset: offset, count: count)
        } catch {
            throw .unreadable(error.description)
        }
    }

    private static func crypto<Value>(_ body: () throws(CryptoError) -> Value) throws(FirmwareRefusal) -> Value {
        do throws(CryptoError) {
            return try body()
        } catch {
            throw .cryptoFailure(error.description)
        }
    }

    private static func refusal(_ error: COSEError) -> FirmwareRefusal {
        switch error {
        case .cbor(let error): .badCBOR(error)
        case .unsupportedAlgorithm(let algorithm): .unknownAlgorithm(algorithm)
        case .malformed, .criticalHeader, .unsupportedKey: .malformed(error.description)
        }
    }
}

extension FirmwareVerdict {
    /// The text of a verification report to the security logic (docs/wiring.md, ReportVerification): the image's
    /// name, and refused, a line feed and why. Names hold no control characters, so the first line feed separates.
    /// At most 255 bytes of UTF-8.
    public var reportText: String {
        switch self {
        case .verified(let manifest, _): manifest.name
        case .refused(let refusal, let imageName):
            Self.fitting("\(imageName ?? Self.unnamedImage)\n\(refusal)", bytes: 255)
        }
    }

    /// What an image is called whose manifest could not be read.
    public static let unnamedImage = "unnamed image"

    /// The image's name and the reason of a report's text.
    public static func parse(reportText text: String) -> (imageName: String, reason: String) {
        guard let separator = text.firstIndex(of: "\n") else { return (unnamedImage, text) }
        return (String(text[..<separator]), String(text[text.index(after: separator)...]))
    }

    private static func fitting(_ text: String, bytes limit: Int) -> String {
        var text = text
        while text.utf8.count > limit { text.removeLast() }
        return text
    }
}
