import Crypto
import Foundation
import TestKit
import Testing
import Trust

@Suite struct ProvisioningTests {
    let folder = TemporaryFolder()

    private func provision(force: Bool = false) throws(Provisioning.Failure) -> Provisioning.Outcome {
        var options = Provisioning.Options()
        options.force = force
        return try Provisioning.provision(folder: folder.file("board"), options: options)
    }

    @Test func `a folder gets a private key and fuses that accept its images`() throws {
        let outcome = try provision()
        #expect(outcome.madeKey && outcome.madeFuses)
        let attributes = try FileManager.default.attributesOfItem(atPath: outcome.keyPath)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        let key = try Provisioning.readKey(outcome.keyPath)
        let stored = try Fuses(path: outcome.fusesPath)
        #expect(stored == outcome.fuses)
        #expect(stored.minimumSecurityVersion == 1 && stored.cancelledKeys == [] && stored.uniqueDeviceSecret != nil)
        for secret in ["keys/root.pem", "keys/signer.pem", "keys/manufacturer.pem", "fuses.json"] {
            let attributes = try FileManager.default.attributesOfItem(atPath: folder.file("board/" + secret))
            #expect(attributes[.posixPermissions] as? Int == 0o600, "\(secret)")
        }
        #expect(outcome.fuses.rootKeyDigest == (try COSEKey(key.verifyingKey).digest()))
    }

    @Test func `what is there is kept, and replaced by force`() throws {
        let first = try provision()
        let second = try provision()
        #expect(!second.madeKey && !second.madeFuses)
        #expect(second.fuses == first.fuses)
        #expect(second.files.map(\.path) == first.files.map(\.path) && !second.files.contains { $0.wasMade })
        let third = try provision(force: true)
        #expect(third.madeKey && third.madeFuses)
        #expect(third.fuses != first.fuses)
        #expect(try provision().fuses == third.fuses)
    }

    @Test func `missing fuses are made for the key that is there`() throws {
        let first = try provision()
        try FileManager.default.removeItem(atPath: first.fusesPath)
        let second = try provision()
        #expect(!second.madeKey && second.madeFuses)
        #expect(second.fuses.rootKeyDigest == first.fuses.rootKeyDigest)
        // The secret went with the fuses: it is another device, and has another certificate.
        #expect(second.fuses.uniqueDeviceSecret != first.fuses.uniqueDeviceSecret)
        #expect(
            second.files.filter(\.wasMade).map { $0.path.split(separator: "/").last.map(String.init) } == [
                "fuses.json", "device-id.crt", "device-id.der",
            ])
    }

    @Test func `fuses without their key, or with another, are refused`() throws {
        let first = try provision()
        let pem = try P384PrivateKey.generate().pem()
        try FileManager.default.removeItem(atPath: first.keyPath)
        #expect(throws: Provisioning.Failure.keyMissing(keyPath: first.keyPath, fusesPath: first.fusesPath)) {
            try provision()
        }
        try Data(pem.utf8).write(to: URL(fileURLWithPath: first.keyPath))
        #expect(throws: Provisioning.Failure.keyMismatch(keyPath: first.keyPath, fusesPath: first.fusesPath)) {
            try provision()
        }
    }

    @Test(arguments: SignatureAlgorithm.allCases)
    func `the signer's images run on the board, and those of one that was added`(algorithm: SignatureAlgorithm) throws {
        var options = Provisioning.Options()
        options.algorithm = algorithm
        let outcome = try Provisioning.provision(folder: folder.path, options: options)
        _ = try Provisioning.addSigner(
            folder: folder.path, number: 2, algorithm: .ed25519, minimumSecurityVersion: 5)
        for (number, version) in [(UInt8(1), UInt32(1)), (2, 5)] {
            let path = Provisioning.signerPath(folder.path, number)
            let certificate = try Provisioning.readCertificate(path + ".cert")
            #expect(certificate.number == number)
            let image = try FirmwareImage.build(
                firstStage: [1], opensbi: [2], nextStage: [3], key: Provisioning.readKey(path + ".pem"),
                certificate: certificate, name: "n", securityVersion: version)
            var reader = ByteArrayReader(image)
            guard case .verified = FirmwareVerifier.verify(&reader, fuses: outcome.fuses) else {
                Issue.record("refused")
                return
            }
        }
        #expect(throws: Provisioning.Failure.signerExists(path: folder.file("keys/signer-2.pem"))) {
            try Provisioning.addSigner(folder: folder.path, number: 2)
        }
        #expect(throws: Provisioning.Failure.badKeyNumber(128)) {
            try Provisioning.addSigner(folder: folder.path, number: 128)
        }
        #expect(throws: Provisioning.Failure.noRoot(keyPath: "/nonexistent/keys/root.pem")) {
            try Provisioning.addSigner(folder: "/nonexistent", number: 3)
        }
    }

    @Test func `fuses of before devices had secrets get one, burnt into what they hold`() throws {
        let first = try provision()
        let old = Fuses(
            rootKeyDigest: first.fuses.rootKeyDigest, minimumSecurityVersion: 7, cancelledKeys: [4])
        try WholeFile.write(first.fusesPath, Array(old.json.utf8))
        let second = try provision()
        #expect(second.madeFuses && second.fuses.uniqueDeviceSecret != nil)
        #expect(second.fuses.minimumSecurityVersion == 7 && second.fuses.cancelledKeys == [4])
        #expect(try Fuses(path: first.fusesPath) == second.fuses)
    }

    @Test func `a folder that cannot be made is named`() {
        let error = #expect(throws: Provisioning.Failure.self) {
            try Provisioning.provision(folder: "/proc/nope")
        }
        #expect(error?.description.hasPrefix("/proc/nope: ") == true)
    }

    @Test func `a file is replaced as a whole or not at all`() throws {
        let path = folder.file("f")
        try WholeFile.write(path, [1, 2, 3])
        try WholeFile.write(path, [4])
        #expect(try WholeFile.read(path, limit: 10) == [4])
        #expect(throws: FileError.self) { try WholeFile.read(path, limit: 0) }
        #expect(throws: FileError.self) { try WholeFile.write("/dev/full/x", [1]) }
        // A full disk: the old file stays and no half of a new one is left behind.
        #expect(throws: FileError.self) { try WholeFile.write("/proc/self/x", [1]) }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["f"])
    }

    @Test func `an image in a file reads like one in memory`() throws {
        let bytes = (0..<700_001).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        try WholeFile.write(folder.file("image"), bytes)
        var reader = try FileImageReader(path: folder.file("image"))
        #expect(reader.byteCount == 700_001)
        #expect(try reader.read(offset: 3, count: 600_000) == Array(bytes[3..<600_003]))
        #expect(throws: ImageReadError.self) { try reader.read(offset: 700_000, count: 2) }
        #expect(throws: ImageReadError.self) { try FileImageReader(path: folder.file("none")) }
    }
}
