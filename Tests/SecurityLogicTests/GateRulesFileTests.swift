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
        try Data(rules.utf8).write(to: URL(fileURLWithPath: folder.file("rules.yaml")))
        let fuses = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 1)
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        try Data(repeating: 0xFF, count: 32 << 20).write(to: URL(fileURLWithPath: folder.file("chip.img")))
        let flash = try ComponentProcess("flash", in: folder, listens: ["spi"], ["--image", folder.file("chip.img")])
        let logic = try ComponentProcess(
            "security-logic", in: folder, listens: ["spi-external"], connects: ["flash": "flash.spi"],
            ["--fuses", folder.file("fuses.json"), "--rules", folder.file("rules.yaml")])
        return (logic, flash)
    }

    @Test func `rules from a file replace the built-in ones`() throws {
        for text in [
            """
            external:
              - allow: [read]
                while: [held]
                range: 0x1000-0x1FFF
            opcodes:
              external: {before-lock: [0x0C], after-lock: []}
            """,
            #"{"external": [{"allow": ["read"], "while": ["held"], "range": "4096-8191"}],"#
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
        ("host:\n  - allow: [read, program]\n    while: [locked]\n", ["rules.yaml:2:19", "the host may only read"]),
        ("bmc:\n  - {while: [released], allow: [erase]}\n", ["rules.yaml:2:33", "the bmc may only read"]),
        ("adapter:\n  - allow: [read]\n    while: [locked]\n", ["rules.yaml:3:13", "unprotected mode only"]),
        ("programmer: []\n", ["rules.yaml:1:1", "'programmer' is no master", "'external'"]),
        ("external:\n  - allow: [write]\n    while: [held]\n", ["rules.yaml:2:13", "'program'"]),
        ("external:\n  - allow: [read]\n    while: [asleep]\n", ["rules.yaml:3:13", "'unprotected'"]),
        ("external:\n  - allow: [read]\n", ["rules.yaml:2:5", "no 'while'"]),
        (
            "external:\n  - allow: [read]\n    while: [held]\n    range: 9-1\n",
            ["rules.yaml:4:12", "first and the last byte"]
        ),
        ("external:\n  - allow: [read]\n    while: [held]\n    size: 1\n", ["rules.yaml:4:5", "no part of a rule"]),
        ("external: read\n", ["rules.yaml:1:11", "list of rules"]),
        ("opcodes:\n  external: {before-lock: [0xB7]}\n", ["rules.yaml:2:28", "changes the chip's modes"]),
        ("opcodes:\n  host: {after-lock: [0x06]}\n", ["rules.yaml:2:23", "it may only read"]),
        ("opcodes:\n  host: {later: []}\n", ["rules.yaml:2:10", "'after-lock'"]),
        ("opcodes:\n  bmc: {after-lock: [300]}\n", ["rules.yaml:2:22", "0x9F"]),
        ("", ["rules.yaml:1:1"]), ("{", ["rules.yaml", "not YAML"]), ("- 1\n", ["rules.yaml:1:1", "must be a map"]),
    ]

    @Test(arguments: mistakes.indices)
    func `a mistake in the rules is named with its line and the way out`(index: Int) throws {
        let (text, named) = Self.mistakes[index]
        let folder = TemporaryFolder()
        try Data(text.utf8).write(to: URL(fileURLWithPath: folder.file("rules.yaml")))
        let fuses = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 1)
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: folder.file("fuses.json")))
        let (status, output) = try run(
            binary("security-logic"),
            [
                "--fuses", folder.file("fuses.json"), "--connect", "flash=\(folder.file("chip"))", "--rules",
                folder.file("rules.yaml"),
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
            ["--fuses", folder.file("fuses.json"), "--connect", "flash=/x", "--rules", folder.file("none.yaml")])
        #expect(status == 1)
        #expect(output.contains("none.yaml: cannot read the flash rules: no such file"), "\(output)")
    }
}
