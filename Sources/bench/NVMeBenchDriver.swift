import Glibc
import Synchronization
import VFIOUser
import Wire

/// An NVMe driver that polls, as user-space drivers do: one queue pair, doorbells in memory where the controller was told
/// of them, no interrupts.
///
///     0x0000 admin submissions   0x1000 admin completions   0x2000 doorbells in memory   0x3000 event indexes
///     0x4000 submissions   0x8000 completions   0x9000 PRP lists, one page a slot   then data
final class NVMeBenchDriver: BlockBenchDriver {
    private static let base: UInt64 = 0x1_0000_0000
    private static let entries: UInt32 = 64
    private static let slots = 32
    private static let lists = 0x9000
    private static let data = lists + slots * 4096
    private static let slotSize = 128 << 10

    private let client: VFIOUserClient
    private let memory: SharedMemory
    private let start: UnsafeMutableRawPointer
    private var tail: UInt32 = 0
    private var rung: UInt32 = 0
    private var head: UInt32 = 0
    private var phase: UInt16 = 1
    private var adminTail: UInt32 = 0

    init(_ client: VFIOUserClient) throws {
        self.client = client
        memory = try SharedMemory(create: "bench-ram", size: Self.data + Self.slots * Self.slotSize)
        start = memory.mapping.baseAddress
        memset(start, 0, memory.size)
        try client.mapDMA(
            address: IOVirtualAddress(Self.base), length: UInt64(memory.size), descriptor: memory.descriptor)
        client.write(region: 7, offset: 4, width: 2, value: 6)
        client.write(region: 0, offset: 0x24, width: 4, value: 0x000F_000F)
        client.write(region: 0, offset: 0x28, width: 8, value: Self.base)
        client.write(region: 0, offset: 0x30, width: 8, value: Self.base + 0x1000)
        client.write(region: 0, offset: 0x14, width: 4, value: 0x0046_0001)
        try wait { client.read(region: 0, offset: 0x1C, width: 4) & 1 == 1 }
        for slot in 0..<Self.slots {
            for page in 1..<Self.slotSize / 4096 {
                start.storeBytes(
                    of: dataAddress(slot) + UInt64(page * 4096),
                    toByteOffset: Self.lists + slot * 4096 + (page - 1) * 8, as: UInt64.self)
            }
        }
        let size = 1 | (Self.entries - 1) << 16
        try admin(opcode: 5, prp1: Self.base + 0x8000, size, 1)
        try admin(opcode: 1, prp1: Self.base + 0x4000, size, 0x0001_0001)
        try admin(opcode: 0x7C, prp1: Self.base + 0x2000, prp2: Self.base + 0x3000, 0, 0)
    }

    private func wait(_ condition: () -> Bool) throws {
        let deadline = MonotonicTime.after(.seconds(10))
        while !condition() { if MonotonicTime.now > deadline { throw BlockBenchError.silence } }
    }

    private func atomic(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (start + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    private func dataAddress(_ slot: Int) -> UInt64 { Self.base + UInt64(Self.data + slot * Self.slotSize) }

    private func put(
        _ place: Int, opcode: UInt8, identifier: UInt16, prp1: UInt64, prp2: UInt64, _ words: (UInt32, UInt32, UInt32)
    ) {
        let entry = start + place
        entry.storeBytes(of: UInt32(opcode) | UInt32(identifier) << 16, toByteOffset: 0, as: UInt32.self)
        entry.storeBytes(of: opcode == 2 ? 1 : 0, toByteOffset: 4, as: UInt32.self)
        entry.storeBytes(of: prp1, toByteOffset: 24, as: UInt64.self)
        entry.storeBytes(of: prp2, toByteOffset: 32, as: UInt64.self)
        entry.storeBytes(of: words.0, toByteOffset: 40, as: UInt32.self)
        entry.storeBytes(of: words.1, toByteOffset: 44, as: UInt32.self)
        entry.storeBytes(of: words.2, toByteOffset: 48, as: UInt32.self)
    }

    private func admin(opcode: UInt8, prp1: UInt64, prp2: UInt64 = 0, _ word10: UInt32, _ word11: UInt32) throws {
        put(Int(adminTail) * 64, opcode: opcode, identifier: 0, prp1: prp1, prp2: prp2, (word10, word11, 0))
        let place = 0x1000 + Int(adminTail) * 16
        adminTail += 1
        client.write(region: 0, offset: 0x1000, width: 4, value: UInt64(adminTail))
        try wait { atomic(place + 12).pointee.load(ordering: .acquiring) & 1 << 16 != 0 }
        let status = atomic(place + 12).pointee.load(ordering: .relaxed) >> 17 & 0x7FF
        guard status == 0 else { throw BlockBenchError.status(status) }
    }

    // MARK: I/O

    private func push(_ slot: Int, block: UInt64, size: Int) {
        let prp2 =
            size <= 4096
            ? 0 : size <= 8192 ? dataAddress(slot) + 4096 : Self.base + UInt64(Self.lists + slot * 4096)
        let lba = block * 8
        put(
            0x4000 + Int(tail) * 64, opcode: 2, identifier: UInt16(slot), prp1: dataAddress(slot), prp2: prp2,
            (UInt32(truncatingIfNeeded: lba), UInt32(truncatingIfNeeded: lba >> 32), UInt32(size / 512 - 1)))
        tail = (tail + 1) % Self.entries
    }

    /// Tells the controller of what was pushed: in memory, and by the register if it sleeps.
    private func ring() {
        let old = rung
        rung = tail
        atomic(0x2008).pointee.store(tail, ordering: .sequentiallyConsistent)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let event = atomic(0x3008).pointee.load(ordering: .sequentiallyConsistent)
        if UInt16(truncatingIfNeeded: tail &- event &- 1) < UInt16(truncatingIfNeeded: tail &- old) {
            client.post(region: 0, offset: 0x1008, width: 4, value: UInt64(tail))
        }
    }

    /// The slot of the next completion, if it is there.
    private func take() throws -> Int? {
        let word = atomic(0x8000 + Int(head) * 16 + 12).pointee.load(ordering: .acquiring)
        guard UInt16(word >> 16 & 1) == phase else { return nil }
        guard word >> 17 & 0x7FF == 0 else { throw BlockBenchError.status(word >> 17 & 0x7FF) }
        head += 1
        if head == Self.entries {
            head = 0
            phase ^= 1
        }
        return Int(word & 0xFFFF)
    }

    /// Keeps `depth` reads under way until `count` have ended; `next` tells where each begins.
    func read(_ count: Int, _ size: Int, _ depth: Int, _ next: () -> UInt64) throws {
        var wanted = [UInt64](repeating: 0, count: depth)
        var (sent, ended) = (0, 0)
        func send(_ slot: Int) {
            wanted[slot] = next()
            push(slot, block: wanted[slot], size: size)
            sent += 1
        }
        for slot in 0..<min(depth, count) { send(slot) }
        ring()
        var silence = 0
        while ended < count {
            var taken = 0
            while let slot = try take() {
                let first = start.load(fromByteOffset: Self.data + slot * Self.slotSize, as: UInt32.self)
                guard UInt64(first) == wanted[slot] else { throw BlockBenchError.content(block: wanted[slot]) }
                ended += 1
                taken += 1
                if sent < count { send(slot) }
            }
            if taken > 0 {
                atomic(0x200C).pointee.store(head, ordering: .releasing)
                ring()
                silence = 0
            } else {
                silence += 1
                // Some ten seconds: a look costs about a nanosecond.
                if silence > 4_000_000_000 || silence % 1_000_000 == 0 && client.isGone {
                    throw BlockBenchError.silence
                }
            }
        }
    }
}
