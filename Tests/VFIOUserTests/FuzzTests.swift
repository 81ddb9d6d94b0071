import FoundationEssentials
import Synchronization
import Testing
import VFIOUser
import Wire

/// A small random generator whose whole state is its seed: a failure is repeated by the seed it prints.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

/// This process's open descriptors.
private func openDescriptors() -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
}

/// What the runtime's own dispatch loop may open meanwhile; a leak shows as 20 and more, one a server or client.
private let own = 4

/// What they are, for a failure's message.
private func describeDescriptors() -> String {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    return names.map { (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/" + $0)) ?? "?" }
        .sorted().joined(separator: " ")
}

/// Each test runs in a process of its own: it counts the process's descriptors, and a trap is a failure, not the end.
struct FuzzTests {
    @Test func `a server answers a hundred thousand random commands and leaks nothing`() async {
        await #expect(processExitsWith: .success) { try Fuzz().server() }
    }

    @Test func `a server outlives bytes that are no messages`() async {
        await #expect(processExitsWith: .success) { try Fuzz().noise() }
    }

    @Test func `a client outlives servers that answer at random and leaks nothing`() async {
        await #expect(processExitsWith: .success) { try Fuzz().client() }
    }
}

private struct Fuzz {
    /// Numbers that sit on edges.
    private static let edges: [UInt64] = [
        0, 1, 2, 4, 8, 15, 16, 17, 32, 4095, 4096, 4097, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, .max - 4095,
        .max - 1, .max,
    ]

    private func word(_ random: inout SplitMix) -> UInt64 {
        Bool.random(using: &random) ? Self.edges.randomElement(using: &random)! : .random(in: 0...64, using: &random)
    }

    /// A payload of a command that is right in most places.
    private func payload(_ command: UInt16, _ random: inout SplitMix) -> [UInt8] {
        var payload: [UInt8]
        switch command {
        case 2:
            payload = bytes([
                u32(32), u32(UInt32.random(in: 0...3, using: &random)), u64(word(&random) & ~4095),
                u64(word(&random) & ~4095), u64(word(&random)),
            ])
        case 3:
            payload = bytes([
                u32(24), u32(UInt32.random(in: 0...3, using: &random)), u64(word(&random) & ~4095), u64(word(&random)),
            ])
        case 4, 7: payload = bytes([u32(16), u32(0), u32(UInt32.random(in: 0...6, using: &random)), u32(0)])
        case 5:
            payload = bytes([
                u32(UInt32(truncatingIfNeeded: word(&random)) | 32), u32(0), u32(.random(in: 0...5, using: &random)),
                u32(0), u64(0), u64(0),
            ])
        case 8:
            payload = bytes([
                u32(20),
                u32(1 << UInt32.random(in: 0...2, using: &random) | 8 << UInt32.random(in: 0...2, using: &random)),
                u32(.random(in: 0...5, using: &random)), u32(UInt32(truncatingIfNeeded: word(&random))),
                u32(UInt32(truncatingIfNeeded: word(&random))),
            ])
        case 9, 10:
            let count = UInt32.random(in: 0...16, using: &random)
            payload = bytes([u64(word(&random)), u32(.random(in: 0...4, using: &random)), u32(count)])
            if command == 10 { payload += [UInt8](repeating: 0x5A, count: Int(count)) }
        case 15:
            payload = bytes([u64(1), u64(word(&random)), u32(.random(in: 0...3, using: &random)), u32(4), u64(1)])
        default:
            payload = (0..<Int.random(in: 0...40, using: &random)).map { _ in .random(in: 0...255, using: &random) }
        }
        // Now and then something is cut, added or flipped.
        switch Int.random(in: 0...9, using: &random) {
        case 0: payload = Array(payload.dropLast(.random(in: 1...8, using: &random)))
        case 1: payload += [UInt8](repeating: 0xFF, count: .random(in: 1...8, using: &random))
        case 2:
            if let place = payload.indices.randomElement(using: &random) {
                payload[place] = .random(in: 0...255, using: &random)
            }
        default: break
        }
        return payload
    }

    /// One client's life: random commands, each answered or silent as it asked; returns how many were sent.
    private func torment(_ served: ServedDevice, _ random: inout SplitMix, messages: Int) throws -> Int {
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        let ram = try SharedMemory(create: "fuzz", size: 16384)
        let eventfd = try EventNotifier()
        for sent in 0..<messages {
            // Never DMA replies: those are for a server that waits.
            let command = UInt16.random(in: 1...20, using: &random)
            let isOdd = Int.random(in: 0...999, using: &random) == 0
            var header = MessageHeader.command(
                VFIOUserCommand(rawValue: command), id: .random(in: 0...65535, using: &random), payload: 0)
            let payload = payload(command, &random)
            header.messageSize = UInt32(16 + payload.count)
            if Int.random(in: 0...19, using: &random) == 0 { header.flags |= MessageHeader.noReply }
            var descriptors: [Descriptor] = []
            if command == 2 || command == 8 || Int.random(in: 0...49, using: &random) == 0 {
                let one = Bool.random(using: &random) ? ram.descriptor : eventfd.descriptor
                descriptors = [Descriptor](repeating: one, count: .random(in: 0...4, using: &random))
            }
            if isOdd {
                // Something the server must close the link for.
                header.flags = .random(in: 1...15, using: &random)
                if Bool.random(using: &random) { header.messageSize = .random(in: 0...15, using: &random) }
            }
            do {
                try peer.send(header, payload, descriptors: descriptors)
                guard header.isCommand, header.messageSize >= 16 else {
                    if header.isReply || header.messageSize < 16 { return sent + 1 }
                    let (reply, _) = try peer.reply()
                    #expect(reply.refusal == .invalid)
                    continue
                }
                guard header.wantsReply else { continue }
                let (reply, _) = try peer.reply()
                #expect(reply.id == header.id && reply.command == header.command && reply.isReply)
                peer.descriptors = []
            } catch WireError.closed {
                return sent + 1
            }
        }
        return messages
    }

    func server() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix(state: seed)
        let before = openDescriptors()
        var sent = 0
        while sent < 100_000 {
            let served = try ServedDevice()
            sent += try torment(served, &random, messages: min(5000, 100_000 - sent))
            served.socket.shutdown()
            #expect(eventually { served.ended.load(ordering: .acquiring) }, "seed \(seed)")
            #expect(served.device.dma.ranges.isEmpty, "seed \(seed)")
        }
        // The last server's thread lets go of its ends a moment after it has said that it ended.
        #expect(
            eventually { openDescriptors() <= before + own }, "seed \(seed): \(before), now \(describeDescriptors())")
    }

    func noise() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix(state: seed)
        for _ in 0..<200 {
            let served = try ServedDevice()
            let noise = (0..<Int.random(in: 1...300, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            try? served.socket.send(noise)
            served.socket.shutdown()
            #expect(eventually { served.ended.load(ordering: .acquiring) }, "seed \(seed)")
        }
    }

    func client() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let before = openDescriptors()
        for round in 0..<300 {
            let (near, far) = try Socket.pair()
            let ended = Ended()
            WorkerThread("random server") {
                var random = SplitMix(state: seed &+ UInt64(round))
                do {
                    let peer = RawPeer(far)
                    let file = try SharedMemory(create: "fuzz", size: 4096)
                    for number in 0..<200 {
                        let (header, _) = try peer.reply()
                        if !header.wantsReply { continue }
                        var payload = (0..<Int.random(in: 0...96, using: &random)).map { _ in
                            UInt8.random(in: 0...3, using: &random)
                        }
                        // The first answers are right, or no client would come far.
                        if number < 2 + round % 20 { payload = right(header.command, payload) }
                        var reply = header.reply(payload: payload.count)
                        if Int.random(in: 0...9, using: &random) == 0 { reply = header.refusal(.invalid) }
                        if Int.random(in: 0...99, using: &random) == 0 { reply.id &+= 1 }
                        let passes = Int.random(in: 0...3, using: &random) == 0
                        try peer.send(
                            reply, reply.messageSize == 16 ? [] : payload,
                            descriptors: passes ? [file.descriptor] : [])
                    }
                } catch {}
                far.shutdown()
                ended.flag.store(true, ordering: .releasing)
            }
            if let client = try? VFIOUserClient(
                socket: near, memory: round % 2 == 0 ? ScratchMemory(base: 0, count: 4096) : nil,
                timeout: .seconds(5))
            {
                for place in 0..<50 where !client.isGone {
                    _ = client.read(region: 0, offset: UInt64(place), width: 4)
                    try? client.reset()
                    try? client.mapDMA(address: IOVirtualAddress(0), length: 4096, descriptor: nil)
                    _ = client.map(region: 2, offset: 0, count: 4096)
                }
            }
            near.shutdown()
            #expect(eventually { ended.flag.load(ordering: .acquiring) }, "seed \(seed) round \(round)")
        }
        #expect(
            eventually { openDescriptors() <= before + own }, "seed \(seed): \(before), now \(describeDescriptors())")
    }
}

private final class Ended: Sendable { let flag = Atomic<Bool>(false) }

/// A well-formed reply to a question about the device.
private func right(_ command: VFIOUserCommand, _ otherwise: [UInt8]) -> [UInt8] {
    switch command {
    case .version: [0, 0, 1, 0]
    case .deviceGetInfo: bytes([u32(16), u32(3), u32(4), u32(2)])
    default: otherwise
    }
}
