import Foundation
import SecurityLogic
import TestKit
import Testing
import Trust

@Suite struct BootRecordTests {
    let folder = TemporaryFolder()

    private func file(_ text: String? = nil) throws -> BootRecordFile {
        if let text { try Data(text.utf8).write(to: URL(fileURLWithPath: folder.file("state"))) }
        return BootRecordFile(path: folder.file("state"))
    }

    @Test func `a board without a record takes slot A, and that is no mistake`() throws {
        let (record, warning) = try file().load()
        #expect(record == BootRecord())
        #expect(record.active == .a && record.pending == nil && record.failed.isEmpty)
        #expect(record.candidates == [.a, .b, .golden])
        #expect(warning == nil)
    }

    @Test func `what is stored is loaded again`() throws {
        var record = BootRecord()
        record.stage(.b)
        let file = try file()
        try file.store(record)
        let (loaded, warning) = file.load()
        #expect(loaded == record)
        #expect(loaded.pending == .b)
        #expect(loaded.candidates == [.b, .a, .golden])
        #expect(loaded.inactive == .b)
        #expect(warning == nil)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["state"], "nothing is left beside it")
    }

    static let broken = [
        "", "{", "[]", "{}", #"{"active": "A", "pending": null}"#,
        #"{"active": "C", "pending": null, "failed": []}"#, #"{"active": "golden", "pending": null, "failed": []}"#,
        #"{"active": "A", "pending": "golden", "failed": []}"#, #"{"active": "A", "pending": null, "failed": ["X"]}"#,
        #"{"active": "A", "pending": null, "failed": [], "more": 1}"#, #"{"active": 1, "pending": null, "failed": []}"#,
        String(repeating: " ", count: 5000), "\u{0}\u{0}\u{0}\u{0}",
    ]

    @Test(arguments: broken)
    func `a broken record is a warning and a new board's record`(text: String) throws {
        let (record, warning) = try file(text).load()
        #expect(record == BootRecord())
        #expect(warning?.contains("slot A is taken as active") == true)
        #expect(warning?.contains(folder.file("state")) == true)
    }

    @Test func `every part of a record that a power cut could leave is judged`() throws {
        let whole = #"{"active": "B", "pending": null, "failed": ["A"]}"#
        for length in 0..<whole.utf8.count {
            #expect(try file(String(whole.prefix(length))).load().record == BootRecord())
        }
        let (record, warning) = try file(whole).load()
        #expect(record.active == .b && record.failed == [.a])
        #expect(record.candidates == [.b, .golden], "what did not boot is passed over")
        #expect(warning == nil)
    }

    @Test func `a folder in the record's place is a warning`() throws {
        try FileManager.default.createDirectory(atPath: folder.file("state"), withIntermediateDirectories: false)
        #expect(try file().load().warning != nil)
    }
}
