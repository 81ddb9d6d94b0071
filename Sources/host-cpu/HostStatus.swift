// What the machine does, in QEMU's words: for `query-status`, `baseboard ps` and the events STOP and RESUME.
//
// Spec: QEMU qapi/run-state.json "RunState": running, paused (a monitor), debug (a debugger), shutdown.

import Component
import Machine
import Synchronization

/// Tells the world when the harts stop and go on, whoever made them.
final class HostStatus: Sendable {
    private let machine: Machine
    private let runtime: ComponentRuntime
    private let isRunning = Mutex(true)

    init(machine: Machine, runtime: ComponentRuntime) {
        self.machine = machine
        self.runtime = runtime
    }

    /// Looks at the machine; tells what changed. On the event loop's thread.
    func refresh() {
        switch machine.state {
        case .running:
            runtime.setStatus("running")
            if isRunning.withLock({ exchange(&$0, true) }) == false { runtime.emit("RESUME") }
        case .paused:
            runtime.setStatus(machine.isHeldByDebugger ? "debug" : "paused")
            if isRunning.withLock({ exchange(&$0, false) }) { runtime.emit("STOP") }
        case .held, .poweredOff: break
        }
    }

    private func exchange(_ value: inout Bool, _ new: Bool) -> Bool {
        defer { value = new }
        return value
    }
}
