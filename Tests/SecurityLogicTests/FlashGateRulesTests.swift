import SecurityLogic
import Serprog
import Testing

@Suite struct FlashInstructionTests {
    static let address3: [UInt8] = [0x12, 0x34, 0x56]
    static let address4: [UInt8] = [0x01, 0x12, 0x34, 0x56]

    struct Row: Sendable {
        let write: [UInt8]
        var readCount = 0
        let effect: FlashInstruction.Effect
    }
    static let rows: [Row] = [
        Row(write: [0x9F], readCount: 3, effect: .query), Row(write: [0x05], readCount: 1, effect: .status),
        Row(write: [0x5A, 0, 0, 0, 0], readCount: 8, effect: .query), Row(write: [0x06], effect: .latch),
        Row(write: [0x04], effect: .latch), Row(write: [0x01, 0], effect: .writeRegister),
        Row(write: [0x01, 0, 0], effect: .writeRegister),
        Row(write: [0x03] + address3, readCount: 5, effect: .read(address: 0x12_3456, count: 5, undriven: 0)),
        Row(write: [0x0B] + address3 + [0], readCount: 5, effect: .read(address: 0x12_3456, count: 5, undriven: 0)),
        // The dummy byte clocked in with the data, and data clocked with the address.
        Row(write: [0x0B] + address3, readCount: 5, effect: .read(address: 0x12_3456, count: 4, undriven: 1)),
        Row(
            write: [0x0B] + address3 + [0, 9, 9], readCount: 5, effect: .read(address: 0x12_3458, count: 5, undriven: 0)
        ),
        Row(write: [0x13] + address4, readCount: 1, effect: .read(address: 0x112_3456, count: 1, undriven: 0)),
        Row(write: [0x0C] + address4 + [0], readCount: 1, effect: .read(address: 0x112_3456, count: 1, undriven: 0)),
        Row(write: [0x0C] + address4, readCount: 0, effect: .read(address: 0x112_3456, count: 0, undriven: 0)),
        Row(write: [0x02] + address3 + [1, 2], effect: .program(address: 0x12_3456, count: 2)),
        Row(write: [0x12] + address4 + [1], effect: .program(address: 0x112_3456, count: 1)),
        Row(write: [0x20] + address3, effect: .erase(address: 0x12_3000, count: 0x1000)),
        Row(write: [0x21] + address4, effect: .erase(address: 0x112_3000, count: 0x1000)),
        Row(write: [0x52] + address3, effect: .erase(address: 0x12_0000, count: 0x8000)),
        Row(write: [0x5C] + address4, effect: .erase(address: 0x112_0000, count: 0x8000)),
        Row(write: [0xD8] + address3, effect: .erase(address: 0x12_0000, count: 0x1_0000)),
        Row(write: [0xDC] + address4, effect: .erase(address: 0x112_0000, count: 0x1_0000)),
        Row(write: [0x60], effect: .eraseChip), Row(write: [0xC7], effect: .eraseChip),
    ]

    @Test(arguments: rows.indices)
    func `an instruction is understood with its address`(index: Int) throws {
        let row = Self.rows[index]
        #expect(try FlashInstruction(row.write, readCount: row.readCount).effect == row.effect)
    }

    static let lengths: [([UInt8], Int)] = [
        ([], 0), ([0x03, 1, 2], 4), ([0x13, 1, 2, 3], 4), ([0x0B, 1], 0), ([0x0C, 0, 0, 0], 1), ([0x06, 0], 0),
        ([0x06], 1), ([0x01], 0), ([0x01, 1, 2, 3], 0), ([0x01, 1], 1), ([0x02, 0, 0, 0], 0), ([0x12, 0, 0, 0, 0], 0),
        ([0x02, 0, 0, 0, 1], 1), ([0x02, 0, 0, 0xFF, 1, 2], 0),
        ([0x12, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 257), 0), ([0x20, 0, 0], 0), ([0x20, 0, 0, 0, 0], 0),
        ([0x20, 0, 0, 0], 1), ([0x21, 0, 0, 0], 0), ([0xDC, 0, 0, 0, 0, 0], 0), ([0xC7, 0], 0), ([0x60], 1),
    ]

    @Test(arguments: lengths.indices)
    func `bytes too few or too many are refused`(index: Int) {
        let (write, readCount) = Self.lengths[index]
        #expect(throws: FlashInstruction.Refusal.length) { try FlashInstruction(write, readCount: readCount) }
    }

    @Test(arguments: [0xB7, 0xE9, 0x66, 0x99, 0xB9, 0xAB, 0xC5, 0x50, 0x35, 0x38, 0x75, 0x7A, 0x9E] as [UInt8])
    func `what changes the chip's modes is no instruction of a gate`(opcode: UInt8) {
        #expect(throws: FlashInstruction.Refusal.opcode) { try FlashInstruction([opcode], readCount: 0) }
        #expect(!FlashInstruction.opcodes.contains(opcode))
    }
}

@Suite struct FlashGateRulesTests {
    static let chipSize: UInt64 = 32 << 20
    static let slot: Range<UInt64> = 0x80_0000..<0x100_0000
    static let everyone = Set(HeldComponent.allCases)
    static let running = FlashGateState(phase: .locked, released: everyone, slot: slot)
    /// Those who run what was verified.
    static let held = FlashMaster.allCases.filter(\.seesSlotOnly)

    static func read(_ address: UInt32) -> [UInt8] { [0x0C] + SPIFlash.addressBytes(address) + [0] }

    static func decide(
        _ master: FlashMaster, _ write: [UInt8], _ readCount: Int = 0, in state: FlashGateState,
        _ rules: FlashGateRules = .builtIn
    ) -> FlashGateDecision {
        rules.decide(master, write, readCount: readCount, in: state, chipSize: chipSize)
    }

    /// Phases in which a master reads by the built-in rules, and in which it writes.
    static let table: [(FlashMaster, reads: Set<FlashPhase>, writes: Set<FlashPhase>)] =
        [
            (.adapter, [.unprotected], []), (.external, Set(FlashPhase.allCases), [.held, .failed]),
        ] + held.map { ($0, [.released, .locked], []) }

    @Test func `host, BMC and four cards are held masters`() {
        #expect(Set(Self.held.map(\.rawValue)) == ["host", "bmc", "card0", "card1", "card2", "card3"])
        for master in Self.held { #expect(master.component?.rawValue == master.rawValue) }
    }

    @Test(arguments: table.indices, FlashPhase.allCases)
    func `a master reads and writes in its phases only`(index: Int, phase: FlashPhase) {
        let (master, reads, writes) = Self.table[index]
        let state = FlashGateState(phase: phase, released: Self.everyone, slot: Self.slot)
        let mayRead = reads.contains(phase)
        let mayWrite = writes.contains(phase)
        #expect(Self.decide(master, [0x9F], 3, in: state) == (mayRead ? .pass : .denyMaster))
        #expect(Self.decide(master, [0x05], 1, in: state) == (mayRead ? .pass : .denyMaster))
        #expect(Self.decide(master, Self.read(0), 16, in: state).isDenied == !mayRead)
        for write in [[0x06], [0x12, 0, 0, 0, 0, 1], [0x21, 0, 0, 0, 0], [0xC7], [0x01, 0]] as [[UInt8]] {
            #expect(Self.decide(master, write, in: state) == (mayWrite ? .pass : mayRead ? .denyOpcode : .denyMaster))
        }
    }

    @Test func `of all 256 opcodes only the known ones pass, and no mode ever`() {
        for (master, _, writes) in Self.table {
            for phase in FlashPhase.allCases {
                let passing = FlashGateRules.builtIn.opcodes(master, phase)
                let known = writes.contains(phase) ? FlashInstruction.opcodes : FlashInstruction.reading
                #expect(passing == known, "\(master) \(phase)")
                #expect(passing.isDisjoint(with: [0xB7, 0xE9, 0x66, 0x99, 0xB9, 0xAB, 0xC5]))
            }
        }
    }

    @Test(arguments: held)
    func `a component in reset has no flash, whatever the phase`(master: FlashMaster) {
        for released in [[], Self.everyone.filter { $0 != master.component }] as [Set<HeldComponent>] {
            let state = FlashGateState(phase: .locked, released: released, slot: Self.slot)
            #expect(Self.decide(master, [0x9F], 3, in: state) == .denyMaster)
        }
        #expect(
            Self.decide(master, [0x9F], 3, in: FlashGateState(phase: .locked, released: Self.everyone)) == .denyMaster)
    }

    @Test(arguments: held)
    func `host, BMC and cards see the verified slot from 0, cut at its end`(master: FlashMaster) {
        #expect(
            Self.decide(master, Self.read(0x10), 16, in: Self.running)
                == .read(address: 0x80_0010, count: 16, undriven: 0))
        #expect(
            Self.decide(master, Self.read(0x7F_FFF8), 64, in: Self.running)
                == .read(address: 0xFF_FFF8, count: 8, undriven: 0))
        #expect(Self.decide(master, Self.read(0x80_0000), 1, in: Self.running) == .denyRange)
        #expect(Self.decide(master, Self.read(0xFFFF_FFFF), 4, in: Self.running) == .denyRange)
        // Three address bytes mean the slot's bytes too.
        #expect(
            Self.decide(master, [0x03, 0, 0, 4], 2, in: Self.running)
                == .read(address: 0x80_0004, count: 2, undriven: 0))
    }

    @Test func `the others see the chip, cut where it ends`() {
        let held = FlashGateState.held
        #expect(
            Self.decide(.external, Self.read(0x1FF_FFFF), 2, in: held)
                == .read(address: 0x1FF_FFFF, count: 1, undriven: 0))
        #expect(Self.decide(.external, Self.read(0x200_0000), 2, in: held) == .denyRange)
        #expect(
            Self.decide(.external, [0x12, 2, 0, 0, 0, 1], in: held) == .denyRange, "no write wraps at the chip's end")
        #expect(Self.decide(.external, [0x21, 2, 0, 0, 0], in: held) == .denyRange)
    }

    @Test func `ranges permit, join and cut`() throws {
        let rules = try FlashGateRules(
            rules: [
                .init(.external, [.read], while: [.held], in: 0x1000..<0x2000),
                .init(.external, [.read, .erase], while: [.held], in: 0x2000..<0x4000),
                .init(.external, .program, while: [.held], in: 0x2080..<0x2100),
            ], filters: [:])
        let held = FlashGateState.held
        #expect(Self.decide(.external, Self.read(0xFFF), 4, in: held, rules) == .denyRange)
        #expect(
            Self.decide(.external, Self.read(0x1000), 0x8000, in: held, rules)
                == .read(address: 0x1000, count: 0x3000, undriven: 0))
        #expect(Self.decide(.external, [0x21, 0, 0, 0x30, 0], in: held, rules) == .pass)
        #expect(Self.decide(.external, [0x21, 0, 0, 0x10, 0], in: held, rules) == .denyRange)
        #expect(
            Self.decide(.external, [0x5C, 0, 0, 0x30, 0], in: held, rules) == .denyRange, "32 KiB are not all allowed")
        #expect(Self.decide(.external, [0xC7], in: held, rules) == .denyRange)
        #expect(Self.decide(.external, [0x12, 0, 0, 0x20, 0x80, 1], in: held, rules) == .pass)
        #expect(Self.decide(.external, [0x12, 0, 0, 0x20, 0x7F, 1, 2], in: held, rules) == .denyRange)
        #expect(Self.decide(.external, [0x01, 0], in: held, rules) == .denyOpcode, "no register was permitted")
        #expect(Self.decide(.adapter, Self.read(0), 1, in: FlashGateState(phase: .unprotected), rules) == .denyMaster)
    }

    @Test func `an opcode filter holds before lock and another after it`() throws {
        let rules = try FlashGateRules(
            rules: FlashGateRules.builtIn.rules,
            filters: [.external: .init(beforeLock: [0x9F, 0x0C], afterLock: [0x9F])])
        #expect(Self.decide(.external, Self.read(0), 1, in: .held, rules) == .read(address: 0, count: 1, undriven: 0))
        #expect(Self.decide(.external, [0x06], in: .held, rules) == .denyOpcode)
        #expect(Self.decide(.external, Self.read(0), 1, in: Self.running, rules) == .denyOpcode)
        #expect(Self.decide(.external, [0x9F], 3, in: Self.running, rules) == .pass)
    }

    @Test func `no rules give host, BMC or a card a write, the adapter a locked flash, or anybody a mode`() {
        for master in Self.held {
            for operation in [FlashOperations.program, .erase, .registers, [.read, .program]] {
                #expect(throws: FlashGateRules.Refusal.writingMaster(master)) {
                    try FlashGateRules(rules: [.init(master, operation, while: [.released])], filters: [:])
                }
            }
            #expect(throws: FlashGateRules.Refusal.opcode(master, 0x06)) {
                try FlashGateRules(rules: [], filters: [master: .init(beforeLock: [0x9F, 0x06], afterLock: [])])
            }
        }
        #expect(throws: FlashGateRules.Refusal.adapterOutsideVerification(.locked)) {
            try FlashGateRules(rules: [.init(.adapter, .read, while: [.unprotected, .locked])], filters: [:])
        }
        for opcode in [0xB7, 0xE9, 0xC5, 0x99] as [UInt8] {
            #expect(throws: FlashGateRules.Refusal.opcode(.external, opcode)) {
                try FlashGateRules(rules: [], filters: [.external: .init(beforeLock: [opcode], afterLock: [])])
            }
        }
    }
}
