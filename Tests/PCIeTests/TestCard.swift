import PCIe
import Synchronization
import VFIOUser
import Wire

/// A card to test with. BAR 0: 0 an identity, 8 a scratch register, 0x10 a 64-bit DMA address, 0x18 a doorbell: adds
/// one to the word at the address and raises the vector written, or INTx when it is 99. BAR 2: 64-bit, MSI-X.
final class TestCard: MigratableModel {
    static let description = EndpointDescription(
        vendor: 0x1B36, device: 0x0B0A, classCode: 0x12_00_00,
        bars: [.init(0, size: 4096), .init(2, size: 1 << 16, is64Bit: true, isPrefetchable: true)],
        msix: .init(vectors: 3, tableBAR: 2, tableOffset: 0x1000, pbaOffset: 0x2000), interruptPin: 1,
        vendorCapabilities: [.init([7, 8, 9, 10, 11]), .init([UInt8](repeating: 0x55, count: 13), isLive: true)])

    private struct State {
        var scratch: UInt64 = 0
        var address: UInt64 = 0
        var failures = 0
        var resets = 0
        var bar2 = 0
        var isStopped = false
        var capability: (index: Int, offset: Int, value: UInt64) = (-1, 0, 0)
    }

    private let bus: EndpointBus
    private let state = Mutex(State())
    /// Stands for writes of 4 bytes at 0x30 of BAR 0.
    let doorbell = try! EventNotifier()

    init(_ bus: EndpointBus) { self.bus = bus }

    func ioEvents(_ bar: Int) -> [RegionIOEvent] { bar == 0 ? [.init(offset: 0x30, width: 4, notifier: doorbell)] : [] }

    var failures: Int { state.withLock { $0.failures } }
    var resets: Int { state.withLock { $0.resets } }
    var accessesOfBAR2: Int { state.withLock { $0.bar2 } }

    /// The last write into a live capability.
    var capability: (index: Int, offset: Int, value: UInt64) { state.withLock { $0.capability } }

    func readCapability(_ index: Int, offset: Int, into bytes: inout MutableRawSpan) {
        bytes.storeLittleEndian(UInt64(index << 16 | offset))
    }

    func writeCapability(_ index: Int, offset: Int, from bytes: RawSpan) {
        state.withLock { $0.capability = (index, offset, bytes.littleEndianValue) }
    }

    func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan) {
        if bar == 2 { state.withLock { $0.bar2 += 1 } }
        let value: UInt64 =
            switch (bar, offset) {
            case (0, 0): 0x4442_464F
            case (0, 8): state.withLock { $0.scratch }
            case (0, 0x10): state.withLock { $0.address }
            default: 0
            }
        bytes.storeLittleEndian(value)
    }

    func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan) {
        let value = bytes.littleEndianValue
        switch (bar, offset) {
        case (0, 8): state.withLock { $0.scratch = value }
        case (0, 0x10): state.withLock { $0.address = value }
        case (0, 0x18): ring(value)
        case (0, 0x20): bus.setINTx(false)
        default: break
        }
    }

    private func ring(_ vector: UInt64) {
        let address = IOVirtualAddress(state.withLock { $0.address })
        do {
            try bus.dma.store(try bus.dma.load(UInt32.self, at: address) &+ 1, at: address)
        } catch {
            return state.withLock { $0.failures += 1 }
        }
        if vector == 99 { bus.setINTx(true) } else { bus.raise(vector: Int(vector)) }
    }

    func reset() {
        state.withLock { state in
            state = State(resets: state.resets + 1, isStopped: state.isStopped)
        }
    }

    var isStopped: Bool { state.withLock { $0.isStopped } }
    func stop() { state.withLock { $0.isStopped = true } }
    func resume() { state.withLock { $0.isStopped = false } }

    func saveState() -> [UInt8] {
        let (scratch, address) = state.withLock { ($0.scratch, $0.address) }
        return [scratch, address].flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
    }

    func restoreState(_ bytes: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        guard bytes.count == 16 else { throw .invalid }
        let values = [bytes[..<8], bytes[8...]].map { half in
            half.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        }
        state.withLock { ($0.scratch, $0.address) = (values[0], values[1]) }
    }
}

/// A card behind a server, and a client of it.
final class ServedCard: Sendable {
    let endpoint: Endpoint
    let server: VFIOUserServer
    let log = Lines()
    private let far: Socket
    private let near: Socket

    init(_ description: EndpointDescription = TestCard.description) throws {
        endpoint = Endpoint(description) { TestCard($0) }
        (near, far) = try Socket.pair()
        let log = log
        server = VFIOUserServer(
            listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: endpoint
        ) { log.add($0) }
        WorkerThread("card") { [self] in server.serve(far) }
    }

    var card: TestCard { endpoint.model as! TestCard }
    func client() throws -> VFIOUserClient { try VFIOUserClient(socket: near, ioEvents: true) }
    func die() { far.shutdown() }
}

final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
}

/// Waits for a condition, at most some seconds; false when it did not come.
func eventually(_ condition: () -> Bool) -> Bool {
    let deadline = MonotonicTime.after(.seconds(10))
    while !condition() {
        if MonotonicTime.now > deadline { return false }
        try? Socket.pair().0.wait(for: .readable, until: .after(.milliseconds(1)))
    }
    return true
}
