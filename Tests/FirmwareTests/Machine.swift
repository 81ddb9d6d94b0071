import Crypto
import Foundation
import TestKit
import Trust

/// What scripts/build-firmware and scripts/fetch-opensbi made.
enum Part: String {
    case firstStage = "first-stage.bin"
    case openSBI = "fw_dynamic.bin"
    case host = "host.bin"

    func bytes() throws -> [UInt8] {
        let path = packageFolder + "/.build/firmware/" + rawValue
        guard let data = FileManager.default.contents(atPath: path) else { throw MissingPart(path: path) }
        return Array(data)
    }
}

struct MissingPart: Error, CustomStringConvertible {
    let path: String
    var description: String {
        "\(path) is missing; run ./scripts/fetch-opensbi and ./scripts/build-firmware --no-image"
    }
}

/// A flash image on disk, built as boards' images are, with room for damage.
struct Flash {
    /// What the image's parts fill; the rest of the chip is a hole in the file.
    private static let used = Int(FlashLayout.nextStage.end)
    private static let genuine = Result {
        let image = try FirmwareImage.build(
            firstStage: Part.firstStage.bytes(), opensbi: Part.openSBI.bytes(), nextStage: Part.host.bytes(),
            key: P384PrivateKey.generate(), name: "test", securityVersion: 1)
        return image + [UInt8](repeating: FirmwareImage.erasedByte, count: used - image.count)
    }

    var bytes: [UInt8]

    init() throws {
        bytes = try Self.genuine.get()
    }

    /// Replaces the directory's bytes from `offset` on.
    mutating func patchDirectory(_ offset: Int, _ patch: [UInt8]) {
        let start = Int(FlashLayout.directory.offset) + offset
        bytes.replaceSubrange(start..<start + patch.count, with: patch)
    }

    func write(to path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.truncate(atOffset: FlashLayout.chipSize)
        try file.close()
    }
}

/// A foreign machine that boots our image: QEMU's `virt`, its UART on our pipes.
struct Machine {
    enum Interrupts: String, CaseIterable, Sendable {
        case imsic = "aplic-imsic"
        case plic = "none"
    }

    let folder = TemporaryFolder()
    let process: RunningProcess

    init(_ flash: Flash, interrupts: Interrupts = .imsic, harts: Int = 1, _ devices: [String] = []) throws {
        try flash.write(to: folder.file("flash"))
        process = try RunningProcess(
            "/usr/bin/qemu-system-riscv64",
            [
                "-M", "virt,aia=\(interrupts.rawValue)", "-m", "256M", "-smp", "\(harts)", "-nographic", "-bios",
                "none", "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=\(folder.file("flash"))",
            ] + devices)
    }

    /// What the machine printed, line by line.
    var lines: [String] {
        process.text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).map(String.init)
    }

    /// Every hart's program counter, by QEMU's own word.
    func programCounters() -> [UInt64]? {
        askQEMU("info registers -a")?.matches(of: #/ pc +([0-9a-f]{16})/#).compactMap { UInt64($0.1, radix: 16) }
    }

    func waitForReady() -> Bool {
        process.waitForOutput("Baseboard firmware: ready\r\n", within: .seconds(60))
    }

    /// Types a line at the firmware's console.
    func type(_ line: String) {
        process.type(line + "\r")
    }

    /// Asks QEMU's own monitor, which shares the terminal (Ctrl-A c switches there and back).
    func askQEMU(_ command: String) -> String? {
        let before = process.text.count
        process.type("\u{1}c\(command)\n")
        let answered = eventually(within: .seconds(20)) {
            process.text.dropFirst(before).components(separatedBy: "(qemu) ").count >= 3
        }
        process.type("\u{1}c")
        return answered ? String(process.text.dropFirst(before)) : nil
    }
}
