// The adapter as a PCI Express endpoint: its register file joined to the bus.

public import PCIe
import VFIOUser

/// The adapter's model, for `Endpoint`: a network function with its management registers.
public final class AdapterCard: EndpointModel {
    /// BAR0: the register file. Class 0x020000: an Ethernet controller. Spec: docs/wiring.md "Adapter card".
    public static let description = EndpointDescription(
        vendor: 0x1B36, device: 0x0B0B, classCode: 0x02_00_00, subsystemVendor: 0x1B36, subsystem: 0x0B0B,
        bars: [EndpointDescription.BAR(0, size: 4096)])

    private let registers: @Sendable () -> AdapterRegisters

    /// - Parameter registers: what the register file shows now; called for each read, on the server's thread.
    public init(registers: @escaping @Sendable () -> AdapterRegisters) {
        self.registers = registers
    }

    // MARK: EndpointModel

    /// Registers are read in aligned words of 4 bytes or pairs of them (a 64-bit counter in one piece); anything else
    /// reads as ones.
    public func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan) {
        switch bytes.byteCount {
        case 4 where offset % 4 == 0:
            bytes.storeLittleEndian(UInt64(registers().read(offset)))
        case 8 where offset % 8 == 0:
            let now = registers()
            bytes.storeLittleEndian(UInt64(now.read(offset + 4)) << 32 | UInt64(now.read(offset)))
        default:
            bytes.fill(with: 0xFF)
        }
    }

    /// There is nothing to write yet.
    public func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan) {}

    /// The ports belong to the board, not to the host: a reset of the function leaves them alone.
    public func reset() {}
}
