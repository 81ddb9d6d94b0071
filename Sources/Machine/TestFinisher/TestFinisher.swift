// The SiFive test finisher: how software powers off or resets the machine (SBI SRST ends here).
public import RISCV

/// One register that ends the run. Half words and words only, as the `virt` machine has it.
public final class TestFinisher: MachineDevice {
    private let finish: @Sendable (Command) -> Void

    /// `finish` is called on the hart thread that wrote the command.
    public init(finish: @escaping @Sendable (Command) -> Void) {
        self.finish = finish
    }

    public func reset() {}

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        width == .half || width == .word ? 0 : nil
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .half || width == .word else { return false }
        if offset == Self.command, let command = Command(value) { finish(command) }
        return true
    }
}
