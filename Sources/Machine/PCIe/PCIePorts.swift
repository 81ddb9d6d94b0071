// What a root complex gets from the machine it is part of.
public import Wire

/// The machine's side of the root ports: memory for DMA, and where interrupts go.
public struct PCIePorts: Sendable {
    /// RAM, at `MemoryMap.ramBase` on the bus.
    public let memory: SharedMemory
    /// Takes MSI and MSI-X messages.
    public let messages: MessageRouter
    private let controller: any PlatformInterruptController

    init(memory: SharedMemory, messages: MessageRouter, controller: any PlatformInterruptController) {
        self.memory = memory
        self.messages = messages
        self.controller = controller
    }

    /// The wire of a pin (0 is INTA) of a device on the root bus.
    public func interruptLine(device: Int, pin: Int) -> InterruptLine {
        InterruptLine(controller, source: InterruptSource.pcieBase + (device + pin) & 3)
    }
}
