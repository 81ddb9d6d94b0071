public import Crypto

/// A COSE_Sign1 message with ES384 (Spec: RFC 9052 §4.2, RFC 9053 §2.1).
public struct COSESign1: Hashable, Sendable {
    /// Header parameters (Spec: RFC 9052 §3.1) and our private one.
    public enum Header {
        public static let algorithm: Int64 = 1
        public static let critical: Int64 = 2
        public static let keyIdentifier: Int64 = 4
        /// The signer's COSE_Key itself, in the private-use range.
        public static let signerKey: Int64 = -65537
    }

    /// ECDSA with SHA-384.
    public static let es384: Int64 = -35
    private static let tag: UInt64 = 18

    /// The protected header's bytes exactly as they are signed.
    public let protectedHeader: [UInt8]
    /// The unprotected header, a map.
    public let unprotectedHeader: CBOR
    public let payload: [UInt8]
    public let signature: [UInt8]

    /// Signs `payload` with `key`; names the key by digest and carries it.
    public init(signing payload: [UInt8], with key: P384PrivateKey) throws(CryptoError) {
        let signer = COSEKey(key.publicKey)
        protectedHeader = CBOR.map([.init(.integer(Header.algorithm), .integer(Self.es384))]).encoded()
        unprotectedHeader = .map([
            .init(.integer(Header.keyIdentifier), .bytes(try signer.digest())),
            .init(.integer(Header.signerKey), signer.cbor),
        ])
        self.payload = payload
        signature = try key.sign(Self.signatureStructure(protectedHeader: protectedHeader, payload: payload))
    }

    /// Reads a message, tagged 18 or not. Refuses another algorithm than ES384, a detached payload, a critical header.
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
        guard header[Header.algorithm]?.integerValue == Self.es384 else {
            throw .unsupportedAlgorithm(header[Header.algorithm]?.integerValue)
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

    /// Whether `key` signed this payload and this protected header.
    public func isValid(for key: P384PublicKey) throws(CryptoError) -> Bool {
        try key.isValidSignature(
            signature, over: Self.signatureStructure(protectedHeader: protectedHeader, payload: payload))
    }

    /// The bytes that are signed: Sig_structure with context "Signature1" (Spec: RFC 9052 §4.4).
    public static func signatureStructure(
        protectedHeader: [UInt8], payload: [UInt8], externalData: [UInt8] = []
    ) -> [UInt8] {
        CBOR.array([.text("Signature1"), .bytes(protectedHeader), .bytes(externalData), .bytes(payload)]).encoded()
    }
}
