internal import Synchronization
internal import Wire

/// One client of a server: receives its commands, answers them, and reaches its memory by messages.
///
/// Two kinds of thread wait here: the serving thread for commands, device threads for replies to DMA messages. Both
/// come on one socket when the client has no twin socket (QEMU). Whoever waits while nobody reads takes the reading
/// role, reads one message, and hands on what is not for itself: a reply to the thread that waits for it, a command to
/// the queue. So a DMA inside a register write does not deadlock, and neither does one from a device's thread while
/// the serving thread is busy.
@safe final class ServerConnection: DMAMessenger, @unchecked Sendable {
    let link: MessageLink
    let device: any VFIODevice
    let regions: [VFIORegion]
    private let log: @Sendable (String) -> Void

    /// How long a client may take to answer a DMA message. Longer than any scheduling delay seen (seconds on a
    /// loaded machine), short enough that a device is not stuck behind a client that hangs.
    static let replyTimeout = Duration.seconds(10)
    /// Commands that may wait while the serving thread is busy and another one reads: a bound on memory.
    static let maximumQueue = 256

    private let monitor = Monitor()
    private struct Shared {
        var sleepers = 0
        var queue: [(message: [UInt8], descriptors: [Descriptor])] = []
        var isClosed = false
        var awaited: UInt16?
        var answer: [UInt8]?
    }

    // Safety: allocated in init, freed in deinit, protected by `monitor`. Behind a pointer for the same reason as
    // `MessageLink.receiving`.
    private let shared: UnsafeMutablePointer<Shared>

    /// Who reads: bit `reading` while somebody does, bit `attention` while there is more to look at under `monitor`
    /// (a sleeper, a queued command, the end). The serving thread takes and gives the role by one atomic operation as
    /// long as no attention is asked for; everybody else changes the word under `monitor`.
    private let role = Atomic<UInt32>(0)
    private static let reading: UInt32 = 1
    private static let attention: UInt32 = 2

    /// What an access of a register needs to know of its region: side by side, and without a descriptor to retain.
    struct RegionLimits {
        /// 0 where the region cannot be read, or written.
        var readable: UInt64
        var writable: UInt64
    }

    // Safety: `regionCount` of them, allocated and filled in init, freed in deinit, never changed.
    let limits: UnsafeMutablePointer<RegionLimits>
    let regionCount: Int

    /// One DMA message at a time.
    private let turn = Monitor()
    // The next three: protected by `turn`, the first two set before any DMA.
    private var twin: MessageLink?
    private var transfer = Capabilities.defaultTransfer
    private var nextIdentifier: UInt16 = 0

    // Safety: the serving thread's own; allocated in init, freed in deinit. One longest message each; the kernel
    // gives a page only when it is touched.
    let command: UnsafeMutableRawBufferPointer
    let reply: UnsafeMutableRawBufferPointer
    var isNegotiated = false
    var migration = Migration()
    /// Descriptors that the client takes in one message.
    var clientDescriptors = 1

    init(
        socket: Socket, device: any VFIODevice, regions: [VFIORegion], tap: LinkTap,
        log: @escaping @Sendable (String) -> Void
    ) {
        link = MessageLink(socket: socket, tap: tap)
        self.device = device
        self.regions = regions
        self.log = log
        unsafe shared = .allocate(capacity: 1)
        unsafe shared.initialize(to: Shared())
        regionCount = regions.count
        unsafe limits = .allocate(capacity: max(1, regions.count))
        for (index, region) in regions.enumerated() {
            unsafe (limits + index).initialize(
                to: RegionLimits(
                    readable: region.isReadable ? region.length : 0, writable: region.isWritable ? region.length : 0))
        }
        unsafe command = .allocate(byteCount: MessageLink.maximumMessage, alignment: 64)
        unsafe reply = .allocate(byteCount: MessageLink.maximumMessage, alignment: 64)
    }

    deinit {
        unsafe shared.deinitialize(count: 1)
        unsafe shared.deallocate()
        unsafe limits.deallocate()
        unsafe command.deallocate()
        unsafe reply.deallocate()
    }

    /// Serves until the client leaves or the link is closed.
    func serve() {
        device.dma.setMessenger(self)
        while serveNext() {}
        close(nil)
        device.dma.setMessenger(nil)
    }

    /// Serves one command; false when the link is closed.
    ///
    /// A register's access, which is what a sleeping server is woken for, is answered on the shortest way: read in
    /// place, and no lock, allocation or reference counting between the receive and the send. Everything else copies
    /// the message and goes through `handle`.
    private func serveNext() -> Bool {
        guard role.compareExchange(expected: 0, desired: Self.reading, ordering: .acquiring).exchanged else {
            guard let (size, descriptors) = nextCommand() else { return false }
            handle(size, descriptors)
            return true
        }
        let message: UnsafeRawBufferPointer
        do throws(WireError) {
            // Safety: used only until the reading role is given back.
            guard let next = unsafe try link.next() else { return hasEnded(nil) }
            unsafe message = next
        } catch {
            return hasEnded("\(error)")
        }
        // Safety: a message has 16 bytes or more, and so many as its count says.
        if isNegotiated, let access = unsafe ShortAccess(message), !link.hasDescriptors {
            stopReading()
            answer(access)
            return true
        }
        let header = unsafe MessageHeader(RawSpan(_unsafeBytes: message))
        if header.isReply {
            let reply = unsafe [UInt8](message)
            monitor.lock()
            stopReading(after: .reply(reply))
            monitor.unlock()
            return true
        }
        let descriptors = link.takeDescriptors()
        unsafe command.copyMemory(from: message)
        stopReading()
        handle(message.count, descriptors)
        return true
    }

    /// What the serving thread does when nothing comes any more.
    private func hasEnded(_ reason: String?) -> Bool {
        stopReading()
        close(reason)
        return false
    }

    /// Ends the link from any thread, with one log line if there is a reason.
    func close(_ reason: String?) {
        monitor.lock()
        let first = unsafe !shared.pointee.isClosed
        unsafe shared.pointee.isClosed = true
        settleAttention()
        monitor.broadcast()
        monitor.unlock()
        guard first else { return }
        if let reason { log("vfio-user: \(reason): link closed") }
        link.socket.shutdown()
    }

    /// Tells DMA how to reach the client: as much in a message as both sides take, on the twin socket if there is one.
    func configure(transfer: Int, twin: MessageLink?) {
        turn.lock()
        self.transfer = transfer
        self.twin = twin
        turn.unlock()
    }

    // MARK: Receiving

    private enum Incoming {
        case command(Int, [Descriptor])
        case queued([UInt8], [Descriptor])
        case reply([UInt8])
        case end(String?)
        case timedOut
    }

    /// The next command, copied to `command`; nil when the link is closed. The serving thread's way while there is
    /// anything but the next message to look at.
    private func nextCommand() -> (size: Int, descriptors: [Descriptor])? {
        monitor.lock()
        while true {
            if unsafe shared.pointee.isClosed {
                monitor.unlock()
                return nil
            }
            if unsafe !shared.pointee.queue.isEmpty {
                let (message, descriptors) = unsafe shared.pointee.queue.removeFirst()
                settleAttention()
                monitor.unlock()
                // Safety: no message is longer than `command`.
                unsafe message.withUnsafeBytes { unsafe command.copyMemory(from: $0) }
                return (message.count, descriptors)
            }
            guard startReading() else {
                unsafe shared.pointee.sleepers += 1
                monitor.wait()
                unsafe shared.pointee.sleepers -= 1
                settleAttention()
                continue
            }
            monitor.unlock()
            let incoming = receiveOne(forServing: true, until: nil)
            monitor.lock()
            stopReading(after: incoming)
            if case .command(let size, let descriptors) = incoming {
                monitor.unlock()
                return (size, descriptors)
            }
        }
    }

    /// Reads one message without the lock, in the reading role.
    private func receiveOne(forServing: Bool, until deadline: MonotonicTime?) -> Incoming {
        do throws(WireError) {
            // Safety: the message is used only inside the closure and is no longer than `command`.
            return unsafe try link.receive(until: deadline) { message, descriptors -> Incoming in
                let header = unsafe MessageHeader(RawSpan(_unsafeBytes: message))
                if header.isReply { return unsafe .reply([UInt8](message)) }
                guard forServing else { return unsafe .queued([UInt8](message), descriptors) }
                unsafe command.copyMemory(from: message)
                return .command(message.count, descriptors)
            } ?? .end(nil)
        } catch .timedOut {
            return .timedOut
        } catch {
            return .end("\(error)")
        }
    }

    /// Takes the reading role; false where another thread has it, which then tells the sleepers when it is free. The
    /// lock is held.
    private func startReading() -> Bool {
        // With `attention` set the reader cannot give the role back without the lock.
        let old = role.bitwiseOr(Self.reading | Self.attention, ordering: .acquiringAndReleasing).oldValue
        guard old & Self.reading == 0 else { return false }
        settleAttention()
        return true
    }

    /// Gives the reading role back. The lock is not held.
    @inline(__always)
    private func stopReading() {
        if role.compareExchange(expected: Self.reading, desired: 0, ordering: .releasing).exchanged { return }
        stopReadingAttended()
    }

    @inline(never)
    private func stopReadingAttended() {
        monitor.lock()
        stopReading(after: nil)
        monitor.unlock()
    }

    /// Hands on what was read, then gives the role back: the next reader finds it in its place. The lock is held.
    private func stopReading(after incoming: Incoming?) {
        if let incoming { take(incoming) }
        role.bitwiseAnd(~Self.reading, ordering: .releasing)
        if unsafe shared.pointee.sleepers > 0 { monitor.broadcast() }
    }

    /// Asks for attention where there is reason to. The lock is held.
    private func settleAttention() {
        if unsafe shared.pointee.sleepers > 0 || shared.pointee.isClosed || !shared.pointee.queue.isEmpty {
            role.bitwiseOr(Self.attention, ordering: .relaxed)
        } else {
            role.bitwiseAnd(~Self.attention, ordering: .relaxed)
        }
    }

    /// Hands on what was read. The lock is held, and let go of only to close the link.
    private func take(_ incoming: Incoming) {
        var reason: String?
        switch incoming {
        case .queued(let message, let descriptors):
            unsafe shared.pointee.queue.append((message, descriptors))
            settleAttention()
            if unsafe shared.pointee.queue.count <= Self.maximumQueue { return }
            reason = "more than \(Self.maximumQueue) commands wait for the device"
        case .reply(let message):
            let identifier = unsafe message.withUnsafeBytes { unsafe MessageHeader(RawSpan(_unsafeBytes: $0)).id }
            if unsafe shared.pointee.awaited == identifier {
                unsafe shared.pointee.awaited = nil
                unsafe shared.pointee.answer = message
                monitor.broadcast()
                return
            }
            reason = "a reply \(identifier) that nothing waits for"
        case .end(let why): reason = why
        case .command, .timedOut: return
        }
        monitor.unlock()
        close(reason)
        monitor.lock()
    }

    // MARK: DMA by messages

    func dmaRead(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(DMAError) {
        try perPart(address, bytes.count) { (access, place) throws(DMAError) in
            let answer = unsafe try transact(.dmaRead, access, UnsafeRawBufferPointer(start: nil, count: 0))
            let payload = unsafe answer.span.bytes.extracting(MessageHeader.size..<answer.count)
            guard let echo = try? DMAAccess(withData: payload), echo == access else {
                close("a DMA_READ reply that does not answer its command")
                throw .lost(IOVirtualAddress(access.address))
            }
            // Safety: the reply's data has exactly the access's count, and place + count ≤ bytes.count.
            unsafe payload.extracting(DMAAccess.size..<payload.byteCount).withUnsafeBytes { data in
                unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[place..<place + data.count])
                    .copyMemory(from: data)
            }
        }
    }

    func dmaWrite(_ address: UInt64, from bytes: UnsafeRawBufferPointer) throws(DMAError) {
        try perPart(address, bytes.count) { (access, place) throws(DMAError) in
            // Safety: place + count ≤ bytes.count.
            let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[place..<place + Int(access.count)])
            _ = unsafe try transact(.dmaWrite, access, part)
        }
    }

    private func perPart(
        _ address: UInt64, _ count: Int, _ body: (DMAAccess, Int) throws(DMAError) -> Void
    ) throws(DMAError) {
        turn.lock()
        defer { turn.unlock() }
        var done = 0
        while done < count {
            let part = min(count - done, transfer)
            try body(DMAAccess(address: address &+ UInt64(done), count: UInt64(part)), done)
            done += part
        }
    }

    /// Sends one command to the client and returns its whole reply. `turn` is held.
    private func transact(
        _ command: VFIOUserCommand, _ access: DMAAccess, _ data: UnsafeRawBufferPointer
    ) throws(DMAError) -> [UInt8] {
        nextIdentifier &+= 1
        let identifier = nextIdentifier
        var head = [UInt8](repeating: 0, count: MessageHeader.size + DMAAccess.size)
        // Safety: the two halves of the array just made.
        unsafe head.withUnsafeMutableBytes { raw in
            var header = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: raw[..<16]))
            MessageHeader.command(command, id: identifier, payload: DMAAccess.size + data.count).encode(into: &header)
            var payload = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: raw[16...]))
            access.encode(into: &payload)
        }
        let deadline = MonotonicTime.after(Self.replyTimeout)
        let lost = DMAError.lost(IOVirtualAddress(access.address))
        let answer: [UInt8]?
        if let twin {
            answer = unsafe exchange(on: twin, head, data, identifier, deadline)
        } else {
            answer = unsafe exchange(head, data, identifier, deadline)
        }
        guard let answer else { throw lost }
        let header = unsafe answer.withUnsafeBytes { unsafe MessageHeader(RawSpan(_unsafeBytes: $0)) }
        guard header.command == command else {
            close("a reply of \(header.command) to \(command)")
            throw lost
        }
        if let refusal = header.refusal { throw .refused(IOVirtualAddress(access.address), refusal) }
        return answer
    }

    private func exchange(
        on twin: MessageLink, _ head: [UInt8], _ data: UnsafeRawBufferPointer, _ identifier: UInt16,
        _ deadline: MonotonicTime
    ) -> [UInt8]? {
        do throws(WireError) {
            try unsafe head.span.withUnsafeBytes { (raw) throws(WireError) in unsafe try twin.send(raw, data) }
            let answer = unsafe try twin.receive(until: deadline) { message, _ in unsafe [UInt8](message) }
            if let answer {
                let header = unsafe answer.withUnsafeBytes { unsafe MessageHeader(RawSpan(_unsafeBytes: $0)) }
                if header.isReply, header.id == identifier { return answer }
                close("a message on the twin socket that is not the awaited reply")
            } else {
                close("the client closed the twin socket")
            }
        } catch {
            close("DMA message: \(error)")
        }
        return nil
    }

    private func exchange(
        _ head: [UInt8], _ data: UnsafeRawBufferPointer, _ identifier: UInt16, _ deadline: MonotonicTime
    ) -> [UInt8]? {
        monitor.lock()
        unsafe shared.pointee.awaited = identifier
        unsafe shared.pointee.answer = nil
        monitor.unlock()
        do throws(WireError) {
            try unsafe head.span.withUnsafeBytes { (raw) throws(WireError) in unsafe try link.send(raw, data) }
        } catch {
            close("DMA message: \(error)")
        }
        monitor.lock()
        defer {
            unsafe shared.pointee.awaited = nil
            monitor.unlock()
        }
        while true {
            if let answer = unsafe shared.pointee.answer {
                unsafe shared.pointee.answer = nil
                return answer
            }
            if unsafe shared.pointee.isClosed { return nil }
            var isLate = false
            if !startReading() {
                unsafe shared.pointee.sleepers += 1
                isLate = !monitor.wait(until: deadline.nanoseconds)
                unsafe shared.pointee.sleepers -= 1
                settleAttention()
            } else {
                monitor.unlock()
                let incoming = receiveOne(forServing: false, until: deadline)
                monitor.lock()
                if case .timedOut = incoming { isLate = true }
                stopReading(after: incoming)
            }
            if isLate, unsafe shared.pointee.answer == nil, unsafe !shared.pointee.isClosed {
                monitor.unlock()
                close("no reply to a DMA message")
                monitor.lock()
            }
        }
    }
}
