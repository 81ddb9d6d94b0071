import Offload
import TestKit
import Testing

extension OffloadRegisters {
    @discardableResult
    mutating func set(_ offset: UInt64, _ value: UInt32, _ memory: FakeMemory) -> Effect {
        write(offset, value, memory)
    }

    /// Sets the ring up and enables the card.
    mutating func start(_ memory: FakeMemory, base: UInt64 = ringAddress, size: UInt32 = 8) {
        set(0x10, UInt32(truncatingIfNeeded: base), memory)
        set(0x14, UInt32(truncatingIfNeeded: base >> 32), memory)
        set(0x18, size, memory)
        set(0x24, 1, memory)
        set(0x08, 1, memory)
    }
}

struct OffloadRegistersTests {
    @Test func `after reset the registers say who they are and nothing else`() {
        let registers = OffloadRegisters(identity: testIdentity)
        #expect(registers.read(0x00) == 0x4442_464F)
        #expect(registers.read(0x04) == 0x0001_0000)
        for offset in stride(from: UInt64(8), to: 4096, by: 4) { #expect(registers.read(offset) == 0) }
        #expect(registers.read(.max - 3) == 0)
    }

    @Test func `IDENTIFY answers with the identity`() {
        let memory = FakeMemory()
        var registers = OffloadRegisters(identity: testIdentity)
        registers.start(memory)
        #expect(registers.read(0x0C) == 1)
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        let effect = registers.write(0x1C, 1, memory)
        #expect(effect.interrupt == 1)
        #expect(effect.fault == nil)
        #expect(registers.read(0x20) == 1)
        #expect(memory.number(ringAddress + 2, 2) == 0)
        #expect(memory.number(ringAddress + 32, 4) == 64)
        let identity = memory.read(responseAddress, count: 64)
        let expected =
            Array("Offload Card".utf8) + [0, 0, 0, 0] + Array("S-0001".utf8) + Array(repeating: 0, count: 10)
            + Array("1.0".utf8) + Array(repeating: 0, count: 13 + 16)
        #expect(identity == expected)
        #expect(registers.commandsServed == 1)
    }

    static let refusals: [(entry: [UInt8], status: UInt64)] = [
        (entry(opcode: 0, response: responseAddress), 1),
        (entry(opcode: 0xFFFF, response: responseAddress), 1),
        (entry(requestLength: 1, response: responseAddress), 2),
        (entry(capacity: 63, response: responseAddress), 2),
        (entry(capacity: 0, response: responseAddress), 2),
        (entry(response: 0), 3),
        (entry(response: 0x8000_FFE0), 3),
        (entry(response: .max - 10), 3),
    ]

    @Test(arguments: refusals.indices)
    func `a wrong command is answered with its status and the card goes on`(index: Int) {
        let memory = FakeMemory()
        var registers = OffloadRegisters(identity: testIdentity)
        registers.start(memory)
        _ = memory.write(Self.refusals[index].entry, at: ringAddress)
        _ = memory.write(entry(response: responseAddress), at: ringAddress + 64)
        let effect = registers.write(0x1C, 2, memory)
        #expect(effect.served == 2)
        #expect(effect.fault == nil)
        #expect(memory.number(ringAddress + 2, 2) == Self.refusals[index].status)
        #expect(memory.number(ringAddress + 32, 4) == 0)
        #expect(memory.number(ringAddress + 64 + 2, 2) == 0)
        #expect(registers.read(0x0C) == 1)
    }

    @Test func `a garbage ring needs a reset, and a reset is enough`() {
        let memory = FakeMemory()
        var registers = OffloadRegisters(identity: testIdentity)
        registers.start(memory)
        let effect = registers.write(0x1C, 100, memory)
        #expect(effect.fault == .overrun(producer: 100, consumer: 0, size: 8))
        #expect(effect.interrupt == nil)
        #expect(registers.read(0x0C) == 2)
        // Nothing but a reset helps.
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        #expect(registers.write(0x1C, 1, memory) == OffloadRegisters.Effect())
        registers.set(0x08, 0, memory)
        registers.set(0x08, 1, memory)
        #expect(registers.read(0x0C) == 2)
        #expect(memory.number(ringAddress + 2, 2) == 0xFFFF)

        registers.set(0x08, 2, memory)
        #expect(registers.read(0x08) == 0)
        #expect(registers.read(0x0C) == 0)
        registers.start(memory)
        #expect(registers.write(0x1C, 1, memory).served == 1)
    }

    static let impossible: [(UInt64, UInt32)] = [
        (ringAddress, 0), (ringAddress, 3), (ringAddress, 512), (ringAddress + 4, 8), (.max - 63, 8),
    ]

    @Test(arguments: impossible)
    func `an impossible ring is found when the card is enabled`(base: UInt64, size: UInt32) {
        let memory = FakeMemory()
        var registers = OffloadRegisters(identity: testIdentity)
        registers.start(memory, base: base, size: size)
        #expect(registers.read(0x0C) == 2)
        #expect(registers.fault != nil)
    }

    @Test func `the ring's place is fixed while the card is enabled, and read-only registers are`() {
        let memory = FakeMemory()
        var registers = OffloadRegisters(identity: testIdentity)
        registers.start(memory)
        for offset in [UInt64(0x00), 0x04, 0x0C, 0x10, 0x14, 0x18, 0x20, 0x28, 0xFFC] {
            let before = registers.read(offset)
            registers.set(offset, 0xDEAD_BEEF, memory)
            #expect(registers.read(offset) == before)
        }
        registers.set(0x24, 2, memory)
        #expect(registers.read(0x24) == 1)
        registers.set(0x08, 0, memory)
        registers.set(0x18, 16, memory)
        #expect(registers.read(0x18) == 16)
        #expect(registers.read(0x0C) == 0)
    }

    @Test func `commands rung for before the card is enabled are served when it is`() {
        let memory = FakeMemory()
        var registers = OffloadRegisters(identity: testIdentity)
        _ = memory.write(entry(response: responseAddress), at: ringAddress)
        #expect(registers.write(0x1C, 1, memory) == OffloadRegisters.Effect())
        registers.start(memory)
        #expect(registers.read(0x20) == 1)
        #expect(registers.commandsServed == 1)
    }

    @Test func `an identity holds sixteen printable bytes a field`() {
        #expect(OffloadIdentity(model: "0123456789abcdef", serial: "", firmwareVersion: "") != nil)
        #expect(OffloadIdentity(model: "0123456789abcdefg", serial: "", firmwareVersion: "") == nil)
        #expect(OffloadIdentity(model: "é", serial: "", firmwareVersion: "") == nil)
        #expect(OffloadIdentity(model: "a\n", serial: "", firmwareVersion: "") == nil)
    }

    @Test func `random register writes and ring bytes never trap the card and never reach beyond what they name`() {
        var random = SeededGenerator.fresh()
        for round in 0..<400 {
            let memory = FakeMemory(size: 0x5000)
            var registers = OffloadRegisters(identity: testIdentity)
            for _ in 0..<64 {
                switch Int.random(in: 0..<8, using: &random) {
                case 0: registers.start(memory, size: 1 << UInt32.random(in: 0...9, using: &random))
                case 1: registers.set(0x08, .random(in: 0...3, using: &random), memory)
                case 2, 3: registers.set(0x1C, registers.producer &+ .random(in: 0...9, using: &random), memory)
                case 4:
                    let slot = ringAddress + UInt64.random(in: 0..<256, using: &random) * 64
                    _ = memory.write(entry(response: .random(in: 0x7FFF_FF00...0x8000_5100, using: &random)), at: slot)
                case 5:
                    _ = memory.write(random.bytes(64), at: ringAddress + UInt64.random(in: 0..<64, using: &random) * 64)
                default:
                    registers.set(
                        UInt64.random(in: 0..<12, using: &random) * 4, .random(in: 0 ... .max, using: &random), memory)
                }
                let status = registers.read(0x0C)
                #expect(status <= 2, "seed \(random.seed), round \(round)")
                #expect(
                    (status == 2) == (registers.fault != nil), "seed \(random.seed), round \(round)")
            }
        }
    }
}
