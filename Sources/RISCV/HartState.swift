// Everything a hart is, in one non-copyable value that the interpreter works on in place.
//
// What surprised us: a method that is not `mutating`, called from one that is and not inlined, makes the compiler copy
// the whole value first (1.5 KB, 5 % of a Linux boot). So every method here is `mutating`, getters too.
//
// Never a class: stored properties of classes cost a load and an exclusivity check each time (STYLE.md, speed). Groups
// of registers that the interpreter indexes live behind pointers, whose bases it keeps in locals.
import CSystem

/// The architectural and microarchitectural state of one hart.
@safe struct HartState: ~Copyable {
    // MARK: registers
    let core = HartCore()
    let x: Registers
    let f: FloatRegisters
    var pc: UInt64 = 0
    var privilege = Privilege.machine

    // MARK: CSRs, machine level
    let id: UInt64
    var mstatus = StatusBits.fixed
    var medeleg: UInt64 = 0
    var mideleg: UInt64 = 0
    var mie: UInt64 = 0
    var mtvec: UInt64 = 0
    var mcounteren: UInt64 = 0
    var mcountinhibit: UInt64 = 0
    var menvcfg: UInt64 = 0
    var mscratch: UInt64 = 0
    var mepc: UInt64 = 0
    var mcause: UInt64 = 0
    var mtval: UInt64 = 0
    var miselect: UInt64 = 0

    // MARK: CSRs, supervisor level
    var stvec: UInt64 = 0
    var scounteren: UInt64 = 0
    var senvcfg: UInt64 = 0
    var sscratch: UInt64 = 0
    var sepc: UInt64 = 0
    var scause: UInt64 = 0
    var stval: UInt64 = 0
    var satp: UInt64 = 0
    var stimecmp: UInt64 = .max
    var siselect: UInt64 = 0

    // MARK: floating point
    var fflags: UInt8 = 0
    var frm: UInt8 = 0

    // MARK: physical memory protection
    var pmp = PhysicalMemoryProtection()

    // MARK: interrupts
    let hasAIA: Bool
    let signals: HartSignals
    let attention: AttentionWord
    let machineFile: InterruptFile
    let supervisorFile: InterruptFile
    let time: TimeSource
    /// Bits of `mip` that software wrote: SSIP, and SEIP and STIP where they are writable.
    var softwareInterrupts: UInt64 = 0
    /// `mip` as of the last look at lines, files and timers.
    var mip: UInt64 = 0
    /// What the CSR instruction under way read, so that a claim takes what was shown.
    var lastRead: UInt64 = 0
    /// WFI was executed and nothing has ended it yet.
    var isWaiting = false

    // MARK: debugger
    /// EBREAK ends `run` instead of trapping.
    var stopsAtEBREAK = false
    /// An EBREAK was met that way and not reported yet.
    var isHalted = false
    /// No interrupt is taken, whatever is pending: for single steps.
    var masksInterrupts = false

    // MARK: instruction clock, see HartState+Clock
    let countsInstructions: Bool
    /// Guest time beyond `retired`, in instructions: waits, and what was retired before a reset.
    var clockOffset: UInt64 = 0
    /// A device access was given up, because `retired` is not exact inside a block.
    var wantsExact = false
    /// The next instruction runs alone: `retired` is exact in it.
    var isExact = false
    /// Where and when (CLOCK_MONOTONIC) the hart began to wait.
    var idleSince: (position: UInt64, time: UInt64) = (0, 0)

    // MARK: counters
    /// Instructions retired since reset, up to the last time control left the interpreter.
    var retired: UInt64 = 0
    /// What `minstret` and `mcycle` show beyond `retired` (wrapping); while inhibited, what they show.
    var instretOffset: UInt64 = 0
    var cycleOffset: UInt64 = 0

    // MARK: memory
    let regions: [PhysicalRegion]
    let main: MainMemory
    let translations: TranslationCache
    let contexts: ContextTable
    let fetches: FetchCache
    var blocks = BlockCache()
    /// Whether hot blocks are translated to code of the host.
    let usesTranslator: Bool
    /// How often a block is interpreted before.
    let heat: UInt8
    /// A block with code that the interpreter found at `pc` and left to it.
    var translated: BlockPointer?
    /// The privilege that loads and stores have (MPRV).
    var dataPrivilege = Privilege.machine
    /// Tags of the translation caches, see `TranslationCache` and `FetchCache`.
    var dataContext: UInt64 = 0
    var fetchContext: UInt32 = 0
    var nextDataContext: UInt64 = 1
    var nextFetchContext: UInt32 = 1
    /// Virtual addresses in use by pages larger than 4 KiB, lower and upper half, as inclusive ranges.
    var largePages = (low: LargePageRange(), high: LargePageRange())

    /// By the instruction clock: every page that was walked to for a fetch, see HartState+Clock.
    var walkedPages: [WalkedPage: FetchCache.Page] = [:]

    // MARK: LR/SC
    /// Host address of the reserved word or doubleword; 0: no reservation.
    var reservation: UInt = 0
    var reservedValue: UInt64 = 0
    var reservedWidth: UInt64 = 0
    /// What the table said of the line.
    var reservedState: UInt64 = 0
    let reservations: ReservationTable

    // MARK: the trap on its way
    /// Cause and value of the trap that a failing step is about to take.
    var trapCause = Cause.illegalInstruction
    var trapValue: UInt64 = 0

    init(
        id: UInt64, configuration: HartConfiguration, regions: [PhysicalRegion], signals: HartSignals,
        machineFile: InterruptFile, supervisorFile: InterruptFile, time: TimeSource, reservations: ReservationTable
    ) {
        self.id = id
        self.reservations = reservations
        reservations.join()
        self.regions = regions
        main = MainMemory(regions)
        self.signals = signals
        self.attention = signals.attention
        self.machineFile = machineFile
        self.supervisorFile = supervisorFile
        self.time = time
        countsInstructions = time.clock == .instructions
        hasAIA = configuration.interrupts == .aia
        x = Registers(core)
        f = FloatRegisters(core)
        translations = TranslationCache(core)
        contexts = ContextTable()
        fetches = FetchCache(core)
        usesTranslator = configuration.translation != .none && blocks.hasHostCode
        heat = configuration.translation == .always ? 0 : BlockCache.heat
        core[.attention] = unsafe UInt64(UInt(bitPattern: signals.attention.word))
    }

    deinit {
        core.deallocate()
        contexts.deallocate()
        fetches.deallocate()
    }

    /// The state after reset, at `pc`. Registers are zeroed, caches forgotten, pending messages dropped.
    mutating func reset(pc: UInt64) {
        x.clear()
        f.clear()
        self.pc = pc
        privilege = .machine
        mstatus = StatusBits.fixed
        (medeleg, mideleg, mie, mtvec, mcounteren, mcountinhibit, menvcfg) = (0, 0, 0, 0, 0, 0, 0)
        (mscratch, mepc, mcause, mtval, miselect) = (0, 0, 0, 0, 0)
        (stvec, scounteren, senvcfg, sscratch, sepc, scause, stval, satp, siselect) = (0, 0, 0, 0, 0, 0, 0, 0, 0)
        stimecmp = .max
        (fflags, frm) = (0, 0)
        pmp = PhysicalMemoryProtection()
        (softwareInterrupts, mip, isWaiting, isHalted) = (0, 0, false, false)
        clockOffset &+= retired
        (wantsExact, isExact) = (false, false)
        (retired, instretOffset, cycleOffset) = (0, 0, 0)
        reservation = 0
        machineFile.reset()
        supervisorFile.reset()
        blocks.removeAll()
        fetches.removeAll()
        forgetTranslations()
        refreshInterrupts()
    }

    /// Records why the current step fails; always false.
    @discardableResult
    mutating func fault(_ cause: Cause, _ value: UInt64) -> Bool {
        trapCause = cause
        trapValue = value
        return false
    }
}

/// The integer registers; number 32 swallows what is written to x0.
@safe struct Registers {
    private let base: UnsafeMutablePointer<UInt64>

    init(_ core: HartCore) {
        // Safety: the core's first 64 places, while numbers in slots are at most 32.
        unsafe base = core.base.assumingMemoryBound(to: UInt64.self)
    }

    @inline(__always) subscript(number: UInt8) -> UInt64 {
        // Safety: the decoder makes only numbers 0…32.
        get { unsafe base[Int(number)] }
        nonmutating set { unsafe base[Int(number)] = newValue }
    }

    func clear() { unsafe base.update(repeating: 0, count: 64) }  // Safety: as above.
}

/// The floating-point registers, 64 bits each; singles are NaN-boxed.
@safe struct FloatRegisters {
    private let base: UnsafeMutablePointer<UInt64>

    init(_ core: HartCore) {
        // Safety: the core has 32 places there, zeroed, while numbers in slots are at most 31.
        unsafe base = (core.base + HartCore.floatsOffset).assumingMemoryBound(to: UInt64.self)
    }

    @inline(__always) subscript(number: UInt8) -> UInt64 {
        // Safety: the decoder makes only numbers 0…31 for floating-point operands.
        get { unsafe base[Int(number & 31)] }
        nonmutating set { unsafe base[Int(number & 31)] = newValue }
    }

    static let boxed: UInt64 = 0xFFFF_FFFF_0000_0000
    private static let canonicalNaN32: UInt32 = 0x7FC0_0000

    /// A register as a single: the canonical NaN unless it is boxed.
    @inline(__always) func single(_ number: UInt8) -> UInt32 {
        let bits = self[number]
        return bits >= Self.boxed ? UInt32(truncatingIfNeeded: bits) : Self.canonicalNaN32
    }

    @inline(__always) func setSingle(_ number: UInt8, _ value: UInt32) { self[number] = Self.boxed | UInt64(value) }

    func clear() { unsafe base.update(repeating: 0, count: 32) }  // Safety: as allocated.
}
