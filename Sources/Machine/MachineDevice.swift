// What every device of the machine has in common, and the wires from devices to the interrupt controller.
public import RISCV

/// A device with registers: memory-mapped, and back in its reset state on `reset()`.
///
/// Registers are called on hart threads, several at once; `reset` only while no hart runs.
public protocol MachineDevice: MemoryMappedDevice {
    func reset()
}

/// Takes the levels of the platform's interrupt wires: an APLIC or a PLIC.
public protocol PlatformInterruptController: AnyObject, Sendable {
    /// Drives the wire `source` (1…96); any thread.
    func set(source: Int, asserted: Bool)
}

/// One wire into the platform's interrupt controller.
public struct InterruptLine: Sendable {
    let controller: any PlatformInterruptController
    let source: Int

    public init(_ controller: any PlatformInterruptController, source: Int) {
        self.controller = controller
        self.source = source
    }

    /// Drives the wire.
    public func set(_ asserted: Bool) {
        controller.set(source: source, asserted: asserted)
    }
}
