// A program run without firmware: loaded into RAM, entered in M-mode, ended by HTIF, the test finisher or a limit.
import RISCV
import Synchronization
import Wire

/// What a machine runs instead of its flash.
public struct DirectBoot: Sendable {
    public var image: ELFImage
    /// Instructions that any one hart may retire, traps counted too: a handler that traps again retires nothing.
    public var instructionLimit: UInt64?
    /// Bytes that the program prints by HTIF, and whether they are for standard error. Called on hart threads.
    public var print: @Sendable (_ bytes: [UInt8], _ isError: Bool) -> Void
    /// Hears of what the program does wrong.
    public var report: @Sendable (String) -> Void

    public init(
        image: ELFImage, instructionLimit: UInt64? = nil,
        print: @escaping @Sendable (_ bytes: [UInt8], _ isError: Bool) -> Void,
        report: @escaping @Sendable (String) -> Void
    ) {
        self.image = image
        self.instructionLimit = instructionLimit
        self.print = print
        self.report = report
    }
}

/// The harts' side of a `DirectBoot`.
final class DirectRun: Sendable {
    /// Instructions between two looks at `tohost`: some 40 µs that a program may spin after its end, at no cost.
    private static let slice = 16_384
    /// While commands come, a program waits for each of them: looks are closer, for so many of them.
    private static let busySlice = 512
    private static let busyLooks = 64

    private let limit: UInt64?
    /// Instructions and traps of each hart, by its number, while it is stopped: a monitor stops harts to look at them.
    private let used = Mutex<[UInt64: UInt64]>([:])
    private let interface: HostTargetInterface?

    init(_ boot: DirectBoot, memory: SharedMemory, space: AddressRange) throws(ELFError) {
        limit = boot.instructionLimit
        let tohost = try boot.image.doubleword("tohost", in: space)
        let fromhost = try boot.image.doubleword("fromhost", in: space)
        let print = boot.print
        interface = tohost.map {
            HostTargetInterface(
                memory: memory, tohost: $0 &- space.base, fromhost: fromhost.map { $0 &- space.base },
                print: { stream, bytes in print(bytes, stream == .standardError) }, report: boot.report)
        }
    }

    func reset() {
        interface?.reset()
        used.withLock { $0 = [:] }
    }

    /// Looks at `tohost` once, for a hart that runs under a debugger; the limit does not count there.
    func look(end: (MachineEvent) -> Void) {
        if case .ended(let result)? = interface?.poll() { end(.exited(result: result)) }
    }

    /// A hart's thread, until it is asked to stop. `end` is called when the program ended or used up its limit.
    func run(_ hart: Hart, end: (MachineEvent) -> Void) {
        var busy = 0
        /// Instructions and traps so far.
        var used = self.used.withLock { $0[hart.id] ?? 0 }
        defer { self.used.withLock { [used] in $0[hart.id] = used } }
        while true {
            var budget = busy > 0 ? Self.busySlice : Self.slice
            if let limit {
                guard used < limit else { return end(.instructionLimit(hart: hart.id, pc: hart.pc)) }
                budget = min(budget, Int(clamping: limit - used))
            }
            let retired = hart.retiredInstructions
            let reason = hart.run(budget: budget)
            // A run that was cut short tells only what it retired.
            used &+= reason == .budget ? UInt64(budget) : hart.retiredInstructions &- retired
            switch interface?.poll() {
            case .ended(let result): end(.exited(result: result))
            case .served: busy = Self.busyLooks
            case .nothing, nil: busy = max(busy - 1, 0)
            }
            switch reason {
            case .budget, .kicked, .resetRequested, .breakpoint: continue
            case .waitForInterrupt: hart.waitForInterrupt()
            case .stopRequested: return
            }
        }
    }
}

extension Machine {
    /// On a hart's thread: the run is over. The harts stop now, the rest happens on the loop.
    func end(_ event: MachineEvent) {
        let asked = askEnd()
        later { [weak self] in
            guard let self else { return }
            let isCurrent = control.withLock { control in
                guard control.state == .running || control.state == .paused,
                    generation.load(ordering: .acquiring) == asked
                else { return false }
                stopHarts(&control)
                control.state = .poweredOff
                if case .exited(let result) = event {
                    control.debugging?.mailbox.leave(.ended(status: UInt8(clamping: result)))
                }
                return true
            }
            if isCurrent { report(event) }
        }
    }
}
