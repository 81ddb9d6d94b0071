// Starting, stopping, resetting: what happens to the harts' threads.
import RISCV
import Synchronization
import Wire

/// Carries a guest's request from a device, which is made first, to the machine, which is made last.
final class GuestRequest: Sendable {
    private let target = Mutex<(@Sendable (TestFinisher.Command) -> Void)?>(nil)

    func connect(_ body: @escaping @Sendable (TestFinisher.Command) -> Void) { target.withLock { $0 = body } }

    func forward(_ command: TestFinisher.Command) {
        let body = target.withLock { $0 }
        body?(command)
    }
}

extension Machine {
    public var state: RunState { control.withLock { $0.state } }

    /// Asserts reset: harts stop, every part is reset, the flash's content is forgotten.
    public func holdInReset() {
        control.withLock { control in
            stopHarts(&control)
            control.state = .held
            resetOrPowerOff(&control)
        }
    }

    /// Releases reset: the harts start at the reset vector. Only a held machine changes.
    public func releaseReset() {
        control.withLock { control in
            guard control.state == .held else { return }
            tellDebuggerOfReset(&control)
            startHarts(&control)
        }
    }

    /// A system reset: a running, paused or powered-off machine starts again; a paused one stays paused, a held one
    /// held.
    public func reset() {
        control.withLock { control in reset(&control) }
    }

    private func reset(_ control: inout Control) {
        stopHarts(&control)
        guard resetOrPowerOff(&control) else { return }
        tellDebuggerOfReset(&control)
        switch control.state {
        case .running, .poweredOff: startHarts(&control)
        case .held, .paused: break
        }
    }

    /// Resets every part; a boot file that cannot be read any more ends the machine.
    @discardableResult private func resetOrPowerOff(_ control: inout Control) -> Bool {
        do throws(BootImageError) { try resetParts() } catch {
            control.state = .poweredOff
            report(.imageUnreadable("\(error)"))
            return false
        }
        return true
    }

    /// Stops the harts where they are, and tells a debugger. Only a running machine changes.
    public func pause() {
        control.withLock { control in
            guard control.state == .running else { return }
            stopHarts(&control)
            control.state = .paused
            control.debugging?.resumesAfterwards = false
            control.debugging?.mailbox.leave(.interrupted)
        }
    }

    /// Lets paused harts go on, unless a debugger holds them.
    public func resume() {
        control.withLock { control in
            guard control.state == .paused else { return }
            startHarts(&control)
        }
    }

    /// Stops the harts for good: the owner ends.
    public func powerOff() {
        control.withLock { control in
            stopHarts(&control)
            control.state = .poweredOff
        }
    }

    // MARK: the guest's requests

    /// On a hart's thread: the guest wrote a command. The harts stop now, the rest happens on the loop.
    func guestAsked(_ command: TestFinisher.Command) {
        let asked = askEnd()
        later { [weak self] in self?.perform(command, asked: asked) }
    }

    /// On a hart's thread: stops the harts now, for good; nobody who looks at them meanwhile starts them again.
    func askEnd() -> Int {
        let asked = generation.load(ordering: .acquiring)
        endAsked.store(asked, ordering: .releasing)
        for hart in harts { hart.signals.requestStop() }
        return asked
    }

    private func perform(_ command: TestFinisher.Command, asked: Int) {
        let event: MachineEvent? = control.withLock { control in
            guard control.state == .running || control.state == .paused,
                generation.load(ordering: .acquiring) == asked
            else { return nil }
            switch command {
            case .reset:
                reset(&control)
                return control.state == .poweredOff ? nil : .guestReset
            case .powerOff:
                stopHarts(&control)
                control.state = .poweredOff
                control.debugging?.mailbox.leave(.ended(status: 0))
                return .powerOff
            case .fail(let code):
                stopHarts(&control)
                control.state = .poweredOff
                control.debugging?.mailbox.leave(.ended(status: 1))
                return .failed(code: code)
            }
        }
        if let event { report(event) }
    }

    // MARK: threads

    func startHarts(_ control: inout Control) {
        if let debugging = control.debugging {
            control.state = .paused
            guard !debugging.isHolding, debugging.mailbox.isEmpty else { return }
        }
        control.state = .running
        // The guest's last instruction was its wish for an end.
        if endAsked.load(ordering: .acquiring) == generation.load(ordering: .acquiring) { return }
        for hart in harts { hart.signals.clearStop() }
        control.threads = harts.map { hart in
            WorkerThread("hart\(hart.id)") { [direct, harts, debugging = control.debugging, weak self] in
                if let debugging {
                    hart.run(
                        debugging, among: harts, between: direct.map { direct in { direct.look { self?.end($0) } } })
                } else if let direct {
                    direct.run(hart) { self?.end($0) }
                } else {
                    Machine.run(hart)
                }
            }
        }
    }

    func stopHarts(_ control: inout Control) {
        for hart in harts { hart.signals.requestStop() }
        for thread in control.threads { thread.join() }
        control.threads = []
    }

    /// A hart's thread.
    private static func run(_ hart: Hart) {
        while true {
            switch hart.run(budget: .max) {
            case .budget, .kicked, .resetRequested, .breakpoint: continue
            case .waitForInterrupt: hart.waitForInterrupt()
            case .stopRequested: return
            }
        }
    }
}

// MARK: inspection

/// What a hart does, for monitors.
public struct HartStatus: Sendable, Equatable {
    public var id: UInt64
    public var programCounter: UInt64
    /// 0 user, 1 supervisor, 3 machine.
    public var mode: UInt8
    /// Since reset.
    public var instructionsRetired: UInt64
}

extension Machine {
    /// Every hart's status. A running machine stands still for the moment that it takes.
    public func hartStatus() -> [HartStatus] {
        control.withLock { control in
            let runs = control.state == .running
            if runs { stopHarts(&control) }
            let status = harts.map { hart in
                HartStatus(
                    id: hart.id, programCounter: hart.pc, mode: hart.mode,
                    instructionsRetired: hart.retiredInstructions)
            }
            if runs { startHarts(&control) }
            return status
        }
    }
}

extension Machine {
    /// A copy of RAM; offsets are from `MemoryMap.ramBase` and lie inside.
    public func memoryContent(_ range: Range<Int>) -> [UInt8] {
        precondition(range.lowerBound >= 0 && range.upperBound <= memory.size, "outside RAM")
        // Safety: the range lies in the mapping; harts and cards may change it meanwhile, the copy may be torn.
        return unsafe Array(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory.mapping.bytes)[range]))
    }
}
