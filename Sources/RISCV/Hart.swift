// The hart as its owner sees it: a class shell around the state that `run` works on.
import Synchronization

/// A RV64GC hart. Made, run, reset and inspected by one thread at a time; `signals`, the interrupt files and
/// `retiredInstructions` may be used from any thread.
///
/// The owner's thread is a loop: `run`, act on the reason, for `.waitForInterrupt` call `waitForInterrupt()`.
@safe public final class Hart: @unchecked Sendable {
    /// Why `run` returned.
    public enum ExitReason: Sendable, Equatable {
        /// The budget is used up.
        case budget
        /// WFI with nothing pending: call `waitForInterrupt()`, then `run` again.
        case waitForInterrupt
        /// `HartSignals.requestStop`; stays until `HartSignals.clearStop`.
        case stopRequested
        /// `HartSignals.requestReset`: the owner resets the machine's parts, then calls `reset(pc:)`.
        case resetRequested
        /// `HartSignals.kick`.
        case kicked
        /// EBREAK at `pc`, which did not execute; only with `stopsAtEBREAK`.
        case breakpoint
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

    /// Made in init, freed in deinit; only the owning thread looks inside.
    let state: UnsafeMutablePointer<HartState>
    private let time: TimeSource
    private let published = Atomic<UInt64>(0)
    private var resetVector: UInt64

    /// A hart in reset state at `resetVector`. `addressSpace` is complete; `wires` are this hart's alone.
    public init(
        id: UInt64, configuration: HartConfiguration, addressSpace: PhysicalAddressSpace, timeSource: TimeSource,
        resetVector: UInt64, wires: HartWires = HartWires()
    ) {
        self.id = id
        self.configuration = configuration
        self.resetVector = resetVector
        signals = wires.signals
        machineInterruptFile = wires.machineInterruptFile
        supervisorInterruptFile = wires.supervisorInterruptFile
        time = timeSource
        // Safety: see `state`.
        unsafe state = .allocate(capacity: 1)
        unsafe state.initialize(
            to: HartState(
                id: id, configuration: configuration, regions: addressSpace.snapshot(), signals: signals,
                machineFile: machineInterruptFile, supervisorFile: supervisorInterruptFile, time: timeSource,
                reservations: addressSpace.reservations))
        #if arch(x86_64)
            unsafe HartState.prepareTranslated(state)
        #endif
        unsafe state.pointee.reset(pc: resetVector)
        if time.clock == .instructions { time.attach(signals) }
    }

    deinit {
        // Safety: see `state`.
        unsafe state.deinitialize(count: 1)
        unsafe state.deallocate()
    }

    // MARK: running

    /// Executes until `budget` instructions retired or something asks for the owner's attention. A trap costs one of
    /// the budget too, so `run` always ends, and `run(budget: 1)` is a single step.
    public func run(budget: Int) -> ExitReason {
        // Safety: see `state`.
        let reason = unsafe HartState.run(state, budget: budget)
        publish()
        return reason
    }

    /// Sleeps, without using the processor, until a signal or message arrives or the next timer is due. For a hart
    /// that returned `.waitForInterrupt`; may return early.
    public func waitForInterrupt() {
        // Safety (all): see `state`.
        if time.clock == .instructions {
            let deadline = unsafe state.pointee.idleDeadline(state.pointee.wakingPosition)
            signals.sleep(until: deadline == .max ? 0 : deadline)
            unsafe state.pointee.passIdleTime(until: TimeSource.monotonicNanoseconds())
            return
        }
        let deadline = unsafe state.pointee.nextDeadline
        signals.sleep(until: deadline == .max ? 0 : time.monotonicNanoseconds(at: deadline))
    }

    /// Back to the state after power-on, at `pc` (the reset vector it was made with, if `nil`).
    public func reset(pc: UInt64? = nil) {
        if let pc { resetVector = pc }
        // Safety: see `state`.
        unsafe state.pointee.reset(pc: resetVector)
        publish()
    }

    private func publish() {
        // Safety (both): see `state`.
        unsafe state.pointee.publishTime()
        published.store(unsafe state.pointee.retired, ordering: .relaxed)
    }

    /// Instructions retired since reset, as of the last return of `run`. From any thread.
    public var retiredInstructions: UInt64 { published.load(ordering: .relaxed) }

    // MARK: debugger, by the owning thread while the hart does not run

    /// Whether EBREAK ends `run` with `.breakpoint` instead of trapping. A reset leaves it as it is.
    public var stopsAtEBREAK: Bool {
        get { unsafe state.pointee.stopsAtEBREAK }
        set { unsafe state.pointee.stopsAtEBREAK = newValue }
    }

    /// As FENCE.I: instructions that were written to memory by somebody else are seen from now on.
    public func invalidateInstructions() {
        unsafe state.pointee.blocks.fence()
        unsafe state.pointee.forgetJumps()
    }

    // MARK: inspection, by the owning thread while the hart does not run

    // Safety (all below): see `state`; register numbers are checked.

    /// The address of the next instruction.
    public var pc: UInt64 {
        get { unsafe state.pointee.pc }
        set { unsafe state.pointee.pc = newValue & ~1 }
    }

    /// 0 user, 1 supervisor, 3 machine.
    public var mode: UInt8 { unsafe state.pointee.privilege.rawValue }

    /// An integer register, 0…31.
    public func x(_ number: Int) -> UInt64 {
        precondition(0..<32 ~= number, "x registers are numbered 0 to 31")
        return unsafe state.pointee.x[UInt8(number)]
    }

    /// Sets an integer register, 1…31 (x0 stays zero).
    public func setX(_ number: Int, _ value: UInt64) {
        precondition(0..<32 ~= number, "x registers are numbered 0 to 31")
        if number != 0 { unsafe state.pointee.x[UInt8(number)] = value }
    }

    /// The bits of a floating-point register, 0…31.
    public func f(_ number: Int) -> UInt64 {
        precondition(0..<32 ~= number, "f registers are numbered 0 to 31")
        return unsafe state.pointee.f[UInt8(number)]
    }

    /// A CSR as machine mode sees it, or `nil` if there is none of this number.
    public func csr(_ number: UInt32) -> UInt64? {
        unsafe state.pointee.inspectCSR(number & 0xFFF)
    }
}
