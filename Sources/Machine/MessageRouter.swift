// Where message-signaled interrupts go.
import Wire

/// Takes 32-bit writes from interrupt controllers and PCIe functions. Any thread.
public final class MessageRouter: Sendable {
    private let memory: SharedMemory
    private let imsics: [IMSIC]

    init(memory: SharedMemory, imsics: [IMSIC]) {
        self.memory = memory
        self.imsics = imsics
    }

    /// Hands a message to the interrupt file at `address`; anywhere in RAM it is a plain write; elsewhere it vanishes,
    /// as a posted write that no completer takes.
    public func deliver(address: UInt64, data: UInt32) {
        for imsic in imsics where imsic.deliver(address: address, data: data) { return }
        let offset = address &- MemoryMap.ramBase
        guard address & 3 == 0, memory.mapping.contains(offset: offset, count: 4) else { return }
        // Safety: four aligned bytes inside the mapping. Harts and cards may see the word change at any time.
        unsafe memory.mapping.baseAddress.storeBytes(
            of: data.littleEndian, toByteOffset: Int(offset), as: UInt32.self)
    }
}
