// What the host bridge asks of whatever holds the board's root ports.
public import RISCV

/// A function's address in configuration space.
public struct PCIeFunction: Hashable, Sendable {
    public var bus: UInt8
    /// 0…31
    public var device: UInt8
    /// 0…7
    public var function: UInt8

    public init(bus: UInt8, device: UInt8, function: UInt8) {
        self.bus = bus
        self.device = device
        self.function = function
    }
}

/// The root complex behind the host bridge. Called on hart threads, several at once.
///
/// Accesses are aligned, 1 to 4 bytes in configuration space and 1 to 8 in memory space. Where nothing answers, reads
/// give all ones and writes vanish (Spec: PCIe 6.0 §2.3.2, an Unsupported Request completion to the root complex).
public protocol PCIeRootComplex: AnyObject, Sendable {
    func readConfiguration(_ function: PCIeFunction, register: UInt16, width: AccessWidth) -> UInt32
    func writeConfiguration(_ function: PCIeFunction, register: UInt16, width: AccessWidth, value: UInt32)
    func readMemory(address: UInt64, width: AccessWidth) -> UInt64
    func writeMemory(address: UInt64, width: AccessWidth, value: UInt64)
    /// Resets every function (the machine was reset). No hart runs.
    func reset()
}
