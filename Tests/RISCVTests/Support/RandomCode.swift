// Programs of random instructions for tests that run one program in several ways: everything a hart can execute, with
// jumps that mostly lead to instructions and accesses that mostly lead to memory.
//
// Layout, from the start of RAM: trap handlers, code, page tables, and data from 1 MiB on.
import TestKit

/// Writes random code.
struct RandomCode {
    static let base = TestMachine.ramBase
    static let codeStart: UInt64 = 0x1000
    static let codePages = 5
    static let tables: UInt64 = 0x10000
    static let dataStart: UInt64 = 0x10_0000
    static let ramSize = 0x20_0000
    /// Where page tables show RAM: at its own address, by other pages, by a large page, and in the upper half.
    static let views: [UInt64] = [base, 0x1_4000_0000, 0x1_4020_0000, 0xFFFF_FFFF_C000_0000]
    /// Registers that hold addresses of data; x25 and x26 hold values for satp, x30 and x31 are the handlers'.
    static let pointers: [UInt32] = [2, 9, 12, 20]
    private static let reserved: Set<UInt32> = [2, 9, 12, 20, 25, 26]

    var random: SeededGenerator
    /// Whether what runs may depend on when blocks are decoded or attention is looked at: stores to code, lines.
    private let isTimed: Bool
    /// Whether time may be read and timers set: by the instruction clock they are the same in every run.
    private let hasClock: Bool
    private var halves: [UInt16] = []
    /// Offsets of instructions from the start of the code.
    private(set) var starts: [Int] = []
    private var jumps: [(place: Int, kind: Jump)] = []

    private enum Jump { case branch, jal, compressedBranch, compressedJump, far }

    init(seed: UInt64, isTimed: Bool, hasClock: Bool) {
        random = SeededGenerator(seed: seed)
        self.isTimed = isTimed
        self.hasClock = hasClock
        while halves.count < Self.codePages * 2048 - 64 { item() }
        for _ in 0..<8 { half(0x0001) }
        resolveJumps()
    }

    /// RAM with handlers, code, tables and random data.
    mutating func image() -> [UInt8] {
        var image = [UInt8](repeating: 0, count: Self.ramSize)
        func put(_ value: UInt64, _ bytes: Int, at offset: UInt64) {
            for index in 0..<bytes {
                image[Int(offset) + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
            }
        }
        for (index, word) in Self.machineHandler.enumerated() { put(UInt64(word), 4, at: UInt64(index * 4)) }
        for (index, word) in Self.supervisorHandler.enumerated() {
            put(UInt64(word), 4, at: Self.supervisorHandlerStart + UInt64(index * 4))
        }
        for (index, half) in halves.enumerated() { put(UInt64(half), 2, at: Self.codeStart + UInt64(index * 2)) }
        for offset in stride(from: Self.dataStart, to: UInt64(Self.ramSize), by: 8) {
            put(Bool.random(using: &random) ? random.next() : interesting(), 8, at: offset)
        }
        // Four spaces: for user code, for supervisor code, and two of everything.
        for space in 0..<4 as Range<UInt64> {
            let root = Self.tables + space * 0x8000
            func pointer(_ table: UInt64) -> UInt64 { (Self.base + table) / 4 | 1 }
            put(pointer(root + 0x1000), 8, at: root + 2 * 8)
            put(pointer(root + 0x3000), 8, at: root + 5 * 8)
            put(pointer(root + 0x3000), 8, at: root + 511 * 8)
            put(pointer(root + 0x2000), 8, at: root + 0x1000)
            put(pointer(root + 0x4000), 8, at: root + 0x3000)
            put(Self.base / 4 | entryBits(space, 1), 8, at: root + 0x3000 + 8)
            for page in 0..<512 as Range<UInt64> {
                put((Self.base + page * 4096) / 4 | entryBits(space, page), 8, at: root + 0x2000 + page * 8)
                // Data pages in another order, so that what lies across two of them is not in one piece.
                let shown = page < 256 ? page : page ^ 1
                put((Self.base + shown * 4096) / 4 | entryBits(space, page), 8, at: root + 0x4000 + page * 8)
            }
        }
        return image
    }

    /// satp for one of the four spaces.
    static func translation(_ space: UInt64) -> UInt64 {
        8 << 60 | (space & 1) << 44 | (base + tables + space * 0x8000) >> 12
    }

    private mutating func entryBits(_ space: UInt64, _ page: UInt64) -> UInt64 {
        if page == 0 { return 0xCF }  // The handlers.
        if chance(80) { return random.next() & 0xFF }
        let user: UInt64 = space == 0 || (space > 1 && chance(2)) ? 0x10 : 0
        return 0xCF | user
    }

    // MARK: choices

    mutating func chance(_ oneIn: Int) -> Bool { Int.random(in: 0..<oneIn, using: &random) == 0 }

    mutating func interesting() -> UInt64 {
        switch Int.random(in: 0..<8, using: &random) {
        case 0: return 0
        case 1: return .max
        case 2: return 1 << UInt64.random(in: 0..<64, using: &random)
        case 3: return UInt64(bitPattern: Int64.random(in: -40...40, using: &random))
        case 4:
            return [0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF_8000_0000, 1 << 63, 1 << 63 - 1].randomElement(
                using: &random)!
        case 5: return 0xFFFF_FFFF_0000_0000 | random.next() >> 32
        case 6:
            return [
                0x3FF0 << 48, 0x7FF0 << 48, 0x7FF8 << 48, 0x7FF4 << 48, 1, 0xFFFF_FFFF_3F80_0000, 0xFFFF_FFFF_7F80_0001,
            ].randomElement(using: &random)!
        default: return random.next()
        }
    }

    private mutating func any() -> UInt32 {
        // Often the same few, held by the host's registers and not, so that values meet.
        chance(2)
            ? UInt32.random(in: 0..<32, using: &random)
            : [0, 1, 2, 5, 8, 10, 11, 15, 16, 17].randomElement(using: &random)!
    }

    private mutating func target() -> UInt32 {
        while true {
            let register = any()
            if !Self.reserved.contains(register) || chance(60) { return register }
        }
    }

    private mutating func pointer() -> UInt32 {
        isTimed && chance(100) ? any() : Self.pointers.randomElement(using: &random)!
    }

    /// An instruction's start, not far from the place where the next instruction goes, mostly behind it.
    private mutating func destination(from place: Int, reach: Int) -> Int {
        let low = max(0, place - (chance(4) ? reach : 0)), high = min(starts.last!, place + reach)
        let wanted = Int.random(in: min(low, high)...high, using: &random)
        // Starts are in ascending order.
        var (first, last) = (0, starts.count - 1)
        while first < last {
            let middle = (first + last + 1) / 2
            if starts[middle] <= wanted { first = middle } else { last = middle - 1 }
        }
        return starts[first]
    }

    // MARK: writing

    private mutating func half(_ value: UInt32) { halves.append(UInt16(truncatingIfNeeded: value)) }

    private mutating func word(_ value: UInt32) {
        half(value)
        half(value >> 16)
    }

    private mutating func register(
        _ opcode: UInt32, _ f3: UInt32, _ f7: UInt32, _ rd: UInt32, _ rs1: UInt32, _ rs2: UInt32
    ) {
        word(opcode | rd << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | f7 << 25)
    }

    private mutating func immediate(_ opcode: UInt32, _ f3: UInt32, _ rd: UInt32, _ rs1: UInt32, _ value: Int) {
        word(opcode | rd << 7 | f3 << 12 | rs1 << 15 | UInt32(truncatingIfNeeded: value) << 20)
    }

    private mutating func store(_ opcode: UInt32, _ f3: UInt32, _ rs1: UInt32, _ rs2: UInt32, _ value: Int) {
        let bits = UInt32(truncatingIfNeeded: value)
        word(opcode | (bits & 31) << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | (bits >> 5 & 0x7F) << 25)
    }

    /// rd = address of `offset` in RAM, to the page.
    private mutating func address(_ rd: UInt32, _ offset: UInt64) {
        let here = Self.codeStart + UInt64(halves.count * 2)
        word(0x17 | rd << 7 | UInt32(truncatingIfNeeded: offset &- here) & 0xFFFF_F000)
    }

    private mutating func dataPage() -> UInt64 {
        Self.dataStart + UInt64.random(in: 2..<60, using: &random) * 0x1000 + (chance(3) ? 0x800 : 0)
    }

    private static let operations: [(UInt32, UInt32, UInt32)] = [
        (0x33, 0, 0), (0x33, 0, 0x20), (0x33, 1, 0), (0x33, 2, 0), (0x33, 3, 0), (0x33, 4, 0), (0x33, 5, 0),
        (0x33, 5, 0x20), (0x33, 6, 0), (0x33, 7, 0), (0x33, 0, 1), (0x33, 1, 1), (0x33, 2, 1), (0x33, 3, 1),
        (0x33, 4, 1), (0x33, 5, 1), (0x33, 6, 1), (0x33, 7, 1), (0x33, 2, 0x10), (0x33, 4, 0x10), (0x33, 6, 0x10),
        (0x33, 7, 0x20), (0x33, 6, 0x20), (0x33, 4, 0x20), (0x33, 4, 5), (0x33, 5, 5), (0x33, 6, 5), (0x33, 7, 5),
        (0x33, 1, 0x30), (0x33, 5, 0x30), (0x33, 1, 0x24), (0x33, 5, 0x24), (0x33, 1, 0x34), (0x33, 1, 0x14),
        (0x3B, 0, 0), (0x3B, 0, 0x20), (0x3B, 1, 0), (0x3B, 5, 0), (0x3B, 5, 0x20), (0x3B, 0, 1), (0x3B, 4, 1),
        (0x3B, 5, 1), (0x3B, 6, 1), (0x3B, 7, 1), (0x3B, 0, 4), (0x3B, 2, 0x10), (0x3B, 4, 0x10), (0x3B, 6, 0x10),
        (0x3B, 1, 0x30), (0x3B, 5, 0x30),
    ]
    /// Immediates of the unary operations of Zbb by the opcode and function they belong to.
    private static let unary: [(UInt32, UInt32, Int)] = [
        (0x13, 1, 0x600), (0x13, 1, 0x601), (0x13, 1, 0x602), (0x13, 1, 0x604), (0x13, 1, 0x605), (0x13, 5, 0x287),
        (0x13, 5, 0x6B8), (0x1B, 1, 0x600), (0x1B, 1, 0x601), (0x1B, 1, 0x602), (0x3B, 4, 0x080),
    ]
    /// The upper six bits of shifts by constants, by function.
    private static let amounts: [(UInt32, Int)] = [
        (1, 0), (1, 0x12), (1, 0x1A), (1, 0x0A), (5, 0), (5, 0x10), (5, 0x18), (5, 0x12),
    ]
    private static let csrs: [Int] = [
        0x001, 0x002, 0x003, 0x100, 0x104, 0x106, 0x10A, 0x141, 0x142, 0x143, 0x144, 0x150, 0x151, 0x15C, 0x300, 0x302,
        0x303, 0x304, 0x306, 0x308, 0x309, 0x30A, 0x320, 0x341, 0x342, 0x343, 0x344, 0x350, 0x351, 0x35C, 0x3B1, 0xB00,
        0xB02, 0xC00, 0xC02, 0xDB0, 0xFB0, 0xF14, 0x301, 0x123,
    ]
    private static let fields: [UInt32] = [0, 1, 2, 3, 4, 5, 8, 11, 16, 20, 24, 26, 28, 30]

    // MARK: items

    private mutating func item() {
        if chance(8) { setPointer() }
        starts.append(halves.count * 2)
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<22:
            let (opcode, f3, f7) = Self.operations.randomElement(using: &random)!
            let rd = target()
            register(opcode, f3, f7, rd, chance(4) ? rd : any(), chance(4) ? rd : any())
        case 22..<34: immediateItem()
        case 34..<36:
            word((chance(2) ? 0x37 : 0x17) | target() << 7 | UInt32(truncatingIfNeeded: random.next()) & 0xFFFF_F000)
        case 36..<48: memory(isLoad: true)
        case 48..<58: memory(isLoad: false)
        case 58..<61: atomic()
        case 61..<68: float()
        case 68..<76: compressed()
        case 76..<88: jump()
        case 88..<90: loop()
        case 90..<94: csr()
        case 94..<96: ordering()
        case 96..<98: if isTimed { if chance(2) { patch() } else { exchange() } } else { immediateItem() }
        default: if chance(2) { rare() } else { setPointer() }
        }
    }

    private mutating func setPointer() {
        starts.append(halves.count * 2)
        let register = Self.pointers.randomElement(using: &random)!
        address(register, dataPage())
        switch Int.random(in: 0..<4, using: &random) {
        case 0: break
        case 1:
            // The start of a page: small offsets lie across it.
            immediate(0x13, 5, register, register, 12)
            immediate(0x13, 1, register, register, 12)
        default: immediate(0x13, 7, register, register, -8)
        }
    }

    private mutating func immediateItem() {
        let rd = target()
        let rs1 = chance(4) ? rd : any()
        switch Int.random(in: 0..<8, using: &random) {
        case 0:
            let (opcode, f3, value) = Self.unary.randomElement(using: &random)!
            immediate(opcode, f3, rd, rs1, value)
        case 1, 2:
            let (f3, upper) = Self.amounts.randomElement(using: &random)!
            immediate(0x13, f3, rd, rs1, upper << 6 | Int.random(in: 0..<64, using: &random))
        case 3:
            let (f3, upper) = [(1, 0), (5, 0), (5, 0x20), (5, 0x30), (1, 4)].randomElement(using: &random)!
            immediate(0x1B, UInt32(f3), rd, rs1, upper << 5 | Int.random(in: 0..<32, using: &random))
        default:
            let value =
                chance(3) ? Int.random(in: -3...3, using: &random) : Int.random(in: -2048...2047, using: &random)
            if chance(5) { return immediate(0x1B, 0, rd, rs1, value) }
            immediate(0x13, [0, 0, 2, 3, 4, 6, 7].randomElement(using: &random)!, rd, rs1, value)
        }
    }

    private mutating func memory(isLoad: Bool) {
        let f3 = UInt32.random(in: 0..<(isLoad ? 7 : 4), using: &random)
        var offset = chance(3) ? Int.random(in: -8...8, using: &random) : Int.random(in: -1024...1024, using: &random)
        if !chance(4) { offset &= -(1 << Int(f3 & 3)) }
        let isFloat = chance(6) && f3 & 3 > 1
        if isLoad {
            immediate(isFloat ? 0x07 : 0x03, isFloat ? f3 & 3 : f3, isFloat ? any() : target(), pointer(), offset)
        } else {
            store(isFloat ? 0x27 : 0x23, f3, pointer(), any(), offset)
        }
    }

    private mutating func atomic() {
        let f5 = [0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28].randomElement(using: &random)! as UInt32
        let width: UInt32 = chance(2) ? 2 : 3
        let base = pointer()
        let order = UInt32.random(in: 0..<4, using: &random)
        if f5 == 2 || f5 == 3 {
            register(0x2F, width, 2 << 2 | order, target(), base, 0)
            if chance(3) { immediateItem() }
            register(0x2F, width, 3 << 2 | order, target(), base, any())
        } else {
            register(0x2F, width, f5 << 2 | order, target(), base, any())
        }
    }

    private mutating func float() {
        let rounding = chance(3) ? UInt32.random(in: 0..<8, using: &random) : 7
        let format: UInt32 = chance(2) ? 0 : 1
        if chance(4) {
            let opcode = [0x43, 0x47, 0x4B, 0x4F].randomElement(using: &random)! as UInt32
            return register(opcode, rounding, any() << 2 | format, any(), any(), any())
        }
        let field = Self.fields.randomElement(using: &random)!
        // Signs, minima, comparisons, moves and classes have small functions; conversions small rs2.
        let f3 = [4, 5, 20, 28, 30].contains(field) ? UInt32.random(in: 0..<3, using: &random) : rounding
        let rs2 =
            [8, 11, 24, 26, 28, 30].contains(field)
            ? UInt32.random(in: 0..<4, using: &random) & (field < 12 || field > 27 ? format ^ 1 : 3) : any()
        register(0x53, f3, field << 2 | format, target(), any(), rs2)
    }

    private mutating func compressed() {
        while true {
            let value = UInt32.random(in: 0...0xFFFF, using: &random)
            // Not: 32-bit instructions, jumps (they are made elsewhere), and mostly not jumps by registers and EBREAK.
            if value & 3 == 3 || value & 3 == 1 && value >> 13 > 4 { continue }
            if value & 0xE07F == 0x8002 && !chance(30) { continue }
            // Loads and stores by addresses, mostly: x9 and x12.
            if value & 3 == 0 && value >> 13 != 0 && ![1, 4].contains(value >> 7 & 7) && !chance(40) { continue }
            let rd = value >> 7 & 31
            if Self.reserved.contains(rd) && !chance(40) { continue }
            return half(value)
        }
    }

    private mutating func jump() {
        switch Int.random(in: 0..<12, using: &random) {
        case 0..<5:
            jumps.append((halves.count, .branch))
            let f3 = [0, 1, 4, 5, 6, 7].randomElement(using: &random)! as UInt32
            register(0x63, f3, 0, 0, any(), chance(3) ? 0 : any())
        case 5:
            jumps.append((halves.count, .jal))
            word(0x6F | (chance(2) ? [0, 1, 5].randomElement(using: &random)! : target()) << 7)
        case 6, 7:
            jumps.append((halves.count, .compressedBranch))
            half(
                0xC001 | UInt32.random(in: 0..<2, using: &random) << 13 | UInt32.random(in: 0..<8, using: &random) << 7)
        case 8:
            jumps.append((halves.count, .compressedJump))
            half(0xA001)
        case 9:
            // A return to wherever x1 leads.
            immediate(0x67, 0, target(), 1, chance(4) ? 1 : 0)
        default:
            jumps.append((halves.count, .far))
            let base = target()
            word(0x17 | base << 7)
            immediate(0x67, 0, chance(2) ? base : target(), base, 0)
        }
    }

    /// A few instructions that run several times.
    private mutating func loop() {
        let start = halves.count
        immediate(0x13, 0, 27, 0, Int.random(in: 2...30, using: &random))
        starts.append(halves.count * 2)
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            starts.append(halves.count * 2)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: memory(isLoad: true)
            case 1: memory(isLoad: false)
            case 2: compressed()
            case 3 where isTimed: exchange()
            default: immediateItem()
            }
        }
        immediate(0x13, 0, 27, 27, -1)
        let distance = (start + 2 - halves.count) * 2
        let bits = UInt32(truncatingIfNeeded: distance)
        word(
            0x1063 | 27 << 15 | (bits >> 1 & 15) << 8 | (bits >> 5 & 63) << 25 | (bits >> 11 & 1) << 7 | bits
                & 0x8000_0000)
    }

    private mutating func csr() {
        if chance(12) { return immediate(0x73, 1, 0, chance(2) ? 25 : 26, 0x180) }
        var number = Self.csrs.randomElement(using: &random)!
        // Rather than mstatus and sstatus, which often turn floating point off.
        if chance(3) || number & ~0x200 == 0x100 && !chance(6) { number = Int.random(in: 1...3, using: &random) }
        // time and stimecmp.
        if hasClock && chance(6) { number = chance(2) ? 0xC01 : 0x14D }
        let f3 = [1, 2, 3, 5, 6, 7].randomElement(using: &random)! as UInt32
        immediate(0x73, f3, target(), chance(2) ? 0 : any(), number)
    }

    private mutating func ordering() {
        switch Int.random(in: 0..<6, using: &random) {
        case 0: word(0x0000_100F)
        case 1: register(0x73, 0, 0x09, 0, chance(2) ? 0 : pointer(), chance(2) ? 0 : any())
        case 2: immediate(0x0F, 2, 0, pointer(), [0, 1, 2, 4].randomElement(using: &random)!)
        default: word(0x0000_000F | UInt32.random(in: 0..<256, using: &random) << 20)
        }
    }

    /// Writes an instruction over another, with FENCE.I.
    private mutating func patch() {
        var code = RandomCode(choices: random.next())
        while code.halves.count < 2 { code.immediateItem() }
        let value = UInt32(code.halves[0]) | UInt32(code.halves[1]) << 16
        let place = starts.randomElement(using: &random)!
        word(0x37 | 16 << 7 | (value &+ 0x800) & 0xFFFF_F000)
        immediate(0x1B, 0, 16, 16, Int(Int32(bitPattern: value &* 0x10_0000) >> 20))
        let here = halves.count * 2
        let distance = Int32(truncatingIfNeeded: place - here)
        word(0x17 | 17 << 7 | UInt32(bitPattern: (distance &+ 0x800) & ~0xFFF))
        store(0x23, 2, 17, 16, Int((distance &* 0x10_0000) >> 20))
        if !chance(4) { word(0x0000_100F) }
    }

    /// Two instructions before this change places, with FENCE.I.
    private mutating func exchange() {
        let here = halves.count * 2
        let near = starts.suffix(40)
        let (first, second) = (near.randomElement(using: &random)! - here, near.randomElement(using: &random)! - here)
        word(0x17 | 28 << 7)
        immediate(0x03, 2, 16, 28, first)
        immediate(0x03, 2, 17, 28, second)
        store(0x23, 2, 28, 17, first)
        store(0x23, 2, 28, 16, second)
        word(0x0000_100F)
    }

    /// No code, only choices.
    init(choices seed: UInt64) {
        random = SeededGenerator(seed: seed)
        isTimed = false
        hasClock = false
    }

    private mutating func rare() {
        switch Int.random(in: 0..<12, using: &random) {
        case 0, 1: word(0x73)
        case 2: word(0x0010_0073)
        case 3: word(0x3020_0073)
        case 4: word(0x1020_0073)
        case 5: word(UInt32(truncatingIfNeeded: random.next()) | 3)
        case 6, 7:
            // The serial port's status; a store to it is taken too.
            word(0x37 | 16 << 7 | 0x1000_0000)
            if chance(2) { immediate(0x03, 4, target(), 16, 5) } else { store(0x23, 0, 16, any(), 4) }
        case 9 where hasClock:
            // mtime, or mtimecmp.
            let isRead = chance(2)
            word(0x37 | 16 << 7 | (isRead ? 0x0200_C000 : 0x0200_4000))
            if isRead { immediate(0x03, 3, target(), 16, -8) } else { store(0x23, 3, 16, any(), 0) }
        case 8 where isTimed:
            // The CLINT's software interrupt.
            word(0x37 | 16 << 7 | 0x0200_0000)
            store(0x23, 2, 16, any(), 0)
        default: immediate(0x13, 0, 0, 0, 0)
        }
    }

    private mutating func resolveJumps() {
        for (place, kind) in jumps {
            let reach = [.branch: 3900, .jal: 20000, .compressedBranch: 240, .compressedJump: 2000, .far: 20000][kind]!
            let distance = destination(from: place * 2, reach: chance(3) ? reach : min(reach, 120)) - place * 2
            let bits = UInt32(truncatingIfNeeded: distance)
            /// Bits of the distance, down to `low`, at a place in the instruction.
            func field(_ low: UInt32, _ count: UInt32, at place: UInt32) -> UInt32 {
                (bits >> low & ((1 << count) - 1)) << place
            }
            let upper = UInt32(halves[place + (kind == .far ? 3 : 1)])
            var word = UInt32(halves[place]) | UInt32(halves[place + 1]) << 16
            switch kind {
            case .branch:
                word |= field(1, 4, at: 8) | field(11, 1, at: 7)
                word |= field(5, 6, at: 25) | field(31, 1, at: 31)
            case .jal:
                word |= field(12, 8, at: 12) | field(11, 1, at: 20)
                word |= field(1, 10, at: 21) | field(31, 1, at: 31)
            case .compressedBranch:
                word |= field(8, 1, at: 12) | field(3, 2, at: 10) | field(6, 2, at: 5)
                word |= field(1, 2, at: 3) | field(5, 1, at: 2)
            case .compressedJump:
                word |= field(11, 1, at: 12) | field(4, 1, at: 11) | field(8, 2, at: 9) | field(10, 1, at: 8)
                word |= field(6, 1, at: 7) | field(7, 1, at: 6) | field(1, 3, at: 3) | field(5, 1, at: 2)
            case .far:
                word |= (bits &+ 0x800) & 0xFFFF_F000
                halves[place + 3] = UInt16(truncatingIfNeeded: upper | field(0, 12, at: 4))
            }
            halves[place] = UInt16(truncatingIfNeeded: word)
            halves[place + 1] = UInt16(truncatingIfNeeded: word >> 16)
        }
    }

    // MARK: handlers

    /// Where the supervisor's handler is.
    static let supervisorHandlerStart: UInt64 = 0x100
    /// A trap goes on four bytes later, after ECALL in the mode in x10 and after a fetch fault at mscratch in machine
    /// mode; an interrupt disables all of them. First, registers that hold addresses get new ones.
    private static let machineHandler: [UInt32] = [
        0x0010_3117, 0x0011_2497, 0x0012_7617, 0x0013_1A17, 0x3420_2FF3, 0x060F_C863, 0xFFFF_8F93, 0x040F_8863,
        0xFF5F_8F93,
        0x040F_8463, 0x3410_2F73, 0x004F_0F13, 0x341F_1073, 0x004F_8F93, 0x000F_8C63, 0xFFFF_8F93, 0x000F_8863,
        0xFFEF_8F93,
        0x000F_8463, 0x3020_0073,
        // after ECALL
        0x0030_0F93, 0x00BF_9F93, 0x300F_B073, 0x00B5_1F13, 0x01FF_7F33, 0x300F_2073, 0x3020_0073,
        // after a fetch fault
        0x3400_2F73, 0x341F_1073, 0x0030_0F93, 0x00BF_9F93, 0x300F_A073, 0x3020_0073,
        // interrupt
        0x3040_1073, 0x3440_1073, 0x3020_0073,
    ]
    /// As above, without new addresses; after a fetch fault at sscratch in the other mode.
    private static let supervisorHandler: [UInt32] = [
        0x1420_2FF3, 0x040F_C663, 0xFFFF_8F93, 0x020F_8263, 0xFF5F_8F93, 0x000F_8E63, 0x1410_2F73, 0x004F_0F13,
        0x141F_1073,
        0x1020_0073, 0x0000_0073, 0xFD5F_F06F,
        // after a fetch fault
        0x1400_2F73, 0x141F_1073, 0x1000_2F73, 0x100F_4F13, 0x100F_1073, 0x1020_0073, 0x0000_0073, 0xFB5F_F06F,
        // interrupt
        0x1040_1073, 0x1020_0073, 0x0000_0073, 0xFA5F_F06F,
    ]
}
