internal import Synchronization
internal import VFIOUser
internal import Wire

/// Random servers of one client after another.
public enum ClientFuzz {
    /// Calls on one link, if nothing ends it.
    private static let calls = 400

    /// Lets clients hear so many messages from their servers and checks that none hangs, that each tells its owner at
    /// most once that its server is gone, and that nothing leaks. Throws at the first thing wrong.
    public static func run(messages: Int, seed: UInt64, log: (String) -> Void = { _ in }) throws -> FuzzReport {
        // The thread that watches links is the process's: it comes with the first client.
        _ = try? VFIOUserClient(socket: Socket.pair().0, timeout: .milliseconds(1))
        return try FuzzReport.measure("client", seed: seed) { try work(messages, seed, &$0, log) }
    }

    private static func work(_ messages: Int, _ seed: UInt64, _ report: inout FuzzReport, _ log: (String) -> Void)
        throws
    {
        let watchdog = Watchdog("client, seed \(seed)")
        defer { watchdog.end() }
        var random = SeededRandom(seed)
        let memory = FuzzMemory()
        let ram = try SharedMemory(create: "fuzz", size: 16384)
        var told = 0
        while report.messages < messages {
            report.links += 1
            let (near, far) = try Socket.pair()
            let server = FuzzServer(far, SeededRandom(random.next()))
            let worker = WorkerThread("fuzz-server") { server.serve() }
            let gone = Count()
            do {
                let client = try VFIOUserClient(
                    socket: near, memory: random.once(in: 3) ? nil : memory, ioEvents: !random.once(in: 3),
                    timeout: .seconds(20), onGone: { _ in gone.add() })
                for _ in 0..<calls where !client.isGone { call(client, ram, &random) }
                if client.isGone {
                    guard client.read(region: 0, offset: 0, width: 4) == 0xFFFF_FFFF else {
                        throw FuzzFailure(description: "seed \(seed), link \(report.links): a dead client reads values")
                    }
                }
                if client.goneReason?.contains("no reply") == true {
                    throw FuzzFailure(
                        description: "seed \(seed), link \(report.links): a client waits for what was sent")
                }
            } catch is VFIOUserError {}
            near.shutdown()
            worker.join()
            guard gone.value <= 1 else {
                throw FuzzFailure(description: "seed \(seed), link \(report.links): gone \(gone.value) times")
            }
            report.messages += server.sent
            watchdog.progress(report.messages)
            if report.resident.early == 0, report.messages >= messages / 10 {
                report.resident.early = ProcessState.resident
            }
            if report.messages * 10 / messages > told {
                told = report.messages * 10 / messages
                log("\(report.messages) messages, \(ProcessState.resident) KiB, \(ProcessState.openDescriptors) open")
            }
        }
    }

    /// One thing that an owner asks of its client.
    private static func call(_ client: VFIOUserClient, _ ram: SharedMemory, _ random: inout SeededRandom) {
        let region = UInt32(random.below(6))
        let offset = random.once(in: 10) ? random.word() : UInt64(random.below(64))
        let address = IOVirtualAddress(UInt64(random.below(8)) << 12)
        let kind = InterruptTable.Kind(rawValue: UInt32(random.below(5))) ?? .msix
        switch random.below(20) {
        case 0..<4: _ = client.read(region: region, offset: offset, width: 1 << random.below(4))
        case 4, 5: client.write(region: region, offset: offset, width: 1 << random.below(4), value: 2)
        case 6: client.post(region: region, offset: offset, width: 4, value: 1)
        case 7:
            var bytes = [UInt8](repeating: 0, count: 1 + random.below(300))
            var span = bytes.mutableSpan
            var raw = span.mutableBytes
            try? client.read(region: region, offset: offset, into: &raw)
        case 8:
            let writes = (0..<random.below(6)).map {
                RegionWrite(region: region, offset: offset &+ UInt64($0) * 4, width: 4, value: 1)
            }
            if random.once(in: 2) { client.post(writes) } else { try? client.write(writes) }
        case 9:
            try? client.mapDMA(address: address, length: 4096, descriptor: random.once(in: 2) ? ram.descriptor : nil)
        case 10: try? client.unmapDMA(address: address, length: 4096)
        case 11:
            let notifiers = (0..<(1 + random.below(3))).compactMap { _ in try? EventNotifier() }
            try? client.setInterrupts(kind, notifiers: notifiers, for: random.once(in: 2) ? .trigger : .mask)
        case 12: try? client.act(.unmask, on: kind, which: [true, false])
        case 13: try? client.disableInterrupts(kind)
        case 14: _ = client.map(region: region, offset: UInt64(random.below(4)) << 12, count: 4096)
        case 15: _ = client.hasFeature(.migration)
        case 16:
            _ = try? client.migrationFlags()
            _ = try? client.migrationState()
            try? client.setMigrationState(.stopCopy)
        case 17: _ = random.once(in: 2) ? try? client.readMigrationData(limit: 1 << 16) : nil
        case 18: try? client.writeMigrationData([1, 2, 3])
        default:
            _ = try? client.startDMALogging(ranges: [0...4095])
            _ = try? client.dirtyPages(address: address, length: 1 << 20)
            try? client.stopDMALogging()
        }
    }
}

/// A server that answers at random.
private final class FuzzServer: @unchecked Sendable {
    private let socket: Socket
    private var generator: ReplyGenerator?
    /// Messages sent; read when `serve` has ended.
    private(set) var sent = 0

    init(_ socket: Socket, _ random: SeededRandom) {
        self.socket = socket
        generator = try? ReplyGenerator(random)
    }

    func serve() {
        defer { socket.shutdown() }
        guard var generator else { return }
        self.generator = nil
        var reader = MessageReader(socket: socket, framing: .vfioUser(maximum: 1 << 21))
        var ends = false
        while !ends {
            var header = MessageHeader(id: 0, command: .version, messageSize: 0, flags: 0)
            var payload: [UInt8] = []
            let got = try? reader.next { message, _ in
                header = MessageHeader(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(message)))
                payload = [UInt8](message[16...])
                return true
            }
            guard got != nil, got! == true else { break }
            // An answer to a command of this server's.
            guard header.isCommand else { continue }
            guard header.wantsReply else { continue }
            ends = !answer(header, payload, &generator)
        }
        generator.twin?.shutdown()
    }

    private func answer(_ request: MessageHeader, _ payload: [UInt8], _ generator: inout ReplyGenerator) -> Bool {
        var message: [UInt8] = []
        if generator.random.once(in: 6), request.command != .version {
            let command = generator.command()
            sent += 1
            if let twin = generator.twin {
                guard (try? twin.send(command, descriptors: [])) != nil else { return false }
                drain(twin)
            } else {
                message += command
            }
        }
        var (reply, descriptors) = generator.reply(request, payload)
        var header = request.reply(payload: reply.count)
        var goesOn = true
        switch generator.random.below(2400) {
        case 0..<120 where request.command != .version:
            header = request.refusal(ErrorNumber(rawValue: UInt32(generator.random.below(100))))
            reply = []
        case 120: header.id &+= 1
        case 121: header.command = VFIOUserCommand(rawValue: UInt16(generator.random.below(20)))
        case 122:
            header.flags ^= 1 << UInt32(generator.random.below(6))
            // It became a command: the reply never comes.
            if header.isCommand { goesOn = false }
        case 123:
            header.messageSize = generator.random.word32()
            goesOn = false
        default: break
        }
        if header.flags & MessageHeader.errorFlag != 0, header.messageSize == 16 { reply = [] }
        message.put(header, reply)
        sent += 1
        if generator.random.once(in: 50), generator.twin == nil, request.command != .version {
            // Unasked, behind the reply.
            message += generator.command()
            sent += 1
        }
        return (try? socket.send(message, descriptors: descriptors)) != nil && goesOn
    }

    /// Takes whatever the client answered on the twin socket.
    private func drain(_ twin: Socket) {
        var room = [UInt8](repeating: 0, count: 4096)
        var descriptors: [Descriptor] = []
        room.withUnsafeMutableBytes { raw in
            while let got = try? twin.receive(into: raw, descriptors: &descriptors, waiting: false),
                got != .nothing, got != .end
            {}
        }
    }
}

/// A page of memory at address 0.
private final class FuzzMemory: ClientMemory {
    private let bytes = Mutex([UInt8](repeating: 0, count: 4096))

    func read(_ address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        guard address.rawValue <= 4096, bytes.byteCount <= 4096 - Int(address.rawValue) else { throw .badAddress }
        for place in 0..<bytes.byteCount {
            let byte = self.bytes.withLock { $0[Int(address.rawValue) + place] }
            bytes.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
        }
    }

    func write(_ address: IOVirtualAddress, from bytes: RawSpan) throws(ErrorNumber) {
        guard address.rawValue <= 4096, bytes.byteCount <= 4096 - Int(address.rawValue) else { throw .badAddress }
        for place in 0..<bytes.byteCount {
            let byte = bytes.uint8(at: place)
            self.bytes.withLock { $0[Int(address.rawValue) + place] = byte }
        }
    }
}

private final class Count: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .acquiring) }
    func add() { count.add(1, ordering: .acquiringAndReleasing) }
}
