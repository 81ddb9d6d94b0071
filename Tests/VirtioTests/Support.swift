import Ethernet
import PCIe
import Synchronization
import TestKit
import Testing
import VFIOUser
import Virtio
import Wire

/// Memory that driver and device share, at 0x8000_0000 of the bus.
final class Memory: Sendable {
    static let base: UInt64 = 0x8000_0000
    let shared: SharedMemory

    init(size: Int = 4 << 20) throws { shared = try SharedMemory(create: "virtio-test", size: size) }

    var mapping: MappedMemory { shared.mapping }

    func load<Value: BitwiseCopyable>(_ type: Value.Type, _ offset: Int) -> Value {
        mapping.bytes.loadUnaligned(fromByteOffset: offset, as: type)
    }

    func store<Value: BitwiseCopyable>(_ value: Value, _ offset: Int) {
        mapping.bytes.storeBytes(of: value, toByteOffset: offset, as: Value.self)
    }

    func bytes(_ offset: Int, _ count: Int) -> [UInt8] { Array(mapping.bytes[offset..<offset + count]) }

    func set(_ bytes: [UInt8], _ offset: Int) {
        for (index, byte) in bytes.enumerated() { store(byte, offset + index) }
    }
}

/// One kind of ring.
struct RingKind: Hashable, Sendable, CustomTestStringConvertible {
    var isPacked: Bool
    var usesEventIndex: Bool

    static let all = [
        RingKind(isPacked: false, usesEventIndex: false), RingKind(isPacked: false, usesEventIndex: true),
        RingKind(isPacked: true, usesEventIndex: false), RingKind(isPacked: true, usesEventIndex: true),
    ]

    var features: VirtioFeatures {
        var features: VirtioFeatures = [.version1, .indirectDescriptors, .ringReset]
        if isPacked { features.insert(.packedRing) }
        if usesEventIndex { features.insert(.eventIndex) }
        return features
    }

    var testDescription: String {
        (isPacked ? "packed" : "split") + (usesEventIndex ? ", event index" : "")
    }
}

/// A queue with both its sides, without a transport.
final class QueueRig {
    let memory: Memory
    let queues: QueueSet
    var driver: DriverQueue
    private let interruptCount = Mutex(0)
    private let fault = Mutex<RingFault?>(nil)

    var interrupts: Int { interruptCount.withLock { $0 } }
    var failure: RingFault? { fault.withLock { $0 } }

    init(_ kind: RingKind, size: UInt16 = 8) throws {
        memory = try Memory()
        let dma = DMAAddressSpace()
        try dma.insert(
            DMAMap(
                address: Memory.base, length: UInt64(memory.shared.size), offset: 0,
                flags: DMAMap.readable | DMAMap.writeable | DMAMap.mapped),
            descriptor: memory.shared.descriptor)
        driver = DriverQueue(
            memory.mapping, offset: 0, base: Memory.base, size: size, packed: kind.isPacked,
            eventIndex: kind.usesEventIndex)
        nonisolated(unsafe) weak var rig: QueueRig?
        queues = QueueSet(
            count: 1, features: kind.features, dma: dma, interrupt: { _ in rig?.interruptCount.withLock { $0 += 1 } },
            failed: { _, fault in rig?.fault.withLock { $0 = fault } })
        rig = self
        var settings = CommonConfiguration.Queue(size: size)
        (settings.descriptors, settings.driver, settings.device) = driver.addresses
        queues.enable(0, settings)
    }

    /// Answers every request with its readable bytes, as many as fit.
    @discardableResult
    func echo(limit: Int = .max) -> Int {
        queues.withQueue(0) { (queue, memory) throws(RingFault) in
            var count = 0
            while count < limit, try queue.next(&memory) {
                let bytes = min(queue.chain.readableBytes, queue.chain.writableBytes)
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes, 1), alignment: 8)
                defer { buffer.deallocate() }
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<bytes])
                try queue.chain.read(at: 0, into: part, &memory)
                try queue.chain.write(at: 0, from: UnsafeRawBufferPointer(part), &memory)
                try queue.complete(queue.chain.token, written: bytes, &memory)
                count += 1
            }
            return count
        } ?? 0
    }
}

/// A virtio function behind vfio-user, with a worker of its own and a driver that knows its structures.
final class FunctionRig: DeviceHolder, Sendable {
    let memory: Memory
    let function: VirtioFunction
    let endpoint: Endpoint
    let server: VFIOUserServer
    let client: VFIOUserClient
    let driver: VirtioDriver
    let loop: EventLoop
    let log = Lines()
    private let worker: WorkerThread
    private let far: Socket

    /// - Parameter joined: a worker that runs already, and its loop.
    init(_ device: any VirtioDevice, memory: Memory? = nil, joined: VirtioWorker? = nil) throws {
        self.memory = try memory ?? Memory()
        loop = try joined?.loop ?? EventLoop()
        let carrier = joined ?? VirtioWorker(loop: loop)
        let log = log
        nonisolated(unsafe) var made: VirtioFunction?
        endpoint = Endpoint(VirtioFunction.description(of: device)) { bus in
            let function = VirtioFunction(bus, device: device, worker: carrier) { log.add($0) }
            made = function
            return function
        }
        function = try #require(made)
        let (near, far) = try Socket.pair()
        self.far = far
        server = VFIOUserServer(
            listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: endpoint
        ) { log.add($0) }
        WorkerThread("card") { [server] in server.serve(far) }
        let isOwn = joined == nil
        worker = WorkerThread("virtio") { if isOwn { carrier.run() } }
        client = try VFIOUserClient(socket: near)
        try client.mapDMA(
            address: IOVirtualAddress(Memory.base), length: UInt64(self.memory.shared.size),
            descriptor: self.memory.shared.descriptor)
        driver = try VirtioDriver(client)
    }

    deinit {
        far.shutdown()
        function.detach()
        loop.stop()
        worker.join()
    }

    /// A queue of this rig's memory.
    func queue(_ offset: Int, size: UInt16 = 16, _ kind: RingKind) -> DriverQueue {
        DriverQueue(
            memory.mapping, offset: offset, base: Memory.base, size: size, packed: kind.isPacked,
            eventIndex: kind.usesEventIndex)
    }
}

final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
}

extension DriverQueue {
    /// Adds, and says that there was room.
    mutating func added(_ segments: Segment...) -> UInt16 {
        let number = add(segments)
        #expect(number != nil, "no room in the ring")
        return number ?? 0
    }

    /// The next answer, waited for; nil when it does not come.
    mutating func awaitAnswer() -> (identifier: UInt16, written: UInt32)? {
        let copy = self
        guard eventually({ copy.hasUsed }) else { return nil }
        return take()
    }
}

/// Waits for a condition, at most some seconds; false when it did not come.
func eventually(_ condition: () -> Bool) -> Bool {
    let deadline = MonotonicTime.after(.seconds(10))
    while !condition() {
        if MonotonicTime.now > deadline { return false }
        try? Socket.pair().0.wait(for: .readable, until: .after(.microseconds(200)))
    }
    return true
}
