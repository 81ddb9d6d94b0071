import Foundation
import QMP
import TestKit
import Testing
import Wire

extension LiveBoard {
    func security() throws -> JSONValue { try qmp("logic0", "query-security-state") }

    /// What the logic said since power came.
    func events(_ name: String) throws -> [JSONValue] {
        (try qmp("logic0", "query-events").arrayValue ?? []).filter { $0["event"]?.stringValue == name }
    }
}

/// Boards whose firmware is damaged, updated or attacked.
@Suite(.serialized) struct SecureExecutionTests {
    @Test func `a bad slot A is passed over, the board runs B and says so`() throws {
        let own = try ProvisionedBoard()
        try own.fill(a: own.image("first", version: 1), b: own.image("second", version: 1))
        try own.spoil(0)
        let board = try own.start()
        try #require(board.up.status == 0, "\(board.up.output)")
        let state = try board.security()
        #expect(state["slot"] == "B" && state["image"] == "second" && state["state"] == "locked", "\(state)")
        let refused = try board.events("SLOT_REFUSED")
        #expect(refused.count == 1 && refused[0]["data"]?["slot"] == "A")
        #expect(refused.first?["data"]?["reason"]?.stringValue?.contains("OpenSBI") == true, "\(refused)")
    }

    @Test func `when only golden is good, slot A is written from it and runs, also the next time`() throws {
        let own = try ProvisionedBoard()
        let image = try own.image("first", version: 1)
        try own.fill(a: image, b: image, golden: own.image("golden", version: 1))
        try own.spoil(0)
        try own.spoil(1)
        for isFirst in [true, false] {
            let board = try own.start()
            try #require(board.up.status == 0, "\(board.up.output)")
            let state = try board.security()
            #expect(state["slot"] == "A" && state["image"] == "golden", "\(state)")
            #expect(try board.events("RECOVERY_COMPLETE").count == (isFirst ? 1 : 0))
        }
    }

    @Test func `when nothing is good host, BMC and card stay held, and up names every slot's reason`() throws {
        let own = try ProvisionedBoard()
        let image = try own.image("first", version: 1)
        try own.fill(a: image, b: image, golden: image)
        for slot in 0...2 { try own.spoil(slot) }
        let board = try own.start()
        #expect(board.up.status == 3, "\(board.up.output)")
        for slot in ["A", "B", "golden"] { #expect(board.up.output.contains(slot), "\(board.up.output)") }
        #expect(board.up.output.contains("digest mismatch"), "\(board.up.output)")
        for name in ["host0", "bmc0", "offload0"] { #expect(try board.component(name)["status"] == "held") }
        #expect(try board.security()["released"] == [])
    }

    @Test func `an update boots at the next power cycle, and what it replaced can then be made unusable for ever`()
        throws
    {
        let own = try ProvisionedBoard()
        let old = try own.image("old", version: 1)
        try own.fill(a: old, b: old, golden: own.image("golden", version: 2))
        let new = try own.image("new", version: 2, floor: 2)
        let board = try own.start()
        try #require(board.up.status == 0, "\(board.up.output)")
        #expect(try board.security()["image"] == "old")

        let update = try board.baseboard(["update", new])
        #expect(update.status == 0, "\(update.output)")
        #expect(try board.security()["image"] == "old", "nothing changes before the power cycle")
        _ = try board.qmp("logic0", "system_reset")
        #expect(
            eventually {
                let state = try? board.security()
                return state?["image"] == "new" && state?["state"] == "locked"
            })
        #expect(try board.security()["slot"] == "B")
        // The rollback floor is burnt once it has booted.
        #expect(eventually { (try? board.security())?["minimum-security-version"] == 2 })

        let replay = try board.baseboard(["update", old])
        #expect(replay.status == 1 && replay.output.contains("security version"), "\(replay.output)")
        // The slot with the old image is refused from here on, whoever wrote it.
        let fuses = try String(contentsOfFile: own.fuses, encoding: .utf8)
        #expect(fuses.contains("\"minimumSecurityVersion\": 2"), "\(fuses)")
    }

    @Test func `an update that is not authentic is refused before the chip is touched`() throws {
        let own = try ProvisionedBoard()
        let image = try own.image("good", version: 1)
        try own.fill(a: image, b: image)
        let stranger = try ProvisionedBoard()
        let foreign = try stranger.image("evil", version: 9)
        let board = try own.start()
        try #require(board.up.status == 0, "\(board.up.output)")
        let before = try board.qmp("flash0", "query-flash")
        let update = try board.baseboard(["update", foreign])
        #expect(update.status == 1 && update.output.contains("refused"), "\(update.output)")
        let text = try board.baseboard(["update", packageFolder + "/README.md"])
        #expect(text.status == 1 && text.output.contains("slot image"), "\(text.output)")
        let after = try board.qmp("flash0", "query-flash")
        #expect(before["programs"] == after["programs"] && before["erases"] == after["erases"])
    }
}
