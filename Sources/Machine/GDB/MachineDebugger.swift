// A machine as a debugging session sees it: threads are harts, breakpoints are EBREAKs in RAM or compared addresses.
//
// Model: everything runs on the event loop, and all but `interrupt` while the harts stand still. A software breakpoint
// in RAM is a C.EBREAK over the instruction's first two bytes, whatever the instruction's size, so it never crosses a
// page; memory that the debugger reads and writes is shown without it. Where memory cannot be written (boot ROM, flash)
// it becomes a compared address, as hardware breakpoints are: then harts run instruction by instruction, some tens of
// times slower. The surprise: RAM may be mapped at several virtual addresses; a hart that meets a breakpoint's memory at
// another address than the debugger's is stepped over it alone, and nobody is told.
import GDBRemote
import RISCV

/// Drives a machine for one debugger, from attach to `leave`.
final class MachineDebugger: DebugTarget {
    /// Breakpoints of each kind at once; a person sets tens.
    static let breakpointLimit = 1024

    private static let breakpointInstruction: [UInt8] = [0x02, 0x90]

    /// Memory under an inserted C.EBREAK.
    private struct Patch {
        var original: [UInt8]
        /// Virtual addresses that use it.
        var users = 1
    }

    let machine: Machine
    var stepsIntoInterrupts = false
    var touchesDevices = false
    private let mailbox: DebugMailbox
    /// Virtual to physical addresses.
    private var software: [UInt64: UInt64] = [:]
    private var patches: [UInt64: Patch] = [:]
    private var comparedSoftware: Set<UInt64> = []
    private var comparedHardware: Set<UInt64> = []
    private var plan: [ThreadPlan]
    /// The hart that is being stepped over a breakpoint at an alias, and the breakpoint's place.
    private var aside: (hart: Int, physical: UInt64)?
    /// The hart that stopped last.
    private var lastHart = 0

    let registers: [RegisterDescription]

    /// Stops the machine. `notify` is called, on any thread, when `collect` may have something.
    init(_ machine: Machine, notify: @escaping @Sendable () -> Void) {
        self.machine = machine
        mailbox = DebugMailbox(notify: notify)
        plan = machine.harts.map { _ in .run }
        machine.attachDebugger(mailbox)
        registers = Self.registers(of: machine.harts[0])
    }

    /// Takes every breakpoint out and lets the machine go on.
    func leave() {
        for physical in patches.keys { restore(physical) }
        patches = [:]
        machine.detachDebugger()
    }

    // MARK: running

    func resume(_ plan: [ThreadPlan]) {
        self.plan = plan
        goOn()
    }

    private func goOn() {
        // The guest, or a reset, may have written over them.
        for physical in patches.keys { insert(physical) }
        start(plan, breakpoints)
    }

    private var breakpoints: BreakpointSet {
        var compared: [UInt64: Bool] = [:]
        for address in comparedHardware { compared[address] = false }
        for address in comparedSoftware { compared[address] = true }
        return BreakpointSet(software: software, compared: compared)
    }

    private func start(_ plan: [ThreadPlan], _ breakpoints: BreakpointSet) {
        machine.debuggerResumes { debugging in
            debugging.plan = plan
            debugging.breakpoints = breakpoints
            debugging.stepsIntoInterrupts = stepsIntoInterrupts
        }
    }

    func interrupt() { mailbox.leave(.interrupted) }

    /// The stop that a hart left, if the debugger is to hear of it, and the thread that it is about.
    func collect() -> (reason: StopReason, thread: Int)? {
        guard let stop = machine.debuggerCollects() else { return nil }
        let passed = aside
        if let passed {
            aside = nil
            insert(passed.physical)
        }
        switch stop {
        case .interrupted: return (.interrupted, lastHart)
        case .ended(let status): return (.ended(status), lastHart)
        case .softwareBreakpoint(let hart): return stopped(.softwareBreakpoint, hart)
        case .hardwareBreakpoint(let hart): return stopped(.hardwareBreakpoint, hart)
        case .stepped(let hart):
            if passed?.hart == hart, plan[hart] == .run {
                goOn()
                return nil
            }
            return stopped(.stepped, hart)
        case .alias(let hart):
            passBy(hart)
            return nil
        case .reset:
            goOn()
            return nil
        }
    }

    private func stopped(_ reason: StopReason, _ hart: Int) -> (reason: StopReason, thread: Int) {
        lastHart = hart
        return (reason, hart)
    }

    /// Lets one hart alone execute what is under a breakpoint.
    private func passBy(_ hart: Int) {
        guard let physical = machine.harts[hart].physicalAddress(of: machine.harts[hart].pc) else { return }
        restore(physical)
        aside = (hart, physical)
        var alone = machine.harts.map { _ in ThreadPlan.stay }
        alone[hart] = .step
        var others = breakpoints
        others.software = others.software.filter { $0.value != physical }
        start(alone, others)
    }

    // MARK: breakpoints

    func insertBreakpoint(_ kind: BreakpointKind, _ address: UInt64, size: UInt64, thread: Int) -> BreakpointOutcome {
        guard kind == .software || kind == .hardware else { return .unsupported }
        guard address & 1 == 0, size == 2 || size == 4 else { return .failed }
        if kind == .hardware {
            guard comparedHardware.count < Self.breakpointLimit else { return .failed }
            comparedHardware.insert(address)
            return .done
        }
        if software[address] != nil || comparedSoftware.contains(address) { return .done }
        let hart = machine.harts[thread]
        guard software.count + comparedSoftware.count < Self.breakpointLimit,
            let physical = hart.physicalAddress(of: address)
        else { return .failed }
        guard hart.isWritableMemory(physical, count: 2) else {
            guard hart.isMemory(physical, count: 2) else { return .failed }
            comparedSoftware.insert(address)
            return .done
        }
        software[address] = physical
        if patches[physical] != nil {
            patches[physical]?.users += 1
        } else {
            patches[physical] = Patch(original: [])
            insert(physical)
        }
        return .done
    }

    func removeBreakpoint(_ kind: BreakpointKind, _ address: UInt64, size: UInt64) -> BreakpointOutcome {
        switch kind {
        case .hardware: comparedHardware.remove(address)
        case .software:
            comparedSoftware.remove(address)
            guard let physical = software.removeValue(forKey: address), let patch = patches[physical] else { break }
            if patch.users > 1 {
                patches[physical]?.users -= 1
            } else {
                restore(physical)
                patches[physical] = nil
            }
        default: return .unsupported
        }
        return .done
    }

    /// Physical memory is the same through every hart.
    private var memory: Hart { machine.harts[0] }

    /// Puts a breakpoint over what is there now, if it is not there already.
    private func insert(_ physical: UInt64) {
        guard let patch = patches[physical] else { return }
        let content = memory.readPhysical(physical, count: 2)
        if content == Self.breakpointInstruction, !patch.original.isEmpty { return }
        patches[physical]?.original = content
        _ = memory.writePhysical(physical, Self.breakpointInstruction)
        invalidateInstructions()
    }

    /// Puts the instruction back, unless the guest has written over the breakpoint.
    private func restore(_ physical: UInt64) {
        guard let patch = patches[physical], memory.readPhysical(physical, count: 2) == Self.breakpointInstruction
        else {
            return
        }
        _ = memory.writePhysical(physical, patch.original)
        invalidateInstructions()
    }

    private func invalidateInstructions() {
        for hart in machine.harts { hart.invalidateInstructions() }
    }

    // MARK: memory

    private var reach: Hart.DebugReach {
        var reach: Hart.DebugReach = touchesDevices ? .devices : []
        // In reset the flash answers nobody, and what it does not answer would stay.
        if machine.state != .held { reach.insert(.demandFilled) }
        return reach
    }

    /// Pieces of physical memory behind a range, none across a page; ends where nothing is mapped.
    private func pieces(_ address: UInt64, _ count: Int, _ thread: Int, _ isPhysical: Bool) -> [Range<UInt64>] {
        var pieces: [Range<UInt64>] = []
        var done = 0
        while done < count {
            let place = address &+ UInt64(done)
            let size = min(count - done, Int(PhysicalAddressSpace.pageSize - place % PhysicalAddressSpace.pageSize))
            guard let physical = isPhysical ? place : machine.harts[thread].physicalAddress(of: place),
                physical <= UInt64.max - UInt64(size)
            else { break }
            pieces.append(physical..<physical + UInt64(size))
            done += size
        }
        return pieces
    }

    func readMemory(_ address: UInt64, count: Int, thread: Int, isPhysical: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        for piece in pieces(address, count, thread, isPhysical) {
            var part = memory.readPhysical(piece.lowerBound, count: piece.count, reach: reach)
            let isWhole = part.count == piece.count
            forEachPatchedByte(piece) { index, original, _ in
                if index < part.count { part[index] = original }
            }
            bytes += part
            if !isWhole { break }
        }
        return bytes
    }

    func writeMemory(_ address: UInt64, _ bytes: [UInt8], thread: Int, isPhysical: Bool) -> Bool {
        let pieces = pieces(address, bytes.count, thread, isPhysical)
        guard pieces.reduce(0, { $0 + $1.count }) == bytes.count else { return false }
        let isMemory = pieces.allSatisfy { memory.isWritableMemory($0.lowerBound, count: $0.count) }
        // Half a write to devices is worse than none: they get one piece.
        guard isMemory || (touchesDevices && pieces.count == 1) else { return false }
        var start = 0
        for piece in pieces {
            var part = Array(bytes[start..<start + piece.count])
            start += piece.count
            forEachPatchedByte(piece) { index, _, place in
                patches[place.physical]?.original[place.byte] = part[index]
                part[index] = Self.breakpointInstruction[place.byte]
            }
            guard memory.writePhysical(piece.lowerBound, part, reach: reach) else { return false }
        }
        invalidateInstructions()
        return true
    }

    /// Bytes of a piece that an inserted breakpoint covers: index in the piece, the guest's byte, and which it is.
    private func forEachPatchedByte(
        _ piece: Range<UInt64>, _ body: (Int, UInt8, (physical: UInt64, byte: Int)) -> Void
    ) {
        for (physical, patch) in patches where patch.original.count == 2 {
            for byte in 0..<2 {
                let place = physical + UInt64(byte)
                guard piece.contains(place) else { continue }
                body(Int(place - piece.lowerBound), patch.original[byte], (physical, byte))
            }
        }
    }
}
