internal import Synchronization
internal import Wire

/// The way from other threads to a transport that may end at any time.
///
/// Not a weak reference: an object that has one pays twice for each retain and release, which is on the way of every
/// message. Whoever owns the transport calls `close`, which clears this, before it lets go.
@safe private final class TransportReference: Sendable {
    private let transport = unsafe Mutex<Unmanaged<ClientTransport>?>(nil)

    func set(_ transport: ClientTransport) { unsafe self.transport.withLock { unsafe $0 = .passUnretained(transport) } }
    func clear() { unsafe transport.withLock { unsafe $0 = nil } }

    // Safety: until `clear` the owner holds the transport, and clearing waits for this lock.
    func take() -> ClientTransport? { unsafe transport.withLock { unsafe $0?.takeUnretainedValue() } }
}

/// How a client's commands and their replies travel.
///
/// The owner calls `close` before it lets go.
@safe final class ClientTransport: @unchecked Sendable {
    let link: MessageLink
    let memory: (any ClientMemory)?
    private let timeout: Duration
    private let onGone: @Sendable (String) -> Void
    private let gone = Mutex<String?>(nil)
    private let isGone = Atomic<Bool>(false)

    /// How long a server is taken to be awake after a reply, in nanoseconds: `AdaptiveWait`'s longest poll.
    private static let attention: UInt64 = 50_000

    /// One command at a time.
    private let turn = ShortLock()
    // The next four: protected by `turn`.
    private var nextIdentifier: UInt16 = 0
    private var transfer = Capabilities.defaultTransfer
    private var lastReply: UInt64 = 0
    // Safety: 48 bytes for a command's header, fixed part and short data; allocated in init, freed in deinit.
    private let head: UnsafeMutableRawBufferPointer

    private struct Twin {
        var socket: Socket?
        var isClosed = false
    }

    private let twin = Mutex(Twin())
    private let reference = TransportReference()
    private let exported = Mutex(ExportedMemory())
    /// The server's commands come on the main socket, unasked too. Protected by `turn`.
    private var servesInBand = false

    init(
        socket: Socket, memory: (any ClientMemory)?, tap: LinkTap, timeout: Duration,
        onGone: @escaping @Sendable (String) -> Void
    ) {
        link = MessageLink(socket: socket, tap: tap)
        self.memory = memory
        self.timeout = timeout
        self.onGone = onGone
        unsafe head = .allocate(byteCount: ShortAccess.maximumSize, alignment: 64)
        socket.setReceiveTimeout(timeout)
        reference.set(self)
    }

    deinit { unsafe head.deallocate() }

    var goneReason: String? { isGone.load(ordering: .acquiring) ? gone.withLock { $0 } ?? "closed" : nil }

    /// Ends the link, once. Without a reason the owner let go of it, and nobody is told.
    func close(_ reason: String?) {
        let first = gone.withLock { gone in
            guard gone == nil else { return false }
            gone = reason ?? "closed"
            return true
        }
        guard first else { return }
        isGone.store(true, ordering: .releasing)
        reference.clear()
        LinkWatcher.shared?.forget(link.socket)
        link.socket.shutdown()
        twin.withLock { twin in
            twin.isClosed = true
            twin.socket?.shutdown()
        }
        if let reason { onGone(reason) }
    }

    func configure(transfer: Int) {
        turn.lock()
        self.transfer = max(1, min(transfer, Capabilities.defaultTransfer))
        turn.unlock()
    }

    /// From now on a server that dies is noticed at once, and if its commands come on the main socket they are answered
    /// at any time.
    func watch() {
        let inBand = memory != nil && twin.withLock { $0.socket == nil }
        turn.lock()
        servesInBand = inBand
        turn.unlock()
        LinkWatcher.shared?.watch(link.socket) { [reference] in reference.take()?.hungUp() }
        if isGone.load(ordering: .acquiring) { LinkWatcher.shared?.forget(link.socket) }
        guard inBand else { return }
        let socket = link.socket
        WorkerThread("vfio-user-dma") { [reference] in
            // The end of the link is readable too.
            while (try? socket.wait(for: .readable, until: nil)) != nil, let transport = reference.take(),
                transport.serveUnasked()
            {}
        }
    }

    /// The other end is closed. A command that is under way ends at this too, and knows better what it ended.
    private func hungUp() {
        turn.lock()
        turn.unlock()
        close("it closed the link")
    }

    /// The most data in one message.
    var transferLimit: Int {
        turn.lock()
        defer { turn.unlock() }
        return transfer
    }

    // MARK: Commands

    /// Sends a command and returns the payload of its reply.
    func ask(
        _ command: VFIOUserCommand, _ payload: [UInt8], descriptors: [Descriptor] = []
    ) throws(VFIOUserError) -> (payload: [UInt8], descriptors: [Descriptor]) {
        turn.lock()
        defer { turn.unlock() }
        var answer: [UInt8] = []
        var passed: [Descriptor] = []
        // Safety: the pointers are used only inside the calls.
        let error = unsafe payload.withUnsafeBytes { raw in
            unsafe transact(command, 0, raw, descriptors: descriptors) { reply, came in
                answer = unsafe [UInt8](reply[MessageHeader.size...])
                passed = came
                return true
            }
        }
        if let error { throw error }
        return (answer, passed)
    }

    /// Sends a batch of writes in as few messages as it takes, or in one message each where the server knows no better.
    /// Returns the error, if any; `posted` waits for no reply.
    func regionWrite(_ writes: [RegionWrite], together: Bool, posted: Bool) -> VFIOUserError? {
        turn.lock()
        defer { turn.unlock() }
        let most = together ? max(1, min(1024, transfer / RegionWriteMulti.writeSize)) : 1
        var done = 0
        while done < writes.count {
            let part = writes[done..<min(done + most, writes.count)]
            done += part.count
            if let error = together ? writeTogether(part, posted) : writeAlone(part[part.startIndex], posted) {
                return error
            }
        }
        return nil
    }

    private func writeTogether(_ part: ArraySlice<RegionWrite>, _ posted: Bool) -> VFIOUserError? {
        let size = RegionWriteMulti.header + part.count * RegionWriteMulti.writeSize
        let payload = VFIOUserClient.payload(size) { RegionWriteMulti.encode(part, into: &$0) }
        var done: UInt64 = 0
        // Safety: the pointers are used only inside the calls.
        let error = unsafe payload.withUnsafeBytes { raw in
            unsafe transact(.regionWriteMulti, 0, raw, noReply: posted) { reply, _ in
                let answer = unsafe RawSpan(_unsafeBytes: reply)
                guard reply.count == MessageHeader.size + RegionWriteMulti.header else { return false }
                done = answer.uint64(at: MessageHeader.size)
                return done <= UInt64(part.count)
            }
        }
        if let error { return error }
        return posted || done == UInt64(part.count) ? nil : .refused(.regionWriteMulti, .inputOutput)
    }

    private func writeAlone(_ write: RegionWrite, _ posted: Bool) -> VFIOUserError? {
        var value = write.value
        let count = min(max(write.width, 1), 8)
        encodeHead(RegionAccess(offset: write.offset, region: write.region, count: UInt32(count)))
        // Safety: count ≤ 8 bytes of a local integer.
        return unsafe withUnsafeMutableBytes(of: &value) { raw in
            unsafe transact(
                .regionWrite, RegionAccess.size, UnsafeRawBufferPointer(rebasing: raw[..<count]), noReply: posted
            ) { reply, _ in
                let payload = unsafe RawSpan(_unsafeBytes: reply).extracting(MessageHeader.size..<reply.count)
                guard let echo = try? RegionAccess(payload) else { return false }
                return echo == RegionAccess(offset: write.offset, region: write.region, count: UInt32(count))
            }
        }
    }

    /// Asks a server to map or unmap memory, and keeps account of what it may reach by messages.
    func map(_ map: DMAMap, descriptor: Descriptor?) throws(VFIOUserError) {
        exported.withLock { $0.add(map) }
        do throws(VFIOUserError) {
            _ = try ask(
                .dmaMap, VFIOUserClient.payload(DMAMap.size) { map.encode(into: &$0) },
                descriptors: descriptor.map { [$0] } ?? [])
        } catch {
            exported.withLock { $0.remove(address: map.address, length: map.length) }
            throw error
        }
    }

    /// The reply's payload.
    @discardableResult
    func unmap(_ unmap: DMAUnmap) throws(VFIOUserError) -> [UInt8] {
        let (reply, _) = try ask(.dmaUnmap, VFIOUserClient.payload(unmap.fixedSize) { unmap.encode(into: &$0) })
        exported.withLock { exported in
            if unmap.flags == DMAUnmap.all {
                exported.removeAll()
            } else {
                exported.remove(address: unmap.address, length: unmap.length)
            }
        }
        return reply
    }

    /// Reads bytes of a region. Returns the error, if any: a hot path that does not throw.
    func regionRead(
        _ region: UInt32, _ offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer
    ) -> VFIOUserError? {
        turn.lock()
        defer { turn.unlock() }
        return unsafe readParts(region, offset, bytes)
    }

    /// `regionRead` while `turn` is held.
    private func readParts(
        _ region: UInt32, _ offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer
    ) -> VFIOUserError? {
        var done = 0
        while done < bytes.count {
            let count = min(bytes.count - done, transfer)
            let access = RegionAccess(offset: offset &+ UInt64(done), region: region, count: UInt32(count))
            encodeHead(access)
            // Safety: done + count ≤ bytes.count.
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[done..<done + count])
            let error = unsafe transact(.regionRead, RegionAccess.size, UnsafeRawBufferPointer(start: nil, count: 0)) {
                reply, _ in
                let payload = unsafe RawSpan(_unsafeBytes: reply).extracting(MessageHeader.size..<reply.count)
                guard let echo = try? RegionAccess(write: payload), echo == access else { return false }
                // Safety: the reply's data has exactly the access's count.
                unsafe part.copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: reply[(MessageHeader.size + RegionAccess.size)...]))
                return true
            }
            if let error { return error }
            done += count
        }
        return nil
    }

    /// Reads a register of 1…8 bytes; nil on an error. The shortest way: see `ShortAccess`.
    func readRegister(_ region: UInt32, _ offset: UInt64, _ count: UInt32) -> UInt64? {
        turn.lock()
        defer { turn.unlock() }
        guard Int(count) <= transfer else {
            var value: UInt64 = 0
            // Safety: count ≤ 8 bytes of a local integer.
            let error = unsafe withUnsafeMutableBytes(of: &value) { raw in
                unsafe readParts(region, offset, UnsafeMutableRawBufferPointer(rebasing: raw[..<Int(count)]))
            }
            return error == nil ? value : nil
        }
        guard let identifier = begin(.regionRead, region, offset, count, nil, posted: false) else { return nil }
        let fixed = MessageHeader.size + RegionAccess.size
        var value: UInt64 = 0
        // Safety: the reply is used only inside the closure, and has so many bytes as its count says.
        let error = unsafe awaitReply(.regionRead, identifier) { reply, _ in
            guard reply.count == fixed + Int(count), unsafe echoes(reply) else { return false }
            value = unsafe ShortAccess.load(reply.baseAddress! + fixed, count)
            return true
        }
        return error == nil ? value : nil
    }

    /// Writes a register of 1…8 bytes; false on an error. `posted` does not wait for a reply.
    func writeRegister(_ region: UInt32, _ offset: UInt64, _ count: UInt32, _ value: UInt64, posted: Bool) -> Bool {
        turn.lock()
        defer { turn.unlock() }
        guard Int(count) <= transfer else {
            var value = value
            // Safety: count ≤ 8 bytes of a local integer.
            return unsafe withUnsafeBytes(of: &value) { raw in
                unsafe writeParts(region, offset, UnsafeRawBufferPointer(rebasing: raw[..<Int(count)]), posted: posted)
            } == nil
        }
        guard let identifier = begin(.regionWrite, region, offset, count, value, posted: posted) else { return false }
        if posted { return true }
        // Safety: the reply is used only inside the closure.
        return unsafe awaitReply(.regionWrite, identifier) { reply, _ in
            unsafe reply.count == MessageHeader.size + RegionAccess.size && echoes(reply)
        } == nil
    }

    /// Sends a register's access, whole in `head`; returns its identifier, or nil when the link is gone. `turn` is held.
    @inline(__always)
    private func begin(
        _ command: VFIOUserCommand, _ region: UInt32, _ offset: UInt64, _ count: UInt32, _ value: UInt64?, posted: Bool
    ) -> UInt16? {
        guard !isGone.load(ordering: .acquiring) else { return nil }
        nextIdentifier &+= 1
        let identifier = nextIdentifier
        let data = value == nil ? 0 : count
        // Safety: `head` holds a short access: see `head`.
        let bytes = unsafe head.baseAddress!
        unsafe ShortAccess.encode(
            id: identifier, command: command,
            flags: posted ? MessageHeader.typeCommand | MessageHeader.noReply : MessageHeader.typeCommand, data: data,
            offset: offset, region: region, count: count, into: bytes)
        let fixed = MessageHeader.size + RegionAccess.size
        if let value { unsafe bytes.storeBytes(of: value, toByteOffset: fixed, as: UInt64.self) }
        do throws(WireError) {
            unsafe try link.sendShort(UnsafeRawBufferPointer(start: bytes, count: fixed + Int(data)))
        } catch {
            _ = fail("\(command): \(error)")
            return nil
        }
        return identifier
    }

    /// Whether a reply of 32 bytes or more names the access that `head` asks for. `turn` is held.
    @inline(__always)
    private func echoes(_ reply: UnsafeRawBufferPointer) -> Bool {
        // Safety: the caller has checked the reply's size; `head` is longer than 32 bytes.
        let (told, asked) = unsafe (reply.baseAddress!, UnsafeRawPointer(head.baseAddress!))
        return unsafe told.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
            == asked.load(fromByteOffset: 16, as: UInt64.self)
            && told.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
                == asked.load(fromByteOffset: 24, as: UInt64.self)
    }

    /// Writes bytes of a region; `posted` does not wait for a reply.
    func regionWrite(
        _ region: UInt32, _ offset: UInt64, _ bytes: UnsafeRawBufferPointer, posted: Bool
    ) -> VFIOUserError? {
        turn.lock()
        defer { turn.unlock() }
        return unsafe writeParts(region, offset, bytes, posted: posted)
    }

    /// `regionWrite` while `turn` is held.
    private func writeParts(
        _ region: UInt32, _ offset: UInt64, _ bytes: UnsafeRawBufferPointer, posted: Bool
    ) -> VFIOUserError? {
        var done = 0
        while done < bytes.count {
            let count = min(bytes.count - done, transfer)
            let access = RegionAccess(offset: offset &+ UInt64(done), region: region, count: UInt32(count))
            encodeHead(access)
            // Safety: done + count ≤ bytes.count.
            let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[done..<done + count])
            let error = unsafe transact(.regionWrite, RegionAccess.size, part, noReply: posted) { reply, _ in
                let payload = unsafe RawSpan(_unsafeBytes: reply).extracting(MessageHeader.size..<reply.count)
                guard let echo = try? RegionAccess(payload) else { return false }
                return echo == access
            }
            if let error { return error }
            done += count
        }
        return nil
    }

    private func encodeHead(_ access: RegionAccess) {
        // Safety: the fixed part's 16 bytes.
        var span = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: head[16..<32]))
        access.encode(into: &span)
    }

    /// Sends header, the first `fixed` bytes after it in `head`, and `body`; awaits the reply and hands it to `check`,
    /// which says whether it answers the command. `turn` is held.
    private func transact(
        _ command: VFIOUserCommand, _ fixed: Int, _ body: UnsafeRawBufferPointer, descriptors: [Descriptor] = [],
        noReply: Bool = false, _ check: (UnsafeRawBufferPointer, [Descriptor]) -> Bool
    ) -> VFIOUserError? {
        if let reason = goneReason { return .gone(reason) }
        nextIdentifier &+= 1
        let identifier = nextIdentifier
        let header = MessageHeader.command(command, id: identifier, payload: fixed + body.count, noReply: noReply)
        // Safety: the header's 16 bytes.
        var room = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: head[..<16]))
        header.encode(into: &room)
        do throws(WireError) {
            // Safety: fixed ≤ 16.
            unsafe try link.send(
                UnsafeRawBufferPointer(rebasing: head[..<(16 + fixed)]), body, descriptors: descriptors)
        } catch {
            return fail("\(command): \(error)")
        }
        return noReply ? nil : unsafe awaitReply(command, identifier, check)
    }

    /// Awaits the reply to the command of an identifier and hands it to `check`, which says whether it answers the
    /// command. `turn` is held.
    @inline(__always)
    private func awaitReply(
        _ command: VFIOUserCommand, _ identifier: UInt16, _ check: (UnsafeRawBufferPointer, [Descriptor]) -> Bool
    ) -> VFIOUserError? {
        // A server that was left alone for longer than it polls is asleep. Polling for its answer would only keep
        // a core from it: on a busy machine that doubles the round trip.
        let polling = RoughTime.now &- lastReply < Self.attention
        do throws(WireError) {
            while true {
                guard let message = unsafe try link.next(polling: polling) else {
                    return fail("it closed the link in answer to \(command)")
                }
                // The successful reply to this very command, in two loads. Safety: a message has 16 bytes or more.
                if unsafe message.loadUnaligned(as: UInt32.self)
                    == UInt32(identifier) | UInt32(command.rawValue) << 16,
                    unsafe message.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
                        & (MessageHeader.typeMask | MessageHeader.errorFlag) == MessageHeader.typeReply
                {
                    // A list of none costs a retain and a release.
                    let answers = unsafe check(message, link.hasDescriptors ? link.takeDescriptors() : [])
                    lastReply = RoughTime.now
                    guard answers else { return fail("its reply to \(command) is malformed") }
                    if servesInBand { try serveBuffered() }
                    return nil
                }
                let descriptors = link.takeDescriptors()
                let error = unsafe try judge(message, descriptors, command, identifier)
                if let error {
                    lastReply = RoughTime.now
                    return error
                }
            }
        } catch .timedOut {
            return fail("no reply to \(command) in \(timeout)")
        } catch {
            return fail("\(command): \(error)")
        }
    }

    /// Ends the link because the server does not keep to the protocol; returns the error to throw.
    func fail(_ reason: String) -> VFIOUserError {
        close(reason)
        return .gone(goneReason ?? reason)
    }

    /// What came instead of a successful reply: a command of the server is answered, anything else is an error.
    @inline(never)
    private func judge(
        _ message: UnsafeRawBufferPointer, _ descriptors: [Descriptor], _ command: VFIOUserCommand,
        _ identifier: UInt16
    ) throws(WireError) -> VFIOUserError? {
        let header = unsafe MessageHeader(RawSpan(_unsafeBytes: message))
        if header.isCommand {
            try answer(unsafe [UInt8](message), on: link)
            return nil
        }
        guard header.isReply, header.id == identifier, header.command == command else {
            return fail(
                "its reply \(header.id) to \(header.command) answers nothing: awaited \(identifier) to \(command)")
        }
        return .refused(command, header.refusal ?? .invalid)
    }

    // MARK: The server's commands

    /// Answers the commands that have come already. `turn` is held.
    private func serveBuffered() throws(WireError) {
        while link.hasMessage {
            let message = unsafe try link.receive(polling: false) { message, _ in unsafe [UInt8](message) }
            guard let message else { return }
            // Safety: bytes have no padding; messages have 16 bytes or more.
            guard unsafe MessageHeader(message.span.bytes).isCommand else {
                return close("its reply answers nothing")
            }
            try answer(message, on: link)
        }
    }

    /// Answers what the server sent while no command was under way. False when the link has ended.
    private func serveUnasked() -> Bool {
        turn.lock()
        defer { turn.unlock() }
        while !isGone.load(ordering: .acquiring) {
            do throws(WireError) {
                try link.socket.wait(for: .readable, until: .now)
            } catch {
                // A command that was under way took it.
                return true
            }
            do throws(WireError) {
                let message = unsafe try link.receive(polling: false) { message, _ in unsafe [UInt8](message) }
                guard let message else { return false }
                // Safety: bytes have no padding; messages have 16 bytes or more.
                guard unsafe MessageHeader(message.span.bytes).isCommand else {
                    close("its reply answers nothing")
                    return false
                }
                try answer(message, on: link)
                try serveBuffered()
            } catch {
                close("\(error)")
            }
        }
        return false
    }

    /// Serves the server's commands on the twin socket, on a thread of their own.
    func listen(on socket: Socket) {
        let isClosed = twin.withLock { twin in
            twin.socket = socket
            return twin.isClosed
        }
        if isClosed { return socket.shutdown() }
        let commands = MessageLink(socket: socket, tap: LinkTap())
        WorkerThread("vfio-user-dma") { [reference] in
            while let message = unsafe try? commands.receive({ message, _ in unsafe [UInt8](message) }) {
                guard let transport = reference.take() else { return }
                do throws(WireError) {
                    try transport.answer(message, on: commands)
                } catch {
                    return transport.close("twin socket: \(error)")
                }
            }
        }
    }

    /// Does one command of the server and answers it.
    private func answer(_ message: [UInt8], on link: MessageLink) throws(WireError) {
        // Safety: bytes have no padding; messages have 16 bytes or more.
        let whole = unsafe message.span.bytes
        let header = MessageHeader(whole)
        let payload = whole.extracting(MessageHeader.size..<message.count)
        var reply: [UInt8]
        do throws(ErrorNumber) {
            let result = try perform(header, payload)
            reply = [UInt8](repeating: 0, count: MessageHeader.size) + result
            Self.encode(header.reply(payload: result.count), into: &reply)
        } catch {
            reply = [UInt8](repeating: 0, count: MessageHeader.size)
            Self.encode(header.refusal(error), into: &reply)
        }
        guard header.wantsReply else { return }
        try unsafe reply.span.withUnsafeBytes { (raw) throws(WireError) in unsafe try link.send(raw) }
    }

    private static func encode(_ header: MessageHeader, into message: inout [UInt8]) {
        var span = message.mutableSpan
        // Safety: every bit pattern is a valid byte.
        var raw = unsafe span.mutableBytes
        header.encode(into: &raw)
    }

    private func perform(_ header: MessageHeader, _ payload: RawSpan) throws(ErrorNumber) -> [UInt8] {
        guard header.isCommand else { throw .invalid }
        switch header.command {
        case .dmaRead:
            let access = try DMAAccess(payload)
            guard payload.byteCount == DMAAccess.size else { throw .invalid }
            guard access.count <= UInt64(Capabilities.defaultTransfer) else { throw .tooBig }
            guard let memory else { throw .notSupported }
            try check(access, write: false)
            var reply = [UInt8](repeating: 0, count: DMAAccess.size + Int(access.count))
            // Safety: the two halves of the array just made.
            try unsafe Self.withHalves(&reply) { (head, data) throws(ErrorNumber) in
                var head = unsafe MutableRawSpan(_unsafeBytes: head)
                access.encode(into: &head)
                var bytes = unsafe MutableRawSpan(_unsafeBytes: data)
                try memory.read(IOVirtualAddress(access.address), into: &bytes)
            }
            return reply
        case .dmaWrite:
            let access = try DMAAccess(withData: payload)
            guard let memory else { throw .notSupported }
            try check(access, write: true)
            try memory.write(
                IOVirtualAddress(access.address), from: payload.extracting(DMAAccess.size..<payload.byteCount))
            var reply = [UInt8](repeating: 0, count: DMAAccess.size)
            try unsafe Self.withHalves(&reply) { (head, _) throws(ErrorNumber) in
                var head = unsafe MutableRawSpan(_unsafeBytes: head)
                access.encode(into: &head)
            }
            return reply
        default: throw .notSupported
        }
    }

    private func check(_ access: DMAAccess, write: Bool) throws(ErrorNumber) {
        let result: Result<Void, ErrorNumber> = exported.withLock { exported in
            do throws(ErrorNumber) {
                try exported.check(access, write: write)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private static func withHalves(
        _ reply: inout [UInt8],
        _ body: (UnsafeMutableRawBufferPointer, UnsafeMutableRawBufferPointer) throws(ErrorNumber) -> Void
    ) throws(ErrorNumber) {
        var span = reply.mutableSpan
        try unsafe span.withUnsafeMutableBytes { (raw) throws(ErrorNumber) in
            unsafe try body(
                UnsafeMutableRawBufferPointer(rebasing: raw[..<DMAAccess.size]),
                UnsafeMutableRawBufferPointer(rebasing: raw[DMAAccess.size...]))
        }
    }
}
