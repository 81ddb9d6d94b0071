public import VFIOUserFuzz
internal import PCIe
internal import VFIOUser
internal import Wire

/// Random drivers of the devices' rings and queues: registers, doorbells and memory of random content, right in most
/// places. Wrong is a trap, a hang, a link that ends, a device that no reset brings back, memory or descriptors that
/// grow.
public enum RingFuzz {
    /// What is fed.
    public enum Devices: String, CaseIterable, Sendable { case virtio, nvme }

    /// Register accesses, doorbells and requests on one device; then comes a fresh one, on a link of its own.
    static let linkLength = 20_000

    /// Makes so many accesses and requests. Throws at the first thing wrong.
    public static func run(
        _ devices: Devices, messages: Int, seed: UInt64, log: (String) -> Void = { _ in }
    ) throws -> FuzzReport {
        // What a process opens once (the client's watcher) is open before anything is counted.
        try NVMeFuzzLink(SeededRandom(seed)).run(0) { _ in }
        return try FuzzReport.measure(devices.rawValue, seed: seed) { report in
            let watchdog = Watchdog("\(devices.rawValue), seed \(seed)")
            defer { watchdog.end() }
            var random = SeededRandom(seed)
            var told = 0
            while report.messages < messages {
                report.links += 1
                let limit = min(linkLength, messages - report.messages)
                let before = report.messages
                do {
                    switch devices {
                    case .virtio:
                        let link = try VirtioFuzzLink(report.links, random)
                        defer { random = link.random }
                        try link.run(limit) {
                            report.messages = before + $0; watchdog.progress(before + $0)
                        }
                    case .nvme:
                        let link = try NVMeFuzzLink(random)
                        defer { random = link.random }
                        try link.run(limit) {
                            report.messages = before + $0; watchdog.progress(before + $0)
                        }
                    }
                } catch let failure as FuzzFailure {
                    throw FuzzFailure(
                        description: "seed \(seed), link \(report.links), message \(report.messages): \(failure)")
                }
                // A device's buffers are large: the allocator keeps some twenty devices' before it has enough.
                let early = max(messages / 10, min(messages / 2, 20 * linkLength))
                if report.resident.early == 0, report.messages >= early {
                    report.resident.early = ProcessState.resident
                }
                if report.messages * 10 / messages > told {
                    told = report.messages * 10 / messages
                    log("\(report.messages) messages, \(ProcessState.resident) KiB")
                }
            }
        }
    }
}

/// A device behind a vfio-user server, 4 MiB of memory that it may reach, and a client.
final class FuzzTarget {
    static let base: UInt64 = 0x8000_0000
    static let size = 4 << 20

    let client: VFIOUserClient
    let memory: SharedMemory
    private let far: Socket
    private let thread: WorkerThread

    init(_ endpoint: Endpoint) throws {
        memory = try SharedMemory(create: "ring-fuzz", size: Self.size)
        let (near, far) = try Socket.pair()
        self.far = far
        let server = VFIOUserServer(
            listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: endpoint
        ) { _ in }
        thread = WorkerThread("fuzz-card") { server.serve(far) }
        client = try VFIOUserClient(socket: near, timeout: .seconds(60))
        try client.mapDMA(
            address: IOVirtualAddress(Self.base), length: UInt64(Self.size), descriptor: memory.descriptor)
        command(6)
    }

    /// Memory space and bus mastering.
    func command(_ value: UInt64) {
        client.write(region: Endpoint.configurationRegion, offset: 4, width: 2, value: value)
    }

    func store(_ value: UInt64, _ offset: Int) {
        memory.mapping.bytes.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    }

    /// Ends the link and waits for its thread.
    func end() {
        client.close()
        far.shutdown()
        thread.join()
    }

    /// A bus address: mostly in the memory, now and then at an edge or anywhere.
    static func address(_ random: inout SeededRandom) -> UInt64 {
        switch random.below(16) {
        case 0: random.word()
        case 1: random.next()
        case 2: base &+ UInt64(size) &- UInt64(random.below(8192))
        case 3...8: base &+ UInt64(random.below(size / 4096)) << 12
        default: base &+ UInt64(random.below(size))
        }
    }
}
