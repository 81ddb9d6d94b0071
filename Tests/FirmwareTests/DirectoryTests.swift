import TestKit
import Testing
import Trust

/// Damage to the flash image's directory and what the first stage has to say to it.
private struct Damage: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// Offset in the directory, little-endian words to put there.
    let patches: [(offset: Int, value: UInt64)]
    let complaint: String

    init(_ what: String, _ patches: [(Int, UInt64)], _ complaint: String) {
        testDescription = what
        self.patches = patches.map { (offset: $0.0, value: $0.1) }
        self.complaint = complaint
    }
}

/// Offsets of the fields of the entry for OpenSBI (the first) and the next stage.
private enum Field {
    static let header = 0
    static let openSBI = 8
    static let nextStage = 40
    static let offset = 0
    static let size = 8
    static let load = 16
    static let kind = 24
}

private let magic: UInt64 = 0x4452_4942

@Suite("A damaged directory")
struct DirectoryTests {
    private static let damages: [Damage] = [
        .init("erased", [(Field.header, .max)], "the flash image has no directory at 0x1f000"),
        .init(
            "too many entries", [(Field.header, 0x80 << 32 | magic)],
            "the directory claims more entries than fit into it"),
        .init("no entry", [(Field.header, magic)], "the directory has no OpenSBI"),
        .init("one entry", [(Field.header, 1 << 32 | magic)], "the directory has no next stage"),
        .init("nothing to load", [(Field.openSBI + Field.size, 0)], "directory entry 0: is empty"),
        .init(
            "a part beyond the chip", [(Field.nextStage + Field.offset, 0x200_0000 - 8)],
            "directory entry 1: lies outside of the flash behind the manifest"),
        .init(
            "a size that wraps", [(Field.openSBI + Field.size, .max - 0x1000)],
            "directory entry 0: lies outside of the flash behind the manifest"),
        .init(
            "an offset that wraps", [(Field.openSBI + Field.offset, .max)],
            "directory entry 0: lies outside of the flash behind the manifest"),
        .init(
            "a load address in flash", [(Field.nextStage + Field.load, 0x2000_0000)],
            "directory entry 1: is to be loaded where there is no memory"),
        .init(
            "a load address at the end of RAM", [(Field.nextStage + Field.load, 0x9000_0000 - 16)],
            "directory entry 1: is to be loaded where there is no memory"),
        .init(
            "a load address that wraps", [(Field.nextStage + Field.load, .max - 15)],
            "directory entry 1: is to be loaded where there is no memory"),
        .init(
            "a load address over the stack", [(Field.nextStage + Field.load, 0x8018_F000)],
            "directory entry 1: would be loaded over the first stage's memory or the devicetree"),
        .init(
            "a load address over the devicetree", [(Field.nextStage + Field.load, 0x8019_0100)],
            "directory entry 1: would be loaded over the first stage's memory or the devicetree"),
        .init(
            "parts over each other", [(Field.nextStage + Field.load, 0x8000_0100)],
            "OpenSBI and the next stage would be loaded over each other"),
        .init(
            "OpenSBI twice", [(Field.nextStage + Field.kind, 1)], "directory entry 1: is a second OpenSBI"),
        .init(
            "the next stage twice", [(Field.openSBI + Field.kind, 2)], "directory entry 1: is a second next stage"),
        .init(
            "an unknown kind", [(Field.nextStage + Field.kind, 1 << 40)],
            "directory entry 1: is of a kind unknown to this first stage"),
    ]

    @Test(arguments: damages) private func `is named and the board stops`(_ damage: Damage) throws {
        var flash = try Flash()
        for patch in damage.patches {
            flash.patchDirectory(patch.offset, (0..<8).map { UInt8(truncatingIfNeeded: patch.value >> ($0 * 8)) })
        }
        let machine = try Machine(flash, harts: 2)
        let stopped = machine.process.waitForOutput(
            "Baseboard first stage: stopped; write a good image to the flash and power-cycle the board\r\n")
        #expect(stopped, "\(machine.process.text)")
        #expect(machine.lines.first == "Baseboard first stage: \(damage.complaint)")
        // Both harts sleep in the flash, in WFI, and OpenSBI never spoke.
        let asleep = eventually {
            guard let counters = machine.programCounters() else { return false }
            return counters.count == 2 && counters.allSatisfy { (0x2000_0000..<0x2001_0000).contains($0) }
        }
        #expect(asleep, "\(machine.process.text)")
        #expect(!machine.process.text.contains("OpenSBI v"))
    }
}
