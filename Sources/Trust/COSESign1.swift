public import CBOR
public import Crypto

/// A COSE_Sign1 message with ES384 or EdDSA (Spec: RFC 9052 §4.2, RFC 9053 §2.1 and §2.2).
public struct COSESign1: Hashable, Sendable {
    /// Header parameters (Spec: RFC 9052 §3.1) and our private ones.
    public enum Header {
        public static let algorithm: Int64 = 1
        public static let critical: Int64 = 2
        public static let keyIdentifier: Int64 = 4
        /// The signer's COSE_Key itself, in the private-use range.
        public static let signerKey: Int64 = -65537
        /// The certificate of the signer's key by the root, an encoded `SignerCertificate`.
        public static let signerCertificate: Int64 = -65538
    }

    /// ECDSA with SHA-384.
    public static let es384: Int64 = -35
    /// EdDSA; with our keys, Ed25519.
    public static let edDSA: Int64 = -8
    private static let tag: UInt64 = 18

    /// The protected header's bytes exactly as they are signed.
    public let protectedHeader: [UInt8]
    /// The unprotected header, a map.
    public let unprotectedHeader: CBOR
    public let payload: [UInt8]
    public let signature: [UInt8]
    /// What the protected header says.
    public let algorithm: SignatureAlgorithm

    /// Signs `payload` with `key`; names the key by digest, and carries it, or the certificate that holds it.
    public init(
        signing payload: [UInt8], with key: any SigningKey, certificate: SignerCertificate? = nil
    ) throws(CryptoError) {
        let signer = COSEKey(key.verifyingKey)
        algorithm = key.verifyingKey.algorithm
        let label = algorithm == .es384 ? Self.es384 : Self.edDSA
        protectedHeader = CBOR.map([.init(.integer(Header.algorithm), .integer(label))]).encoded()
        unprotectedHeader = .map([
            .init(.integer(Header.keyIdentifier), .bytes(try signer.digest())),
            certificate.map { .init(.integer(Header.signerCertificate), .bytes($0.encoded)) }
                ?? .init(.integer(Header.signerKey), signer.cbor),
        ])
        self.payload = payload
        signature = try key.sign(Self.signatureStructure(protectedHeader: protectedHeader, payload: payload))
    }

    /// Reads a message, tagged 18 or not. Refuses an unknown algorithm, a detached payload, a critical header.
    ///
    /// The outer structure may be any valid CBOR: what is signed is compared byte for byte whatever its form.
    public init(decoding bytes: [UInt8], limits: CBOR.Limits = CBOR.Limits()) throws(COSEError) {
        var item = try Self.decode(bytes, limits: limits)
        if case .tagged(let tag, let content) = item {
            guard tag == Self.tag else { throw .malformed("CBOR tag \(tag) is not COSE_Sign1 (18)") }
            item = content
        }
        guard let parts = item.arrayValue, parts.count == 4 else {
            throw .malformed("COSE_Sign1 is not an array of four")
        }
        guard let protected = parts[0].bytesValue else {
            throw .malformed("the protected header is not a byte string")
        }
        guard case .map = parts[1] else { throw .malformed("the unprotected header is not a map") }
        guard let payload = parts[2].bytesValue else {
            throw .malformed(parts[2] == .null ? "the payload is detached" : "the payload is not a byte string")
        }
        guard let signature = parts[3].bytesValue else { throw .malformed("the signature is not a byte string") }
        protectedHeader = protected
        unprotectedHeader = parts[1]
        self.payload = payload
        self.signature = signature

        let header = protected.isEmpty ? CBOR.map([]) : try Self.decode(protected, limits: limits)
        guard case .map(let protectedEntries) = header, case .map(let unprotectedEntries) = parts[1] else {
            throw .malformed("the protected header is not a map")
        }
        let labels = Set(protectedEntries.map(\.key))
        guard unprotectedEntries.allSatisfy({ !labels.contains($0.key) }) else {
            throw .malformed("a header parameter is both protected and unprotected")
        }
        guard header[Header.critical] == nil else { throw .criticalHeader }
        switch header[Header.algorithm]?.integerValue {
        case Self.es384: algorithm = .es384
        case Self.edDSA: algorithm = .ed25519
        case let other: throw .unsupportedAlgorithm(other)
        }
    }

    private static func decode(_ bytes: [UInt8], limits: CBOR.Limits) throws(COSEError) -> CBOR {
        do throws(CBORError) {
            return try CBOR.decode(bytes, rules: .valid, limits: limits)
        } catch {
            throw .cbor(error)
        }
    }

    /// The message, tagged.
    public func encoded() -> [UInt8] {
        CBOR.tagged(
            Self.tag, .array([.bytes(protectedHeader), unprotectedHeader, .bytes(payload), .bytes(signature)])
        ).encoded()
    }

    /// Whether `key` signed this payload and this protected header, by the algorithm that the header names.
    public func isValid(for key: PublicKey) throws(CryptoError) -> Bool {
        guard key.algorithm == algorithm else { return false }
        return try key.isValidSignature(
            signature, over: Self.signatureStructure(protectedHeader: protectedHeader, payload: payload))
    }

    /// Whether `key` signed this payload and this protected header.
    public func isValid(for key: P384PublicKey) throws(CryptoError) -> Bool { try isValid(for: .p384(key)) }

    /// The key that the message itself carries, whoever's it is; nil when it carries none.
    ///
    /// - Throws: also when the key identifier beside it is not its digest.
    public func carriedKey() throws(COSEError) -> COSEKey? {
        guard let item = unprotectedHeader[Header.signerKey] else { return nil }
        let key = try COSEKey(item)
        try checkIdentifier(of: key)
        return key
    }

    /// Throws unless the key identifier is the digest of `key`.
    func checkIdentifier(of key: COSEKey) throws(COSEError) {
        let digest: [UInt8]
        do throws(CryptoError) { digest = try key.digest() } catch { throw .unsupportedKey(error.description) }
        guard unprotectedHeader[Header.keyIdentifier]?.bytesValue == digest else {
            throw .malformed("the key identifier is not the digest of the signer's key")
        }
    }

    /// The bytes that are signed: Sig_structure with context "Signature1" (Spec: RFC 9052 §4.4).
    public static func signatureStructure(
        protectedHeader: [UInt8], payload: [UInt8], externalData: [UInt8] = []
    ) -> [UInt8] {
        CBOR.array([.text("Signature1"), .bytes(protectedHeader), .bytes(externalData), .bytes(payload)]).encoded()
    }
}
