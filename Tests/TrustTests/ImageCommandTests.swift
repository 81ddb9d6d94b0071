import DeviceFirmware
import Foundation
import QMP
import TestKit
import Testing
import Trust

/// `baseboard provision` and `baseboard image`, as scripts call them.
@Suite struct ImageCommandTests {
    let folder = TemporaryFolder()

    private func baseboard(_ arguments: String...) throws -> (status: Int32?, output: String) {
        try run(binary("baseboard"), arguments)
    }

    /// Builds with the signer; with `key` as a root.
    private func build(
        key: String? = nil, firstStage: Int = 100, more: [String] = []
    ) throws -> (status: Int32?, output: String) {
        try WholeFile.write(folder.file("first"), [UInt8](repeating: 1, count: firstStage))
        try WholeFile.write(folder.file("sbi"), [UInt8](repeating: 2, count: 2000))
        try WholeFile.write(folder.file("next"), [UInt8](repeating: 3, count: 3000))
        let signer =
            more.contains("--unsigned")
            ? []
            : key.map { ["--key", $0] }
                ?? ["--key", folder.file("keys/signer.pem"), "--certificate", folder.file("keys/signer.cert")]
        return try run(
            binary("baseboard"),
            ["image", "build"] + signer + [
                "--name", "demo", "--security-version", "1", "--first-stage", folder.file("first"), "--opensbi",
                folder.file("sbi"), "--next-stage", folder.file("next"), "--output", folder.file("demo.img"),
            ] + more)
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
        #expect(try verify().output.contains("by a root that the fuses do not name"))
    }

    @Test func `an image is built here and signed there, put into a chip, and refused when its key is cancelled`()
        throws
    {
        #expect(try baseboard("provision", "--output", folder.path).status == 0)
        #expect(try baseboard("provision", "--output", folder.path, "--add-signer", "9").status == 0)
        let package = try baseboard(
            "image", "firmware", "--target", "bmc", "--version", "1.2.3", "--output", folder.file("bmc"))
        #expect(package.status == 0, "\(package.output)")
        let built = try build(more: ["--unsigned", "--bmc", folder.file("bmc"), "--rollback-floor", "1"])
        #expect(built.status == 0 && built.output.contains("not signed yet"), "\(built.output)")
        #expect(try verify().output.contains("refused: demo: the image is not signed"))
        #expect(try baseboard("image", "inspect", folder.file("demo.img")).output.contains("signature         none"))
        let signed = try baseboard(
            "image", "sign", folder.file("demo.img"), "--key", folder.file("keys/signer-9.pem"), "--certificate",
            folder.file("keys/signer-9.cert"))
        #expect(signed.status == 0 && signed.output.contains("signed by key number 9"), "\(signed.output)")
        #expect(try verify().status == 0)

        let chip = try baseboard(
            "image", "chip", "--b", folder.file("demo.img"), "--golden", folder.file("demo.img"), "--size", "16MiB",
            "--output", folder.file("chip.img"))
        #expect(chip.status == 0, "\(chip.output)")
        func chipStatus(_ slot: String) throws -> (status: Int32?, output: String) {
            try baseboard(
                "image", "verify", folder.file("chip.img"), "--slot", slot, "--fuses", folder.file("fuses.json"))
        }
        #expect(try chipStatus("a").output.contains("no manifest"))
        #expect(try chipStatus("b").status == 0)
        #expect(try chipStatus("golden").status == 0)
        let json = try baseboard("image", "inspect", folder.file("chip.img"), "--slot", "b", "--json")
        let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
        #expect((object?["certificate"] as? [String: Any])?["key-number"] as? Int == 9)
        let targets = (object?["components"] as? [[String: Any]])?.compactMap { $0["target"] as? String }
        #expect(targets == ["host", "host", "host", "host", "bmc"])

        let cancelled = try baseboard("provision", "--output", folder.path, "--cancel-key", "9")
        #expect(cancelled.status == 0, "\(cancelled.output)")
        let refused = try verify()
        #expect(refused.status == 1)
        #expect(refused.output.contains("signed by key number 9, which the fuses cancel"), "\(refused.output)")
        // The first signer signs it again, and it runs.
        let again = try baseboard(
            "image", "sign", folder.file("demo.img"), "--key", folder.file("keys/signer.pem"), "--certificate",
            folder.file("keys/signer.cert"))
        #expect(again.status == 0, "\(again.output)")
        #expect(try verify().status == 0)
    }

    @Test func `firmware of a device is made, shown in its image, and only its own device's goes into one`() throws {
        let path = folder.file("bmc.pkg")
        func make(_ arguments: String...) throws -> (status: Int32?, output: String) {
            try run(binary("baseboard"), ["image", "firmware", "--output", path] + arguments)
        }
        let made = try make(
            "--target", "bmc", "--version", "1.22.3", "--set", "boot-line=up = now", "--set", "device-id=0x2a", "--set",
            "rmcp=false")
        #expect(made.status == 0, "\(made.output)")
        #expect(
            made.output.contains("bmc.pkg: firmware 1.22.3 for bmc, boot-line 'up = now', device-id '42', rmcp 'false'")
        )
        let package = try FirmwarePackage(decoding: WholeFile.read(path, limit: 4096), for: .bmc)
        #expect(package.version == FirmwareVersion("1.22.3"))
        #expect(
            package.settings == ["boot-line": .text("up = now"), "device-id": .unsigned(42), "rmcp": .boolean(false)])
        let json = try make("--target", "bmc", "--version", "1.2.3", "--set", "product-id=7", "--json")
        let fields = try #require(JSONValue(parsing: json.output), "\(json.output)")
        #expect(fields["version"] == "1.2.3" && fields["settings"] == ["product-id": 7] && fields["target"] == "bmc")

        #expect(try build(more: ["--unsigned", "--bmc", path]).status == 0)
        let shown = try baseboard("image", "inspect", folder.file("demo.img"))
        #expect(shown.output.contains("firmware 1.2.3 for bmc, product-id '7'"), "\(shown.output)")
        let inspected = JSONValue(parsing: try baseboard("image", "inspect", "--json", folder.file("demo.img")).output)
        #expect(inspected?["components"]?.arrayValue?.last?["firmware"]?["version"] == "1.2.3")

        for (option, file, reason) in [
            ("--adapter", path, "the package is for bmc, not for adapter"),
            ("--bmc", folder.file("first"), "no firmware package"),
        ] {
            let refused = try build(more: ["--unsigned", option, file])
            #expect(refused.status == 1 && refused.output.contains(reason), "\(refused.output)")
            #expect(refused.output.contains("'baseboard image firmware --target"), "\(refused.output)")
        }
    }

    @Test(arguments: [
        (["--target", "host", "--version", "1.2.3"], "host"),
        (["--target", "bmc", "--version", "1.2"], "1.2"),
        (["--target", "bmc", "--version", "128.0.0"], "128.0.0"),
        (["--target", "adapter", "--version", "1.2.3", "--set", "boot-line=x"], "only forwarding"),
        (["--target", "adapter", "--version", "1.2.3", "--set", "forwarding=some"], "permit-all or deny-all"),
        (["--target", "bmc", "--version", "1.2.3", "--set", "device-id=256"], "a number from 0 to 255"),
        (["--target", "bmc", "--version", "1.2.3", "--set", "rmcp"], "name=value"),
        (["--target", "bmc", "--version", "1.2.3", "--set", "rmcp=true", "--set", "rmcp=true"], "twice"),
    ])
    func `a mistake at a device's firmware is named, with what may be written`(arguments: [String], named: String)
        throws
    {
        let result = try run(
            binary("baseboard"), ["image", "firmware", "--output", folder.file("x.pkg")] + arguments)
        #expect(result.status == 2 && result.output.contains(named), "\(result.output)")
        #expect(!FileManager.default.fileExists(atPath: folder.file("x.pkg")))
    }

    @Test func `mistakes at signing say what to do`() throws {
        #expect(try baseboard("provision", "--output", folder.path, "--algorithm", "ed25519").status == 0)
        #expect(try baseboard("provision", "--output", folder.path, "--add-signer", "2").status == 0)
        #expect(try build().status == 0)
        func sign(_ arguments: String...) throws -> (status: Int32?, output: String) {
            try run(binary("baseboard"), ["image", "sign", folder.file("demo.img")] + arguments)
        }
        let other = try sign(
            "--key", folder.file("keys/signer.pem"), "--certificate", folder.file("keys/signer-2.cert"))
        #expect(other.status == 1 && other.output.contains("signer-2.cert"), "\(other.output)")
        #expect(other.output.contains("for another key than the one that is to sign"), "\(other.output)")
        let swapped = try sign(
            "--key", folder.file("keys/signer.pem"), "--certificate", folder.file("keys/signer.pem"))
        #expect(swapped.status == 1 && swapped.output.contains("no signer's certificate"), "\(swapped.output)")
        #expect(try sign().status == 2)
        #expect(try sign("--certificate", folder.file("keys/signer.cert")).status == 2)
        #expect(try verify().status == 0)
        let chip = try baseboard(
            "image", "chip", "--a", folder.file("sbi"), "--output", folder.file("chip.img"))
        #expect(chip.status == 1 && chip.output.contains("no firmware image"), "\(chip.output)")
        let odd = try baseboard(
            "image", "chip", "--a", folder.file("demo.img"), "--size", "3MiB", "--output", folder.file("chip.img"))
        #expect(odd.status == 1 && odd.output.contains("power of two"), "\(odd.output)")
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
