import BlockStore
import FoundationEssentials
import NVMe
import TestKit
import Testing
import VFIOUser

/// Random registers, queues and commands: the controller may refuse and stop, it may not trap or hang.
struct FuzzTests {
    /// Rounds of a run; BASEBOARD_LONG=1 asks for a thousand times as many writes of registers and queues: some millions.
    private static var rounds: Int { ProcessInfo.processInfo.environment["BASEBOARD_LONG"] == nil ? 60 : 60_000 }

    @Test func `whatever a host writes, a reset brings the controller back`() throws {
        var generator = SeededGenerator.fresh()
        let store = try BlockStore(memory: 1 << 20)
        var host = try TestHost([store])
        for round in 0..<Self.rounds {
            // Queues take pages that nobody gives back.
            if round % 60 == 59 { host = try TestHost([store]) }
            // Some rounds begin with good queues, so that garbage gets beyond them.
            let queue = round % 3 == 0 ? nil : try host.makeQueues(1)
            for _ in 0..<60 {
                switch Int.random(in: 0..<10, using: &generator) {
                case 0:
                    let offset = UInt64.random(in: 0..<0x50, using: &generator)
                    let width = [1, 2, 4, 8].randomElement(using: &generator)!
                    host.setRegister(offset, generator.next(), width: width)
                    _ = host.register(offset, width: width)
                case 1:
                    host.ring(Int.random(in: 0..<12, using: &generator), UInt32.random(in: 0..<40, using: &generator))
                case 2:
                    host.ring(Int.random(in: 0..<1024, using: &generator), .random(in: 0...(.max), using: &generator))
                case 3: try scribble(host, &generator)
                default: push(host, Bool.random(using: &generator) ? host.admin : queue ?? host.admin, &generator)
                }
            }
            try host.disable()
            host.setRegister(NVMeRegister.interruptMaskClear, 0xFFFF_FFFF)
            try host.enable()
            let answer = try host.run(Entry(opcode: 10, dwords: [7]))
            #expect(answer.status == 0, "seed \(generator.seed)")
            #expect(!host.client.isGone, "seed \(generator.seed)")
        }
    }

    /// Random bytes somewhere in the host's memory.
    private func scribble(_ host: TestHost, _ generator: inout SeededGenerator) throws {
        let count = Int.random(in: 1...256, using: &generator)
        host.store(
            generator.bytes(count),
            at: TestHost.base + UInt64.random(in: 0..<UInt64(TestHost.size - count), using: &generator))
    }

    /// A command that is partly right, and its doorbell, without waiting for an end.
    private func push(_ host: TestHost, _ queue: QueuePair, _ generator: inout SeededGenerator) {
        let opcodes: [UInt8] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7C, .random(in: 0...255, using: &generator)]
        func address() -> UInt64 {
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: generator.next()
            case 1: TestHost.base + UInt64.random(in: 0..<UInt64(TestHost.size) / 4096, using: &generator) * 4096
            case 2: TestHost.base + UInt64.random(in: 0..<UInt64(TestHost.size), using: &generator)
            default: UInt64.max - UInt64.random(in: 0..<8192, using: &generator)
            }
        }
        func word() -> UInt32 {
            Bool.random(using: &generator)
                ? UInt32.random(in: 0...(.max), using: &generator) : UInt32.random(in: 0..<64, using: &generator)
        }
        let entry = Entry(
            opcode: opcodes.randomElement(using: &generator)!,
            flags: Int.random(in: 0..<8, using: &generator) == 0 ? 1 : 0,
            namespace: [0, 1, 1, 1, 2, .max].randomElement(using: &generator)!, prp1: address(), prp2: address(),
            dwords: (0..<6).map { _ in word() })
        host.push(entry, queue)
        host.ringTail(queue)
        if Bool.random(using: &generator) { _ = host.poll(queue) }
    }
}
