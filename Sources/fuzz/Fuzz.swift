import ArgumentParser
import Glibc
import RingFuzz
import VFIOUserFuzz

/// Feeds a library random messages: `scripts/fuzz` builds this with the address sanitizer.
@main struct Fuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fuzz",
        abstract: "Feeds a wire random messages, right in most places, and stops at the first thing wrong.",
        discussion: """
            Wrong is a trap, a hang, a reply that is missing or of another command, a link that ends and should not, \
            descriptors or memory that grow, a device that no reset brings back. Example: ./scripts/fuzz vfio-user --messages 10000000 --seed 7
            """)

    enum Wire: String, ExpressibleByArgument, CaseIterable {
        case vfioUser = "vfio-user"
        case virtio, nvme
    }

    enum Side: String, ExpressibleByArgument, CaseIterable {
        case server, client, both
    }

    @Argument(help: "The wire: vfio-user; or rings and queues of devices: virtio, nvme.")
    var wire: Wire

    @Option(help: "Messages that each side receives; of rings: register accesses, doorbells and requests.")
    var messages = 1_000_000

    @Option(help: "The seed of the random messages: a new one each run if none is given; a failure prints it.")
    var seed: UInt64?

    @Option(help: "Of vfio-user, which side is fed: server, client or both.")
    var side = Side.both

    func validate() throws {
        guard messages > 0 else { throw ValidationError("--messages: one at least") }
    }

    /// One line, at once: a run is long and may be watched in a file.
    private static func tell(_ line: String) {
        print("fuzz: " + line)
        fflush(nil)
    }

    func run() throws {
        let seed = seed ?? .random(in: 0...UInt64.max)
        Self.tell("seed \(seed)")
        if let devices = RingFuzz.Devices(rawValue: wire.rawValue) {
            print(try RingFuzz.run(devices, messages: messages, seed: seed) { Self.tell("\(wire.rawValue): \($0)") })
            return
        }
        if side != .client {
            print(try ServerFuzz.run(messages: messages, seed: seed) { Self.tell("server: \($0)") })
        }
        if side != .server {
            print(try ClientFuzz.run(messages: messages, seed: seed) { Self.tell("client: \($0)") })
        }
    }
}
