public import CBOR
import Crypto

/// Why an image may not run. Each says precisely what was looked at; `description` is what a person reads.
public enum FirmwareRefusal: Error, Equatable, Sendable, CustomStringConvertible {
    /// The medium could not be read; says nothing about the image.
    case unreadable(String)
    /// The image ends before its manifest does.
    case truncated(size: UInt64, needed: UInt64)
    /// The manifest region is erased.
    case noManifest
    /// The length before the manifest is more than the region holds.
    case manifestTooLong(length: UInt32, limit: UInt64)
    /// The manifest is there, but nobody signed it.
    case notSigned
    /// The message or a part of it is not the CBOR that it must be.
    case badCBOR(CBORError)
    /// COSE or the manifest has another form.
    case malformed(String)
    /// Signed with neither ES384 nor EdDSA.
    case unknownAlgorithm(Int64?)
    /// The message names another algorithm than the signer's key has.
    case algorithmMismatch
    /// There is neither a signer's key nor a certificate in the message.
    case noSigner
    /// Signed by a key itself, and it is not the root whose digest the fuses hold.
    case keyMismatch(found: [UInt8])
    /// The signer's certificate cannot be read.
    case badCertificate(String)
    /// The signer's certificate is by another root than the one whose digest the fuses hold.
    case foreignRoot(found: [UInt8])
    case invalidCertificateSignature
    /// The fuses cancel the signer's number.
    case cancelledKey(number: UInt8)
    case certificateForAnotherBoard(found: String, expected: String)
    case invalidSignature
    case wrongBoard(found: String, expected: String)
    case securityVersionTooLow(found: UInt32, minimum: UInt32)
    /// The signer may not sign images that old.
    case securityVersionNotGranted(found: UInt32, minimum: UInt32)
    /// A component ends beyond the slot; `end` is nil beyond 64 bits.
    case componentOutOfRange(String, end: UInt64?, slotSize: UInt64)
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
        case .manifestTooLong(let length, let limit):
            "the manifest claims \(length) bytes, its place holds \(limit)"
        case .notSigned: "the image is not signed"
        case .badCBOR(let error): "bad CBOR in the manifest: \(error)"
        case .malformed(let what): "malformed manifest: \(what)"
        case .unknownAlgorithm(let algorithm): COSEError.unsupportedAlgorithm(algorithm).description
        case .algorithmMismatch: COSEError.algorithmMismatch.description
        case .noSigner: "neither the signer's key nor its certificate is in the image"
        case .keyMismatch(let found):
            "key digest does not match the fuses: signed by \(Hex.encode(found.prefix(8)))…"
        case .badCertificate(let what): "the signer's certificate is malformed: \(what)"
        case .foreignRoot(let found):
            "the signer's certificate is by a root that the fuses do not name: \(Hex.encode(found.prefix(8)))…"
        case .invalidCertificateSignature: "the signer's certificate: signature invalid"
        case .cancelledKey(let number): "signed by key number \(number), which the fuses cancel"
        case .certificateForAnotherBoard(let found, let expected):
            "the signer's certificate is for \(found), this is \(expected)"
        case .invalidSignature: "signature invalid"
        case .wrongBoard(let found, let expected): "wrong board: image is for \(found), this is \(expected)"
        case .securityVersionTooLow(let found, let minimum):
            "security version \(found) is below the minimum \(minimum) of the fuses: build the image with at least that"
        case .securityVersionNotGranted(let found, let minimum):
            "security version \(found) is below what the signer may sign, \(minimum)"
        case .componentOutOfRange(let name, let end?, let slotSize):
            "component \(name) ends at byte \(end), the slot or image has \(slotSize)"
        case .componentOutOfRange(let name, nil, _): "component \(name) ends beyond every address"
        case .overlappingComponents(let first, let second): "components \(first) and \(second) overlap"
        case .noFirstStage: "no component covers the first instruction"
        case .digestMismatch(let name): "component \(name): digest mismatch"
        case .cryptoFailure(let why): why
        }
    }
}
