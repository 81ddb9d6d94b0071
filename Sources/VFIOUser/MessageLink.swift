internal import Wire

/// One end of a vfio-user socket: whole messages out and in, past the link's tap.
///
/// Sending may happen on several threads: a lock keeps messages whole. Receiving belongs to one thread at a time;
/// who that is, the owner decides.
@safe final class MessageLink: @unchecked Sendable {
    /// The longest message: a header, an access's fixed part and the data of one transfer.
    static let maximumMessage = MessageHeader.size + RegionAccess.size + Capabilities.defaultTransfer

    let socket: Socket
    private let tap: LinkTap
    private let sending = ShortLock()
    // Safety: `stand` holds one longest message from when it is made until the link's deinit.
    @safe private struct Receiving: ~Copyable {
        var reader: MessageReader
        var injected: [[UInt8]] = []
        /// Holds the injected message that is being looked at; made when there is one.
        var stand: UnsafeMutableRawBufferPointer?
    }

    // Safety: allocated in init, freed in deinit, touched only by the thread that receives. Behind a pointer because
    // each access to a class's variable asks the runtime whether another one is under way: 400 instructions a message.
    private let receiving: UnsafeMutablePointer<Receiving>

    init(socket: Socket, tap: LinkTap, wait: AdaptiveWait = AdaptiveWait()) {
        self.socket = socket
        self.tap = tap
        unsafe receiving = .allocate(capacity: 1)
        unsafe receiving.initialize(
            to: Receiving(
                reader: MessageReader(socket: socket, framing: .vfioUser(maximum: Self.maximumMessage), wait: wait)))
    }

    deinit {
        // Safety: initialised in init, and nobody receives any more.
        unsafe receiving.pointee.stand?.deallocate()
        unsafe receiving.deinitialize(count: 1)
        unsafe receiving.deallocate()
    }

    /// True when a whole message is here already. The receiving thread's.
    var hasMessage: Bool { unsafe !receiving.pointee.injected.isEmpty || receiving.pointee.reader.hasWholeMessage }

    /// Sends one whole message, in two parts if it has them.
    func send(
        _ head: UnsafeRawBufferPointer,
        _ body: UnsafeRawBufferPointer = unsafe UnsafeRawBufferPointer(start: nil, count: 0),
        descriptors: [Descriptor] = []
    ) throws(WireError) {
        sending.lock()
        defer { sending.unlock() }
        // Safety: the caller's buffers are valid for the call.
        if tap.isActive { return unsafe try sendTapped(head, body, descriptors) }
        unsafe try socket.send(head, body, descriptors: descriptors)
    }

    /// Sends one whole message of one part without descriptors: what a register's access is.
    func sendShort(_ message: UnsafeRawBufferPointer) throws(WireError) {
        sending.lock()
        defer { sending.unlock() }
        // Safety: the caller's buffer is valid for the call.
        if tap.isActive { return unsafe try sendTapped(message, UnsafeRawBufferPointer(start: nil, count: 0), []) }
        unsafe try socket.sendShort(message)
    }

    private func sendTapped(
        _ head: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer, _ descriptors: [Descriptor]
    ) throws(WireError) {
        let whole = unsafe [UInt8](head) + [UInt8](body)
        // Safety: the array outlives the call.
        switch unsafe whole.withUnsafeBytes({ unsafe tap.inspect($0, .sent) }) {
        case .pass: try socket.send(whole, descriptors: descriptors)
        case .drop: break
        case .replace(let messages): for message in messages { try socket.send(message, descriptors: descriptors) }
        case .disconnect:
            socket.shutdown()
            throw .closed(inMessage: false)
        }
    }

    /// Hands the next whole message to `body`; nil at the end of the stream. The bytes are valid only inside `body`.
    func receive<Result>(
        until deadline: MonotonicTime? = nil, polling: Bool = true,
        _ body: (UnsafeRawBufferPointer, [Descriptor]) -> Result
    ) throws(WireError) -> Result? {
        guard let message = unsafe try next(until: deadline, polling: polling) else { return nil }
        return unsafe body(message, takeDescriptors())
    }

    /// The next whole message; nil at the end of the stream. The bytes are valid until the next call. The receiving
    /// thread's.
    @inline(__always)
    func next(until deadline: MonotonicTime? = nil, polling: Bool = true) throws(WireError) -> UnsafeRawBufferPointer? {
        // Safety: see `receiving`.
        guard unsafe receiving.pointee.injected.isEmpty else {
            return unsafe try nextTapped(until: deadline, polling: polling)
        }
        guard let message = unsafe try receiving.pointee.reader.next(until: deadline, polling: polling) else {
            return nil
        }
        if !tap.isActive { return UnsafeRawBufferPointer(message) }
        return unsafe try nextTapped(UnsafeRawBufferPointer(message), until: deadline, polling: polling)
    }

    /// True when descriptors came with the message that `next` returned last.
    var hasDescriptors: Bool { unsafe receiving.pointee.reader.hasDescriptors }

    /// Takes the descriptors that came with the message that `next` returned last.
    func takeDescriptors() -> [Descriptor] { unsafe receiving.pointee.reader.takeDescriptors() }

    /// `next` on a link with an observer, whose judgement on `first` is still to come.
    @inline(never)
    private func nextTapped(
        _ first: UnsafeRawBufferPointer? = nil, until deadline: MonotonicTime?, polling: Bool
    ) throws(WireError) -> UnsafeRawBufferPointer? {
        var first = unsafe first
        while true {
            while unsafe first == nil && !receiving.pointee.injected.isEmpty {
                let message = unsafe receiving.pointee.injected.removeFirst()
                // What stands in for a message on an impaired link may be too short or too long to be one: it is
                // dropped.
                guard message.count >= MessageHeader.size, message.count <= Self.maximumMessage else { continue }
                let stand =
                    unsafe receiving.pointee.stand ?? .allocate(byteCount: Self.maximumMessage, alignment: 64)
                unsafe receiving.pointee.stand = stand
                // Safety: no longer than the buffer.
                unsafe message.withUnsafeBytes { unsafe stand.copyMemory(from: $0) }
                return unsafe UnsafeRawBufferPointer(rebasing: stand[..<message.count])
            }
            if unsafe first == nil {
                guard let next = unsafe try receiving.pointee.reader.next(until: deadline, polling: polling) else {
                    return nil
                }
                unsafe first = UnsafeRawBufferPointer(next)
            }
            guard let message = unsafe first else { return nil }
            unsafe first = nil
            // Safety: passed on for the call.
            switch unsafe tap.inspect(message, .received) {
            case .pass: return unsafe message
            case .drop: _ = takeDescriptors()
            case .replace(let messages):
                _ = takeDescriptors()
                unsafe receiving.pointee.injected += messages
            case .disconnect:
                socket.shutdown()
                return nil
            }
        }
    }
}
