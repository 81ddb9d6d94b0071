// What the host bridge asks of whatever holds the board's root ports.
public import PCIe

/// The root complex behind the host bridge. Called on hart threads, several at once.
///
/// Accesses are aligned, 1 to 4 bytes in configuration space and 1 to 8 in memory space. Where nothing answers, reads
/// give all ones and writes vanish (Spec: PCIe 6.0 §2.3.2, an Unsupported Request completion to the root complex).
public protocol PCIeRootComplex: AnyObject, Sendable {
    /// `offset` is an ECAM offset: bits 27:20 bus, 19:15 device, 14:12 function, 11:0 register.
    func configRead(_ offset: UInt64, width: Int) -> UInt64
    func configWrite(_ offset: UInt64, width: Int, value: UInt64)
    /// `address` is that of the PCI bus, which is the host's.
    func memoryRead(_ address: UInt64, width: Int) -> UInt64
    func memoryWrite(_ address: UInt64, width: Int, value: UInt64)
    /// `address` is that of I/O space, below 64 KiB; accesses have 1, 2 or 4 bytes.
    func ioRead(_ address: UInt64, width: Int) -> UInt64
    func ioWrite(_ address: UInt64, width: Int, value: UInt64)
    /// Resets every function (the machine was reset). No hart runs.
    func reset()
}

/// I/O space without devices.
extension PCIeRootComplex {
    public func ioRead(_ address: UInt64, width: Int) -> UInt64 { .max }
    public func ioWrite(_ address: UInt64, width: Int, value: UInt64) {}
}

extension RootComplex: PCIeRootComplex {}
