// Traps in and out, and which interrupt is next.
//
// Spec: RISC-V Privileged 20240411 §3.1.6 (mstatus), §3.1.8 (delegation), §3.1.9 (mip, mie), §3.3.2 (xRET).

/// Fields of mstatus.
enum StatusBits {
    static let sie: UInt64 = 1 << 1
    static let mie: UInt64 = 1 << 3
    static let spie: UInt64 = 1 << 5
    static let mpie: UInt64 = 1 << 7
    static let spp: UInt64 = 1 << 8
    static let mppShift: UInt64 = 11
    static let mpp: UInt64 = 3 << 11
    static let fs: UInt64 = 3 << 13
    static let mprv: UInt64 = 1 << 17
    static let sum: UInt64 = 1 << 18
    static let mxr: UInt64 = 1 << 19
    static let tvm: UInt64 = 1 << 20
    static let tw: UInt64 = 1 << 21
    static let tsr: UInt64 = 1 << 22
    static let sd: UInt64 = 1 << 63
    /// UXL and SXL: 64 bits, read-only.
    static let fixed: UInt64 = 2 << 32 | 2 << 34
    /// What software may write through mstatus, and through sstatus.
    static let writable = sie | mie | spie | mpie | spp | mpp | fs | mprv | sum | mxr | tvm | tw | tsr
    static let supervisorWritable = sie | spie | spp | fs | sum | mxr
    static let supervisorVisible = supervisorWritable | 2 << 32
}

/// Fields of menvcfg and senvcfg.
enum EnvironmentBits {
    static let cbie: UInt64 = 3 << 4
    static let cbcfe: UInt64 = 1 << 6
    static let cbze: UInt64 = 1 << 7
    static let adue: UInt64 = 1 << 61
    static let stce: UInt64 = 1 << 63
    static let supervisorWritable: UInt64 = 1 | cbie | cbcfe | cbze
    static let machineWritable = supervisorWritable | adue | stce
}

/// Bits of mip and mie.
enum InterruptBits {
    static let ssi: UInt64 = 1 << 1
    static let msi: UInt64 = 1 << 3
    static let sti: UInt64 = 1 << 5
    static let mti: UInt64 = 1 << 7
    static let sei: UInt64 = 1 << 9
    static let mei: UInt64 = 1 << 11
    static let supervisor = ssi | sti | sei
    static let all = supervisor | msi | mti | mei
    /// Default priority, highest first. Spec: §3.1.9.
    static let order: InlineArray<6, UInt64> = [11, 3, 7, 9, 1, 5]
}

extension HartState {
    /// Looks at lines, interrupt files and timers and recomputes `mip`.
    mutating func refreshInterrupts() {
        var pending = softwareInterrupts | UInt64(signals.lines)
        if menvcfg & EnvironmentBits.stce != 0 { pending &= ~InterruptBits.sti }
        let machineDeadline = signals.machineTimerDeadline
        let supervisorDeadline = menvcfg & EnvironmentBits.stce != 0 ? stimecmp : .max
        if machineDeadline != .max || supervisorDeadline != .max {
            publishTime()
            let now = time.ticks
            if now >= machineDeadline { pending |= InterruptBits.mti }
            if now >= supervisorDeadline { pending |= InterruptBits.sti }
        }
        if hasAIA {
            if machineFile.isSignaling { pending |= InterruptBits.mei }
            if supervisorFile.isSignaling { pending |= InterruptBits.sei }
        }
        mip = pending
    }

    /// The next time at which a timer that can end WFI becomes pending, in ticks; `.max`: never.
    var nextDeadline: UInt64 {
        mutating get {
            min(
                mie & InterruptBits.mti != 0 ? signals.machineTimerDeadline : .max,
                mie & InterruptBits.sti != 0 ? supervisorTimerDeadline : .max)
        }
    }

    /// The number of the interrupt to take now, by the cached `mip`.
    var interruptToTake: UInt64? {
        mutating get {
            let pending = mip & mie
            if pending == 0 { return nil }
            let machine = pending & ~mideleg
            if machine != 0 && (privilege != .machine || mstatus & StatusBits.mie != 0) { return first(machine) }
            let supervisor = pending & mideleg
            if supervisor != 0
                && (privilege == .user || (privilege == .supervisor && mstatus & StatusBits.sie != 0))
            {
                return first(supervisor)
            }
            return nil
        }
    }

    /// The interrupt of the highest default priority among `pending`, which is not empty.
    mutating func first(_ pending: UInt64) -> UInt64 {
        for index in 0..<6 where pending >> InterruptBits.order[index] & 1 != 0 { return InterruptBits.order[index] }
        return 0
    }

    /// Takes an interrupt before the instruction at `pc`.
    mutating func takeInterrupt(_ number: UInt64) {
        enterTrap(cause: 1 << 63 | number, value: 0, delegated: mideleg >> number & 1 != 0)
    }

    /// Takes the recorded exception at `pc`.
    mutating func takeException() {
        let cause = trapCause.rawValue
        enterTrap(cause: cause, value: trapValue, delegated: medeleg >> cause & 1 != 0)
    }

    private mutating func enterTrap(cause: UInt64, value: UInt64, delegated: Bool) {
        let vector: UInt64
        if delegated && privilege != .machine {
            scause = cause
            sepc = pc
            stval = value
            mstatus =
                mstatus & ~(StatusBits.spp | StatusBits.spie | StatusBits.sie)
                | (privilege == .supervisor ? StatusBits.spp : 0)
                | (mstatus & StatusBits.sie) << 4
            privilege = .supervisor
            vector = stvec
        } else {
            mcause = cause
            mepc = pc
            mtval = value
            mstatus =
                mstatus & ~(StatusBits.mpp | StatusBits.mpie | StatusBits.mie)
                | privilege.encoding << StatusBits.mppShift
                | (mstatus & StatusBits.mie) << 4
            privilege = .machine
            vector = mtvec
        }
        pc = vector & ~3
        if vector & 1 != 0 && cause >> 63 != 0 { pc &+= 4 &* (cause & 0x3F) }
        updateContexts()
    }

    /// MRET: back to the mode in MPP.
    mutating func returnFromMachine() {
        let previous = Privilege(encoding: mstatus >> StatusBits.mppShift & 3) ?? .user
        mstatus =
            mstatus & ~(StatusBits.mpp | StatusBits.mie) | (mstatus & StatusBits.mpie) >> 4 | StatusBits.mpie
        if previous != .machine { mstatus &= ~StatusBits.mprv }
        privilege = previous
        pc = mepc
        updateContexts()
    }

    /// SRET: back to the mode in SPP.
    mutating func returnFromSupervisor() {
        let previous: Privilege = mstatus & StatusBits.spp != 0 ? .supervisor : .user
        mstatus =
            mstatus & ~(StatusBits.spp | StatusBits.sie | StatusBits.mprv) | (mstatus & StatusBits.spie) >> 4
            | StatusBits.spie
        privilege = previous
        pc = sepc
        updateContexts()
    }
}
