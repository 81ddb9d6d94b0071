/// Who drives a flash port of the logic.
public enum FlashMaster: String, CaseIterable, Sendable, Hashable {
    case adapter
    case host
    case bmc
    case card0
    case card1
    case card2
    case card3
    /// A programmer that a person holds to the board's header.
    case external

    /// Whether it sees only the verified slot, its first byte at address 0.
    public var seesSlotOnly: Bool { component != nil }
    /// The component in whose reset this master's wire is dead.
    public var component: HeldComponent? {
        switch self {
        case .host: .host
        case .bmc: .bmc
        case .card0: .card0
        case .card1: .card1
        case .card2: .card2
        case .card3: .card3
        case .adapter, .external: nil
        }
    }
    /// Those who run what was verified, each held in reset until then.
    static let held = allCases.filter { $0.component != nil }
}

/// What rules distinguish in time: the sequence's state, and in `verifying` whether the mode is unprotected.
public enum FlashPhase: String, CaseIterable, Sendable, Hashable {
    case held
    /// Verifying, but in protected mode: not begun yet, or restoring a slot.
    case verifying
    case unprotected
    /// Released and not locked yet.
    case released
    case locked
    case failed

    /// Before lock and after it, for opcode filters.
    public var isAfterLock: Bool { self == .locked }
}

/// Which SPI transaction of which master reaches the chip, as a value: the table, not the moment.
public struct FlashGateRules: Sendable, Hashable {
    /// Permission for one master over one range. For host, BMC and cards the range is within the verified slot, for the
    /// others within the chip.
    public struct Rule: Sendable, Hashable {
        public var master: FlashMaster
        public var phases: Set<FlashPhase>
        public var range: Range<UInt64>
        public var operations: FlashOperations

        public init(
            _ master: FlashMaster, _ operations: FlashOperations, while phases: Set<FlashPhase>,
            in range: Range<UInt64> = Rule.everything
        ) {
            self.master = master
            self.phases = phases
            self.range = range
            self.operations = operations
        }

        /// Every address of any chip.
        public static let everything: Range<UInt64> = 0..<1 << 32
    }

    /// The opcodes of a master before and after lock.
    public struct Filter: Sendable, Hashable {
        public var beforeLock: Set<UInt8>
        public var afterLock: Set<UInt8>

        public init(beforeLock: Set<UInt8>, afterLock: Set<UInt8>) {
            self.beforeLock = beforeLock
            self.afterLock = afterLock
        }
    }

    /// Why a set of rules may not be used.
    public enum Refusal: Error, Sendable, Hashable, CustomStringConvertible {
        case writingMaster(FlashMaster)
        case adapterOutsideVerification(FlashPhase)
        case opcode(FlashMaster, UInt8)

        public var description: String {
            switch self {
            case .writingMaster(let master):
                "the \(master.rawValue) may only read: what it runs is what was verified; leave 'read' alone"
            case .adapterOutsideVerification(let phase):
                "the adapter reaches the flash in unprotected mode only, not while '\(phase.rawValue)'; "
                    + "write 'unprotected'"
            case .opcode(let master, let opcode):
                "opcode 0x\(String(opcode, radix: 16)) cannot be given to the \(master.rawValue): "
                    + (master.seesSlotOnly && FlashInstruction.writing.contains(opcode)
                        ? "it may only read" : "it is unknown or changes the chip's modes, which no master may")
            }
        }
    }

    public private(set) var rules: [Rule]
    public private(set) var filters: [FlashMaster: Filter]

    /// Checks what no rules can give: host, BMC and cards write nothing and set no mode, nobody changes the chip's modes, and
    /// the adapter has the flash in unprotected mode only.
    public init(rules: [Rule], filters: [FlashMaster: Filter]) throws(Refusal) {
        for rule in rules {
            if rule.master.seesSlotOnly, !rule.operations.isDisjoint(with: .writes) {
                throw .writingMaster(rule.master)
            }
            if rule.master == .adapter,
                let phase = FlashPhase.allCases.first(where: { $0 != .unprotected && rule.phases.contains($0) })
            {
                throw .adapterOutsideVerification(phase)
            }
        }
        for (master, filter) in filters {
            let possible = master.seesSlotOnly ? FlashInstruction.reading : FlashInstruction.opcodes
            if let opcode = filter.beforeLock.union(filter.afterLock).subtracting(possible).min() {
                throw .opcode(master, opcode)
            }
        }
        self.rules = rules
        self.filters = filters
    }

    private init(builtIn rules: [Rule]) {
        self.rules = rules
        filters = [:]
    }

    /// The adapter reads while it verifies. Host, BMC and cards read their verified slot once they are out of reset. The
    /// external programmer reads always, and writes while nothing runs from the chip: held or failed.
    public static let builtIn = FlashGateRules(
        builtIn: [Rule(.adapter, .read, while: [.unprotected])]
            + FlashMaster.held.map { Rule($0, .read, while: [.released, .locked]) } + [
                Rule(.external, .read, while: Set(FlashPhase.allCases)),
                Rule(.external, [.read, .program, .erase, .registers], while: [.held, .failed]),
            ])

    /// What `master` may send at all in `phase`.
    public func opcodes(_ master: FlashMaster, _ phase: FlashPhase) -> Set<UInt8> {
        if let filter = filters[master] { return phase.isAfterLock ? filter.afterLock : filter.beforeLock }
        return mayWrite(master, phase) ? FlashInstruction.opcodes : FlashInstruction.reading
    }

    /// Whether any rule lets `master` change anything in `phase`.
    public func mayWrite(_ master: FlashMaster, _ phase: FlashPhase) -> Bool {
        rules.contains {
            $0.master == master && $0.phases.contains(phase) && !$0.operations.isDisjoint(with: .writes)
        }
    }

    /// Whether any rule gives `master` one of `operations` anywhere in `phase`.
    func allows(_ master: FlashMaster, _ phase: FlashPhase, _ operations: FlashOperations) -> Bool {
        rules.contains {
            $0.master == master && $0.phases.contains(phase) && !$0.operations.isDisjoint(with: operations)
        }
    }

    /// How many of `count` bytes from `address` on are allowed without a gap.
    func allowedPrefix(
        _ master: FlashMaster, _ phase: FlashPhase, _ operation: FlashOperations, _ address: UInt64, _ count: UInt64
    ) -> UInt64 {
        let end = address &+ count
        var place = address
        var isMoving = true
        while isMoving, place < end {
            isMoving = false
            for rule in rules
            where rule.master == master && rule.phases.contains(phase) && rule.operations.contains(operation)
                && rule.range.contains(place)
            {
                place = min(rule.range.upperBound, end)
                isMoving = true
            }
        }
        return place - address
    }
}

/// What the rules are asked with: the moment, as the sequence has it.
public struct FlashGateState: Sendable, Hashable {
    public var phase: FlashPhase
    /// The components out of reset.
    public var released: Set<HeldComponent>
    /// The chip's bytes that host, BMC and cards see; nil: none was verified.
    public var slot: Range<UInt64>?

    public init(phase: FlashPhase, released: Set<HeldComponent> = [], slot: Range<UInt64>? = nil) {
        self.phase = phase
        self.released = released
        self.slot = slot
    }

    /// As after power-on.
    public static let held = FlashGateState(phase: .held)
}

/// What becomes of a transaction.
public enum FlashGateDecision: Sendable, Hashable {
    /// It goes to the chip as it is meant.
    case pass
    /// Of what it reads, `count` bytes from the chip's `address`; 0xFF before, for what nobody drives, and behind,
    /// where the permission ends.
    case read(address: UInt64, count: Int, undriven: Int)
    /// The master has no access now.
    case denyMaster
    /// The opcode is not for this master now, or for nobody.
    case denyOpcode
    /// The addresses are not all the master's.
    case denyRange

    public var isDenied: Bool { self == .denyMaster || self == .denyOpcode || self == .denyRange }
}

extension FlashGateRules {
    /// Decides about one transaction. A read that begins in allowed bytes and runs out of them is cut there; a program
    /// or erase that does is denied.
    ///
    /// - Parameter chipSize: in bytes; addresses beyond wrap at the chip, so nothing there is allowed.
    public func decide(
        _ master: FlashMaster, _ write: [UInt8], readCount: Int, in state: FlashGateState, chipSize: UInt64
    ) -> FlashGateDecision {
        if let component = master.component {
            guard state.released.contains(component), state.slot != nil else { return .denyMaster }
        }
        guard allows(master, state.phase, [.read, .program, .erase, .registers]) else { return .denyMaster }
        guard let opcode = write.first, opcodes(master, state.phase).contains(opcode) else { return .denyOpcode }
        let instruction: FlashInstruction
        do throws(FlashInstruction.Refusal) {
            instruction = try FlashInstruction(write, readCount: readCount)
        } catch {
            return .denyOpcode
        }
        guard allows(master, state.phase, instruction.operation) else { return .denyOpcode }
        switch instruction.effect {
        case .query, .status, .latch, .writeRegister: return .pass
        case .read(let address, let count, let undriven):
            let limit: UInt64
            let base: UInt64
            if master.seesSlotOnly, let slot = state.slot {
                (base, limit) = (slot.lowerBound, UInt64(slot.count))
            } else {
                (base, limit) = (0, chipSize)
            }
            guard address < limit else { return .denyRange }
            let allowed = allowedPrefix(
                master, state.phase, .read, address, min(UInt64(count), limit - address))
            guard allowed > 0 || count == 0 else { return .denyRange }
            return .read(address: base + address, count: Int(allowed), undriven: undriven)
        case .program(let address, let count):
            return isWholly(master, state.phase, .program, address, UInt64(count), chipSize) ? .pass : .denyRange
        case .erase(let address, let count):
            return isWholly(master, state.phase, .erase, address, count, chipSize) ? .pass : .denyRange
        case .eraseChip:
            return isWholly(master, state.phase, .erase, 0, chipSize, chipSize) ? .pass : .denyRange
        }
    }

    private func isWholly(
        _ master: FlashMaster, _ phase: FlashPhase, _ operation: FlashOperations, _ address: UInt64, _ count: UInt64,
        _ chipSize: UInt64
    ) -> Bool {
        address < chipSize && count <= chipSize - address
            && allowedPrefix(master, phase, operation, address, count) == count
    }
}
