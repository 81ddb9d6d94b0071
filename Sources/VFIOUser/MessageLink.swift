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
    private let sending = Monitor()
    private struct Receiving: ~Copyable {
        var reader: MessageReader
        var injected: [[UInt8]] = []
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
        while true {
            if unsafe !receiving.pointee.injected.isEmpty {
                let message = unsafe receiving.pointee.injected.removeFirst()
                // What stands in for a message on an impaired link may be too short to be one: it is dropped.
                guard message.count >= MessageHeader.size else { continue }
                return unsafe message.withUnsafeBytes { unsafe body($0, []) }
            }
            var verdict = LinkVerdict.pass
            // Safety: the message is used only inside the closure.
            let result = unsafe try receiving.pointee.reader.next(until: deadline, polling: polling) {
                message, descriptors -> Result? in
                let message = UnsafeRawBufferPointer(message)
                unsafe verdict = tap.inspect(message, .received)
                return verdict == .pass ? unsafe body(message, descriptors) : nil
            }
            guard let result else { return nil }
            switch verdict {
            case .pass: return result
            case .drop: continue
            case .replace(let messages): unsafe receiving.pointee.injected += messages
            case .disconnect:
                socket.shutdown()
                return nil
            }
        }
    }
}
