import FoundationEssentials
import Synchronization
import Testing
import TestKit
import VFIOUser
import VFIOUserFuzz
import Wire

/// Each test runs in a process of its own: it counts the process's descriptors and memory, and a trap is a failure, not
/// the end. `scripts/fuzz` does the same with 10^7 messages and the address sanitizer; BASEBOARD_FUZZ_MESSAGES and
/// BASEBOARD_SEED say how many here, and which.
struct FuzzTests {
    private static let messages =
        ProcessInfo.processInfo.environment["BASEBOARD_FUZZ_MESSAGES"].flatMap { Int($0) } ?? 40_000

    @Test func `a server answers random commands, ends where it must, and leaks nothing`() async {
        await #expect(processExitsWith: .success) {
            let seed = SeededGenerator.fresh().seed
            #expect(throws: Never.self, "seed \(seed)") { try ServerFuzz.run(messages: Self.messages, seed: seed) }
        }
    }

    @Test func `clients outlive servers that answer at random, and leak nothing`() async {
        await #expect(processExitsWith: .success) {
            let seed = SeededGenerator.fresh().seed
            #expect(throws: Never.self, "seed \(seed)") { try ClientFuzz.run(messages: Self.messages, seed: seed) }
        }
    }

    @Test func `a server outlives bytes that are no messages`() async {
        await #expect(processExitsWith: .success) {
            var random = SeededGenerator.fresh()
            for _ in 0..<200 {
                let served = try ServedDevice()
                try? served.socket.send(random.bytes(.random(in: 1...300, using: &random)))
                served.socket.shutdown()
                #expect(
                    VFIOUserTests.eventually { served.ended.load(ordering: .acquiring) }, "seed \(random.seed)")
            }
        }
    }
}
