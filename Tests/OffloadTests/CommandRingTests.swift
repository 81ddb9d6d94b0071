import Offload
import TestKit
import Testing

struct CommandRingTests {
    @Test func `a command is answered in the order response, length, status`() throws {
        let memory = FakeMemory()
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        let before = memory.writes.count
        var ring = try CommandRing(base: ringAddress, size: 2)
        let served = try ring.serve(upTo: 1, memory) { command in
            #expect(command.opcode == .identify)
            #expect(command.tag == 7)
            return CommandResult(.success, response: [1, 2, 3])
        }
        #expect(served == 1)
        #expect(ring.consumer == 1)
        #expect(memory.read(responseAddress, count: 4) == [1, 2, 3, 0])
        #expect(memory.number(ringAddress + 32, 4) == 3)
        #expect(memory.number(ringAddress + 2, 2) == 0)
        let order = memory.writes.dropFirst(before).map(\.address)
        #expect(order == [responseAddress, ringAddress + 32, ringAddress + 2])
    }

    @Test func `the ring wraps and its indices run through 32 bits`() throws {
        let memory = FakeMemory()
        var ring = try CommandRing(base: ringAddress, size: 4, consumer: .max - 1)
        for index in 0..<4 {
            _ = memory.write(
                entry(tag: UInt32(index), response: responseAddress), at: ringAddress + UInt64((index + 2) % 4) * 64)
        }
        var tags: [UInt32] = []
        let served = try ring.serve(upTo: 2, memory) { command in
            tags.append(command.tag)
            return CommandResult(.success)
        }
        #expect(served == 4)
        #expect(tags == [0, 1, 2, 3])
        #expect(ring.consumer == 2)
    }

    static let impossible: [(UInt64, UInt32, RingFault)] = [
        (0x1000, 0, .badSize(0)), (0x1000, 1, .badSize(1)), (0x1000, 3, .badSize(3)), (0x1000, 512, .badSize(512)),
        (0x1000, .max, .badSize(.max)), (0x1020, 2, .misaligned(0x1020)), (1, 2, .misaligned(1)),
        (.max - 63, 2, .beyondAddressSpace(.max - 63)),
        (.max - 0x3FFF + 64, 256, .beyondAddressSpace(.max - 0x3FFF + 64)),
    ]

    @Test(arguments: impossible.indices)
    func `a ring that cannot be is refused`(index: Int) {
        let (base, size, fault) = Self.impossible[index]
        #expect(throws: fault) { try CommandRing(base: base, size: size) }
    }

    @Test func `a ring that ends with the address space is possible`() throws {
        _ = try CommandRing(base: .max - 127, size: 2)
        _ = try CommandRing(base: 0, size: 256)
    }

    @Test(arguments: [UInt32(5), 0x8000_0000, .max])
    func `a producer that runs away is a fault and nothing is touched`(producer: UInt32) throws {
        let memory = FakeMemory()
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        let before = memory.bytes
        var ring = try CommandRing(base: ringAddress, size: 4)
        #expect(throws: RingFault.overrun(producer: producer, consumer: 0, size: 4)) {
            try ring.serve(upTo: producer, memory) { _ in CommandResult(.success) }
        }
        #expect(memory.bytes == before)
    }

    @Test func `a ring outside memory is a fault`() throws {
        let memory = FakeMemory()
        for base in [UInt64(0), 0x7FFF_FF80, 0x8000_FFC0, 0xFFFF_FFFF_FFFF_FF00] {
            var ring = try CommandRing(base: base, size: 4, consumer: 1)
            #expect(throws: RingFault.unreachable(index: 1, address: base + 64)) {
                try ring.serve(upTo: 2, memory) { _ in CommandResult(.success) }
            }
        }
    }

    @Test func `an entry that the host did not mark as pending is a fault, the ones before it are served`() throws {
        let memory = FakeMemory()
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        _ = memory.write(entry(status: 0, response: responseAddress), at: ringAddress + 64)
        var ring = try CommandRing(base: ringAddress, size: 4)
        #expect(throws: RingFault.notPending(index: 1, .success)) {
            try ring.serve(upTo: 2, memory) { _ in CommandResult(.success) }
        }
        #expect(ring.consumer == 1)
        #expect(memory.number(ringAddress + 2, 2) == 0)
    }

    @Test func `an entry that cannot be completed is a fault`() throws {
        let memory = FakeMemory()
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        memory.refuseWrites(to: ringAddress..<ringAddress + 64)
        var ring = try CommandRing(base: ringAddress, size: 2)
        #expect(throws: RingFault.unreachable(index: 0, address: ringAddress)) {
            try ring.serve(upTo: 1, memory) { _ in CommandResult(.success) }
        }
    }
}
