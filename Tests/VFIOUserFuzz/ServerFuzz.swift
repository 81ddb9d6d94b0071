internal import Synchronization
internal import VFIOUser
internal import Wire

/// Random clients of one server and its device.
public enum ServerFuzz {
    /// Commands sent before their replies are read: so few that they fit the socket's buffer, for the server stops to
    /// read while nobody takes its replies.
    static let batch = 16
    /// Messages on one link, if nothing ends it.
    private static let linkLength = 3000

    /// Sends so many messages and checks that each command gets the one reply it wants, that the link ends where it
    /// must and nowhere else, and that nothing leaks. Throws at the first thing wrong.
    public static func run(messages: Int, seed: UInt64, log: (String) -> Void = { _ in }) throws -> FuzzReport {
        try FuzzReport.measure("server", seed: seed) { try work(messages, seed, &$0, log) }
    }

    private static func work(_ messages: Int, _ seed: UInt64, _ report: inout FuzzReport, _ log: (String) -> Void)
        throws
    {
        let watchdog = Watchdog("server, seed \(seed)")
        defer { watchdog.end() }
        let device = try FuzzDevice()
        let thread = device.runThread()
        defer {
            device.stop()
            thread.join()
        }
        let server = VFIOUserServer(
            listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: device, log: { _ in })
        var generator = try CommandGenerator(SeededRandom(seed))
        var told = 0
        while report.messages < messages {
            report.links += 1
            let (near, far) = try Socket.pair()
            let worker = WorkerThread("fuzz-server") { server.serve(far) }
            var link = FuzzLink(near, seed: seed)
            do {
                try link.run(&generator, limit: min(linkLength, messages - report.messages))
            } catch let failure as FuzzFailure {
                throw FuzzFailure(
                    description:
                        "seed \(seed), link \(report.links), message \(report.messages + link.sent): \(failure)")
            }
            near.shutdown()
            worker.join()
            report.messages += link.sent
            watchdog.progress(report.messages)
            guard device.dma.ranges.isEmpty else {
                throw FuzzFailure(description: "seed \(seed), link \(report.links): DMA maps outlive their client")
            }
            if report.resident.early == 0, report.messages >= messages / 10 {
                report.resident.early = ProcessState.resident
            }
            if report.messages * 10 / messages > told {
                told = report.messages * 10 / messages
                log("\(report.messages) messages, \(ProcessState.resident) KiB, \(ProcessState.openDescriptors) open")
            }
        }
    }
}

/// One client's life.
private struct FuzzLink: ~Copyable {
    private let socket: Socket
    private let seed: UInt64
    private var reader: MessageReader
    /// Replies that must come, in order.
    private var awaited: [(id: UInt16, command: VFIOUserCommand)] = []
    private var next = 0
    /// Something was sent that ends the link.
    private var mayEnd = false
    private var hasEnded = false
    private(set) var sent = 0

    init(_ socket: Socket, seed: UInt64) {
        self.socket = socket
        self.seed = seed
        reader = MessageReader(socket: socket, framing: .vfioUser(maximum: 1 << 21))
    }

    mutating func run(_ generator: inout CommandGenerator, limit: Int) throws {
        let (payload, isRight) = generator.version()
        try send(.version, id: 1, payload, [])
        mayEnd = !isRight
        try collect(&generator)
        mayEnd = false
        while !hasEnded, sent < limit {
            try sendBatch(&generator)
            try collect(&generator)
        }
    }

    private mutating func sendBatch(_ generator: inout CommandGenerator) throws {
        var message: [UInt8] = []
        for _ in 0..<ServerFuzz.batch {
            let (command, payload, descriptors) = generator.next()
            let id = UInt16(truncatingIfNeeded: generator.random.next())
            var header = MessageHeader.command(command, id: id, payload: payload.count)
            if generator.random.once(in: 20) { header.flags |= MessageHeader.noReply }
            if generator.random.once(in: 2000) {
                // A type that is none is refused, a reply that answers nothing and a size that cannot be end the link.
                header.flags = header.flags & ~15 | UInt32(1 + generator.random.below(15))
                if generator.random.once(in: 2) { header.messageSize = UInt32(generator.random.below(16)) }
                if header.isReply || header.messageSize < 16 { mayEnd = true }
            }
            message.removeAll(keepingCapacity: true)
            message.put(header, payload)
            sent += 1
            if header.wantsReply, header.messageSize >= 16 { awaited.append((id, command)) }
            guard deliver(message, descriptors) else { return }
            if mayEnd { return }
        }
    }

    private mutating func send(
        _ command: VFIOUserCommand, id: UInt16, _ payload: [UInt8], _ descriptors: [Descriptor]
    ) throws {
        var message: [UInt8] = []
        message.put(.command(command, id: id, payload: payload.count), payload)
        sent += 1
        awaited.append((id, command))
        _ = deliver(message, descriptors)
    }

    private mutating func deliver(_ message: [UInt8], _ descriptors: [Descriptor]) -> Bool {
        (try? socket.send(message, descriptors: descriptors)) != nil
    }

    /// Reads every reply that must come, and answers the server's DMA commands on the way.
    private mutating func collect(_ generator: inout CommandGenerator) throws {
        while next < awaited.count || mayEnd {
            guard let message = try receive() else {
                guard mayEnd else { throw FuzzFailure(description: "the server closed a link that was well") }
                hasEnded = true
                break
            }
            if message.header.isCommand {
                let (answer, ends) = generator.answer(message.header, message.payload)
                sent += 1
                mayEnd = mayEnd || ends
                _ = deliver(answer, [])
                continue
            }
            try check(message.header, message.payload, message.descriptors, &generator)
        }
        awaited.removeAll(keepingCapacity: true)
        next = 0
    }

    private struct Incoming {
        var header: MessageHeader
        /// Of commands and of VERSION's reply.
        var payload: [UInt8]
        var descriptors: [Descriptor]
    }

    /// The next message, nil at the end of the link.
    private mutating func receive() throws -> Incoming? {
        do throws(WireError) {
            return try reader.next(until: .after(.seconds(30))) { message, descriptors -> Incoming in
                let header = MessageHeader(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(message)))
                let keeps = header.isCommand || header.command == .version
                return Incoming(
                    header: header, payload: keeps ? [UInt8](message[16...]) : [], descriptors: descriptors)
            }
        } catch {
            guard case .closed = error else {
                throw FuzzFailure(
                    description: "\(error): \(awaited.count - next) replies are missing, the link may end: \(mayEnd)")
            }
            return nil
        }
    }

    private mutating func check(
        _ header: MessageHeader, _ payload: [UInt8], _ passed: [Descriptor], _ generator: inout CommandGenerator
    ) throws {
        guard next < awaited.count, awaited[next].id == header.id, awaited[next].command == header.command else {
            guard mayEnd else {
                throw FuzzFailure(description: "a reply \(header.id) to \(header.command) that was not awaited")
            }
            return
        }
        next += 1
        if header.refusal != nil, header.messageSize != 16 {
            throw FuzzFailure(description: "a refusal of \(header.command) with a payload")
        }
        guard header.command == .version else { return }
        // The version that was taken although it was random is as good.
        if header.refusal == nil { mayEnd = false }
        guard header.refusal == nil, let agreed = try? Version(payload.span.bytes),
            agreed.capabilities.twinSocket == true, let twin = passed.first
        else { return }
        answerDMA(on: Socket(adopting: twin, kind: .stream), generator.random.next())
    }

    /// Answers the server's commands on the twin socket until it ends, rightly: what is wrong there ends the link at a
    /// moment that the commands' thread cannot foresee.
    private func answerDMA(on socket: Socket, _ seed: UInt64) {
        WorkerThread("fuzz-twin") {
            var reader = MessageReader(socket: socket, framing: .vfioUser(maximum: 1 << 21))
            var random = SeededRandom(seed)
            while true {
                var answer: [UInt8] = []
                let got = try? reader.next { message, _ in
                    let header = MessageHeader(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(message)))
                    guard message.count >= 32, !random.once(in: 10) else {
                        answer.put(header.refusal(.badAddress), [])
                        return true
                    }
                    var payload = [UInt8](message[16..<32])
                    if header.command == .dmaRead {
                        let count = message.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
                        payload += [UInt8](repeating: 3, count: Int(min(count, 1 << 20)))
                    }
                    answer.put(header.reply(payload: payload.count), payload)
                    return true
                }
                guard got != nil, got! == true, (try? socket.send(answer, descriptors: [])) != nil else { return }
            }
        }
    }
}
