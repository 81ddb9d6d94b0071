import Crypto
import Foundation
import QMP
import Serprog
import TestKit
import Testing
import Trust
import Wire

/// The file of `security-logic --rules`.
@Suite struct GateRulesFileTests {
    private func start(_ rules: String) throws -> (logic: ComponentProcess, flash: ComponentProcess) {
        let folder = TemporaryFolder()
        try Data(rules.utf8).write(to: URL(fileURLWithPath: folder.file("rules.json")))
        let fuses = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 1)
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        try Data(repeating: 0xFF, count: 32 << 20).write(to: URL(fileURLWithPath: folder.file("chip.img")))
        let flash = try ComponentProcess("flash", in: folder, listens: ["spi"], ["--image", folder.file("chip.img")])
        let logic = try ComponentProcess(
            "security-logic", in: folder, listens: ["spi-external"], connects: ["flash": "flash.spi"],
            ["--fuses", folder.file("fuses.json"), "--rules", folder.file("rules.json")])
        return (logic, flash)
    }

    @Test func `rules from a file replace the built-in ones`() throws {
        for text in [
            """
            {
              // The second page alone, by one opcode.
              "external": [{"allow": ["read"], "while": ["held"], "range": [0x1000, 0x1F_FF]}],
              "opcodes": {"external": {"before-lock": [0x0C], "after-lock": []}}
            }
            """,
            #"{"external": [{"allow": ["read"], "while": ["held"], "range": [4096, 8191]}],"#
                + #" "opcodes": {"external": {"before-lock": [12], "after-lock": []}}}"#,
        ] {
            let (logic, flash) = try start(text)
            defer { withExtendedLifetime(flash) {} }
            let port = try SerprogClient(socket: logic.connect("spi-external"))
            #expect(try port.spiTransaction(write: [0x9F], readCount: 3) == [0xFF, 0xFF, 0xFF], "no such opcode")
            #expect(try port.readFlash(offset: 0x1FFE, count: 4) == [0xFF, 0xFF, 0xFF, 0xFF])
            let counters = try logic.control.execute("query-security-state")["masters"]?["external"]
            #expect(counters?["denied"] == 1)
            #expect(counters?["passed"] == 1)
            #expect(counters?["cut"] == 1)
            _ = try port.readFlash(offset: 0, count: 4)
            let after = try logic.control.execute("query-security-state")["masters"]?["external"]
            #expect(after?["denied"] == 2)
            #expect(after?["last-denied-opcode"] == 0x0C)
        }
    }

    static let mistakes: [(String, [String])] = [
        (
            "{\n\"host\": [{\"allow\": [\"read\", \"program\"], \"while\": []}]}",
            ["rules.json:2:29", "the host may only read"]
        ),
        (#"{"bmc": [{"while": ["released"], "allow": ["erase"]}]}"#, ["rules.json:1:44", "the bmc may only read"]),
        (#"{"adapter": [{"allow": ["read"], "while": ["locked"]}]}"#, ["rules.json:1:44", "unprotected mode only"]),
        (#"{"programmer": []}"#, ["rules.json:1:2", "\"programmer\" is no master", "\"external\""]),
        (#"{"external": [{"allow": ["write"], "while": ["held"]}]}"#, ["rules.json:1:26", "\"program\""]),
        (#"{"external": [{"allow": ["read"], "while": ["asleep"]}]}"#, ["rules.json:1:45", "\"unprotected\""]),
        (#"{"external": [{"allow": ["read"]}]}"#, ["rules.json:1:15", "no \"while\""]),
        (
            #"{"external": [{"allow": [], "while": [], "range": [9, 1]}]}"#,
            ["rules.json:1:51", "first and the last byte"]
        ),
        (
            #"{"external": [{"allow": [], "while": [], "range": [0, 0x1_0000_0000]}]}"#,
            ["rules.json:1:51", "first and the last byte"]
        ),
        (#"{"external": [{"allow": [], "while": [], "size": 1}]}"#, ["rules.json:1:42", "no part of a rule"]),
        (#"{"external": "read"}"#, ["rules.json:1:14", "list of rules"]),
        (#"{"opcodes": {"external": {"before-lock": [0xB7]}}}"#, ["rules.json:1:43", "changes the chip's modes"]),
        (#"{"opcodes": {"host": {"after-lock": [0x06]}}}"#, ["rules.json:1:38", "it may only read"]),
        (#"{"opcodes": {"host": {"later": []}}}"#, ["rules.json:1:23", "\"after-lock\""]),
        (#"{"opcodes": {"bmc": {"after-lock": [300]}}}"#, ["rules.json:1:37", "0x9F"]),
        ("", ["rules.json:1:1", "ends where a value"]), ("{", ["rules.json:1:2", "a value"]),
        ("[1]", ["rules.json:1:1", "must be a map"]), ("{} {}", ["rules.json:1:4", "goes on"]),
        (#"{"bmc": [],"# + "\n" + #" "bmc": []}"#, ["rules.json:2:2", "written twice (first at line 1)"]),
        (#"{"bmc" []}"#, ["rules.json:1:8", "':'"]), (#"{"bmc": [1 2]}"#, ["rules.json:1:12", "',' or ']'"]),
        (#"{"bmc": held}"#, ["rules.json:1:9", "quotation marks"]), (#"{"bmc"#, ["rules.json:1:2", "no end"]),
        (#"{"bm\u0063": []}"#, ["rules.json:1:5", "escapes"]), (#"{1: []}"#, ["rules.json:1:2", "must be a text"]),
        (String(repeating: "[", count: 40), ["rules.json:1:17", "too deep"]),
    ]

    @Test(arguments: mistakes.indices)
    func `a mistake in the rules is named with its line and the way out`(index: Int) throws {
        let (text, named) = Self.mistakes[index]
        let folder = TemporaryFolder()
        try Data(text.utf8).write(to: URL(fileURLWithPath: folder.file("rules.json")))
        let fuses = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 1)
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        let (status, output) = try run(
            binary("security-logic"),
            [
                "--fuses", folder.file("fuses.json"), "--connect", "flash=\(folder.file("chip"))", "--rules",
                folder.file("rules.json"),
            ])
        #expect(status == 1)
        for part in named { #expect(output.contains(part), "\(output)") }
    }

    @Test func `rules that are not there are one clear error`() throws {
        let folder = TemporaryFolder()
        let fuses = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 1)
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        let (status, output) = try run(
            binary("security-logic"),
            ["--fuses", folder.file("fuses.json"), "--connect", "flash=/x", "--rules", folder.file("none.json")])
        #expect(status == 1)
        #expect(output.contains("cannot read the flash rules: \(folder.file("none.json"))"), "\(output)")
    }
}
