import Crypto
import Foundation
import Testing
import Trust

@Suite struct FusesTests {
    static let digest = [UInt8](repeating: 0xAB, count: 48)

    @Test func `fuses are read back as they were written`() throws {
        let fuses = Fuses(
            rootKeyDigest: Self.digest, minimumSecurityVersion: .max, cancelledKeys: [0, 5, 127],
            uniqueDeviceSecret: [UInt8](0..<32))
        let path = "/tmp/fuses-\(UUID().uuidString.prefix(8)).json"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(fuses.json.utf8).write(to: URL(fileURLWithPath: path))
        #expect(try Fuses(path: path) == fuses)
    }

    @Test func `fuses that are printed do not tell their secret`() {
        let secret = [UInt8](repeating: 0xC7, count: 32)
        let fuses = Fuses(rootKeyDigest: Self.digest, minimumSecurityVersion: 4, uniqueDeviceSecret: secret)
        var dumped = ""
        dump(fuses, to: &dumped)
        for text in ["\(fuses)", String(reflecting: fuses), "\([fuses])", dumped] {
            #expect(!text.contains("c7c7") && !text.contains("199"), "\(text)")
        }
    }

    @Test func `a missing file is named with what to do`() {
        let error = #expect(throws: FusesError.self) { try Fuses(path: "/nonexistent/fuses.json") }
        #expect(error?.description.contains("/nonexistent/fuses.json: cannot read the fuses") == true)
        #expect(error?.description.contains("baseboard provision") == true)
    }

    static func text(_ digest: String, _ version: String, _ board: String, _ more: String = "") -> String {
        "{\"rootKeyDigest\": \(digest), \"minimumSecurityVersion\": \(version), \"boardCompatibility\": \(board)\(more)}"
    }
    static let good = "\"" + String(repeating: "ab", count: 48) + "\""

    @Test(arguments: [
        ("", ""), ("[]", ""), ("{", ""), ("{}", "rootKeyDigest"), (text("\"ab\"", "1", "\"b\""), "rootKeyDigest"),
        (text("1", "1", "\"b\""), "rootKeyDigest"), (text(good, "-1", "\"b\""), "minimumSecurityVersion"),
        (text(good, "4294967296", "\"b\""), "minimumSecurityVersion"),
        (text(good, "1.5", "\"b\""), "minimumSecurityVersion"),
        (text(good, "\"1\"", "\"b\""), "minimumSecurityVersion"),
        (text(good, "null", "\"b\""), "minimumSecurityVersion"), (text(good, "1", "\"\""), "boardCompatibility"),
        (text(good, "1", "\"a b\""), "boardCompatibility"), (text(good, "1", "\"b\"", ", \"extra\": 1"), "extra"),
        (text(good, "1", "\"b\"", ", \"cancelledKeys\": 3"), "cancelledKeys"),
        (text(good, "1", "\"b\"", ", \"cancelledKeys\": [128]"), "cancelledKeys"),
        (text(good, "1", "\"b\"", ", \"cancelledKeys\": [-1]"), "cancelledKeys"),
        (text(good, "1", "\"b\"", ", \"cancelledKeys\": [\"1\"]"), "cancelledKeys"),
        (text(good, "1", "\"b\"", ", \"uniqueDeviceSecret\": \"00\""), "uniqueDeviceSecret"),
        (text(good, "1", "\"b\"", ", \"uniqueDeviceSecret\": null"), "uniqueDeviceSecret"),
    ])
    func `a file that is no fuses is refused with file and field`(text: String, field: String) {
        let error = #expect(throws: FusesError.self) { try Fuses(json: Array(text.utf8), path: "f.json") }
        let message = error?.description ?? ""
        #expect(message.hasPrefix("f.json: ") && (field.isEmpty || message.contains(field)), "\(message)")
    }
}
