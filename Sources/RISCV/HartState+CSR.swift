// Control and status registers: one function that reads, one that modifies.
//
// Spec: RISC-V Privileged 20240411 chapter 2 (numbers and access), chapters 3 and 12 (fields); Unprivileged chapter 6
// (Zicsr), 7 (Zicntr); Sstc 1.0; Debug 1.0 §5.7 (Sdtrig without triggers); Advanced Interrupt Architecture 1.0
// chapters 2, 3, 5.
//
// A modification is "clear these bits, then set those" for all three instructions: CSRRW clears everything. So an
// interrupt file can do it atomically, and `mip` can apply it to its software bits and not to what the lines show.

extension HartState {
    /// Whether the number's own bits let the current mode in, and allow a write if one is meant.
    private mutating func permitsAccess(_ number: UInt32, writes: Bool) -> Bool {
        if writes && number >> 10 == 3 { return false }
        return UInt64(number >> 8 & 3) <= privilege.encoding
    }

    /// The value of a CSR, or `nil` for an illegal instruction.
    mutating func readCSR(_ number: UInt32) -> UInt64? {
        guard permitsAccess(number, writes: false) else { return nil }
        switch number {
        // Floating point.
        case 0x001: return hasFloatState ? UInt64(fflags) : nil
        case 0x002: return hasFloatState ? UInt64(frm) : nil
        case 0x003: return hasFloatState ? UInt64(frm) << 5 | UInt64(fflags) : nil
        // Counters, unprivileged views.
        case 0xC00...0xC1F:
            guard isCounterVisible(number & 31) else { return nil }
            switch number {
            case 0xC00: return cycles
            case 0xC01:
                publishTime()
                return time.ticks
            case 0xC02: return instructionsRetired
            default: return 0
            }
        // Supervisor.
        case 0x100: return status & (StatusBits.supervisorVisible | StatusBits.sd)
        case 0x104: return mie & mideleg
        case 0x105: return stvec
        case 0x106: return scounteren
        case 0x10A: return senvcfg
        case 0x140: return sscratch
        case 0x141: return sepc
        case 0x142: return scause
        case 0x143: return stval
        case 0x144: return mip & mideleg
        case 0x14D: return isSupervisorTimerVisible ? stimecmp : nil
        case 0x180: return isTranslationTrapped ? nil : satp
        // Machine.
        case 0x300: return status
        case 0x301: return Self.misa
        case 0x302: return medeleg
        case 0x303: return mideleg
        case 0x304: return mie
        case 0x305: return mtvec
        case 0x306: return mcounteren
        case 0x30A: return menvcfg
        case 0x320: return mcountinhibit
        case 0x323...0x33F: return 0
        case 0x340: return mscratch
        case 0x341: return mepc
        case 0x342: return mcause
        case 0x343: return mtval
        case 0x344: return mip
        case 0x3A0, 0x3A2: return pmp.configurationRegister(number == 0x3A0 ? 0 : 1)
        case 0x3B0...0x3BF: return pmp.addressRegister(Int(number - 0x3B0))
        // tselect to tdata3: no trigger (its type is 0), as tinfo says.
        case 0x7A0...0x7A3: return 0
        case 0x7A4: return 1
        case 0xB00: return cycles
        case 0xB02: return instructionsRetired
        case 0xB03...0xB1F: return 0
        // mvendorid, marchid, mimpid: not a commercial implementation; mconfigptr: none.
        case 0xF11, 0xF12, 0xF13, 0xF15: return 0
        case 0xF14: return id
        default: return hasAIA ? readInterruptCSR(number) : nil
        }
    }

    /// A CSR as machine mode sees it, for debuggers and tests.
    mutating func inspectCSR(_ number: UInt32) -> UInt64? {
        let current = privilege
        privilege = .machine
        defer { privilege = current }
        return readCSR(number)
    }

    /// Clears and then sets bits of a CSR. False: an illegal instruction.
    mutating func modifyCSR(_ number: UInt32, clear: UInt64, set: UInt64) -> Bool {
        guard permitsAccess(number, writes: true) else { return false }
        func merge(_ old: UInt64, _ mask: UInt64 = .max) -> UInt64 { old & ~mask | (old & ~clear | set) & mask }
        switch number {
        case 0x001, 0x002, 0x003:
            guard hasFloatState else { return false }
            let old = UInt64(frm) << 5 | UInt64(fflags)
            let shift: UInt64 = number == 0x002 ? 5 : 0
            let mask: UInt64 = number == 0x001 ? 0x1F : number == 0x002 ? 0xE0 : 0xFF
            let new = old & ~mask | (old & ~(clear << shift) | set << shift) & mask
            fflags = UInt8(new & 0x1F)
            frm = UInt8(new >> 5)
            mstatus |= StatusBits.fs
        case 0x100: setStatus(merge(mstatus, StatusBits.supervisorWritable))
        case 0x104: mie = merge(mie, mideleg)
        case 0x105: stvec = Self.trapVector(stvec, merge(stvec))
        case 0x106: scounteren = merge(scounteren) & 0xFFFF_FFFF
        case 0x10A: senvcfg = Self.environment(senvcfg, merge(senvcfg), EnvironmentBits.supervisorWritable)
        case 0x140: sscratch = merge(sscratch)
        case 0x141: sepc = merge(sepc) & ~1
        case 0x142: scause = merge(scause)
        case 0x143: stval = merge(stval)
        case 0x144:
            let mask = mideleg & InterruptBits.ssi
            softwareInterrupts = merge(softwareInterrupts, mask)
            refreshInterrupts()
        case 0x14D:
            guard isSupervisorTimerVisible else { return false }
            stimecmp = merge(stimecmp)
            refreshInterrupts()
            noteTimerChange()
        case 0x180:
            if isTranslationTrapped { return false }
            setTranslation(merge(satp))
        case 0x300: setStatus(merge(mstatus, StatusBits.writable))
        case 0x301: break
        case 0x302: medeleg = merge(medeleg) & 0xB3FF
        case 0x303: mideleg = merge(mideleg) & InterruptBits.supervisor
        case 0x304: mie = merge(mie) & InterruptBits.all
        case 0x305: mtvec = Self.trapVector(mtvec, merge(mtvec))
        case 0x306: mcounteren = merge(mcounteren) & 0xFFFF_FFFF
        case 0x30A:
            menvcfg = Self.environment(menvcfg, merge(menvcfg), EnvironmentBits.machineWritable)
            // Cached translations do not depend on ADUE: an entry exists only where A (and D for stores) is set.
            refreshInterrupts()
            noteTimerChange()
        case 0x320: setInhibit(merge(mcountinhibit) & 5)
        case 0x323...0x33F: break
        case 0x340: mscratch = merge(mscratch)
        case 0x341: mepc = merge(mepc) & ~1
        case 0x342: mcause = merge(mcause)
        case 0x343: mtval = merge(mtval)
        case 0x344:
            let mask =
                menvcfg & EnvironmentBits.stce != 0
                ? InterruptBits.supervisor & ~InterruptBits.sti : InterruptBits.supervisor
            softwareInterrupts = merge(softwareInterrupts, mask)
            refreshInterrupts()
        case 0x3A0, 0x3A2:
            let group = number == 0x3A0 ? 0 : 1
            pmp.setConfigurationRegister(group, merge(pmp.configurationRegister(group)))
            forgetTranslations()
        case 0x3B0...0x3BF:
            let entry = Int(number - 0x3B0)
            pmp.setAddressRegister(entry, merge(pmp.addressRegister(entry)))
            forgetTranslations()
        case 0x7A0...0x7A4: break
        case 0xB00: setCycles(merge(cycles))
        case 0xB02: setInstructionsRetired(merge(instructionsRetired))
        case 0xB03...0xB1F: break
        default: return hasAIA && modifyInterruptCSR(number, clear: clear, set: set)
        }
        return true
    }

    /// RV64 with A, B, C, D, F, I, M, S, U; read-only. B stands for Zba, Zbb and Zbs.
    static let misa: UInt64 =
        2 << 62 | "ABCDFIMSU".utf8.reduce(0) { $0 | 1 << UInt64($1 - UInt8(ascii: "A")) }

    // MARK: fields

    /// mstatus with SD.
    private var status: UInt64 {
        mutating get {
            mstatus & StatusBits.fs == StatusBits.fs ? mstatus | StatusBits.sd : mstatus
        }
    }

    /// Whether floating-point state may be touched (FS is not Off).
    var hasFloatState: Bool { mutating get { mstatus & StatusBits.fs != 0 } }

    private mutating func setStatus(_ value: UInt64) {
        var new = value & ~StatusBits.sd
        // MPP is WARL: the reserved mode 2 leaves it as it was.
        if Privilege(encoding: new >> StatusBits.mppShift & 3) == nil {
            new = new & ~StatusBits.mpp | mstatus & StatusBits.mpp
        }
        mstatus = new
        updateContexts()
    }

    private mutating func setTranslation(_ value: UInt64) {
        switch value >> 60 {
        case TranslationMode.bare, TranslationMode.sv39, TranslationMode.sv48, TranslationMode.sv57:
            satp = value
            updateContexts()
        default: break  // An unsupported mode: the whole write has no effect.
        }
    }

    /// tvec: reserved modes (2, 3) leave the register as it was.
    private static func trapVector(_ old: UInt64, _ new: UInt64) -> UInt64 { new & 2 == 0 ? new : old }

    private static func environment(_ old: UInt64, _ new: UInt64, _ mask: UInt64) -> UInt64 {
        // CBIE 2 is reserved.
        let value =
            new & EnvironmentBits.cbie == 2 << 4 ? new & ~EnvironmentBits.cbie | old & EnvironmentBits.cbie : new
        return value & mask
    }

    private var isTranslationTrapped: Bool {
        mutating get { privilege == .supervisor && mstatus & StatusBits.tvm != 0 }
    }

    private var isSupervisorTimerVisible: Bool {
        mutating get {
            privilege == .machine || (menvcfg & EnvironmentBits.stce != 0 && mcounteren & 2 != 0)
        }
    }

    private mutating func isCounterVisible(_ index: UInt32) -> Bool {
        switch privilege {
        case .machine: true
        case .user: (mcounteren & scounteren) >> index & 1 != 0
        default: mcounteren >> index & 1 != 0
        }
    }

    // MARK: counters

    private static let cycleInhibit: UInt64 = 1
    private static let instretInhibit: UInt64 = 4

    /// `minstret`. A cycle is an instruction here.
    private var instructionsRetired: UInt64 {
        mutating get {
            mcountinhibit & Self.instretInhibit != 0 ? instretOffset : retired &+ instretOffset
        }
    }

    private var cycles: UInt64 {
        mutating get {
            mcountinhibit & Self.cycleInhibit != 0 ? cycleOffset : retired &+ cycleOffset
        }
    }

    /// A write takes effect after the writing instruction, which is not counted (§3.1.10).
    private mutating func setInstructionsRetired(_ value: UInt64) {
        instretOffset = mcountinhibit & Self.instretInhibit != 0 ? value : value &- retired &- 1
    }

    private mutating func setCycles(_ value: UInt64) {
        cycleOffset = mcountinhibit & Self.cycleInhibit != 0 ? value : value &- retired &- 1
    }

    private mutating func setInhibit(_ value: UInt64) {
        let (instructions, cycles) = (instructionsRetired, self.cycles)
        mcountinhibit = value
        instretOffset = value & Self.instretInhibit != 0 ? instructions : instructions &- retired
        cycleOffset = value & Self.cycleInhibit != 0 ? cycles : cycles &- retired
    }

    // MARK: Smaia, Ssaia

    private mutating func readInterruptCSR(_ number: UInt32) -> UInt64? {
        switch number {
        case 0x150: siselect
        case 0x151: readIndirect(siselect, supervisorFile)
        case 0x15C: supervisorFile.topExternalInterrupt
        case 0xDB0: top(mip & mie & mideleg)
        // mvien: no virtual interrupts, read-only zero; mvip: then shows and sets the writable bits of mip (§5.3).
        case 0x308: 0
        case 0x309: softwareInterrupts & writableThroughMVIP
        case 0x350: miselect
        case 0x351: readIndirect(miselect, machineFile)
        case 0x35C: machineFile.topExternalInterrupt
        case 0xFB0: top(mip & mie & ~mideleg)
        default: nil
        }
    }

    private mutating func modifyInterruptCSR(_ number: UInt32, clear: UInt64, set: UInt64) -> Bool {
        switch number {
        case 0x150: siselect = (siselect & ~clear | set) & 0xFFF
        case 0x151: return writeIndirect(siselect, supervisorFile, clear: clear, set: set)
        case 0x15C:
            supervisorFile.claim(identity: lastRead >> 16)
            refreshInterrupts()
        case 0x308: break
        case 0x309:
            let mask = writableThroughMVIP
            softwareInterrupts = softwareInterrupts & ~mask | (softwareInterrupts & ~clear | set) & mask
            refreshInterrupts()
        case 0x350: miselect = (miselect & ~clear | set) & 0xFFF
        case 0x351: return writeIndirect(miselect, machineFile, clear: clear, set: set)
        case 0x35C:
            machineFile.claim(identity: lastRead >> 16)
            refreshInterrupts()
        default: return false
        }
        return true
    }

    private var writableThroughMVIP: UInt64 {
        mutating get {
            menvcfg & EnvironmentBits.stce != 0
                ? InterruptBits.ssi | InterruptBits.sei : InterruptBits.supervisor
        }
    }

    /// `mtopi`/`stopi`: the major interrupt in bits 27:16; its priority is 1 because no priority can be configured.
    private mutating func top(_ pending: UInt64) -> UInt64 {
        pending == 0 ? 0 : first(pending) << 16 | 1
    }

    /// `mireg`/`sireg`: 0x30…0x3F are the priorities of major interrupts (read-only zero), 0x70…0xFF the file's.
    private mutating func readIndirect(_ select: UInt64, _ file: InterruptFile) -> UInt64? {
        0x30...0x3F ~= select ? (select & 1 == 0 ? 0 : nil) : file.readRegister(select)
    }

    private mutating func writeIndirect(
        _ select: UInt64, _ file: InterruptFile, clear: UInt64, set: UInt64
    ) -> Bool {
        if 0x30...0x3F ~= select { return select & 1 == 0 }
        guard file.writeRegister(select, clear: clear, set: set) else { return false }
        refreshInterrupts()
        return true
    }
}
