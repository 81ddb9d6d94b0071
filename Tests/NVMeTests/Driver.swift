import BlockStore
import NVMe
import PCIe
import Synchronization
import TestKit
import Testing
import VFIOUser
import Wire

/// A submission queue entry as a driver writes it.
struct Entry {
    var opcode: UInt8
    var flags: UInt8 = 0
    var namespace: UInt32 = 0
    var prp1: UInt64 = 0
    var prp2: UInt64 = 0
    var dwords: [UInt32] = []

    func bytes(_ identifier: UInt16) -> [UInt8] {
        var bytes = [opcode, flags] + little(UInt64(identifier), 2) + little(UInt64(namespace), 4)
        bytes += [UInt8](repeating: 0, count: 16) + little(prp1, 8) + little(prp2, 8)
        for index in 0..<6 { bytes += little(index < dwords.count ? UInt64(dwords[index]) : 0, 4) }
        return bytes
    }

    /// An NVM command on logical blocks of namespace 1.
    static func io(
        _ opcode: UInt8, _ lba: UInt64, _ blocks: Int, _ prp1: UInt64 = 0, _ prp2: UInt64 = 0, namespace: UInt32 = 1,
        control: UInt32 = 0
    ) -> Entry {
        Entry(
            opcode: opcode, namespace: namespace, prp1: prp1, prp2: prp2,
            dwords: [
                UInt32(truncatingIfNeeded: lba), UInt32(truncatingIfNeeded: lba >> 32),
                UInt32(truncatingIfNeeded: blocks - 1) & 0xFFFF | control,
            ])
    }
}

func little(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// A completion queue entry.
struct Completion: Equatable {
    var result: UInt32
    var head: UInt16
    var queue: UInt16
    var identifier: UInt16
    /// Code type and code, without phase, More and Do Not Retry.
    var status: UInt16
}

/// One pair of queues as a driver keeps it.
final class QueuePair {
    let index: Int
    let submission: UInt64
    let completion: UInt64
    let entries: UInt32
    var tail: UInt32 = 0
    var head: UInt32 = 0
    var phase: UInt16 = 1
    var nextIdentifier: UInt16 = 0

    init(_ index: Int, submission: UInt64, completion: UInt64, entries: UInt32) {
        self.index = index
        self.submission = submission
        self.completion = completion
        self.entries = entries
    }
}

/// A controller behind a vfio-user server, with 4 MiB of host memory at 2 GiB, and a driver of it.
final class TestHost: DeviceHolder {
    static let base: UInt64 = 0x8000_0000
    static let size = 4 << 20
    let controller: NVMeController
    let client: VFIOUserClient
    let ram: SharedMemory
    let vectors: [EventNotifier]
    let pin: EventNotifier
    let log = Lines()
    private(set) var admin: QueuePair!
    private var free: UInt64
    private let far: Socket

    struct Timeout: Error {}

    /// - Parameter memory: another host's, which this one stands in for.
    init(
        _ stores: [BlockStore], pairs: Int = 4, usesMSIX: Bool = true, isEnabled: Bool = true,
        memory: SharedMemory? = nil
    ) throws {
        let configuration = try #require(NVMeConfiguration(serial: "TEST-1", namespaces: stores, queuePairs: pairs))
        var made: NVMeController?
        let log = log
        let endpoint = Endpoint(NVMeController.description(configuration)) { bus in
            let controller = NVMeController(bus, configuration) { log.add($0) }
            made = controller
            return controller
        }
        controller = try #require(made)
        let near: Socket
        (near, far) = try Socket.pair()
        let server = VFIOUserServer(
            listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: endpoint
        ) { log.add($0) }
        let socket = far
        WorkerThread("card") { server.serve(socket) }
        client = try VFIOUserClient(socket: near)
        ram = try memory ?? SharedMemory(create: "ram", size: Self.size)
        vectors = try (0...pairs).map { _ in try EventNotifier() }
        pin = try EventNotifier()
        free = Self.base + 0x10000
        try client.mapDMA(
            address: IOVirtualAddress(Self.base), length: UInt64(Self.size), descriptor: ram.descriptor)
        if usesMSIX {
            try client.setInterrupts(.msix, notifiers: vectors)
        } else {
            try client.setInterrupts(.intx, notifiers: [pin])
        }
        client.write(region: 7, offset: 4, width: 2, value: 6)
        if isEnabled { try enable() }
    }

    deinit {
        client.close()
        far.shutdown()
        controller.end()
    }

    // MARK: Memory

    /// Fresh pages.
    func pages(_ count: Int) -> UInt64 {
        defer { free += UInt64(count) * 4096 }
        return free
    }

    func store(_ bytes: [UInt8], at address: UInt64) {
        ram.mapping.bytes.baseAddress!.advanced(by: Int(address - Self.base))
            .copyMemory(from: bytes, byteCount: bytes.count)
    }

    func load(_ address: UInt64, _ count: Int) -> [UInt8] {
        let start = Int(address - Self.base)
        return Array(ram.mapping.bytes[start..<start + count])
    }

    func number(_ address: UInt64, _ count: Int) -> UInt64 {
        load(address, count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    // MARK: Registers

    func register(_ offset: UInt64, width: Int = 4) -> UInt64 { client.read(region: 0, offset: offset, width: width) }
    func setRegister(_ offset: UInt64, _ value: UInt64, width: Int = 4) {
        client.write(region: 0, offset: offset, width: width, value: value)
    }
    var status: UInt64 { register(NVMeRegister.status) }
    func ring(_ doorbell: Int, _ value: UInt32) {
        setRegister(NVMeRegister.doorbells + UInt64(doorbell) * 4, UInt64(value))
    }

    /// The configuration that a driver writes to enable.
    static let enabled: UInt64 = 0x0046_0001

    func enable(entries: UInt32 = 16) throws {
        admin = QueuePair(0, submission: Self.base, completion: Self.base + 0x4000, entries: entries)
        store([UInt8](repeating: 0, count: 4096), at: admin.completion)
        setRegister(NVMeRegister.adminQueueAttributes, UInt64(entries - 1) | UInt64(entries - 1) << 16)
        setRegister(NVMeRegister.adminSubmissionQueue, admin.submission, width: 8)
        setRegister(NVMeRegister.adminCompletionQueue, admin.completion, width: 8)
        setRegister(NVMeRegister.configuration, Self.enabled)
        guard eventually({ status & 1 == 1 }) else { throw Timeout() }
    }

    func disable() throws {
        setRegister(NVMeRegister.configuration, 0)
        guard eventually({ status & 1 == 0 }) else { throw Timeout() }
    }

    // MARK: Commands

    /// Puts an entry into a queue; its identifier.
    @discardableResult
    func push(_ entry: Entry, _ queue: QueuePair? = nil) -> UInt16 {
        let queue = queue ?? admin!
        let identifier = queue.nextIdentifier
        queue.nextIdentifier &+= 1
        store(entry.bytes(identifier), at: queue.submission + UInt64(queue.tail) * 64)
        queue.tail = (queue.tail + 1) % queue.entries
        return identifier
    }

    func ringTail(_ queue: QueuePair) { ring(2 * queue.index, queue.tail) }

    /// The next completion, if it is there.
    func poll(_ queue: QueuePair, ringsHead: Bool = true) -> Completion? {
        let address = queue.completion + UInt64(queue.head) * 16
        let word = UInt16(number(address + 14, 2))
        guard word & 1 == queue.phase else { return nil }
        queue.head += 1
        if queue.head == queue.entries {
            queue.head = 0
            queue.phase ^= 1
        }
        defer { if ringsHead { ring(2 * queue.index + 1, queue.head) } }
        return Completion(
            result: UInt32(number(address, 4)), head: UInt16(number(address + 8, 2)),
            queue: UInt16(number(address + 10, 2)), identifier: UInt16(number(address + 12, 2)),
            status: word >> 1 & 0x7FF)
    }

    func wait(_ queue: QueuePair) throws -> Completion {
        var completion: Completion?
        guard
            eventually({
                completion = poll(queue)
                return completion != nil
            })
        else { throw Timeout() }
        return completion!
    }

    /// Sends one command and waits for its end.
    @discardableResult
    func run(_ entry: Entry, _ queue: QueuePair? = nil) throws -> Completion {
        let queue = queue ?? admin!
        let identifier = push(entry, queue)
        ringTail(queue)
        let completion = try wait(queue)
        #expect(completion.identifier == identifier && completion.queue == UInt16(queue.index))
        return completion
    }

    /// Makes a pair of I/O queues.
    func makeQueues(_ index: Int, entries: UInt32 = 16, vector: Int? = nil) throws -> QueuePair {
        let queue = QueuePair(
            index, submission: pages(Int(entries * 64 + 4095) / 4096),
            completion: pages(Int(entries * 16 + 4095) / 4096), entries: entries)
        store([UInt8](repeating: 0, count: Int(entries) * 16), at: queue.completion)
        let size = UInt32(index) | (entries - 1) << 16
        let made = try run(
            Entry(opcode: 5, prp1: queue.completion, dwords: [size, 3 | UInt32(vector ?? index) << 16]))
        #expect(made.status == 0)
        let submission = try run(
            Entry(opcode: 1, prp1: queue.submission, dwords: [size, 1 | UInt32(index) << 16]))
        #expect(submission.status == 0)
        return queue
    }

    /// Reads a log page of so many bytes.
    func logPage(_ page: UInt32, _ count: Int, keepsEvents: Bool = false) throws -> [UInt8] {
        let address = pages(1)
        let word = page | UInt32(count / 4 - 1) << 16 | (keepsEvents ? 1 << 15 : 0)
        let done = try run(Entry(opcode: 2, namespace: .max, prp1: address, dwords: [word]))
        #expect(done.status == 0)
        return load(address, count)
    }
}

final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
}
