import Crypto
import Foundation
import TestKit
import Testing
import Trust

@Suite struct FuseStoreTests {
    let folder = TemporaryFolder()

    private func store(
        _ fuses: Fuses = Fuses(rootKeyDigest: [UInt8](repeating: 1, count: 48), minimumSecurityVersion: 3)
    )
        throws -> FuseStore
    {
        try WholeFile.write(folder.file("fuses.json"), Array(fuses.json.utf8))
        return try FuseStore(path: folder.file("fuses.json"))
    }

    private func stored() throws -> Fuses { try Fuses(path: folder.file("fuses.json")) }

    @Test func `what is burnt is in the file and stays there`() throws {
        let store = try store()
        try store.burn(minimumSecurityVersion: 7)
        try store.burn(cancelledKey: 0)
        try store.burn(cancelledKey: 127)
        try store.burn(cancelledKey: 127)
        #expect(try stored() == store.fuses)
        #expect(store.fuses.minimumSecurityVersion == 7)
        #expect(store.fuses.cancelledKeys.numbers == [0, 127])
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["fuses.json"])
    }

    @Test func `a bit is never cleared`() throws {
        let store = try store()
        let error = #expect(throws: FuseStoreError.self) { try store.burn(minimumSecurityVersion: 2) }
        #expect(error?.description.contains("minimumSecurityVersion is burnt to 3 and cannot become 2") == true)
        try store.burn(minimumSecurityVersion: 3)
        #expect(throws: FuseStoreError.noSuchKeyNumber(128)) { try store.burn(cancelledKey: 128) }
        try store.burn(uniqueDeviceSecret: [UInt8](repeating: 9, count: 32))
        #expect(throws: FuseStoreError.self) { try store.burn(uniqueDeviceSecret: [UInt8](repeating: 8, count: 32)) }
        #expect(try stored().uniqueDeviceSecret == [UInt8](repeating: 9, count: 32))
    }

    @Test func `a file with a secret is its owner's alone`() throws {
        let store = try store()
        try store.burn(uniqueDeviceSecret: [UInt8](repeating: 9, count: 32))
        let attributes = try FileManager.default.attributesOfItem(atPath: folder.file("fuses.json"))
        #expect(attributes[.posixPermissions] as? Int == 0o600)
    }

    @Test func `what another process burnt is kept`() throws {
        let first = try store()
        let second = try FuseStore(path: folder.file("fuses.json"))
        try second.burn(cancelledKey: 5)
        try second.burn(minimumSecurityVersion: 9)
        try first.burn(cancelledKey: 6)
        #expect(first.fuses.cancelledKeys.numbers == [5, 6])
        #expect(first.fuses.minimumSecurityVersion == 9)
        #expect(throws: FuseStoreError.self) { try first.burn(minimumSecurityVersion: 4) }
    }

    @Test(arguments: [
        Fuses(rootKeyDigest: [UInt8](repeating: 2, count: 48), minimumSecurityVersion: 3),
        Fuses(rootKeyDigest: [UInt8](repeating: 1, count: 48), minimumSecurityVersion: 2),
        Fuses(
            rootKeyDigest: [UInt8](repeating: 1, count: 48), minimumSecurityVersion: 3, boardCompatibility: "other"),
    ])
    func `a file that was put in the place of the fuses is not burnt into`(other: Fuses) throws {
        let store = try store()
        let before = store.fuses
        try WholeFile.write(folder.file("fuses.json"), Array(other.json.utf8))
        #expect(throws: FuseStoreError.replaced(path: folder.file("fuses.json"))) { try store.burn(cancelledKey: 1) }
        #expect(store.fuses == before)
        #expect(try stored() == other)
    }

    @Test func `a file that cannot be written leaves everything as it was`() throws {
        let store = try store()
        let before = store.fuses
        try FileManager.default.removeItem(atPath: folder.file("fuses.json"))
        #expect(throws: FuseStoreError.self) { try store.burn(cancelledKey: 1) }
        #expect(store.fuses == before)
    }

    @Test func `key numbers are bits of sixteen bytes`() {
        let keys: CancelledKeys = [0, 9, 127]
        #expect(keys.bytes == [1, 2] + [UInt8](repeating: 0, count: 13) + [0x80])
        #expect(CancelledKeys(bytes: keys.bytes) == keys)
        #expect(CancelledKeys(bytes: [0]) == nil)
        #expect(!keys.contains(128) && !keys.contains(255) && !keys.contains(1))
    }
}
