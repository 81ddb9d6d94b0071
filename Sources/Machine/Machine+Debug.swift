// A debugger's side of starting and stopping. Called on the event loop's thread, like the monitor's commands.
import GDBRemote
import RISCV
import Synchronization

extension Machine {
    /// Whether a debugger has stopped the harts, so that only it can let them go on.
    public var isHeldByDebugger: Bool {
        control.withLock { control in
            guard let debugging = control.debugging else { return false }
            return debugging.isHolding || !debugging.mailbox.isEmpty
        }
    }

    /// Stops the harts for a debugger. A machine in reset stays there, and stops before its first instruction.
    func attachDebugger(_ mailbox: DebugMailbox) {
        control.withLock { control in
            let wasPaused = control.state == .paused
            if control.state == .running {
                stopHarts(&control)
                control.state = .paused
            }
            control.debugging = Debugging(mailbox: mailbox, resumesAfterwards: !wasPaused)
        }
    }

    /// The debugger is gone: the harts go on, unless somebody else had paused them.
    func detachDebugger() {
        control.withLock { control in
            guard let debugging = control.debugging else { return }
            control.debugging = nil
            guard control.state == .paused, debugging.resumesAfterwards else { return }
            startHarts(&control)
        }
    }

    /// Lets the harts go on as `change` says. A stop that is in the mailbox already keeps them where they are.
    func debuggerResumes(_ change: (inout Debugging) -> Void) {
        control.withLock { control in
            guard var debugging = control.debugging else { return }
            change(&debugging)
            debugging.isHolding = false
            debugging.resumesAfterwards = true
            control.debugging = debugging
            if control.state == .paused { startHarts(&control) }
        }
    }

    /// Stops the harts for good after one of them left a stop in the mailbox, and takes it out.
    func debuggerCollects() -> DebugStop? {
        control.withLock { control in
            guard let debugging = control.debugging, !debugging.mailbox.isEmpty else { return nil }
            stopHarts(&control)
            if control.state == .running { control.state = .paused }
            control.debugging?.isHolding = true
            return debugging.mailbox.take()
        }
    }

    /// What is loaded into RAM at reset lies over breakpoints: the debugger, if it let the harts go on, puts them back
    /// before they start.
    func tellDebuggerOfReset(_ control: inout Control) {
        guard let debugging = control.debugging, !debugging.isHolding else { return }
        debugging.mailbox.leave(.reset)
    }
}
