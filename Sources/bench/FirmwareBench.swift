import Crypto
import FoundationEssentials
import Glibc
import QMP
import Trust
import Wire

/// The verification of an image of 32 MiB by the master adapter, through security logic and flash chip as processes, beside
/// `openssl dgst -sha384` of the same image.
enum FirmwareBench {
    private static let imageSize = 32 << 20
    private static let chipSize = 128 << 20
    private static let rounds = 9

    static func measure() throws -> [BenchRow] {
        let folder = "/tmp/bb-bench-firmware-\(MonotonicTime.now.nanoseconds)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try prepare(folder)
        let binaries = URL(filePath: ProcessInfo.processInfo.arguments[0]).deletingLastPathComponent().path
        var processes: [ChildProcess] = []
        defer {
            for process in processes {
                process.signal(SIGTERM)
                _ = process.wait()
            }
        }
        /// Starts a component that serves `ports` and waits until it is ready.
        func start(_ kind: String, serving ports: [String], _ arguments: [String]) throws -> QMPClient {
            let null = try Descriptor.open("/dev/null", flags: O_RDWR)
            processes.append(
                try ChildProcess(
                    "\(binaries)/\(kind)",
                    ["--die-with-parent"] + arguments
                        + (ports + ["control"]).flatMap { ["--listen", "\($0)=\(folder)/\(kind).\($0)"] },
                    environment: ProcessInfo.processInfo.environment.map { ($0.key, $0.value) },
                    descriptors: [null, null, null]))
            return try connect("\(folder)/\(kind).control")
        }
        _ = try start("flash", serving: ["spi"], ["--image", "\(folder)/chip.img", "--model", "MX66L1G45G"])
        let logic = try start(
            "security-logic", serving: ["spi-adapter", "sideband-adapter"],
            ["--fuses", "\(folder)/fuses.json", "--connect", "flash=\(folder)/flash.spi"])
        let adapter = try start(
            "adapter-card", serving: ["pcie"],
            [
                "--master", "--connect", "spi=\(folder)/security-logic.spi-adapter", "--connect",
                "sideband=\(folder)/security-logic.sideband-adapter",
            ])
        var ours: [Double] = []
        var theirs: [Double] = []
        for round in 1...rounds {
            ours.append(try verification(adapter, round: round))
            let begin = MonotonicTime.now
            let (status, output) = try Command.run("/usr/bin/openssl", ["dgst", "-sha384", "\(folder)/image"])
            theirs.append(seconds(MonotonicTime.now.since(begin)))
            guard status == 0 else { throw Failure(text: "openssl: \(output)") }
            if round < rounds { _ = try logic.execute("system_reset") }
        }
        let megabytes = Double(imageSize) / 1e6
        return [
            .ratio(
                "firmware: verify 32 MiB by wires", megabytes / median(ours), "MB/s",
                reference: "openssl dgst -sha384 of the same file", megabytes / median(theirs), .higher, than: 0.7)
        ]
    }

    /// An image of 32 MiB of no pattern in slot A of a chip of 128 MiB, with its fuses.
    private static func prepare(_ folder: String) throws {
        let key = try P384PrivateKey.generate()
        let part = [UInt8](repeating: 0x13, count: 64)
        var image = try FirmwareImage.build(
            firstStage: part, opensbi: part, nextStage: part, key: key, name: "bench", securityVersion: 1)
        var reader = ByteArrayReader(image)
        let small = try FirmwareVerifier.inspect(&reader).manifest
        let rest = image.count
        var state: UInt64 = 1
        var words = [UInt64](repeating: 0, count: (imageSize - rest + 7) / 8)
        for index in words.indices {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            words[index] = state ^ state >> 29
        }
        words.withUnsafeBytes { image += $0.prefix(imageSize - rest) }
        let manifest = FirmwareManifest(
            name: small.name, boardCompatibility: small.boardCompatibility, securityVersion: small.securityVersion,
            components: small.components + [
                .init(
                    name: "filler", offset: UInt64(rest), size: UInt64(imageSize - rest),
                    digest: try HashAlgorithm.sha384.digest(of: Array(image[rest...])), loadAddress: 0)
            ])
        let message = try COSESign1(signing: manifest.encoded(), with: key).encoded()
        let region = (0..<4).map { UInt8(truncatingIfNeeded: message.count >> (8 * $0)) } + message
        let start = Int(FlashLayout.manifest.offset)
        image.replaceSubrange(start..<start + region.count, with: region)
        try WholeFile.write("\(folder)/image", image)
        try WholeFile.write(
            "\(folder)/chip.img", image + [UInt8](repeating: FirmwareImage.erasedByte, count: chipSize - imageSize))
        try WholeFile.write(
            "\(folder)/fuses.json", Array(try Fuses(root: key.publicKey, minimumSecurityVersion: 1).json.utf8))
    }

    /// What the adapter says its verification number `round` took, in seconds.
    private static func verification(_ adapter: QMPClient, round: Int) throws -> Double {
        let deadline = MonotonicTime.after(.seconds(30))
        while MonotonicTime.now < deadline {
            let state = try adapter.execute("query-adapter")["verification"]
            if state?["runs"] == .unsigned(UInt64(round)) || state?["runs"] == .integer(Int64(round)),
                let verdict = state?["verdict"]?.stringValue
            {
                guard verdict == "verified", let time = state?["duration"]?.integerValue else {
                    throw Failure(text: "the image was \(verdict): \(state?["reason"]?.stringValue ?? "")")
                }
                return Double(time) / 1e9
            }
            usleep(2000)
        }
        throw Failure(text: "no verification within 30 s")
    }

    /// The control socket of a component, once it has said that it is ready.
    private static func connect(_ path: String) throws -> QMPClient {
        let deadline = MonotonicTime.after(.seconds(20))
        while true {
            do {
                let client = try QMPClient(path: path)
                let events = try client.execute("query-events").arrayValue ?? []
                if events.contains(where: { $0["event"] == "COMPONENT_READY" }) { return client }
                throw Failure(text: "\(path): not ready")
            } catch {
                guard MonotonicTime.now < deadline else { throw error }
                usleep(2000)
            }
        }
    }

    private static func seconds(_ duration: Duration) -> Double { Double(duration.clampedNanoseconds) / 1e9 }

    private struct Failure: Error, CustomStringConvertible {
        let text: String
        var description: String { text }
    }
}
