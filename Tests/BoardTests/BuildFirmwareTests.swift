import Foundation
import TestKit
import Testing

/// scripts/build-firmware in a clone of its own.
@Suite struct BuildFirmwareTests {
    /// What the script reads and writes, as it is here.
    private func clone() throws -> TemporaryFolder {
        let clone = TemporaryFolder()
        let script = """
            cd "$2" && mkdir -p Sources .build/release && cp -a "$0/scripts" . && cp -a "$0/Sources/Firmware" "$0/Sources/DeviceFirmware" Sources/ &&
            cp -a "$0/.build/firmware" .build/ && ln -s "$1" .build/release/baseboard
            """
        let made = try run("/bin/sh", ["-c", script, packageFolder, binary("baseboard"), clone.path])
        try #require(made.status == 0, "\(made.output)")
        return clone
    }

    @Test func `a clone whose fuses a board has raised gets an image that they accept`() throws {
        let clone = try clone()
        let fuses = clone.file(".build/firmware/fuses.json")
        let image = clone.file(".build/firmware/server.slot.img")
        let build = { try run(clone.file("scripts/build-firmware"), []) }
        #expect(try build().status == 0)
        let burnt = try String(contentsOfFile: fuses, encoding: .utf8)
            .replacing(/"minimumSecurityVersion": \d+/, with: "\"minimumSecurityVersion\": 7")
        try burnt.write(toFile: fuses, atomically: true, encoding: .utf8)
        let refused = try run(binary("baseboard"), ["image", "verify", "--fuses", fuses, image])
        #expect(refused.output.contains("is below the minimum 7"), "\(refused.output)")

        let built = try build()
        #expect(built.status == 0 && built.output.contains("security version 7"), "\(built.output)")
        let verified = try run(binary("baseboard"), ["image", "verify", "--fuses", fuses, image])
        #expect(verified.status == 0, "\(verified.output)")
        // Nothing is made again where nothing has changed.
        #expect(try build().output.isEmpty)
    }
}
