import Crypto
import Foundation
import TestKit
import Testing
import Trust

@Suite struct ProvisioningTests {
    let folder = TemporaryFolder()

    private func provision(force: Bool = false) throws(Provisioning.Failure) -> Provisioning.Outcome {
        try Provisioning.provision(folder: folder.file("board"), force: force)
    }

    @Test func `a folder gets a private key and fuses that accept its images`() throws {
        let outcome = try provision()
        #expect(outcome.madeKey && outcome.madeFuses)
        let attributes = try FileManager.default.attributesOfItem(atPath: outcome.keyPath)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        let key = try Provisioning.readKey(outcome.keyPath)
        #expect(try Fuses(path: outcome.fusesPath) == Fuses(root: key.verifyingKey, minimumSecurityVersion: 1))
        #expect(outcome.fuses.rootKeyDigest == (try COSEKey(key.verifyingKey).digest()))
    }

    @Test func `what is there is kept, and replaced by force`() throws {
        let first = try provision()
        let second = try provision()
        #expect(!second.madeKey && !second.madeFuses)
        #expect(second.fuses == first.fuses)
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
        #expect(second.fuses == first.fuses)
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

    @Test func `a folder that cannot be made is named`() {
        let error = #expect(throws: Provisioning.Failure.self) {
            try Provisioning.provision(folder: "/proc/nope", force: false)
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
