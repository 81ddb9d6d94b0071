import CBOR
import Crypto
import TestKit
import Testing
import Trust

@Suite struct DeviceIdentityTests {
    static let secret = [UInt8](0..<32)
    static let measurement = [UInt8](repeating: 0x5A, count: 48)

    private func identity(_ secret: [UInt8] = secret, _ measurement: [UInt8] = measurement) throws -> DeviceIdentity {
        try DeviceIdentity(uniqueDeviceSecret: secret, measurement: measurement)
    }

    @Test func `one secret and one measurement always give one identity, byte for byte`() throws {
        let (first, second) = (try identity(), try identity())
        #expect(first.deviceIDPublicKey == second.deviceIDPublicKey)
        #expect(first.aliasPublicKey == second.aliasPublicKey)
        #expect(first.aliasCertificate == second.aliasCertificate)
    }

    /// Derived by the openssl program alone, step by step.
    @Test func `the openssl program derives the same keys`() throws {
        let folder = TemporaryFolder()
        func derive(_ key: [UInt8], salt: [UInt8], info: String, count: Int) throws -> [UInt8] {
            let options =
                [
                    "digest:SHA384", "hexkey:\(Hex.encode(key))", "hexinfo:\(Hex.encode(Array(info.utf8)))",
                ] + (salt.isEmpty ? [] : ["hexsalt:\(Hex.encode(salt))"])
            let result = try run(
                "/usr/bin/openssl",
                ["kdf", "-keylen", "\(count)", "-binary", "-out", folder.file("key")]
                    + options.flatMap { ["-kdfopt", $0] } + ["HKDF"])
            #expect(result.status == 0, "\(result.output)")
            return try WholeFile.read(folder.file("key"), limit: 1000)
        }
        let layer0 = try derive(Self.secret, salt: [], info: "Baseboard DICE layer 0 CDI", count: 48)
        let deviceID = try derive(layer0, salt: [], info: "Baseboard DICE DeviceID key", count: 32)
        let layer1 = try derive(layer0, salt: Self.measurement, info: "Baseboard DICE layer 1 CDI", count: 48)
        let alias = try derive(layer1, salt: [], info: "Baseboard DICE alias key", count: 32)
        let identity = try identity()
        #expect(try Ed25519PrivateKey(seed: deviceID).publicKey == identity.deviceIDPublicKey)
        #expect(try Ed25519PrivateKey(seed: alias).publicKey == identity.aliasPublicKey)
    }

    @Test func `another measurement is another alias of the same device, another secret another device`() throws {
        let first = try identity()
        let changed = try identity(Self.secret, [UInt8](repeating: 0x5B, count: 48))
        #expect(changed.deviceIDPublicKey == first.deviceIDPublicKey)
        #expect(changed.aliasPublicKey != first.aliasPublicKey)
        let other = try identity([UInt8](1...32))
        #expect(other.deviceIDPublicKey != first.deviceIDPublicKey && other.name != first.name)
    }

    @Test func `the openssl program verifies the chain from the manufacturer to the alias key`() throws {
        let folder = TemporaryFolder()
        let outcome = try Provisioning.provision(folder: folder.path)
        let identity = try identity(#require(outcome.fuses.uniqueDeviceSecret))
        try WholeFile.write(folder.file("alias.crt"), Array(identity.aliasCertificate.pem().utf8))
        let files = ["identity/manufacturer.crt", "identity/device-id.crt", "alias.crt"].map(folder.file)
        let verify = ["verify", "-x509_strict", "-CAfile", files[0]]
        let device = try run("/usr/bin/openssl", verify + [files[1]])
        #expect(device.status == 0 && device.output.contains("OK"), "\(device.output)")
        let alias = try run("/usr/bin/openssl", verify + ["-untrusted", files[1], files[2]])
        #expect(alias.status == 0 && alias.output.contains("OK"), "\(alias.output)")
        // Without the device's certificate, or by another device's, the alias key is nobody's.
        #expect(try run("/usr/bin/openssl", verify + [files[2]]).status != 0)
        let stranger = TemporaryFolder()
        _ = try Provisioning.provision(folder: stranger.path)
        let foreign = ["-untrusted", stranger.file("identity/device-id.crt"), files[2]]
        #expect(try run("/usr/bin/openssl", verify + foreign).status != 0)
        // The alias certificate holds the measurement, where DICE has it, and may sign nothing else.
        let text = try run("/usr/bin/openssl", ["x509", "-in", files[2], "-noout", "-text"]).output
        #expect(text.contains(DeviceIdentity.tcbInfo) && text.contains("CA:FALSE"), "\(text)")
        let parsed = try run(
            "/usr/bin/openssl", ["asn1parse", "-in", files[2], "-dump"]
        ).output
        #expect(parsed.contains("2.23.133.5.4.1"), "\(parsed)")
        #expect(identity.aliasCertificate.der.firstRange(of: Self.measurement) != nil)
    }

    @Test func `an answer to a challenge is the alias key's, over nonce and measurement`() throws {
        let identity = try identity()
        let nonce = try randomBytes(32)
        let log = MeasurementLog()
        let answer = try COSESign1(decoding: identity.sign(nonce: nonce, registers: log.registers))
        guard case .ed25519(let key) = try identity.aliasCertificate.publicKey() else {
            Issue.record("not Ed25519")
            return
        }
        #expect(key == identity.aliasPublicKey)
        #expect(try answer.isValid(for: .ed25519(key)))
        let payload = try CBOR.decode(answer.payload)
        #expect(payload[1] == .bytes(nonce) && payload[2] == .bytes(Self.measurement))
        #expect(payload[3]?.arrayValue?.count == 8)
        #expect(throws: CryptoError.self) { try identity.sign(nonce: [UInt8](repeating: 0, count: 65)) }
    }
}
