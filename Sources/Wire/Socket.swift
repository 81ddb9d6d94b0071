internal import CSystem
internal import Synchronization

/// The two kinds of Unix socket that a board's wires use.
public enum SocketKind: Sendable {
    /// A byte stream: pcie, ethernet, spi, serial, console, control.
    case stream
    /// Datagrams in order, with ends: sideband.
    case seqpacket

    var rawType: Int32 {
        switch self {
        case .stream: Int32(SOCK_STREAM.rawValue)
        case .seqpacket: Int32(SOCK_SEQPACKET.rawValue)
        }
    }
}

/// One end of a connected Unix socket, blocking unless a call says otherwise.
///
/// Sending and receiving may happen on two threads at once; two senders must agree between themselves.
/// `shutdown()` from any thread ends a receive that blocks.
public final class Socket: Sendable {
    public let descriptor: Descriptor
    public let kind: SocketKind
    private let givesUp = Atomic<Bool>(false)

    /// Takes over a connected socket.
    public init(adopting descriptor: Descriptor, kind: SocketKind) {
        self.descriptor = descriptor
        self.kind = kind
    }

    /// How long a full queue of waiting connections is waited for: a peer that is alive accepts within milliseconds.
    public static let connectPatience = Duration.seconds(2)

    /// Connects to the listener at `path`.
    ///
    /// That takes no time while the listener's queue has room; a peer that does not accept any more (hung, stopped, or
    /// held by others) is given up after `patience` with ETIMEDOUT. On an event loop pass `.zero`.
    public static func connect(
        to path: String, kind: SocketKind = .stream, patience: Duration = connectPatience
    ) throws(WireError) -> Socket {
        guard path.utf8.count <= 107 else { throw .pathTooLong(path) }
        let number = cs_unix_socket(kind.rawType)
        guard number >= 0 else { throw .last("socket", path) }
        let descriptor = Descriptor(adopting: number)
        // Zero would be for ever: the kernel rounds a microsecond up to its tick.
        _ = cs_set_send_timeout(number, max(1, patience.clampedNanoseconds / 1000))
        // Safety: the string lives through the call.
        while unsafe cs_unix_connect(number, path) != 0 {
            if errno == EINTR { continue }
            throw errno == EAGAIN ? .system(call: "connect", subject: path, errno: ETIMEDOUT) : .last("connect", path)
        }
        _ = cs_set_send_timeout(number, 0)
        return Socket(adopting: descriptor, kind: kind)
    }

    /// Two sockets joined to each other.
    public static func pair(kind: SocketKind = .stream) throws(WireError) -> (Socket, Socket) {
        var numbers: [Int32] = [-1, -1]
        // Safety: socketpair writes two descriptors into an array of two.
        guard unsafe cs_unix_pair(kind.rawType, &numbers) == 0 else { throw .last("socketpair", "socket pair") }
        return (
            Socket(adopting: Descriptor(adopting: numbers[0]), kind: kind),
            Socket(adopting: Descriptor(adopting: numbers[1]), kind: kind)
        )
    }

    /// Asks the kernel for `bytes` of buffer each way: room for a burst of frames.
    public func setBufferSize(_ bytes: Int32) { _ = cs_set_buffers(descriptor.rawValue, bytes) }

    /// Makes a receive that waits throw `.timedOut` when nothing has come for so long: a deadline without the system
    /// call that `wait(for:until:)` is. Microseconds count; zero or less is one.
    public func setReceiveTimeout(_ timeout: Duration) {
        _ = cs_set_receive_timeout(descriptor.rawValue, max(1, timeout.clampedNanoseconds / 1000))
        givesUp.store(true, ordering: .relaxed)
    }

    /// Ends both directions: the peer sees the end, a blocked receive of ours returns.
    public func shutdown() { _ = CSystem.shutdown(descriptor.rawValue, Int32(SHUT_RDWR)) }

    /// Sends `head` then `body` as one message with `descriptors`, waiting for room; all of it or an error.
    public func send(
        _ head: UnsafeRawBufferPointer,
        _ body: UnsafeRawBufferPointer = unsafe UnsafeRawBufferPointer(start: nil, count: 0),
        descriptors: [Descriptor] = []
    ) throws(WireError) {
        var sent = 0
        let total = head.count + body.count
        while sent < total || total == 0 {
            let count: Int
            // Safety: both buffers are valid for their counts by the caller's promise; `sent` stays inside them.
            if sent == 0, !descriptors.isEmpty {
                let numbers = descriptors.map(\.rawValue)
                count = unsafe cs_send(
                    descriptor.rawValue, head.baseAddress, head.count, body.baseAddress, body.count, numbers,
                    Int32(numbers.count), 0)
            } else if sent < head.count {
                count = unsafe cs_send(
                    descriptor.rawValue, head.baseAddress.map { unsafe $0 + sent }, head.count - sent, body.baseAddress,
                    body.count, nil, 0, 0)
            } else {
                count = unsafe cs_send(
                    descriptor.rawValue, body.baseAddress.map { unsafe $0 + (sent - head.count) }, total - sent, nil, 0,
                    nil, 0, 0)
            }
            if count < 0 {
                switch errno {
                case EINTR: continue
                case EAGAIN: try wait(for: .writable, until: nil)
                case EPIPE, ECONNRESET: throw .closed(inMessage: sent > 0)
                default: throw .last("sendmsg", "socket")
                }
                continue
            }
            sent += count
            if total == 0 { return }
        }
    }

    /// Sends one short message: as `send`, and where the kernel takes all of it at once, which it does unless its
    /// buffer is nearly full, for fewer instructions.
    public func sendShort(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        // Safety: the buffer is valid for its count by the caller's promise.
        let count = unsafe cs_send_part(descriptor.rawValue, bytes.baseAddress, bytes.count, 0)
        if count == bytes.count { return }
        if count < 0 {
            switch errno {
            case EINTR, EAGAIN: return unsafe try send(bytes)
            case EPIPE, ECONNRESET: throw .closed(inMessage: false)
            default: throw .last("send", "socket")
            }
        }
        unsafe try send(UnsafeRawBufferPointer(rebasing: bytes[count...]))
    }

    /// Sends an array's bytes.
    public func send(_ bytes: [UInt8], descriptors: [Descriptor] = []) throws(WireError) {
        let buffer = bytes
        // Safety: the array outlives the call.
        let result: Result<Void, WireError> = unsafe buffer.withUnsafeBytes { raw in
            do throws(WireError) { return .success(unsafe try send(raw, descriptors: descriptors)) } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// Sends what fits now; returns the bytes taken, 0 when there is no room.
    public func trySend(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Int {
        while true {
            // Safety: the buffer is valid for its count by the caller's promise.
            let count = unsafe cs_send(
                descriptor.rawValue, bytes.baseAddress, bytes.count, nil, 0, nil, 0, Int32(cs_dont_wait))
            if count >= 0 { return count }
            switch errno {
            case EINTR: continue
            case EAGAIN: return 0
            case EPIPE, ECONNRESET: throw .closed(inMessage: false)
            default: throw .last("sendmsg", "socket")
            }
        }
    }

    /// What one receive call brought.
    public enum Received: Sendable, Equatable {
        case bytes(Int)
        /// The peer is gone.
        case end
        /// Nothing there now (only when asked not to wait).
        case nothing
    }

    /// One recvmsg into `buffer`. Descriptors that came along are appended to `descriptors`.
    ///
    /// On a seqpacket socket a datagram longer than `buffer` throws `.truncated`.
    public func receive(
        into buffer: UnsafeMutableRawBufferPointer, descriptors: inout [Descriptor], waiting: Bool = true
    ) throws(WireError) -> Received {
        while true {
            var truncated = false
            // Safety: the kernel writes at most `buffer.count` bytes and the room of one `cs_control`, which
            // `cs_receive` initialises before it returns.
            let received = unsafe withUnsafeTemporaryAllocation(of: cs_control.self, capacity: 1) { control in
                let control = control.baseAddress!
                let received = unsafe cs_receive(
                    descriptor.rawValue, buffer.baseAddress, buffer.count, control,
                    waiting ? 0 : Int32(cs_dont_wait))
                if unsafe control.pointee.length > 0 || control.pointee.truncated {
                    truncated = unsafe control.pointee.truncated
                    unsafe Self.take(control, &descriptors)
                }
                return received
            }
            if received < 0 {
                if try isWorthRepeating(errno, waiting) { continue }
                return errno == ECONNRESET ? .end : .nothing
            }
            if truncated { throw .truncated }
            return received == 0 ? .end : .bytes(received)
        }
    }

    /// Out of the hot function: descriptors are rare.
    @inline(never)
    private static func take(_ control: UnsafePointer<cs_control>, _ descriptors: inout [Descriptor]) {
        var numbers = InlineArray<64, Int32>(repeating: -1)
        var span = numbers.mutableSpan
        // Safety: the array holds CS_MAX_DESCRIPTORS numbers, and each is a descriptor that the kernel just made.
        let count = unsafe span.withUnsafeMutableBufferPointer { unsafe cs_descriptors(control, $0.baseAddress) }
        for index in 0..<Int(count) { descriptors.append(Descriptor(adopting: numbers[index])) }
    }

    /// What a failed receive means: true to try again, false where it says "nothing" or "the end".
    @inline(never)
    private func isWorthRepeating(_ error: Int32, _ waiting: Bool) throws(WireError) -> Bool {
        switch error {
        case EINTR: return true
        case EAGAIN:
            guard waiting else { return false }
            if givesUp.load(ordering: .relaxed) { throw .timedOut }
            try wait(for: .readable, until: nil)
            return true
        case ECONNRESET: return false
        default: throw .last("recvmsg", "socket")
        }
    }

    /// The next bytes, at most `limit`, waiting until `deadline` (nil: forever); nil at the end.
    public func receiveBytes(limit: Int, until deadline: MonotonicTime? = nil) throws(WireError) -> [UInt8]? {
        if let deadline { try wait(for: .readable, until: deadline) }
        var bytes = [UInt8](repeating: 0, count: limit)
        var descriptors: [Descriptor] = []
        // Safety: the array outlives the call.
        let result: Result<Received, WireError> = unsafe bytes.withUnsafeMutableBytes { raw in
            do throws(WireError) { return .success(unsafe try receive(into: raw, descriptors: &descriptors)) } catch {
                return .failure(error)
            }
        }
        guard case .bytes(let count) = try result.get() else { return nil }
        bytes.removeLast(limit - count)
        return bytes
    }

    /// What to wait for.
    public enum Readiness: Sendable { case readable, writable }

    /// Sleeps until the socket is ready; throws `.timedOut` when `deadline` passes first.
    public func wait(for readiness: Readiness, until deadline: MonotonicTime?) throws(WireError) {
        var entry = pollfd(fd: descriptor.rawValue, events: 0, revents: 0)
        entry.events = Int16(readiness == .readable ? POLLIN : POLLOUT)
        while true {
            var timeout: Int32 = -1
            if let deadline {
                let left = deadline.since(.now).clampedNanoseconds
                timeout = Int32(clamping: (left + 999_999) / 1_000_000)
            }
            // Safety: one entry, count one.
            let count = unsafe poll(&entry, 1, timeout)
            if count > 0 { return }
            if count == 0 { throw .timedOut }
            if errno != EINTR { throw .last("poll", "socket") }
        }
    }
}
