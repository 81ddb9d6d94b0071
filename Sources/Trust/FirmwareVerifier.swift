import CBOR
public import Crypto

/// A verification's outcome.
public enum FirmwareVerdict: Equatable, Sendable {
    /// Every check passed. `digest` is the SHA-384 of the manifest, which binds every component's digest.
    case verified(FirmwareManifest, digest: [UInt8])
    /// The image's name when a manifest could be read, though nothing in it is to be trusted.
    case refused(FirmwareRefusal, imageName: String?)
}

/// The check that stands between an image and the host's first instruction.
///
/// The order is the point: the manifest is read once and kept; the key, or the root that vouches for it, is compared
/// with the fuses before anything it signed is believed; components are hashed last.
public enum FirmwareVerifier {
    /// Verifies the image that `reader` holds from its first byte: a file, or a chip's slot by `SlotReader`. No state, no
    /// effects but reading.
    ///
    /// - Parameters:
    ///   - progress: called with each component's name before it is hashed.
    ///   - taking: given the bytes of a component in order as they are hashed: who acts by them after a good verdict acts
    ///     by what was verified, whatever the medium says later.
    public static func verify<Reader: ImageReader>(
        _ reader: inout Reader, fuses: Fuses, progress: (String) -> Void = { _ in },
        taking: (FirmwareManifest.Component, RawSpan) -> Void = { _, _ in }
    ) -> FirmwareVerdict {
        var imageName: String?
        do throws(FirmwareRefusal) {
            let (bytes, end) = try message(&reader)
            let (manifest, payload) = try signedManifest(bytes, end, fuses: fuses, imageName: &imageName)
            try check(manifest, imageSize: reader.byteCount, messageEnd: payload.end)
            for component in manifest.components {
                progress(component.name)
                guard try digest(of: component, &reader, taking) == component.digest else {
                    throw .digestMismatch(component.name)
                }
            }
            return .verified(manifest, digest: payload.digest)
        } catch {
            return .refused(error, imageName: imageName)
        }
    }

    /// Judges a signed manifest alone, before its image is there: everything `verify` asks of it but the components'
    /// digests.
    ///
    /// - Parameters:
    ///   - message: the COSE_Sign1 message.
    ///   - imageSize: bytes that the image may have.
    public static func authenticate(
        message: [UInt8], imageSize: UInt64, fuses: Fuses
    ) throws(FirmwareRefusal) -> FirmwareManifest {
        var imageName: String?
        let end = FlashLayout.manifest.offset + 4 + UInt64(message.count)
        let (manifest, payload) = try signedManifest(message, end, fuses: fuses, imageName: &imageName)
        try check(manifest, imageSize: imageSize, messageEnd: payload.end)
        return manifest
    }

    /// Reads the manifest without asking who signed it: for people who look into an image.
    public static func inspect<Reader: ImageReader>(_ reader: inout Reader) throws(FirmwareRefusal) -> Inspection {
        let (bytes, _) = try message(&reader)
        guard !isBareManifest(bytes) else { return Inspection(manifest: try manifest(bytes), signature: nil) }
        let message = try signedMessage(bytes)
        let (key, certificate) = try signer(message)
        let isValid = try crypto { () throws(CryptoError) in try message.isValid(for: key.publicKey) }
        let isCertified = try certificate.map { certificate throws(FirmwareRefusal) in
            try crypto { () throws(CryptoError) in try certificate.isSignatureValid() }
        }
        return Inspection(
            manifest: try manifest(message.payload),
            signature: .init(
                signer: key, signerDigest: try crypto { () throws(CryptoError) in try key.digest() },
                algorithm: message.algorithm, isValid: isValid, certificate: certificate,
                certificateIsValid: isCertified))
    }

    /// What `inspect` found.
    public struct Inspection: Sendable {
        public let manifest: FirmwareManifest
        /// Nil when nobody signed the image.
        public let signature: Signature?

        public struct Signature: Sendable {
            public let signer: COSEKey
            public let signerDigest: [UInt8]
            public let algorithm: SignatureAlgorithm
            /// Whether the key that the image itself carries made the signature: says nothing about whose key it is.
            public let isValid: Bool
            /// The root's word for the signer; nil when the image is signed without one.
            public let certificate: SignerCertificate?
            /// Whether the root's key that the certificate itself carries signed it.
            public let certificateIsValid: Bool?
        }
    }

    /// The manifest and its bytes, from an image that is signed or not, whoever signed it.
    static func bareManifest<Reader: ImageReader>(
        _ reader: inout Reader
    ) throws(FirmwareRefusal) -> (FirmwareManifest, [UInt8]) {
        let (bytes, _) = try message(&reader)
        let payload = isBareManifest(bytes) ? bytes : try signedMessage(bytes).payload
        return (try manifest(payload), payload)
    }

    // MARK: Steps

    private struct SignedPayload {
        let digest: [UInt8]
        /// Where the message ends in the image.
        let end: UInt64
    }

    private static func signedManifest(
        _ bytes: [UInt8], _ end: UInt64, fuses: Fuses, imageName: inout String?
    ) throws(FirmwareRefusal) -> (FirmwareManifest, SignedPayload) {
        guard !isBareManifest(bytes) else {
            imageName = (try? FirmwareManifest(decoding: bytes))?.name
            throw .notSigned
        }
        let message = try signedMessage(bytes)
        imageName = (try? FirmwareManifest(decoding: message.payload))?.name
        let (signer, certificate) = try signer(message)
        if let certificate {
            try check(certificate, fuses: fuses)
        } else {
            let digest = try crypto { () throws(CryptoError) in try signer.digest() }
            guard digest == fuses.rootKeyDigest else { throw .keyMismatch(found: digest) }
        }
        guard message.algorithm == signer.publicKey.algorithm else { throw .algorithmMismatch }
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
        if let certificate, manifest.securityVersion < certificate.minimumSecurityVersion {
            throw .securityVersionNotGranted(
                found: manifest.securityVersion, minimum: certificate.minimumSecurityVersion)
        }
        let digest = try crypto { () throws(CryptoError) in try HashAlgorithm.sha384.digest(of: message.payload) }
        return (manifest, SignedPayload(digest: digest, end: end))
    }

    /// The certificate is the root's, for this board, and not cancelled.
    private static func check(_ certificate: SignerCertificate, fuses: Fuses) throws(FirmwareRefusal) {
        let root = try crypto { () throws(CryptoError) in try certificate.rootKey.digest() }
        guard root == fuses.rootKeyDigest else { throw .foreignRoot(found: root) }
        guard try crypto({ () throws(CryptoError) in try certificate.isSignatureValid() }) else {
            throw .invalidCertificateSignature
        }
        guard !fuses.cancelledKeys.contains(certificate.number) else {
            throw .cancelledKey(number: certificate.number)
        }
        guard certificate.boardCompatibility == fuses.boardCompatibility else {
            throw .certificateForAnotherBoard(
                found: certificate.boardCompatibility, expected: fuses.boardCompatibility)
        }
    }

    /// The bytes of the message in their place, and where they end.
    private static func message<Reader: ImageReader>(
        _ reader: inout Reader
    ) throws(FirmwareRefusal) -> ([UInt8], end: UInt64) {
        let region = FlashLayout.manifest
        let start = region.offset + 4
        guard reader.byteCount >= start else { throw .truncated(size: reader.byteCount, needed: start) }
        let length = LittleEndian.uint32(try read(&reader, region.offset, 4), at: 0)
        guard length != 0, length != .max else { throw .noManifest }
        guard UInt64(length) <= region.size - 4 else {
            throw .manifestTooLong(length: length, limit: region.size - 4)
        }
        let end = start + UInt64(length)
        guard reader.byteCount >= end else { throw .truncated(size: reader.byteCount, needed: end) }
        return (try read(&reader, start, Int(length)), end)
    }

    /// A map stands where a signed message would be a tag or an array (Spec: RFC 8949 §3.1, major type 5).
    private static func isBareManifest(_ bytes: [UInt8]) -> Bool { bytes.first.map { $0 >> 5 == 5 } ?? false }

    private static func signedMessage(_ bytes: [UInt8]) throws(FirmwareRefusal) -> COSESign1 {
        do throws(COSEError) {
            return try COSESign1(decoding: bytes)
        } catch {
            throw refusal(error)
        }
    }

    /// The signer's key, and the certificate that holds it if there is one.
    private static func signer(
        _ message: COSESign1
    ) throws(FirmwareRefusal) -> (key: COSEKey, certificate: SignerCertificate?) {
        let item = message.unprotectedHeader[COSESign1.Header.signerCertificate]
        do throws(COSEError) {
            if let key = try message.carriedKey() {
                guard item == nil else { throw COSEError.malformed("both the signer's key and a certificate") }
                return (key, nil)
            }
        } catch {
            throw refusal(error)
        }
        guard let item else { throw .noSigner }
        guard let bytes = item.bytesValue else { throw .badCertificate("it is not a byte string") }
        let certificate: SignerCertificate
        do throws(COSEError) { certificate = try SignerCertificate(decoding: bytes) } catch {
            throw .badCertificate(error.description)
        }
        do throws(COSEError) { try message.checkIdentifier(of: certificate.signerKey) } catch {
            throw refusal(error)
        }
        return (certificate.signerKey, certificate)
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
            guard !overflow, end <= imageSize else {
                throw .componentOutOfRange(component.name, end: overflow ? nil : end, slotSize: imageSize)
            }
            for range in ranges where component.offset < range.end && range.start < end {
                throw .overlappingComponents(range.name, component.name)
            }
            ranges.append((component.name, component.offset, end))
        }
        guard
            manifest.components.contains(where: { $0.offset == FlashLayout.firstStage.offset && $0.target == .host })
        else { throw .noFirstStage }
    }

    private static func digest<Reader: ImageReader>(
        of component: FirmwareManifest.Component, _ reader: inout Reader,
        _ taking: (FirmwareManifest.Component, RawSpan) -> Void
    ) throws(FirmwareRefusal) -> [UInt8] {
        var count: UInt64 = 0
        var failure: CryptoError?
        do {
            var hash = try StreamingHash(.sha384)
            try reader.read(offset: component.offset, count: component.size) { piece in
                count += UInt64(piece.byteCount)
                taking(component, piece)
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
        case .algorithmMismatch: .algorithmMismatch
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
