// One debugger's conversation: bytes in, bytes out, the target in between.
//
// Spec: Debugging with GDB, appendix "GDB Remote Serial Protocol". All-stop mode: either the debugger waits for a stop
// reply or the target stands still.
// Model: no socket in here. Whoever owns the socket feeds `receive`, sends what comes back, and calls `targetStopped`
// when the target has stopped. The surprise: a debugger may change its mind about acknowledgements in the middle, and
// the answer to that very packet is still acknowledged.

/// A session with one debugger. Used from one thread.
public final class RemoteSession {
    /// What the owner of the socket is to do.
    public struct Output: Equatable {
        public var bytes: [UInt8] = []
        /// Set: send `bytes`, then close; why, unless the debugger asked for it.
        public var isClosed = false
        public var reason: String?
    }

    /// Numbers in E replies, those of errno(3).
    enum ErrorCode: UInt8 {
        case noThread = 3
        case badAddress = 14
        case busy = 16
        case invalid = 22
        case noSpace = 28
    }

    private let target: any DebugTarget
    private var decoder = PacketDecoder()
    private var acknowledges = true
    /// The target runs: the next packet out is a stop reply.
    public private(set) var isRunning = false
    /// The debugger has detached or killed; the owner lets it go.
    private var isClosed = false
    /// Thread of `Hg`, and of `Hc` (`nil`: every thread), from 0.
    private var accessThread = 0
    private var resumeThread: Int?
    private var isMemoryPhysical = false
    /// Whether the debugger knows the words that say which kind of breakpoint was hit.
    private var explainsBreakpoints = (software: false, hardware: false)
    private var lastStop: [UInt8]
    /// The last packet, for a retransmission.
    private var lastPacket: [UInt8] = []
    private lazy var description = Array(TargetDescription.xml(target.registers).utf8)

    /// A session with a target that is stopped.
    public init(target: any DebugTarget) {
        self.target = target
        lastStop = Array("S02".utf8)
        lastStop = stopReply(.interrupted, thread: 0)
    }

    /// Takes bytes from the debugger; what to send it.
    public func receive(_ bytes: some Sequence<UInt8>) -> Output {
        var output = Output()
        for byte in bytes where !isClosed {
            guard let item = decoder.receive(byte) else { continue }
            handle(item, &output)
        }
        return output
    }

    /// The target has stopped, on `thread` (from 0); what to send.
    public func targetStopped(_ reason: StopReason, thread: Int) -> Output {
        var output = Output()
        guard !isClosed else { return output }
        lastStop = stopReply(reason, thread: thread)
        if case .ended = reason {
            isClosed = true
            output.isClosed = true
            // Only a debugger that waits for a stop may be told; another sees the end of the connection.
            if isRunning { send(lastStop, &output) }
            return output
        }
        guard isRunning else { return output }
        isRunning = false
        accessThread = thread
        send(lastStop, &output)
        return output
    }

    // MARK: packets

    private func handle(_ item: PacketDecoder.Item, _ output: inout Output) {
        switch item {
        case .packet(let payload):
            if acknowledges { output.bytes.append(UInt8(ascii: "+")) }
            if let reply = reply(to: RemoteCommand(payload), &output) { send(reply, &output) }
        case .oversize:
            if acknowledges { output.bytes.append(UInt8(ascii: "+")) }
            send(error(.invalid), &output)
        case .corrupt:
            guard acknowledges else {
                // Without acknowledgements nobody can ask for it again.
                isClosed = true
                output.isClosed = true
                output.reason = "a packet with a wrong checksum"
                return
            }
            output.bytes.append(UInt8(ascii: "-"))
        case .retransmission: if acknowledges, !isRunning { output.bytes += lastPacket }
        case .acknowledgment: break
        case .interrupt: if isRunning { target.interrupt() }
        }
    }

    private func send(_ payload: [UInt8], _ output: inout Output) {
        lastPacket = Packet.frame(payload)
        output.bytes += lastPacket
    }

    private func error(_ code: ErrorCode) -> [UInt8] { Array("E".utf8) + Hex.bytes([code.rawValue]) }

    private static let ok = Array("OK".utf8)

    /// The answer to a command; `nil`: none now.
    private func reply(to command: RemoteCommand, _ output: inout Output) -> [UInt8]? {
        if isRunning {
            // All-stop: a debugger that waits for a stop may leave, and nothing else.
            guard command == .kill || command == .detach else { return error(.busy) }
        }
        switch command {
        case .supported(let features):
            explainsBreakpoints = (features.contains("swbreak+"), features.contains("hwbreak+"))
            return Array(
                ("PacketSize=\(String(Packet.limit, radix: 16));vContSupported+;qXfer:features:read+;swbreak+;hwbreak+;"
                    + "QStartNoAckMode+").utf8)
        case .startNoAckMode:
            acknowledges = false
            return Self.ok
        case .haltReason: return lastStop
        case .readRegisters, .writeRegisters, .readRegister, .writeRegister: return registerReply(command)
        case .readMemory, .writeMemory, .isMemoryPhysical, .setMemoryPhysical: return memoryReply(command)
        case .insertBreakpoint(let kind, let address, let size):
            return reply(target.insertBreakpoint(kind, address, size: size, thread: accessThread))
        case .removeBreakpoint(let kind, let address, let size):
            return reply(target.removeBreakpoint(kind, address, size: size))
        case .resumeActions: return Array("vCont;c;C;s;S".utf8)
        case .resume(let actions): return resume(plan(actions))
        case .resumeCurrent(let isStep, let address): return resumeCurrent(isStep, address)
        case .firstThreads, .moreThreads, .threadDescription, .currentThread, .isThreadAlive, .selectForAccess,
            .selectForResume:
            return threadReply(command)
        // We did not start the program, so a debugger that leaves detaches instead of killing.
        case .isAttached: return Array("1".utf8)
        case .symbolsOffered: return Self.ok
        case .transfer(let object, let annex, let offset, let count):
            return transfer(object, annex, offset, count)
        case .monitor(let text):
            guard let answer = target.monitor(text) else { return error(.invalid) }
            return answer.isEmpty ? Self.ok : Hex.bytes(answer.utf8.prefix(Packet.limit / 2 - 1))
        case .detach:
            isClosed = true
            output.isClosed = true
            return Self.ok
        case .kill:
            isClosed = true
            output.isClosed = true
            return nil
        case .malformed: return error(.invalid)
        case .unknown: return []
        }
    }

    private func reply(_ outcome: BreakpointOutcome) -> [UInt8] {
        switch outcome {
        case .done: Self.ok
        case .unsupported: []
        case .failed: error(.badAddress)
        }
    }

    // MARK: registers

    private func registerReply(_ command: RemoteCommand) -> [UInt8] {
        switch command {
        case .readRegisters: return (0..<target.generalRegisterCount).flatMap { registerText($0) }
        case .writeRegisters(let bytes):
            guard bytes.count % 8 == 0, 1...target.generalRegisterCount ~= bytes.count / 8 else {
                return error(.invalid)
            }
            for number in 0..<bytes.count / 8 {
                guard let value = Hex.value(littleEndian: bytes[number * 8..<number * 8 + 8]) else { continue }
                // x0 is in the packet too and takes no value.
                _ = target.setRegister(number, value, thread: accessThread)
            }
            return Self.ok
        case .readRegister(let number):
            guard let number = known(number) else { return error(.invalid) }
            return registerText(number)
        case .writeRegister(let number, let bytes):
            guard let number = known(number), bytes.count == 8, let value = Hex.value(littleEndian: bytes),
                target.setRegister(number, value, thread: accessThread)
            else { return error(.invalid) }
            return Self.ok
        default: return []
        }
    }

    private func known(_ number: UInt64) -> Int? {
        Int(exactly: number).flatMap { number in target.registers.contains { $0.number == number } ? number : nil }
    }

    private func registerText(_ number: Int) -> [UInt8] {
        guard let value = target.register(number, thread: accessThread) else { return Array("xxxxxxxxxxxxxxxx".utf8) }
        return Hex.littleEndian(value)
    }

    // MARK: memory

    private func memoryReply(_ command: RemoteCommand) -> [UInt8] {
        switch command {
        case .readMemory(let address, let count):
            // What does not fit into one packet is not read: a shorter answer is allowed.
            let limited = Int(min(count, UInt64(Packet.limit / 2)))
            let bytes = target.readMemory(address, count: limited, thread: accessThread, isPhysical: isMemoryPhysical)
            return bytes.isEmpty && count > 0 ? error(.badAddress) : Hex.bytes(bytes)
        case .writeMemory(let address, let bytes):
            // A debugger asks with no bytes whether X is there.
            if bytes.isEmpty { return Self.ok }
            return target.writeMemory(address, bytes, thread: accessThread, isPhysical: isMemoryPhysical)
                ? Self.ok : error(.badAddress)
        case .isMemoryPhysical: return Array((isMemoryPhysical ? "1" : "0").utf8)
        case .setMemoryPhysical(let isPhysical):
            isMemoryPhysical = isPhysical
            return Self.ok
        default: return []
        }
    }

    private func transfer(_ object: String, _ annex: String, _ offset: UInt64, _ count: UInt64) -> [UInt8] {
        guard object == "features" else { return [] }
        guard annex == "target.xml" else { return Array("E00".utf8) }
        guard offset <= UInt64(description.count) else { return error(.invalid) }
        let start = Int(offset)
        let room = Int(min(count, UInt64(Packet.limit / 2)))
        let end = min(description.count, start + room)
        return [UInt8(ascii: end < description.count ? "m" : "l")] + description[start..<end]
    }

    // MARK: threads

    /// A thread's number as packets write it, from 1.
    private func text(_ thread: Int) -> [UInt8] { Hex.number(UInt64(thread + 1)) }

    /// The thread that a packet names, from 0; the current one for "any".
    private func index(_ thread: ThreadID) -> Int? {
        switch thread {
        case .all: nil
        case .any: accessThread
        case .thread(let number): 1...target.threadCount ~= number ? number - 1 : nil
        }
    }

    private func threadReply(_ command: RemoteCommand) -> [UInt8] {
        switch command {
        case .firstThreads:
            let list = (0..<target.threadCount).map { String(decoding: text($0), as: UTF8.self) }
            return Array(("m" + list.joined(separator: ",")).utf8)
        case .moreThreads: return Array("l".utf8)
        case .threadDescription(let thread):
            guard let index = index(thread) else { return error(.noThread) }
            return Hex.bytes(target.description(ofThread: index).utf8)
        case .currentThread: return Array("QC".utf8) + text(accessThread)
        case .isThreadAlive(let thread): return index(thread) == nil ? error(.noThread) : Self.ok
        case .selectForAccess(let thread):
            guard let index = index(thread) else { return error(.noThread) }
            accessThread = index
            return Self.ok
        case .selectForResume(let thread):
            if thread == .all || thread == .any {
                resumeThread = nil
                return Self.ok
            }
            guard let index = index(thread) else { return error(.noThread) }
            resumeThread = index
            return Self.ok
        default: return []
        }
    }

    // MARK: going on

    /// For each thread the leftmost action that names it; `nil` where a thread is named that is not there.
    private func plan(_ actions: [ResumeAction]) -> [ThreadPlan]? {
        var plan = [ThreadPlan?](repeating: nil, count: target.threadCount)
        for action in actions {
            let step: ThreadPlan = action.isStep ? .step : .run
            if action.thread == .all {
                for thread in plan.indices where plan[thread] == nil { plan[thread] = step }
            } else {
                guard let thread = index(action.thread) else { return nil }
                if plan[thread] == nil { plan[thread] = step }
            }
        }
        return plan.map { $0 ?? .stay }
    }

    private func resumeCurrent(_ isStep: Bool, _ address: UInt64?) -> [UInt8]? {
        let thread = resumeThread ?? accessThread
        if let address, let pc = target.registers.first(where: { $0.name == "pc" }) {
            guard target.setRegister(pc.number, address, thread: thread) else { return error(.invalid) }
        }
        var plan = [ThreadPlan](repeating: resumeThread == nil && !isStep ? .run : .stay, count: target.threadCount)
        plan[thread] = isStep ? .step : .run
        return resume(plan)
    }

    private func resume(_ plan: [ThreadPlan]?) -> [UInt8]? {
        guard let plan else { return error(.noThread) }
        isRunning = true
        target.resume(plan)
        return nil
    }

    private func stopReply(_ reason: StopReason, thread: Int) -> [UInt8] {
        var text: [UInt8]
        switch reason {
        case .ended(let status): return Array("W".utf8) + Hex.bytes([status])
        case .interrupted: text = Array("T02".utf8)
        case .stepped: text = Array("T05".utf8)
        case .softwareBreakpoint: text = Array((explainsBreakpoints.software ? "T05swbreak:;" : "T05").utf8)
        case .hardwareBreakpoint: text = Array((explainsBreakpoints.hardware ? "T05hwbreak:;" : "T05").utf8)
        }
        text += Array("thread:".utf8) + self.text(thread) + Array(";".utf8)
        if let pc = target.registers.first(where: { $0.name == "pc" })?.number,
            let value = target.register(pc, thread: thread)
        {
            text += Hex.number(UInt64(pc)) + Array(":".utf8) + Hex.littleEndian(value) + Array(";".utf8)
        }
        return text
    }
}
