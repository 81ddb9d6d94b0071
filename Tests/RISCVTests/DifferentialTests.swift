import Foundation
import RISCV
import TestKit
import Testing

/// One random program three times: interpreted, with hot code translated, and with everything translated. Registers,
/// CSRs, memory and counts are the same at every stop.
@Suite struct DifferentialTests {
    /// Rounds of a test; BASEBOARD_FUZZ multiplies them for long runs by hand.
    private static func rounds(_ count: Int) -> Int {
        count * (ProcessInfo.processInfo.environment["BASEBOARD_FUZZ"].flatMap { Int($0) } ?? 1)
    }

    @Test(arguments: [true, false])
    func `translated code does what the interpreter does`(_ isTimed: Bool) {
        var random = SeededGenerator.fresh()
        var retired: UInt64 = 0
        for round in 0..<Self.rounds(15) {
            let seed = round == 0 ? random.seed : random.next()
            let scenario = DifferentialScenario(seed: seed, isTimed: isTimed)
            if let difference = scenario.run() {
                Issue.record("BASEBOARD_SEED=\(seed), timed \(isTimed): \(scenario.explain(difference))")
                return
            }
            retired += scenario.retired
        }
        #expect(retired > 1000, "seed \(random.seed)")
        if Self.rounds(1) > 1 { print("\(retired) instructions, timed \(isTimed)") }
    }
}

/// A random program and what is done to it between its parts.
private final class DifferentialScenario {
    /// A first difference: the part in which it arose, and what differs.
    struct Difference {
        let part: Int
        let text: String
    }

    private static let parts = 40
    private static let translations: [HartConfiguration.Translation] = [.none, .hot, .always]
    private static let csrs: [UInt32] = [
        0x001, 0x002, 0x003, 0x100, 0x104, 0x105, 0x106, 0x10A, 0x140, 0x141, 0x142, 0x143, 0x144, 0x150, 0x180, 0x300,
        0x302, 0x303, 0x304, 0x305, 0x306, 0x30A, 0x320, 0x340, 0x341, 0x342, 0x343, 0x344, 0x350, 0x3A0, 0x3B0, 0x3B1,
        0xB00, 0xB02,
    ]

    private let seed: UInt64
    /// Whether all ways run with the same budgets; otherwise budgets are cut in pieces and only what may not depend on
    /// them happens.
    private let isTimed: Bool
    private let clock: TimeSource.Clock
    private let image: [UInt8]
    private let starts: [Int]
    private(set) var retired: UInt64 = 0

    init(seed: UInt64, isTimed: Bool) {
        self.seed = seed
        self.isTimed = isTimed
        // Every other program sees time pass, which the instruction clock makes repeatable.
        clock = seed & 1 == 0 ? .wall : .instructions
        var code = RandomCode(seed: seed, isTimed: isTimed, hasClock: clock == .instructions)
        image = code.image()
        starts = code.starts
    }

    /// Runs all parts, or those before `last` and `count` instructions of it.
    func run(last: Int = parts, count: Int = 0) -> Difference? { start(last: last, count: count).difference }

    private func start(last: Int, count: Int) -> (machines: [TestMachine], difference: Difference?) {
        let machines = Self.translations.map {
            TestMachine(image: image, ramSize: RandomCode.ramSize, translation: $0, clock: clock)
        }
        for part in 0...last {
            if part == last && count == 0 { break }
            for (index, machine) in machines.enumerated() { run(machine, index, part, part == last ? count : nil) }
            for index in 1..<machines.count {
                if let text = compare(machines[0], machines[index]) {
                    return (machines, Difference(part: part, text: "\(Self.translations[index]): \(text)"))
                }
            }
        }
        retired = machines.map { $0.harts[0].retiredInstructions }.reduce(0, +)
        return (machines, nil)
    }

    /// Prepares a part and runs it, or its first `count` instructions.
    private func run(_ machine: TestMachine, _ way: Int, _ part: Int, _ count: Int?) {
        var random = RandomCode(choices: seed &+ UInt64(part))
        let hart = machine.harts[0]
        prepare(machine, part, &random)
        if isTimed {
            var left = [5, 60, 1000, 4000].randomElement(using: &random.random)!
            left = min(left, count ?? left)
            while left > 0 {
                let piece = random.chance(3) ? min(left, Int.random(in: 1...30, using: &random.random)) : left
                let before = hart.retiredInstructions
                if hart.run(budget: piece) == .waitForInterrupt { hart.endWait() }
                left -= max(1, Int(hart.retiredInstructions &- before))
            }
        } else {
            let end = hart.retiredInstructions + UInt64(min(2000, count ?? 2000))
            var pieces = SeededGenerator(seed: seed &+ UInt64(part * 4 + way))
            var attempts = 10000
            while hart.retiredInstructions < end && attempts > 0 {
                attempts -= 1
                let left = Int(end - hart.retiredInstructions)
                let isWhole = way == 0 || Bool.random(using: &pieces)
                if hart.run(budget: isWhole ? left : Int.random(in: 1...min(left, 60), using: &pieces))
                    == .waitForInterrupt
                {
                    hart.endWait()
                }
            }
        }
    }

    /// Registers, mode, translation, protection, and now and then code and page tables.
    private func prepare(_ machine: TestMachine, _ part: Int, _ random: inout RandomCode) {
        let hart = machine.harts[0]
        let start = RandomCode.base + RandomCode.codeStart
        func entry(_ random: inout RandomCode) -> UInt64 {
            start + UInt64(starts.randomElement(using: &random.random)!)
        }
        for number in 1..<32 { hart.setX(number, random.interesting()) }
        for number in 0..<32 { hart.setF(number, random.interesting()) }
        for number in RandomCode.pointers {
            hart.setX(
                Int(number),
                RandomCode.base + RandomCode.dataStart + UInt64.random(in: 2..<60, using: &random.random) * 4096
            )
        }
        for number in [1, 5] { hart.setX(number, entry(&random)) }
        let space = UInt64.random(in: 0..<4, using: &random.random)
        hart.setX(25, random.chance(4) ? 0 : RandomCode.translation(space))
        hart.setX(26, RandomCode.translation(UInt64.random(in: 0..<4, using: &random.random)))
        let mode =
            random.chance(2) ? 3 : space == 0 ? 0 : space == 1 ? 1 : UInt64.random(in: 0...1, using: &random.random)
        let view = mode == 3 ? 0 : RandomCode.views.randomElement(using: &random.random)! &- RandomCode.base
        var wanted: [(UInt32, UInt64)] = [
            (0x305, RandomCode.base), (0x105, RandomCode.base + RandomCode.supervisorHandlerStart),
            (0x340, entry(&random)),
            (0x140, entry(&random)), (0x300, 0x6000 | (random.chance(3) ? random.random.next() & 0x7E_19AA : 0)),
            (0x302, random.chance(2) ? 0 : random.random.next() & 0xB1FF), (0x303, random.chance(2) ? 0 : 0x222),
            (0x304, random.chance(3) ? 0xAAA : 0), (0x180, random.chance(6) ? 0 : RandomCode.translation(space)),
            (0x30A, random.random.next() & 0x2000_0000_0000_00F0), (0x10A, random.random.next() & 0xF0),
            (0x306, random.random.next() & 7), (0x106, random.random.next() & 7),
            (0x002, UInt64.random(in: 0..<5, using: &random.random)), (0x341, entry(&random)), (0x141, entry(&random)),
            // All memory, but for a few bytes in some parts.
            (0x3BF, .max >> 10), (0x3A2, 0x1F << 56),
        ]
        if !isTimed {
            // Code is never written, nothing else executed: locked, for machine mode too.
            wanted += [(0x3BD, RandomCode.base >> 2 | 0x1FFF), (0x3BE, RandomCode.base >> 2 | 0x3_FFFF)]
            wanted.append((0x3A2, 0x1F9B_9D00_0000_0000))
        }
        if random.chance(3) {
            let place =
                isTimed && random.chance(3)
                ? entry(&random) : RandomCode.base + RandomCode.dataStart + random.random.next() % 0x4_0000
            wanted += [(0x3B0, place >> 2 & ~3 | 1), (0x3A0, 0x18 | random.random.next() & 7)]
        } else {
            wanted.append((0x3A0, 0))
        }
        for (number, value) in wanted { _ = hart.setCSR(number, value) }
        _ = hart.setMode(mode)
        hart.pc = entry(&random) &+ view
        if random.chance(4) {
            // Two instructions change places.
            let (first, second) = (entry(&random), entry(&random))
            for (to, from) in [(first, second), (second, first)] {
                _ = hart.writePhysical(to, hart.readPhysical(from, count: 4))
            }
            hart.invalidateInstructions()
        }
        if random.chance(3) {
            let page = random.random.next() % 512
            let place =
                RandomCode.base + RandomCode.tables + space * 0x8000 + (random.chance(2) ? 0x2000 : 0x4000) + page * 8
            if page > 0 {
                machine.store(
                    place, machine.load(place) ^ (random.random.next() & 0xDE) ^ (random.chance(2) ? 0 : 0x400))
                // A write to a PMP register is a fence for translations.
                _ = hart.setCSR(0x3B0, hart.csr(0x3B0)!)
            }
        }
    }

    /// What differs between two machines, if anything does.
    private func compare(_ one: TestMachine, _ other: TestMachine) -> String? {
        let (a, b) = (one.harts[0], other.harts[0])
        var texts: [String] = []
        func check(_ name: String, _ first: UInt64?, _ second: UInt64?) {
            if first != second { texts.append("\(name) \(hex(first)) and \(hex(second))") }
        }
        check("retired", a.retiredInstructions, b.retiredInstructions)
        check("pc", a.pc, b.pc)
        check("mode", UInt64(a.mode), UInt64(b.mode))
        for number in 0..<32 { check("x\(number)", a.x(number), b.x(number)) }
        for number in 0..<32 { check("f\(number)", a.f(number), b.f(number)) }
        for number in Self.csrs { check("csr \(hex(UInt64(number)))", a.csr(number), b.csr(number)) }
        if memcmp(one.ram, other.ram, RandomCode.ramSize) != 0 {
            let place = (0..<RandomCode.ramSize / 8).map { TestMachine.ramBase + UInt64($0 * 8) }
                .first { one.load($0) != other.load($0) }!
            check("memory at \(hex(place))", one.load(place), other.load(place))
        }
        return texts.isEmpty ? nil : texts.joined(separator: ", ")
    }

    /// The first instruction after which a difference shows, and the difference.
    func explain(_ difference: Difference) -> String {
        var (agrees, differs) = (0, 4000)
        while differs - agrees > 1 {
            let middle = (agrees + differs) / 2
            if run(last: difference.part, count: middle) == nil { agrees = middle } else { differs = middle }
        }
        let (machines, _) = start(last: difference.part, count: agrees)
        defer { withExtendedLifetime(machines) {} }
        let hart = machines[0].harts[0]
        let code = hart.physicalAddress(of: hart.pc).map { hart.readPhysical($0, count: 4) } ?? []
        let word = code.reversed().map { String(UInt64($0) + 256, radix: 16).dropFirst() }.joined()
        let first = run(last: difference.part, count: differs)?.text ?? "not with a smaller budget"
        return """
            part \(difference.part), instruction \(differs), mode \(hart.mode), pc \(hex(hart.pc)), \(word): \(first). \
            At the end of the part: \(difference.text.prefix(400))
            """
    }

    private func hex(_ value: UInt64?) -> String { value.map { "0x" + String($0, radix: 16) } ?? "nothing" }
}
