import Foundation
import TestKit
import Testing

/// A board with keys, fuses, chip and boot record of its own, which outlive its processes as they outlive a power cut.
final class ProvisionedBoard: Sendable {
    let files = TemporaryFolder()
    var chip: String { files.file("chip.img") }
    var fuses: String { files.file("fuses.json") }
    /// The logic's boot record.
    var record: String { files.file("boot.json") }
    private static let firmware = packageFolder + "/.build/firmware"

    init() throws { try baseboard("provision", "--output", files.path) }

    private func baseboard(_ arguments: String...) throws { try baseboard(arguments) }

    private func baseboard(_ arguments: [String]) throws {
        let result = try run(binary("baseboard"), arguments)
        try #require(result.status == 0, "\(arguments): \(result.output)")
    }

    /// Builds a signed slot image; its path.
    ///
    /// - Parameters:
    ///   - nextStage: what OpenSBI starts; the host firmware by default.
    ///   - devices: packages of the devices' firmware, as `image build` takes them.
    func image(
        _ name: String, version: Int, floor: Int = 0, nextStage: String? = nil, devices: [String] = []
    ) throws -> String {
        let path = files.file(name + ".slot.img")
        try baseboard(
            [
                "image", "build", "--key", files.file("keys/root.pem"), "--name", name, "--security-version",
                "\(version)", "--rollback-floor", "\(floor)", "--first-stage", Self.firmware + "/first-stage.bin",
                "--opensbi", Self.firmware + "/fw_dynamic.bin", "--next-stage",
                nextStage ?? Self.firmware + "/host.bin", "--output", path,
            ] + devices)
        return path
    }

    /// Makes a device's firmware package; its path.
    func package(_ target: String, _ version: String, _ settings: [String] = []) throws -> String {
        let path = files.file("\(target)-\(version).pkg")
        try baseboard(
            ["image", "firmware", "--target", target, "--version", version, "--output", path]
                + settings.flatMap { ["--set", $0] })
        return path
    }

    /// Puts images into the slots of a chip: this board's, or another file.
    func fill(a: String, b: String? = nil, golden: String? = nil, into path: String? = nil) throws {
        var arguments = ["image", "chip", "--a", a]
        if let b { arguments += ["--b", b] }
        if let golden { arguments += ["--golden", golden] }
        let result = try run(binary("baseboard"), arguments + ["--output", path ?? chip])
        try #require(result.status == 0, "\(result.output)")
    }

    /// Changes one byte of a slot's OpenSBI, whose neighbours stay as they are: 0 A, 1 B, 2 golden.
    func spoil(_ slot: Int) throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: chip))
        let place = UInt64(slot * (8 << 20) + 0x2_0000 + 99)
        try file.seek(toOffset: place)
        let byte = try #require(try file.read(upToCount: 1)?.first)
        try file.seek(toOffset: place)
        try file.write(contentsOf: Data([byte ^ 0x40]))
        try file.close()
    }

    /// The server board with that verifier; its path. Where the logic verifies alone, no adapter is the master.
    func topology(verifier: String) throws -> String {
        let path = packageFolder + "/topology/server.yaml"
        guard verifier == "logic" else { return path }
        let own = files.file("logic.yaml")
        let lines = try String(contentsOfFile: path, encoding: .utf8).components(separatedBy: "\n").filter { line in
            !["master: true", "logic0.spi-adapter", "logic0.sideband-adapter"].contains { line.contains($0) }
        }
        try lines.joined(separator: "\n").write(toFile: own, atomically: true, encoding: .utf8)
        return own
    }

    /// Arguments of `up`.
    func settings(_ more: [String]) -> [String] {
        ([
            "flash0.image=\(chip)", "flash0.writable=true", "flash0.busy-time=0", "logic0.fuses=\(fuses)",
            "logic0.state=\(record)",
        ] + more).flatMap { ["--set", "components.\($0)"] }
    }

    /// Starts it, in one runtime folder each time: what is left of a board that was killed is the launcher's to wait for.
    func start(_ more: String...) throws -> LiveBoard {
        try LiveBoard("topology/server.yaml", settings(more), in: files)
    }
}
