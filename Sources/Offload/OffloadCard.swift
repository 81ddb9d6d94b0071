// The offload card as a PCI Express endpoint: the register file joined to the bus.

public import PCIe
import Synchronization
public import VFIOUser

/// The offload card's model, for `Endpoint`.
///
/// Commands run on the server's thread, inside the doorbell write: a command takes microseconds, and the host that rings
/// has nothing else to say to the card meanwhile.
public final class OffloadCard: MigratableModel {
    /// BAR0 registers, BAR2 the MSI-X table at 0 and the pending bits at 0x800; a data object mailbox that answers
    /// discovery. Spec: docs/wiring.md "Offload card".
    public static let description = {
        var description = EndpointDescription(
            vendor: 0x1B36, device: 0x0B0A, classCode: 0x12_00_00, subsystemVendor: 0x1B36, subsystem: 0x0B0A,
            bars: [EndpointDescription.BAR(0, size: 4096), EndpointDescription.BAR(2, size: 4096)],
            msix: EndpointDescription.MSIX(
                vectors: Int(OffloadRegister.vectorCount), tableBAR: 2, tableOffset: 0, pbaOffset: 0x800))
        description.canRequestService = true
        description.dataObjects = []
        return description
    }()

    private let bus: EndpointBus
    private let registers: Mutex<OffloadRegisters>
    private let report: @Sendable (String) -> Void

    /// - Parameter report: given one line when a ring turns out to be garbage.
    public init(_ bus: EndpointBus, identity: OffloadIdentity, report: @escaping @Sendable (String) -> Void) {
        self.bus = bus
        self.report = report
        registers = Mutex(OffloadRegisters(identity: identity))
    }

    /// What IDENTIFY says of the card's firmware from now on; false, and nothing changes, when the version is longer than a
    /// field or not printable ASCII. Any thread.
    @discardableResult
    public func setFirmware(version: String, maximumInstances: UInt32) -> Bool {
        registers.withLock { registers in
            let old = registers.identity
            guard
                var new = OffloadIdentity(model: old.model, serial: old.serial, firmwareVersion: version)
            else { return false }
            new.capabilities = old.capabilities
            new.maximumInstances = maximumInstances
            registers.identity = new
            return true
        }
    }

    /// A copy of the registers, for queries.
    public var snapshot: OffloadRegisters { registers.withLock { $0 } }

    private struct BusMemory: HostMemory {
        let dma: DMAAddressSpace

        func read(_ address: UInt64, count: Int) -> [UInt8]? {
            try? dma.read(at: IOVirtualAddress(address), count: count)
        }

        func write(_ bytes: [UInt8], at address: UInt64) -> Bool {
            (try? dma.write(bytes, at: IOVirtualAddress(address))) != nil
        }
    }

    // MARK: EndpointModel

    /// Registers are read in aligned words of 4 bytes or pairs of them; anything else reads as ones.
    public func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan) {
        guard bar == 0 else { return bytes.storeLittleEndian(0) }
        switch bytes.byteCount {
        case 4 where offset % 4 == 0:
            bytes.storeLittleEndian(UInt64(registers.withLock { $0.read(offset) }))
        case 8 where offset % 8 == 0:
            let (low, high) = registers.withLock { ($0.read(offset), $0.read(offset + 4)) }
            bytes.storeLittleEndian(UInt64(high) << 32 | UInt64(low))
        default:
            bytes.fill(with: 0xFF)
        }
    }

    /// Writes of other than aligned words or pairs of them are dropped.
    public func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan) {
        guard bar == 0 else { return }
        bytes.forEachDoubleword(at: offset) { write($0, $1) }
    }

    private func write(_ offset: UInt64, _ value: UInt32) {
        take(registers.withLock { $0.write(offset, value, BusMemory(dma: bus.dma)) })
    }

    private func take(_ effect: OffloadRegisters.Effect) {
        if let fault = effect.fault { report("\(fault): the card needs a reset") }
        if let vector = effect.interrupt { bus.raise(vector: vector) }
    }

    public func reset() { registers.withLock { $0.reset() } }

    // MARK: Migration

    /// Commands run inside their doorbell's write, so none is under way here.
    public func stop() { registers.withLock { $0.pause() } }
    public func resume() { take(registers.withLock { $0.resume(BusMemory(dma: bus.dma)) }) }
    public func saveState() -> [UInt8] { registers.withLock { $0.saved } }

    public func restoreState(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        let result: Result<Void, ErrorNumber> = registers.withLock { registers in
            do throws(ErrorNumber) {
                return .success(try registers.restore(state))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }
}
