import CBOR
public import Crypto

/// Who a board is, derived from its unique device secret by the layers of DICE:
///
///     unique device secret ─HKDF─▶ CDI of layer 0 ─HKDF─▶ DeviceID key (the same for the board's life)
///                                        │
///                         measurement ───┴─HKDF─▶ CDI of layer 1 ─HKDF─▶ alias key (of this board with this firmware)
///
/// The manufacturer certifies the DeviceID once, at provisioning; the DeviceID certifies the alias key together with the
/// measurement at each boot. Another measurement gives another alias key: firmware that was changed cannot sign as the one
/// that was not. All keys are Ed25519, all derivations HKDF-SHA384, and the same inputs give the same bytes.
///
/// Spec: TCG DICE Layering Architecture 1.0 §6; TCG DICE Attestation Architecture 1.1 §6; RFC 5869.
public struct DeviceIdentity: Sendable {
    /// The OID of the DICE TcbInfo extension (Spec: TCG DICE Attestation Architecture 1.1 §6.1.1).
    public static let tcbInfo = "2.23.133.5.4.1"
    /// id-sha384, 2.16.840.1.101.3.4.2.2, as DER.
    private static let sha384Identifier: [UInt8] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02]

    /// The board's own name in certificates.
    public let name: String
    public let deviceIDPublicKey: Ed25519PublicKey
    public let aliasPublicKey: Ed25519PublicKey
    /// The alias key's certificate by the DeviceID, with the measurement.
    public let aliasCertificate: X509Certificate
    /// SHA-384 of what the alias key stands for.
    public let measurement: [UInt8]
    private let alias: Ed25519PrivateKey

    /// - Parameters:
    ///   - uniqueDeviceSecret: the fuses', 32 bytes.
    ///   - measurement: SHA-384 of what runs, 48 bytes: the verified manifest's digest binds the whole image.
    public init(uniqueDeviceSecret: [UInt8], measurement: [UInt8]) throws(CryptoError) {
        precondition(measurement.count == FirmwareManifest.digestLength, "a measurement has 48 bytes")
        let layer0 = try Self.compoundDeviceIdentifier(uniqueDeviceSecret)
        let deviceID = try Self.deviceIDKey(layer0)
        let layer1 = try HKDF.derive(
            .sha384, key: layer0, salt: measurement, info: Array("Baseboard DICE layer 1 CDI".utf8), count: 48)
        alias = try Ed25519PrivateKey(
            seed: HKDF.derive(
                .sha384, key: layer1, info: Array("Baseboard DICE alias key".utf8), count: Ed25519PublicKey.length))
        deviceIDPublicKey = deviceID.publicKey
        aliasPublicKey = alias.publicKey
        self.measurement = measurement
        name = try Self.name(of: deviceID.publicKey)
        var subject = X509Certificate.Subject(
            name: "Baseboard alias \(Hex.encode(try Self.serial(alias.publicKey).prefix(8)))", issuer: name,
            key: alias.verifyingKey, serial: try Self.serial(alias.publicKey))
        subject.extensions = [(Self.tcbInfo, Self.encodedTCBInfo(measurement))]
        aliasCertificate = try X509Certificate(subject, issuerKey: deviceID)
    }

    /// The certificate that the manufacturer gives a board: issued once, at provisioning.
    public static func deviceIDCertificate(
        uniqueDeviceSecret: [UInt8], manufacturer: any SigningKey, manufacturerName: String
    ) throws(CryptoError) -> X509Certificate {
        let key = try deviceIDKey(compoundDeviceIdentifier(uniqueDeviceSecret)).publicKey
        return try X509Certificate(
            .init(
                name: name(of: key), issuer: manufacturerName, key: .ed25519(key), serial: serial(key),
                authority: .init(0)), issuerKey: manufacturer)
    }

    /// Answers a verifier's question: a COSE_Sign1 by the alias key over the CBOR map 1: nonce, 2: measurement,
    /// 3: array of the measurement registers' values where a log is given.
    ///
    /// - Parameter nonce: the verifier's, at most 64 bytes.
    public func sign(nonce: [UInt8], registers: [[UInt8]] = []) throws(CryptoError) -> [UInt8] {
        guard nonce.count <= 64 else {
            throw CryptoError(operation: "answer a challenge", reason: "the nonce has more than 64 bytes")
        }
        var entries: [CBOR.Entry] = [
            .init(.unsigned(1), .bytes(nonce)), .init(.unsigned(2), .bytes(measurement)),
        ]
        if !registers.isEmpty { entries.append(.init(.unsigned(3), .array(registers.map { .bytes($0) }))) }
        return try COSESign1(signing: CBOR.map(entries).encoded(), with: alias).encoded()
    }

    // MARK: Derivation

    private static func compoundDeviceIdentifier(_ secret: [UInt8]) throws(CryptoError) -> [UInt8] {
        precondition(secret.count == Fuses.secretLength, "a unique device secret has 32 bytes")
        return try HKDF.derive(.sha384, key: secret, info: Array("Baseboard DICE layer 0 CDI".utf8), count: 48)
    }

    private static func deviceIDKey(_ layer0: [UInt8]) throws(CryptoError) -> Ed25519PrivateKey {
        try Ed25519PrivateKey(
            seed: HKDF.derive(
                .sha384, key: layer0, info: Array("Baseboard DICE DeviceID key".utf8), count: Ed25519PublicKey.length))
    }

    private static func name(of deviceID: Ed25519PublicKey) throws(CryptoError) -> String {
        "Baseboard device \(Hex.encode(try serial(deviceID).prefix(8)))"
    }

    /// The first 20 bytes of the key's digest: one key, one number, and positive.
    private static func serial(_ key: Ed25519PublicKey) throws(CryptoError) -> [UInt8] {
        var serial = Array(try HashAlgorithm.sha384.digest(of: key.bytes).prefix(20))
        serial[0] = serial[0] & 0x7F | 0x40
        return serial
    }

    /// DiceTcbInfo with nothing but `fwids [6] IMPLICIT SEQUENCE OF FWID`, each a hash algorithm and a digest.
    private static func encodedTCBInfo(_ digest: [UInt8]) -> [UInt8] {
        // All lengths are under 128: one byte each.
        let octets: [UInt8] = [0x04, UInt8(digest.count)] + digest
        let fwid = sha384Identifier + octets
        let list: [UInt8] = [0x30, UInt8(fwid.count)] + fwid
        let fwids: [UInt8] = [0xA6, UInt8(list.count)] + list
        return [0x30, UInt8(fwids.count)] + fwids
    }
}
