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

    /// Hands the next whole message, its prefix included, to `body`, and returns what `body` returns; nil at the end
    /// of the stream between two messages. The bytes are valid only inside `body`, and may be changed there.
    /// Throws `.timedOut` when `deadline` passes before the message is whole; what came of it is kept. With `polling`
    /// false it sleeps at once and learns nothing: for a caller who knows that the other side sleeps.
    public mutating func next<Result>(
        until deadline: MonotonicTime? = nil, polling: Bool = true,
        _ body: (UnsafeMutableRawBufferPointer, consuming [Descriptor]) -> Result
    ) throws(WireError) -> Result? {
        while true {
            if let length = try wholeLength(), end - start >= length {
                // Safety: start + length ≤ end ≤ buffer.count.
                let message = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + length])
                start += length
                let isLast = start == end
                if isLast {
                    start = 0
                    end = 0
                }
                if isLast, !pendingDescriptors.isEmpty {
                    let descriptors = pendingDescriptors
                    pendingDescriptors = []
                    return unsafe body(message, descriptors)
                }
                return unsafe body(message, [])
            }
            if start > 0, unsafe buffer.count - start < framing.capacity {
                // Safety: both ranges lie in the buffer; memmove allows them to overlap.
                unsafe memmove(buffer.baseAddress!, buffer.baseAddress! + start, end - start)
                end -= start
                start = 0
            }
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[end...])
            let received: Socket.Received
            if polling {
                received = unsafe try socket.receive(
                    into: room, descriptors: &pendingDescriptors, polling: &wait, until: deadline)
            } else {
                if let deadline { try socket.wait(for: .readable, until: deadline) }
                received = unsafe try socket.receive(into: room, descriptors: &pendingDescriptors)
            }
            switch received {
            case .bytes(let count): end += count
            case .end:
                if end > start { throw .closed(inMessage: true) }
                return nil
            case .nothing: continue
            }
            if pendingDescriptors.count > Int(CS_MAX_DESCRIPTORS) { throw .truncated }
        }
    }
}
