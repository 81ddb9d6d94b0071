import CBOR
public import Crypto

/// The root's word that a key may sign images: a COSE_Sign1 by the root over a CBOR map
///
///     1: the signer's COSE_Key   2: key number, 0 to 127   3: board compatibility   4: least security version
///
/// in deterministic encoding, the root's COSE_Key in its own unprotected header (docs/wiring.md, "Flash layout").
public struct SignerCertificate: Hashable, Sendable {
    /// Numbers of signers that fuses can cancel: 0 to 127.
    public static let keyNumbers: ClosedRange<UInt8> = 0...127
    /// A certificate has some 400 bytes.
    static let maximumSize = 4096

    private enum Label {
        static let key: Int64 = 1
        static let number: Int64 = 2
        static let board: Int64 = 3
        static let minimumSecurityVersion: Int64 = 4
    }

    public let signerKey: COSEKey
    /// What the fuses cancel the key by.
    public let number: UInt8
    /// The only board whose images the key may sign.
    public let boardCompatibility: String
    /// The least security version that the key may sign; 0 for any.
    public let minimumSecurityVersion: UInt32
    /// The key that the certificate says signed it.
    public let rootKey: COSEKey
    /// The certificate's bytes.
    public let encoded: [UInt8]
    private let message: COSESign1

    /// Issues a certificate. `number` must be one of `keyNumbers`.
    public init(
        for signer: PublicKey, number: UInt8, boardCompatibility: String = FlashLayout.boardCompatibility,
        minimumSecurityVersion: UInt32 = 0, root: any SigningKey
    ) throws(CryptoError) {
        precondition(Self.keyNumbers.contains(number), "a signer's number is one of 0 to 127")
        signerKey = COSEKey(signer)
        self.number = number
        self.boardCompatibility = boardCompatibility
        self.minimumSecurityVersion = minimumSecurityVersion
        rootKey = COSEKey(root.verifyingKey)
        let payload = CBOR.map([
            .init(.integer(Label.key), signerKey.cbor),
            .init(.integer(Label.number), .unsigned(UInt64(number))),
            .init(.integer(Label.board), .text(boardCompatibility)),
            .init(.integer(Label.minimumSecurityVersion), .unsigned(UInt64(minimumSecurityVersion))),
        ])
        message = try COSESign1(signing: payload.encoded(), with: root)
        encoded = message.encoded()
    }

    /// Reads a certificate, whoever signed it: the caller compares `rootKey` with the fuses and asks `isSignatureValid()`.
    public init(decoding bytes: [UInt8]) throws(COSEError) {
        var limits = CBOR.Limits()
        limits.bytes = Self.maximumSize
        message = try COSESign1(decoding: bytes, limits: limits)
        encoded = bytes
        guard let root = try message.carriedKey() else { throw .malformed("the root's key is missing") }
        rootKey = root
        let map: CBOR
        do throws(CBORError) { map = try CBOR.decode(message.payload, limits: limits) } catch { throw .cbor(error) }
        guard case .map(let entries) = map, entries.count == 4 else {
            throw .malformed("its payload is not a map of 4 fields")
        }
        guard let key = map[Label.key] else { throw .malformed("it names no key") }
        signerKey = try COSEKey(key)
        guard let wide = map[Label.number]?.unsignedValue, let number = UInt8(exactly: wide),
            Self.keyNumbers.contains(number)
        else { throw .malformed("its key number is not one of 0 to 127") }
        self.number = number
        do throws(FirmwareManifestError) {
            boardCompatibility = try FirmwareManifest.text(map[Label.board], "its board compatibility")
        } catch {
            throw .malformed(error.description)
        }
        guard let version = map[Label.minimumSecurityVersion]?.unsignedValue.flatMap({ UInt32(exactly: $0) }) else {
            throw .malformed("its least security version is not a number of 32 bits")
        }
        minimumSecurityVersion = version
    }

    /// Whether the key that it carries as the root's signed it.
    public func isSignatureValid() throws(CryptoError) -> Bool { try message.isValid(for: rootKey.publicKey) }

    /// The algorithm that the root signed it with.
    public var algorithm: SignatureAlgorithm { message.algorithm }
}
