internal import CSystem

/// How a byte stream is cut into messages.
public enum Framing: Sendable {
    /// A 32-bit big-endian count of the bytes that follow it (QEMU `-netdev stream`): `minimum`…`maximum`.
    case bigEndianLength(minimum: Int, maximum: Int)
    /// A 16-byte header whose bytes 4–7 hold the little-endian size of header and payload (vfio-user).
    case vfioUser(maximum: Int)

    /// The bytes needed before a message's length is known.
    public var prefix: Int {
        switch self {
        case .bigEndianLength: 4
        case .vfioUser: 16
        }
    }

    /// The longest message, its prefix included.
    public var capacity: Int {
        switch self {
        case .bigEndianLength(_, let maximum): 4 + maximum
        case .vfioUser(let maximum): maximum
        }
    }

    /// The whole length of the message that begins with `prefix` bytes.
    func length(_ prefix: UnsafeRawBufferPointer) throws(WireError) -> Int {
        switch self {
        case .bigEndianLength(let minimum, let maximum):
            // Safety: the caller passes at least four bytes.
            let length = Int(UInt32(bigEndian: unsafe prefix.loadUnaligned(as: UInt32.self)))
            guard length >= minimum, length <= maximum else {
                throw .badLength(length: length, minimum: minimum, maximum: maximum)
            }
            return 4 + length
        case .vfioUser(let maximum):
            // Safety: the caller passes at least sixteen bytes.
            let length = Int(UInt32(littleEndian: unsafe prefix.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
            guard length >= 16, length <= maximum else {
                throw .badLength(length: length, minimum: 16, maximum: maximum)
            }
            return length
        }
    }
}

/// Cuts a stream socket into messages: one buffer, no allocation a message, many messages a receive call.
///
/// Belongs to one thread. Descriptors are handed out with the message that ends the receive call they came in with:
/// a sender passes them with the first byte of their message, and the kernel ends a receive after such a message.
@safe public struct MessageReader: ~Copyable {
    public let socket: Socket
    public let framing: Framing
    // Safety: allocated in init, freed in deinit, reached only through the bounds start ≤ end ≤ count.
    private let buffer: UnsafeMutableRawBufferPointer
    private var start = 0
    private var end = 0
    private var pendingDescriptors: [Descriptor] = []
    private var wait: AdaptiveWait
    /// The sleep that brought the last message, for `wait` to learn from: ticks, and nanoseconds polled before it.
    private var lastSleep: (start: UInt64, end: UInt64, polled: UInt64)?

    /// `batch` bytes of room beyond one longest message: what one receive call may bring in small ones.
    public init(socket: Socket, framing: Framing, batch: Int = 65_536, wait: AdaptiveWait = AdaptiveWait()) {
        self.socket = socket
        self.framing = framing
        self.wait = wait
        // Safety: freed in deinit; every access stays within `count`.
        unsafe buffer = .allocate(byteCount: framing.capacity + batch, alignment: 64)
    }

    deinit { unsafe buffer.deallocate() }

    /// True when a whole message is here already, so that `next` will not wait.
    public var hasWholeMessage: Bool {
        guard let length = try? wholeLength() else { return end > start }
        return end - start >= length
    }

    private func wholeLength() throws(WireError) -> Int? {
        guard end - start >= framing.prefix else { return nil }
        return unsafe try framing.length(UnsafeRawBufferPointer(rebasing: buffer[start..<end]))
    }

    /// True when descriptors came with the message that `next` returned last, or with one before it.
    public var hasDescriptors: Bool { start == end && !pendingDescriptors.isEmpty }

    /// Takes the descriptors that came with the message that `next` returned last. Those that nobody takes stay for the
    /// next message that ends a receive.
    public mutating func takeDescriptors() -> [Descriptor] {
        guard hasDescriptors else { return [] }
        let descriptors = pendingDescriptors
        pendingDescriptors = []
        return descriptors
    }

    /// Hands the next whole message, its prefix included, to `body`, and returns what `body` returns; nil at the end
    /// of the stream between two messages. The bytes are valid only inside `body`, and may be changed there.
    /// Deadlines and `polling` as in `next(until:polling:)`.
    @inlinable
    public mutating func next<Result>(
        until deadline: MonotonicTime? = nil, polling: Bool = true,
        _ body: (UnsafeMutableRawBufferPointer, consuming [Descriptor]) -> Result
    ) throws(WireError) -> Result? {
        guard let message = unsafe try next(until: deadline, polling: polling) else { return nil }
        return unsafe body(message, takeDescriptors())
    }

    /// The next whole message, its prefix included; nil at the end of the stream between two messages. The bytes are
    /// valid until the next call, and may be changed until then.
    ///
    /// Throws `.timedOut` when `deadline` passes before the message is whole; what came of it is kept. With `polling`
    /// false it sleeps at once and learns nothing: for a caller who knows that the other side sleeps.
    public mutating func next(
        until deadline: MonotonicTime? = nil, polling: Bool = true
    ) throws(WireError) -> UnsafeMutableRawBufferPointer? {
        while true {
            if let length = try wholeLength(), end - start >= length {
                // Safety: start + length ≤ end ≤ buffer.count.
                let message = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + length])
                start += length
                if start == end {
                    start = 0
                    end = 0
                }
                return unsafe message
            }
            if start > 0, unsafe buffer.count - start < framing.capacity {
                // Safety: both ranges lie in the buffer; memmove allows them to overlap.
                unsafe memmove(buffer.baseAddress!, buffer.baseAddress! + start, end - start)
                end -= start
                start = 0
            }
            switch try receive(until: deadline, polling: polling) {
            case .bytes(let count): end += count
            case .end:
                if end > start { throw .closed(inMessage: true) }
                return nil
            case .nothing: continue
            }
            if pendingDescriptors.count > Int(CS_MAX_DESCRIPTORS) { throw .truncated }
        }
    }

    /// One receive, polled as learned. What a sleep teaches is learned at the next one: the message comes first.
    private mutating func receive(until deadline: MonotonicTime?, polling: Bool) throws(WireError) -> Socket.Received {
        // Safety: end ≤ buffer.count.
        let room = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[end...])
        var sleep: (start: UInt64, end: UInt64, polled: UInt64)?
        if polling {
            if let last = lastSleep {
                wait.sleepWon(polled: last.polled, slept: RoughTime.nanoseconds(ticks: last.end &- last.start))
                lastSleep = nil
            }
            let budget = wait.takeBudget()
            if budget > 0 {
                let start = RoughTime.now
                repeat {
                    let received = unsafe try socket.receive(
                        into: room, descriptors: &pendingDescriptors, waiting: false)
                    if received != .nothing {
                        wait.pollingWon()
                        return received
                    }
                    relax()
                } while RoughTime.now &- start < budget
            }
            sleep = (RoughTime.ticks, 0, budget)
        }
        if let deadline { try socket.wait(for: .readable, until: deadline) }
        let received = unsafe try socket.receive(into: room, descriptors: &pendingDescriptors)
        if sleep != nil {
            sleep!.end = RoughTime.ticks
            lastSleep = sleep
        }
        return received
    }
}
