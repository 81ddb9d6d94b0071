// What a debugging session needs of whatever it debugs.

/// A register in the target description.
public struct RegisterDescription: Sendable, Equatable {
    /// The standard features that GDB knows for RISC-V. Spec: Debugging with GDB, "RISC-V Features".
    public enum Feature: String, Sendable, CaseIterable {
        case cpu = "org.gnu.gdb.riscv.cpu"
        case fpu = "org.gnu.gdb.riscv.fpu"
        case csr = "org.gnu.gdb.riscv.csr"
        case virtual = "org.gnu.gdb.riscv.virtual"
    }

    public var feature: Feature
    public var name: String
    /// The number in `p`, `P` and stop replies.
    public var number: Int
    /// A type of the target description: `int`, `code_ptr`, `data_ptr`, `riscv_double`.
    public var type: String

    public init(_ feature: Feature, _ name: String, _ number: Int, type: String = "int") {
        self.feature = feature
        self.name = name
        self.number = number
        self.type = type
    }
}

/// Why a target stopped.
public enum StopReason: Sendable, Equatable {
    /// The debugger, or somebody else, asked for it: SIGINT.
    case interrupted
    /// A step is done: SIGTRAP.
    case stepped
    case softwareBreakpoint
    case hardwareBreakpoint
    /// There is no target any more; the value is its exit status.
    case ended(UInt8)
}

/// How a breakpoint was taken in.
public enum BreakpointOutcome: Sendable, Equatable {
    case done
    /// This kind is not offered: the debugger finds another way.
    case unsupported
    /// There is no memory to be executed there, or there are too many.
    case failed
}

/// How a target goes on: one entry a thread.
public enum ThreadPlan: Sendable, Equatable {
    case run
    /// Exactly one instruction, then the target stops.
    case step
    case stay
}

/// What a session debugs: threads (numbered from 0 here), registers of 64 bits, memory. Used from one thread.
///
/// Everything but `interrupt` is called while the target is stopped.
public protocol DebugTarget: AnyObject {
    var threadCount: Int { get }
    /// Registers `0..<generalRegisterCount` are the ones in `g`.
    var generalRegisterCount: Int { get }
    /// Every register that there is.
    var registers: [RegisterDescription] { get }

    /// One line for a person.
    func description(ofThread thread: Int) -> String
    /// A register's value; `nil`: it has none now.
    func register(_ number: Int, thread: Int) -> UInt64?
    /// False: there is no such register, or it takes no value.
    func setRegister(_ number: Int, _ value: UInt64, thread: Int) -> Bool

    /// Up to `count` bytes, fewer where memory ends that can be read; empty at once.
    func readMemory(_ address: UInt64, count: Int, thread: Int, isPhysical: Bool) -> [UInt8]
    /// False: nothing was written, because not all of it can be.
    func writeMemory(_ address: UInt64, _ bytes: [UInt8], thread: Int, isPhysical: Bool) -> Bool

    /// Breakpoints are virtual addresses as `thread` sees them.
    func insertBreakpoint(_ kind: BreakpointKind, _ address: UInt64, size: UInt64, thread: Int) -> BreakpointOutcome
    func removeBreakpoint(_ kind: BreakpointKind, _ address: UInt64, size: UInt64) -> BreakpointOutcome

    /// Goes on; the stop that follows is told to `RemoteSession.targetStopped`.
    func resume(_ plan: [ThreadPlan])
    /// Asks for a stop.
    func interrupt()
    /// The answer to a command of a person, `nil` if it is none.
    func monitor(_ command: String) -> String?
}
