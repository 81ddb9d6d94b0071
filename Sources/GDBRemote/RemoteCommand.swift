// What a debugger asks for, one case a packet that we know.
//
// Spec: Debugging with GDB, appendix "GDB Remote Serial Protocol", Packets, General Query Packets; QEMU "GDB usage"
// (Qqemu.PhyMemMode).

/// A thread as packets name it. Threads are harts, numbered from 1.
public enum ThreadID: Sendable, Equatable {
    case all
    case any
    case thread(Int)
}

/// `Z` and `z` types.
public enum BreakpointKind: Int, Sendable {
    case software = 0
    case hardware = 1
    case writeWatchpoint = 2
    case readWatchpoint = 3
    case accessWatchpoint = 4
}

/// One action of `vCont`, or of `c`, `s`, `C`, `S`. Signals are accepted and mean nothing to a hart.
public struct ResumeAction: Sendable, Equatable {
    public var isStep: Bool
    public var thread: ThreadID

    public init(isStep: Bool, thread: ThreadID) {
        self.isStep = isStep
        self.thread = thread
    }
}

/// A packet's meaning.
public enum RemoteCommand: Sendable, Equatable {
    /// `qSupported`
    case supported(features: [String])
    /// `QStartNoAckMode`
    case startNoAckMode
    /// `?`
    case haltReason
    /// `g`
    case readRegisters
    /// `G`
    case writeRegisters([UInt8])
    /// `p`
    case readRegister(UInt64)
    /// `P`
    case writeRegister(UInt64, [UInt8])
    /// `m`
    case readMemory(address: UInt64, count: UInt64)
    /// `M` and `X`
    case writeMemory(address: UInt64, [UInt8])
    /// `Z`
    case insertBreakpoint(BreakpointKind, address: UInt64, size: UInt64)
    /// `z`
    case removeBreakpoint(BreakpointKind, address: UInt64, size: UInt64)
    /// `vCont?`
    case resumeActions
    /// `vCont`, leftmost first
    case resume([ResumeAction])
    /// `c`, `s`, `C`, `S`: the thread that `Hc` chose, from an address if one is given
    case resumeCurrent(isStep: Bool, address: UInt64?)
    /// `qfThreadInfo`
    case firstThreads
    /// `qsThreadInfo`
    case moreThreads
    /// `qThreadExtraInfo`
    case threadDescription(ThreadID)
    /// `qC`
    case currentThread
    /// `T`
    case isThreadAlive(ThreadID)
    /// `Hg`
    case selectForAccess(ThreadID)
    /// `Hc`
    case selectForResume(ThreadID)
    /// `qAttached`
    case isAttached
    /// `qSymbol`
    case symbolsOffered
    /// `qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH`
    case transfer(object: String, annex: String, offset: UInt64, count: UInt64)
    /// `qRcmd`
    case monitor(String)
    /// `qqemu.PhyMemMode`
    case isMemoryPhysical
    /// `Qqemu.PhyMemMode`
    case setMemoryPhysical(Bool)
    /// `D`
    case detach
    /// `k`
    case kill
    /// Known, and not well formed.
    case malformed
    /// Not known: answered with the empty packet.
    case unknown
}
