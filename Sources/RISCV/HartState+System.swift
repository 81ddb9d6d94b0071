// SYSTEM and MISC-MEM instructions: everything that ends a block because what follows may run in another world.
//
// Spec: RISC-V Privileged 20240411 §3.3, §12.2; Unprivileged chapter 6; CMO 1.0.
import CSystem

extension HartState {
    /// What the interpreter does after a SYSTEM instruction.
    enum SystemResult {
        /// The next instruction follows.
        case next
        /// `pc` was set.
        case jumped
        /// The trap is recorded.
        case trapped
        /// As `next`, but the owner must look at the hart (WFI).
        case left
        /// EBREAK while a debugger is interested in it; nothing was done.
        case halted
    }

    /// Executes `slot`'s raw instruction. `retired` counts everything before it.
    @inline(never)
    mutating func executeSystem(_ word: UInt32, rd: UInt8, rs1: UInt8) -> SystemResult {
        if word & 0x7F == 0x0F { return executeMemoryOrdering(word, rs1) }
        let function = word >> 12 & 7
        if function & 3 == 0 { return function == 0 ? executePrivileged(word, rs1) : illegal() }
        let number = word >> 20
        let operand = function >= 4 ? UInt64(rs1) : x[rs1]
        let isWrite = function & 3 == 1 || rs1 != 0
        // CSRRW with rd = x0 does not read; no CSR here has a read with side effects, so reading always is the same,
        // except that a write-only access to a missing register must be refused by the write.
        switch number {
        case 0x144, 0x344, 0xDB0, 0xFB0: refreshInterrupts()
        default: break
        }
        guard let old = readCSR(number) else { return illegal() }
        lastRead = old
        if isWrite {
            let isModified =
                switch function & 3 {
                case 1: modifyCSR(number, clear: .max, set: operand)
                case 2: modifyCSR(number, clear: 0, set: operand)
                default: modifyCSR(number, clear: operand, set: 0)
                }
            if !isModified { return illegal() }
        }
        x[rd] = old
        return .next
    }

    /// Marks an illegal instruction; the interpreter fills in its bits as the trap's value.
    private mutating func illegal() -> SystemResult {
        fault(.illegalInstruction, 0)
        return .trapped
    }

    private mutating func executePrivileged(_ word: UInt32, _ rs1: UInt8) -> SystemResult {
        switch word {
        case 0x0000_0073:
            switch privilege {
            case .user, .virtualUser: fault(.environmentCallFromUser, 0)
            case .supervisor, .virtualSupervisor: fault(.environmentCallFromSupervisor, 0)
            case .machine: fault(.environmentCallFromMachine, 0)
            }
            return .trapped
        case 0x0010_0073:
            if stopsAtEBREAK { return .halted }
            fault(.breakpoint, pc)
            return .trapped
        case 0x3020_0073:
            if privilege != .machine { return illegal() }
            returnFromMachine()
            return .jumped
        case 0x1020_0073:
            if privilege == .user || (privilege == .supervisor && mstatus & StatusBits.tsr != 0) { return illegal() }
            returnFromSupervisor()
            return .jumped
        case 0x1050_0073:
            if privilege == .user || (privilege == .supervisor && mstatus & StatusBits.tw != 0) { return illegal() }
            isWaiting = true
            return .left
        default:
            // SFENCE.VMA; everything else is illegal.
            guard word >> 25 == 0x09 && word >> 7 & 31 == 0 else { return illegal() }
            if privilege == .user || (privilege == .supervisor && mstatus & StatusBits.tvm != 0) { return illegal() }
            let rs2 = UInt8(word >> 20 & 31)
            switch (rs1, rs2) {
            case (0, 0): forgetTranslations()
            case (0, _): forgetTranslations(asid: x[rs2] & 0xFFFF)
            default: forgetTranslation(page: x[rs1])
            }
            return .next
        }
    }

    private mutating func executeMemoryOrdering(_ word: UInt32, _ rs1: UInt8) -> SystemResult {
        switch word >> 12 & 7 {
        case 1:
            // FENCE.I; its other fields are to be ignored.
            blocks.fence()
            forgetJumps()
            return .next
        case 2 where word >> 7 & 31 == 0: return executeCacheBlock(word >> 20, x[rs1])
        default: return illegal()
        }
    }

    /// CBO.INVAL, CLEAN, FLUSH, ZERO. Guest memory is coherent, so only the last does something, but all are checked.
    private mutating func executeCacheBlock(_ operation: UInt32, _ address: UInt64) -> SystemResult {
        let enable: UInt64
        switch operation {
        case 0: enable = EnvironmentBits.cbie
        case 1, 2: enable = EnvironmentBits.cbcfe
        case 4: enable = EnvironmentBits.cbze
        default: return illegal()
        }
        if privilege != .machine && menvcfg & enable == 0 { return illegal() }
        if privilege == .user && senvcfg & enable == 0 { return illegal() }
        let block = address & ~(HartConfiguration.cacheBlockSize - 1)
        let access: Access = operation == 4 ? .store : .cacheBlock
        guard let physical = translate(block, access, dataPrivilege) else {
            trapValue = address
            return .trapped
        }
        guard pmp.allows(access, physical, count: HartConfiguration.cacheBlockSize, dataPrivilege),
            let region = region(at: physical, count: HartConfiguration.cacheBlockSize),
            region.permissions.contains(access == .store ? .write : .read),
            let host = unsafe memory(region, physical)
        else {
            fault(.storeAccessFault, address)
            return .trapped
        }
        if operation == 4 {
            for index in 0..<8 {
                unsafe cs_store64(host + index * 8, 0)  // Safety: the region contains the 64 bytes.
            }
        }
        return .next
    }
}
