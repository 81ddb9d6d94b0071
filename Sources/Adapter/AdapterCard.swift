// The adapter's function 0 as a PCI Express endpoint: a virtio network function with the card's register file beside it.

public import PCIe
public import VFIOUser
public import Virtio

/// The model of function 0, for `Endpoint`: BAR 0 is the management registers, everything else is virtio's.
public final class AdapterCard: MigratableModel {
    /// Who made the card, in every function's subsystem registers. Spec: docs/wiring.md "Adapter card".
    public static let subsystemVendor: UInt16 = 0x1B36
    public static let subsystem: UInt16 = 0x0B0B
    /// Functions of the card: one port each, `pcie`, `pcie1` … `pcie7`.
    public static let functionCount = 8

    /// What a function is: 0 has the register file too.
    public static func description(of net: VirtioNet, function: Int) -> EndpointDescription {
        VirtioFunction.description(
            of: net, subsystemVendor: subsystemVendor, subsystem: subsystem,
            registers: function == 0 ? [EndpointDescription.BAR(0, size: 4096)] : [])
    }

    /// The port of a function, on the component and on the switch.
    public static func port(of function: Int) -> String { function == 0 ? "pcie" : "pcie\(function)" }

    private let function: VirtioFunction
    private let registers: @Sendable () -> AdapterRegisters

    /// - Parameter registers: what the register file shows now; called for each read, on the server's thread.
    public init(_ function: VirtioFunction, registers: @escaping @Sendable () -> AdapterRegisters) {
        self.function = function
        self.registers = registers
    }

    // MARK: EndpointModel

    /// Registers are read in aligned words of 4 bytes or pairs of them (a 64-bit counter in one piece); anything else
    /// reads as ones.
    public func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan) {
        guard bar == 0 else { return function.readBAR(bar, offset: offset, into: &bytes) }
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

    /// The register file has nothing to write.
    public func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan) {
        if bar != 0 { function.writeBAR(bar, offset: offset, from: bytes) }
    }

    /// The switch's other ports belong to the board, not to the host: a reset of the function leaves them alone.
    public func reset() { function.reset() }
    public func fundamentalReset() { function.fundamentalReset() }
    public func busChanged() { function.busChanged() }
    public func ioEvents(_ bar: Int) -> [RegionIOEvent] { function.ioEvents(bar) }

    // The register file shows this card's own switch: only the function migrates.
    public func stop() { function.stop() }
    public func resume() { function.resume() }
    public func saveState() -> [UInt8] { function.saveState() }
    public func restoreState(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        try function.restoreState(state, isFinal: isFinal)
    }

    public func readCapability(_ index: Int, offset: Int, into bytes: inout MutableRawSpan) {
        function.readCapability(index, offset: offset, into: &bytes)
    }

    public func writeCapability(_ index: Int, offset: Int, from bytes: RawSpan) {
        function.writeCapability(index, offset: offset, from: bytes)
    }
}
