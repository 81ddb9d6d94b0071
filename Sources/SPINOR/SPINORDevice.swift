internal import Glibc
public import Serprog
internal import Synchronization
public import Wire

/// A chip that several connections share: transactions of all of them happen one after another.
public final class SPINORDevice: Sendable {
    private let chip: Mutex<SPINORChip>
    private let loop: EventLoop?
    private let registerFile: FlashRegisterFile?
    private let report: @Sendable (String) -> Void

    /// - Parameters:
    ///   - loop: ends operations whose time is over though nobody asks; needed where operations take time and the
    ///     content must be whole in a file when they have ended.
    ///   - registerFile: keeps the non-volatile registers.
    ///   - report: told when that fails.
    public init(
        _ chip: SPINORChip, loop: EventLoop? = nil, registerFile: FlashRegisterFile? = nil,
        report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.chip = Mutex(chip)
        self.loop = loop
        self.registerFile = registerFile
        self.report = report
    }

    public var counters: SPINORChip.Counters { chip.withLock { $0.counters } }

    /// Looks at the chip, or breaks it.
    public func withChip<Result: Sendable>(_ body: (inout sending SPINORChip) -> Result) -> Result {
        chip.withLock { chip in
            chip.settle(.now)
            let result = body(&chip)
            return result
        }
    }

    /// The chip as one connection sees it.
    public func target() -> Target { Target(device: self) }

    /// One transaction; how much longer than usual it takes.
    fileprivate func transact(_ write: [UInt8], _ readCount: Int, _ response: inout [UInt8]) -> Duration {
        let (delay, end, registers) = chip.withLock { chip in
            let (before, wasBusy) = (chip.registers, chip.busyUntil)
            chip.transact(write, readCount: readCount, into: &response)
            let end = chip.busyUntil
            return (
                chip.transactionDelay, end == wasBusy ? nil : end, chip.registers == before ? nil : chip.registers
            )
        }
        if let registers { keep(registers) }
        if let end, let loop {
            loop.schedule(at: end) { [self] in
                let registers = chip.withLock { chip in
                    chip.settle(.now)
                    return chip.registers
                }
                keep(registers)
            }
        }
        return delay
    }

    private func keep(_ registers: SPINORChip.NonvolatileRegisters) {
        do throws(FlashContentError) { try registerFile?.save(registers) } catch { report("\(error)") }
    }

    /// A connection's target: copies what is read out of the chip under the lock, so that a peer that does not take
    /// its answer holds up nobody else.
    public struct Target: SPITarget {
        private let device: SPINORDevice
        private var response: [UInt8] = []

        init(device: SPINORDevice) { self.device = device }

        public mutating func transact(
            write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            if response.count < readCount { response = [UInt8](repeating: 0, count: readCount) }
            let delay = device.transact(write, readCount, &response)
            // The injected slowness itself, on this connection's thread.
            if delay > .zero { usleep(UInt32(clamping: delay.clampedNanoseconds / 1000)) }
            guard readCount > 0 else { return }
            // Safety: every byte of an array is initialised.
            unsafe try reply(response.span.bytes.extracting(0..<readCount))
        }
    }
}
