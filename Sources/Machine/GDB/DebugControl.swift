// How harts run while a debugger is attached, and how they tell that one of them stopped.
//
// Model: a resume starts the harts' threads with a plan each. The first hart that meets what the debugger waits for
// leaves its stop in the mailbox and asks the others to stop; the event loop then joins the threads and takes it out.
// Between two runs the debugger, on the loop, has the harts to itself. The surprise: monitors stop and start a running
// machine for a moment (`query-cpus`), so a plan may be begun again, and a step must know whether it was made.
import GDBRemote
import RISCV
import Synchronization
import Synchronization

/// Why the harts stopped under a debugger.
enum DebugStop: Sendable, Equatable {
    /// The debugger or a monitor asked.
    case interrupted
    case stepped(hart: Int)
    case softwareBreakpoint(hart: Int)
    case hardwareBreakpoint(hart: Int)
    /// A software breakpoint's memory, reached at another virtual address: nobody asked for a stop there.
    case alias(hart: Int)
    /// The machine was reset and is about to start: memory may have been loaded again.
    case reset
    /// The guest powered off, or failed.
    case ended(status: UInt8)
}

/// Breakpoints as harts look at them.
struct BreakpointSet: Sendable {
    /// Addresses of inserted EBREAKs, and the physical addresses they were written to.
    var software: [UInt64: UInt64] = [:]
    /// Addresses that are compared with `pc` before every instruction; true: the debugger thinks that it is an EBREAK.
    var compared: [UInt64: Bool] = [:]
}

/// Where a hart leaves its stop.
final class DebugMailbox: Sendable {
    private let stop = Mutex<DebugStop?>(nil)
    private let notify: @Sendable () -> Void

    /// `notify` is called on any thread when something is in the box.
    init(notify: @escaping @Sendable () -> Void) { self.notify = notify }

    /// Leaves a stop; the first one counts, but an end is more than a stop.
    func leave(_ new: DebugStop) {
        stop.withLock { stop in
            if case .ended = new { stop = new } else if stop == nil { stop = new }
        }
        notify()
    }

    var isEmpty: Bool { stop.withLock { $0 == nil } }

    func take() -> DebugStop? {
        stop.withLock { stop in
            defer { stop = nil }
            return stop
        }
    }
}

/// What a machine's control knows of its debugger.
struct Debugging: Sendable {
    let mailbox: DebugMailbox
    /// The debugger has stopped the harts: only it may start them.
    var isHolding = true
    /// Whether the harts go on when the debugger leaves while it holds them.
    var resumesAfterwards: Bool
    var plan: [ThreadPlan] = []
    var breakpoints = BreakpointSet()
    /// Whether a step may be the entry of an interrupt handler.
    var stepsIntoInterrupts = false
}

extension Hart {
    /// Instructions between two calls of `between`.
    private static let slice = 16_384

    /// Runs as a debugger's plan says until that is done or a stop was asked for. Then stops all `harts` of the machine.
    /// `between` is called now and then.
    func run(_ debugging: Debugging, among harts: [Hart], between: (() -> Void)?) {
        func leave(_ stop: DebugStop) {
            for hart in harts { hart.signals.requestStop() }
            debugging.mailbox.leave(stop)
        }
        stopsAtEBREAK = true
        defer { stopsAtEBREAK = false }
        switch debugging.plan[index] {
        case .stay: return
        case .step:
            step(debugging, leave)
            between?()
        case .run: goOn(debugging.breakpoints, between, leave)
        }
    }

    private var index: Int { Int(id) }

    /// One instruction, or the trap it takes.
    private func step(_ debugging: Debugging, _ leave: (DebugStop) -> Void) {
        // A hart that waits in WFI has the instruction behind it as its next one.
        endWait()
        masksInterrupts = !debugging.stepsIntoInterrupts
        defer { masksInterrupts = false }
        while true {
            let before = (pc, retiredInstructions)
            let reason = run(budget: 1)
            if reason == .breakpoint {
                if let stop = stop(at: debugging.breakpoints) { return leave(stop) }
                takeBreakpointException()
                return leave(.stepped(hart: index))
            }
            if before != (pc, retiredInstructions) || reason == .budget {
                endWait()
                return leave(.stepped(hart: index))
            }
            // Asked to stop before it could begin: who asked begins it again.
            if reason == .stopRequested { return }
        }
    }

    /// Until it is asked to stop or meets a breakpoint; with addresses to compare, instruction by instruction.
    private func goOn(_ breakpoints: BreakpointSet, _ between: (() -> Void)?, _ leave: (DebugStop) -> Void) {
        let budget = !breakpoints.compared.isEmpty ? 1 : between == nil ? .max : Self.slice
        while true {
            if let isSoftware = breakpoints.compared[pc] {
                return leave(isSoftware ? .softwareBreakpoint(hart: index) : .hardwareBreakpoint(hart: index))
            }
            let reason = run(budget: budget)
            between?()
            switch reason {
            case .budget, .kicked, .resetRequested: continue
            case .waitForInterrupt: waitForInterrupt()
            case .stopRequested: return
            case .breakpoint:
                if let stop = stop(at: breakpoints) { return leave(stop) }
                takeBreakpointException()
            }
        }
    }

    /// Whose EBREAK it is at `pc`; `nil`: the guest's own.
    private func stop(at breakpoints: BreakpointSet) -> DebugStop? {
        guard let physical = physicalAddress(of: pc) else { return nil }
        if breakpoints.software[pc] == physical { return .softwareBreakpoint(hart: index) }
        return breakpoints.software.values.contains(physical) ? .alias(hart: index) : nil
    }
}
