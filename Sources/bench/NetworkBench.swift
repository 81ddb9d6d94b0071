import Ethernet
import FoundationEssentials
import PCIe
import Synchronization
import VFIOUser
import Virtio
import Wire

/// Frames from one virtio network function to another through a switch.
///
/// The functions and the switch are in another process, which is this program again with the hidden option
/// `--network-peer` and the functions' sockets as descriptors 3 and 4: what adapter-card is made of. The drivers of both
/// are one loop here, over vfio-user with shared memory. Every frame is numbered, and each must arrive, in order.
enum NetworkBench {
    // MARK: The other process

    /// Serves both functions until the other end closes its sockets.
    static func serve() throws {
        endWithParent()
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        let fabric = SwitchFabric(ports: [], functions: ["a", "b"], loop: loop)
        let thread = WorkerThread("switch") { worker.run() }
        var served: [WorkerThread] = []
        for (index, port) in fabric.functions.enumerated() {
            let net = VirtioNet.joined(to: port, address: address(index))
            let endpoint = Endpoint(VirtioFunction.description(of: net)) {
                VirtioFunction($0, device: net, worker: worker) { print($0) }
            }
            let server = VFIOUserServer(
                listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: endpoint,
                log: { print($0) })
            let socket = Socket(adopting: Descriptor(adopting: Int32(3 + index)), kind: .stream)
            served.append(WorkerThread("function") { server.serve(socket) })
        }
        for server in served { server.join() }
        loop.stop()
        thread.join()
    }

    private static func address(_ index: Int) -> MACAddress { MACAddress(rawValue: 0x5254_00BE_0001 + UInt64(index)) }

    private static func octets(_ index: Int) -> [UInt8] { (0..<6).map { address(index)[$0] } }

    // MARK: This process

    /// One function's driver: all buffers in one piece of shared memory.
    private struct Node {
        static let base: UInt64 = 0x1_0000_0000
        static let places: UInt16 = VirtioNet.queueSize
        static let slot = 2048
        private static let receiveSlots = 1 << 20
        private static let transmitSlots = 3 << 20

        let driver: VirtioDriver
        let memory: SharedMemory
        var receive: DriverQueue
        var transmit: DriverQueue
        /// Of each receive buffer's number, its place.
        private var place = [Int](repeating: 0, count: Int(places))
        private var nextSlot = 0

        init(_ socket: Socket, packed: Bool) throws {
            let memory = try SharedMemory(create: "bench-net", size: 5 << 20)
            let client = try VFIOUserClient(socket: socket)
            try client.mapDMA(
                address: IOVirtualAddress(Self.base), length: UInt64(memory.size), descriptor: memory.descriptor)
            driver = try VirtioDriver(client)
            var wanted: VirtioFeatures = [.eventIndex, .indirectDescriptors, VirtioNetFeature.mergeableBuffers]
            if packed { wanted.insert(.packedRing) }
            try driver.negotiate(wanted)
            func queue(_ offset: Int) -> DriverQueue {
                DriverQueue(
                    memory.mapping, offset: offset, base: Self.base, size: Self.places, packed: packed, eventIndex: true
                )
            }
            receive = queue(0)
            transmit = queue(0x8_0000)
            receive.disableInterrupts()
            transmit.disableInterrupts()
            self.memory = memory
            driver.enable(0, receive)
            driver.enable(1, transmit)
            driver.start()
            for slot in 0..<Int(Self.places) { give(Self.receiveSlots + slot * Self.slot) }
            publishReceive()
        }

        private mutating func give(_ offset: Int) {
            guard let number = receive.add(single: .init(Self.base + UInt64(offset), Self.slot, writable: true)) else {
                return
            }
            place[Int(number)] = offset
        }

        private mutating func publishReceive() { if receive.publish() { driver.kick(0) } }

        /// Lays the same frame into every transmit buffer.
        func prepare(_ frame: [UInt8]) {
            for slot in 0..<Int(Self.places) {
                let start = Self.transmitSlots + slot * Self.slot
                for index in 0..<VirtioNetHeader.size { memory.mapping.bytes[start + index] = 0 }
                for (index, byte) in frame.enumerated() {
                    memory.mapping.bytes[start + VirtioNetHeader.size + index] = byte
                }
            }
        }

        /// Sends as many frames as there is room for, at most so many, numbered from `first` on.
        mutating func send(_ most: Int, first: UInt64, length: Int) -> Int {
            while transmit.take() != nil {}
            var count = 0
            while count < most, transmit.freeDescriptors > 0 {
                let start = Self.transmitSlots + nextSlot * Self.slot
                memory.mapping.bytes.storeBytes(
                    of: first &+ UInt64(count), toByteOffset: start + VirtioNetHeader.size + 16, as: UInt64.self)
                guard transmit.add(single: .init(Self.base + UInt64(start), VirtioNetHeader.size + length)) != nil
                else {
                    break
                }
                nextSlot = (nextSlot + 1) & (Int(Self.places) - 1)
                count += 1
            }
            if transmit.publish() { driver.kick(1) }
            return count
        }

        /// Takes what has arrived and gives the buffers back; how many, numbered from `first` on.
        mutating func take(first: UInt64, length: Int) throws -> Int {
            var count = 0
            while let answer = receive.take() {
                let start = place[Int(answer.identifier)]
                let number = memory.mapping.bytes.loadUnaligned(
                    fromByteOffset: start + VirtioNetHeader.size + 16, as: UInt64.self)
                guard number == first &+ UInt64(count), Int(answer.written) == VirtioNetHeader.size + length else {
                    throw BenchPeerError.gone("frame \(number) in place of \(first &+ UInt64(count))")
                }
                give(start)
                count += 1
            }
            if count > 0 { publishReceive() }
            return count
        }
    }

    /// Frames under way: fewer than the rings' places, so that none is ever lost for want of a buffer.
    private static let window = 960

    /// Frames a second of `length` bytes, over so many.
    private static func run(_ nodes: inout [Node], length: Int, count: Int) throws -> Double {
        var sent = 0
        var received = 0
        let start = MonotonicTime.now
        var lastProgress = start
        while received < count {
            let more = min(count - sent, window - (sent - received))
            if more >= 32 || sent + more == count, more > 0 {
                sent += nodes[0].send(more, first: UInt64(sent), length: length)
            }
            let came = try nodes[1].take(first: UInt64(received), length: length)
            received += came
            if came > 0 {
                lastProgress = .now
            } else if MonotonicTime.now.since(lastProgress) > .seconds(5) {
                throw BenchPeerError.gone("frame \(received) did not come")
            }
        }
        return Double(count) / (Double(MonotonicTime.now.nanoseconds - start.nanoseconds) / 1e9)
    }

    /// Bytes a second of memcpy in pieces of `length`, to and from memory of the rings' size.
    private static func copyRate(_ length: Int) -> Double {
        let slots = 256
        var from = [UInt8](repeating: 1, count: slots * 2048)
        var to = [UInt8](repeating: 0, count: slots * 2048)
        let rounds = 2_000
        let start = MonotonicTime.now
        from.withUnsafeMutableBytes { from in
            to.withUnsafeMutableBytes { to in
                for round in 0..<rounds {
                    from[round & 1023] &+= 1
                    for slot in 0..<slots {
                        let range = slot * 2048..<slot * 2048 + length
                        UnsafeMutableRawBufferPointer(rebasing: to[range]).copyMemory(
                            from: UnsafeRawBufferPointer(rebasing: from[range]))
                    }
                }
            }
        }
        return Double(rounds * slots * length) / (Double(MonotonicTime.now.nanoseconds - start.nanoseconds) / 1e9)
    }

    static func measure() throws -> [BenchRow] {
        var rows: [BenchRow] = []
        for packed in [false, true] {
            let (nearA, farA) = try Socket.pair()
            let (nearB, farB) = try Socket.pair()
            let null = try Descriptor.open("/dev/null", flags: 2)
            let child = try ChildProcess(
                "/proc/self/exe", ["--network-peer"], environment: [],
                descriptors: [null, null, null, farA.descriptor, farB.descriptor])
            defer {
                nearA.shutdown()
                nearB.shutdown()
                _ = child.wait()
            }
            var nodes = [try Node(nearA, packed: packed), try Node(nearB, packed: packed)]
            for (length, count) in [(64, 100_000), (1500, 50_000)] {
                let header = octets(1) + octets(0) + [0x88, 0xB5]
                nodes[0].prepare(header + [UInt8](repeating: 0x5A, count: length - header.count))
                _ = try run(&nodes, length: length, count: 20_000)
                var best = 0.0
                for _ in 0..<11 { best = max(best, try run(&nodes, length: length, count: count)) }
                let copies = copyRate(length)
                let kind = packed ? "packed" : "split"
                rows.append(
                    length == 64
                        ? .bounded(
                            "net function to function, 64 B, \(kind)", best / 1e6, "M/s",
                            reference: "memcpy of frames of 64 B", copies / 64 / 1e6, .higher, than: 1)
                        : .bounded(
                            "net function to function, 1500 B, \(kind)", best * 1500 * 8 / 1e9, "Gbit/s",
                            reference: "memcpy of frames of 1500 B", copies * 8 / 1e9, .higher, than: 10))
            }
        }
        return rows
    }
}
