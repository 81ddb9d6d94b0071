// The hart as its owner sees it: a class shell around the state that `run` works on.

/// A RV64 hart. Made, run, reset and inspected by one thread at a time; `signals`, the interrupt files and
/// `retiredInstructions` may be used from any thread.
@safe public final class Hart: @unchecked Sendable {
    /// Why `run` returned.
    public enum ExitReason: Sendable, Equatable {
        /// The budget is used up.
        case budget
        /// WFI with nothing pending: call `waitForInterrupt()`, then `run` again.
        case waitForInterrupt
        /// `HartSignals.requestStop`.
        case stopRequested
        /// `HartSignals.requestReset`: the owner resets the machine's parts, then calls `reset(pc:)`.
        case resetRequested
        /// `HartSignals.kick`.
        case kicked
    }

    /// `mhartid`.
    public let id: UInt64
    public let configuration: HartConfiguration
    /// The hart's interrupt lines.
    public let signals: HartSignals
    /// IMSIC file at machine level.
    public let machineInterruptFile: InterruptFile
    /// IMSIC file at supervisor level.
    public let supervisorInterruptFile: InterruptFile

    /// A hart in reset state at `resetVector`. `addressSpace` is complete.
    public init(
        id: UInt64, configuration: HartConfiguration, addressSpace: PhysicalAddressSpace, timeSource: TimeSource,
        resetVector: UInt64, wires: HartWires = HartWires()
    ) {
        self.id = id
        self.configuration = configuration
        signals = wires.signals
        machineInterruptFile = wires.machineInterruptFile
        supervisorInterruptFile = wires.supervisorInterruptFile
    }
}
