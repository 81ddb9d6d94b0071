// Privilege modes, kinds of access, and the causes of traps.

/// A privilege mode, with the virtualization mode V as bit 2.
///
/// Only U, S and M exist so far; VU and VS have their numbers already, because translations are tagged with them.
enum Privilege: UInt8 {
    case user = 0
    case supervisor = 1
    case machine = 3
    case virtualUser = 4
    case virtualSupervisor = 5

    /// The two-bit encoding of `mstatus.MPP`.
    var encoding: UInt64 { UInt64(rawValue & 3) }

    /// The mode of a two-bit encoding; `nil` for the reserved 2.
    init?(encoding: UInt64) {
        switch encoding {
        case 0: self = .user
        case 1: self = .supervisor
        case 3: self = .machine
        default: return nil
        }
    }
}

/// What an access wants, for permissions and for the cause of its faults.
enum Access {
    case load
    case store
    case fetch
    /// A cache-block operation: allowed where loads are, its faults are those of stores.
    case cacheBlock

    var pageFault: Cause {
        switch self {
        case .load: .loadPageFault
        case .store, .cacheBlock: .storePageFault
        case .fetch: .instructionPageFault
        }
    }

    var accessFault: Cause {
        switch self {
        case .load: .loadAccessFault
        case .store, .cacheBlock: .storeAccessFault
        case .fetch: .instructionAccessFault
        }
    }
}

/// Synchronous causes of traps. Spec: RISC-V Privileged 20240411 table 14.
enum Cause: UInt64 {
    case instructionAddressMisaligned = 0
    case instructionAccessFault = 1
    case illegalInstruction = 2
    case breakpoint = 3
    case loadAddressMisaligned = 4
    case loadAccessFault = 5
    case storeAddressMisaligned = 6
    case storeAccessFault = 7
    case environmentCallFromUser = 8
    case environmentCallFromSupervisor = 9
    case environmentCallFromMachine = 11
    case instructionPageFault = 12
    case loadPageFault = 13
    case storePageFault = 15
}
