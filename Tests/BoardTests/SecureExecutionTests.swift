import Foundation
import QMP
import TestKit
import Testing
import Wire

/// A board with keys, fuses, chip and boot record of its own, which outlive its processes as they outlive a power cut.
private final class ProvisionedBoard {
    let files = TemporaryFolder()
    private static let firmware = packageFolder + "/.build/firmware"

    init() throws { try baseboard("provision", "--output", files.path) }

    private func baseboard(_ arguments: String...) throws {
        let result = try run(binary("baseboard"), arguments)
        try #require(result.status == 0, "\(arguments): \(result.output)")
    }

    /// Builds a signed slot image; its path.
    func image(_ name: String, version: Int, floor: Int = 0) throws -> String {
        let path = files.file(name + ".slot.img")
        try baseboard(
            "image", "build", "--key", files.file("keys/root.pem"), "--name", name, "--security-version", "\(version)",
            "--rollback-floor", "\(floor)", "--first-stage", Self.firmware + "/first-stage.bin", "--opensbi",
            Self.firmware + "/fw_dynamic.bin", "--next-stage", Self.firmware + "/host.bin", "--output", path)
        return path
    }

    /// What is at `damaged` in a good image.
    private var goodByte: UInt8 = 0
    /// A byte of OpenSBI.
    private static let damaged = 0x2_0000 + 99

    /// Puts images into the chip's slots.
    func fill(a: String, b: String? = nil, golden: String? = nil) throws {
        goodByte = try Data(contentsOf: URL(fileURLWithPath: a))[Self.damaged]
        var arguments = ["image", "chip", "--a", a]
        if let b { arguments += ["--b", b] }
        if let golden { arguments += ["--golden", golden] }
        let result = try run(binary("baseboard"), arguments + ["--output", chip])
        try #require(result.status == 0, "\(result.output)")
    }

    var chip: String { files.file("chip.img") }

    /// Changes one byte of a slot's OpenSBI: 0 A, 1 B, 2 golden.
    func spoil(_ slot: Int) throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: chip))
        try file.seek(toOffset: UInt64(slot * (8 << 20) + Self.damaged))
        try file.write(contentsOf: Data([goodByte ^ 0x40]))
    }

    func settings(_ more: [String]) -> [String] {
        ([
            "flash0.image=\(chip)", "flash0.writable=true", "flash0.busy-time=0",
            "logic0.fuses=\(files.file("fuses.json"))", "logic0.state=\(files.file("boot.json"))",
        ] + more).flatMap { ["--set", "components.\($0)"] }
    }

    func start(_ more: String...) throws -> LiveBoard {
        // A board that was cut off may still be going: its chip's process holds the file's lock until it is gone.
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: chip))
        try #require(eventually { flock(file.fileDescriptor, LOCK_EX | LOCK_NB) == 0 })
        try file.close()
        return try LiveBoard("topology/server.yaml", settings(more))
    }
}

extension LiveBoard {
    fileprivate func security() throws -> JSONValue { try qmp("logic0", "query-security-state") }

    /// What the logic said since power came.
    fileprivate func events(_ name: String) throws -> [JSONValue] {
        (try qmp("logic0", "query-events").arrayValue ?? []).filter { $0["event"]?.stringValue == name }
    }
}

/// Boards whose firmware is damaged, updated, attacked or cut off.
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

    @Test func `when nothing is good host and BMC stay held, and up names every slot's reason`() throws {
        let own = try ProvisionedBoard()
        let image = try own.image("first", version: 1)
        try own.fill(a: image, b: image, golden: image)
        for slot in 0...2 { try own.spoil(slot) }
        let board = try own.start()
        #expect(board.up.status == 3, "\(board.up.output)")
        for slot in ["A", "B", "golden"] { #expect(board.up.output.contains(slot), "\(board.up.output)") }
        #expect(board.up.output.contains("digest mismatch"), "\(board.up.output)")
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
        let fuses = try String(contentsOfFile: own.files.file("fuses.json"), encoding: .utf8)
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

    @Test func `a power cut at any step of a boot, and of a recovery, leaves a board that boots`() throws {
        var generator = SeededGenerator.fresh()
        let own = try ProvisionedBoard()
        let image = try own.image("first", version: 1)
        try own.fill(a: image, b: image, golden: image)
        // With nothing wrong, then with a recovery to be cut.
        for isRecovering in [false, true] {
            var step = 1
            while true {
                if isRecovering { for slot in 0...1 { try own.spoil(slot) } }
                let child = try RunningProcess(
                    binary("baseboard"),
                    ["up", packageFolder + "/topology/server.yaml"]
                        + own.settings(["flash0.seed=\(generator.next() >> 1)"]),
                    environment: ["BASEBOARD_RUNTIME_DIR": own.files.path, "NO_COLOR": "1"])
                // The timeline's line number `step` is the moment; the components die with their launcher.
                let isReached = eventually { lines(child.text) >= step || !child.isRunning || isUp(child.text) }
                let isOver = isUp(child.text)
                #expect(isReached && child.isRunning, "step \(step), seed \(generator.seed): \(child.text)")
                child.signal(SIGKILL)
                _ = child.waitForExit()
                let board = try own.start()
                try #require(board.up.status == 0, "step \(step), seed \(generator.seed): \(board.up.output)")
                #expect(try board.security()["state"] == "locked")
                if isOver { break }
                step += 1
            }
            #expect(step > 10)
        }
    }

    @Test func `an update that is cut off at any byte leaves the old image or the new one`() throws {
        var generator = SeededGenerator.fresh()
        let own = try ProvisionedBoard()
        let old = try own.image("old", version: 1)
        try own.fill(a: old, b: old, golden: old)
        let new = try own.image("new", version: 1)
        let size = Double(try Data(contentsOf: URL(fileURLWithPath: new)).count)
        for _ in 0..<6 {
            let place = Int64(Double.random(in: 0..<1, using: &generator) * size)
            do {
                // Busy for a twentieth of a real chip's time, so that the cut finds it at work.
                let board = try own.start("flash0.busy-time=5", "flash0.seed=\(generator.next() >> 1)")
                try #require(board.up.status == 0, "seed \(generator.seed): \(board.up.output)")
                _ = try board.qmp("bmc0", "update-firmware", "file=\(new)")
                #expect(
                    eventually {
                        let state = try? board.qmp("bmc0", "query-update")
                        return state?["sent"]?.integerValue ?? 0 >= place || state?["state"] == "failed"
                    })
                let launcher = try #require(board.record()["supervisor"]?.integerValue.flatMap { pid_t(exactly: $0) })
                kill(launcher, SIGKILL)
            }
            let board = try own.start()
            try #require(board.up.status == 0, "at \(place), seed \(generator.seed): \(board.up.output)")
            let state = try board.security()
            #expect(state["state"] == "locked" && ["old", "new"].contains(state["image"]?.stringValue), "\(state)")
        }
    }

    private func lines(_ text: String) -> Int { text.split(separator: "\n").count }
    private func isUp(_ text: String) -> Bool { text.contains("BOARD_UP") }
}
