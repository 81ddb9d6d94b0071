import Ethernet
import Synchronization
import Testing
import VFIOUser
import Virtio
import Wire

/// A network function with a driver of our own: buffers of 2 KiB (or another size) for each place of a queue.
final class NetNode {
    static let header = VirtioNetHeader.size

    let rig: FunctionRig
    let net: VirtioNet
    let bufferSize: Int
    var receive: DriverQueue
    var transmit: DriverQueue
    var control: DriverQueue
    private let receiveBase = 0x10_0000
    private let transmitBase = 0x20_0000
    private var addresses: [Int: Int] = [:]

    init(
        _ net: VirtioNet, worker: VirtioWorker, _ kind: RingKind, without: VirtioFeatures = [], bufferSize: Int = 2048
    ) throws {
        self.net = net
        self.bufferSize = bufferSize
        rig = try FunctionRig(net, memory: try Memory(size: 4 << 20), joined: worker)
        let agreed = rig.driver.offered.subtracting(.transport).union(kind.features).subtracting(without)
        try rig.driver.negotiate(agreed)
        receive = rig.queue(0, size: 64, kind)
        transmit = rig.queue(0x1_0000, size: 64, kind)
        control = rig.queue(0x2_0000, size: 16, kind)
        rig.driver.enable(0, receive)
        rig.driver.enable(1, transmit)
        rig.driver.enable(2 * net.queuePairs, control)
        rig.driver.start()
    }

    /// Gives the device every receive buffer that it does not have.
    func post(_ count: Int = .max) {
        var given = 0
        while given < count, receive.freeDescriptors > 0 {
            let place = receiveBase + (64 - receive.freeDescriptors) * bufferSize
            guard
                let number = receive.add(
                    .init(Memory.base + UInt64(place), bufferSize, writable: true))
            else { break }
            addresses[Int(number)] = place
            given += 1
        }
        if receive.publish() { rig.driver.kick(0) }
    }

    /// Sends one frame; in two segments, header and frame, or in one.
    func send(_ frame: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: 12), inOne: Bool = false) {
        while transmit.freeDescriptors < 2 { _ = transmit.awaitAnswer() }
        let place = transmitBase + (transmit.freeDescriptors % 64) * 4096
        rig.memory.set(header + frame, place)
        let base = Memory.base + UInt64(place)
        if inOne {
            _ = transmit.added(.init(base, 12 + frame.count))
        } else {
            _ = transmit.added(.init(base, 12), .init(base + 12, frame.count))
        }
        if transmit.publish() { rig.driver.kick(1) }
        _ = transmit.awaitAnswer()
    }

    /// The next frame with its header, waited for; nil when none comes within `patience`.
    func next() -> (header: [UInt8], frame: [UInt8])? {
        guard let first = receive.awaitAnswer() else { return nil }
        var bytes = rig.memory.bytes(addresses[Int(first.identifier)] ?? 0, Int(first.written))
        let buffers = Int(bytes[10]) | Int(bytes[11]) << 8
        for _ in 1..<max(1, buffers) {
            guard let more = receive.take() else { return nil }
            bytes += rig.memory.bytes(addresses[Int(more.identifier)] ?? 0, Int(more.written))
        }
        return (Array(bytes[..<12]), Array(bytes[12...]))
    }

    /// One command of the control queue; the device's answer.
    func command(_ bytes: [UInt8]) -> UInt8? {
        let place = 0x30_0000
        rig.memory.set(bytes, place)
        rig.memory.store(UInt8(0xEE), place + 4096)
        _ = control.added(
            .init(Memory.base + UInt64(place), bytes.count),
            .init(Memory.base + UInt64(place) + 4096, 1, writable: true))
        if control.publish() { rig.driver.kick(2 * net.queuePairs) }
        return control.awaitAnswer() == nil ? nil : rig.memory.load(UInt8.self, place + 4096)
    }
}

/// Two functions and a link on one switch.
final class NetRig {
    let loop: EventLoop
    let worker: VirtioWorker
    let fabric: SwitchFabric
    let nodes: [NetNode]
    private let thread: WorkerThread

    static let addresses = [MACAddress(rawValue: 0x5254_0000_0001), MACAddress(rawValue: 0x5254_0000_0002)]

    init(
        _ kind: RingKind, without: VirtioFeatures = [], bufferSize: Int = 2048, queuePairs: Int = 1, posts: Bool = true
    ) throws {
        loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        self.worker = worker
        fabric = SwitchFabric(ports: ["eth"], functions: ["f0", "f1"], loop: loop)
        thread = WorkerThread("switch") { worker.run() }
        nodes = try zip(fabric.functions, Self.addresses).map { port, address in
            try NetNode(
                VirtioNet.joined(to: port, address: address, queuePairs: queuePairs), worker: worker, kind,
                without: without, bufferSize: bufferSize)
        }
        let fabric = fabric
        let nodes = nodes
        guard eventually({ fabric.functions.allSatisfy(\.isUp) }) else { throw NotUp() }
        if posts { for node in nodes { node.post() } }
    }

    struct NotUp: Error {}

    deinit {
        fabric.stop()
        loop.stop()
        thread.join()
    }

    /// From one node to the other.
    static func frame(_ from: Int, _ to: Int, _ payload: [UInt8], type: UInt16 = 0x88B5) -> [UInt8] {
        (0..<6).map { addresses[to][$0] } + (0..<6).map { addresses[from][$0] }
            + [UInt8(type >> 8), UInt8(truncatingIfNeeded: type)] + payload
    }
}
