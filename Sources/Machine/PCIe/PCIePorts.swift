// What a root complex gets from the machine it is part of.
public import PCIe
import Synchronization
public import Wire

/// The machine's side of the root ports: memory for DMA, and where interrupts go.
public final class PCIePorts: Sendable {
    /// RAM, at `MemoryMap.ramBase` on the bus.
    public let memory: SharedMemory
    /// Takes MSI and MSI-X messages.
    public let messages: MessageRouter
    private let controller: any PlatformInterruptController
    /// Who asserts each of the four wires: bit 4 × device + pin.
    private let asserted = Mutex<[UInt128]>(Array(repeating: 0, count: 4))

    init(memory: SharedMemory, messages: MessageRouter, controller: any PlatformInterruptController) {
        self.memory = memory
        self.messages = messages
        self.controller = controller
    }

    /// Drives a pin (0 is INTA) of a device on the root bus. Pins rotate over four wires, and a wire is high while any
    /// pin on it is.
    ///
    /// Spec: PCIe 6.0 §2.2.8.1 (INTx mapping), and the devicetree's `interrupt-map`.
    public func setINTx(device: Int, pin: Int, _ level: Bool) {
        guard 0..<32 ~= device, 0..<4 ~= pin else { return }
        let wire = (device + pin) & 3
        let bit: UInt128 = 1 << UInt128(device * 4 + pin)
        asserted.withLock { asserted in
            if level { asserted[wire] |= bit } else { asserted[wire] &= ~bit }
            controller.set(source: InterruptSource.pcieBase + wire, asserted: asserted[wire] != 0)
        }
    }

    /// A root complex with so many ports, wired to the machine. `log` hears when a link goes down, `onEvent` which
    /// cards left.
    public func makeRootComplex(
        ports count: Int, log: @escaping @Sendable (String) -> Void,
        onEvent: @escaping @Sendable (RootComplexEvent) -> Void = { _ in }
    ) throws(WireError) -> RootComplex {
        try RootComplex(
            ports: count, memory: memory, memoryBase: MemoryMap.ramBase,
            deliverMessage: { [messages] address, data in messages.deliver(address: address, data: data) },
            setINTx: { [self] device, pin, level in setINTx(device: device, pin: pin, level) }, log: log,
            onEvent: onEvent)
    }
}
