import Foundation
import TestKit
import Testing
import Trust

/// `baseboard provision` and `baseboard image`, as scripts call them.
@Suite struct ImageCommandTests {
    let folder = TemporaryFolder()

    private func baseboard(_ arguments: String...) throws -> (status: Int32?, output: String) {
        try run(binary("baseboard"), arguments)
    }

    private func build(key: String? = nil, firstStage: Int = 100) throws -> (status: Int32?, output: String) {
        try WholeFile.write(folder.file("first"), [UInt8](repeating: 1, count: firstStage))
        try WholeFile.write(folder.file("sbi"), [UInt8](repeating: 2, count: 2000))
        try WholeFile.write(folder.file("next"), [UInt8](repeating: 3, count: 3000))
        return try baseboard(
            "image", "build", "--key", key ?? folder.file("keys/root.pem"), "--name", "demo", "--security-version",
            "1", "--first-stage", folder.file("first"), "--opensbi", folder.file("sbi"), "--next-stage",
            folder.file("next"), "--output", folder.file("demo.img"))
    }

    private func verify() throws -> (status: Int32?, output: String) {
        try baseboard("image", "verify", folder.file("demo.img"), "--fuses", folder.file("fuses.json"))
    }

    @Test func `a provisioned board's image is built, shown, verified, and refused once it changed`() throws {
        #expect(try baseboard("provision", "--output", folder.path).status == 0)
        #expect(try build().status == 0)
        let good = try verify()
        #expect(good.status == 0 && good.output.contains("verified: demo, security version 1"), "\(good.output)")
        let shown = try baseboard("image", "inspect", folder.file("demo.img"))
        #expect(shown.status == 0 && shown.output.contains("made by that key"), "\(shown.output)")
        let json = try baseboard("image", "inspect", "--json", folder.file("demo.img"))
        let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
        #expect(object?["name"] as? String == "demo")
        #expect((object?["components"] as? [Any])?.count == 4)

        var bytes = try WholeFile.read(folder.file("demo.img"), limit: 1 << 26)
        bytes[0x2_0000] ^= 1
        try WholeFile.write(folder.file("demo.img"), bytes)
        let changed = try verify()
        #expect(changed.status == 1)
        #expect(changed.output.contains("refused: demo: component OpenSBI: digest mismatch"), "\(changed.output)")

        #expect(try build().status == 0)
        #expect(try baseboard("provision", "--output", folder.path, "--force").status == 0)
        #expect(try verify().output.contains("key digest does not match the fuses"))
    }

    @Test func `what is missing or too large is named, and the exit status is 1`() throws {
        let keyless = try build(key: folder.file("none.pem"))
        #expect(keyless.status == 1 && keyless.output.contains(folder.file("none.pem")), "\(keyless.output)")
        #expect(try baseboard("provision", "--output", folder.path).status == 0)
        let large = try build(firstStage: 0x1_0001)
        #expect(large.status == 1)
        #expect(large.output.contains("the first stage has 65537 bytes, its place in the flash holds 65536"))
        #expect(!FileManager.default.fileExists(atPath: folder.file("demo.img")))
        let fuseless = try verify()
        #expect(fuseless.status == 1 && fuseless.output.contains("demo.img"), "\(fuseless.output)")
        let wrong = try baseboard("image", "inspect", folder.file("first"))
        #expect(wrong.status == 1 && wrong.output.contains("truncated image"), "\(wrong.output)")
    }
}
