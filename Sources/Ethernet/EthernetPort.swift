// One end of an Ethernet link: frames in by the batch, frames out by the batch, nobody ever waited for.
//
// The receiving half runs on the loop's thread and hands over all frames of one receive call at a time. The sending half
// is a bounded queue in front of the socket: what does not fit is dropped and counted, like in a switch with full egress
// buffers; a stream that has seen half a frame always sees the other half. Any thread may send.
//
// Lock order: the receiving half's lock is held while its owner handles frames; the sending half's is a leaf. So a
// frame handler may send on any port, its own included.

import Synchronization
public import Wire

/// A port on a link of the ethernet wire.
///
/// Spec: QEMU `-netdev stream`: each frame behind its 32-bit big-endian length.
public final class EthernetPort: Sendable {
    /// All frames that one receive call brought: calls its argument with each, in order.
    public typealias Frames = ((Span<UInt8>) -> Void) -> Void

    /// What the port's owner does with what comes. Called on the loop's thread.
    public struct Handlers: Sendable {
        /// Frames came.
        public var frames: @Sendable (Frames) -> Void
        /// The link came up or went down.
        public var link: @Sendable (Bool) -> Void

        public init(
            frames: @escaping @Sendable (Frames) -> Void, link: @escaping @Sendable (Bool) -> Void = { _ in }
        ) {
            self.frames = frames
            self.link = link
        }
    }

    /// Receive calls served in one go before other ports get their turn.
    private static let batchesATurn = 8
    /// Holds two frames of maximum length; memory that an idle port keeps.
    private static let receiveCapacity = 160 << 10

    private struct Receiving {
        var decoder: FrameDecoder
        var socket: Socket?
    }

    private struct Sending {
        var batch: FrameBatch
        var socket: Socket?
        /// Waiting for the peer to take what is queued.
        var isBlocked = false
    }

    /// As in the component's port list.
    public let name: String
    /// Where a capture or an impairment is put in.
    public let tap = LinkTap()
    private let loop: EventLoop
    private let counters = PortCounters()
    private let receiving: Mutex<Receiving>
    private let sending: Mutex<Sending>
    private let handlers = Mutex<Handlers?>(nil)
    private let keeper = Mutex<LinkKeeper?>(nil)
    private let report: @Sendable (String) -> Void

    /// - Parameters:
    ///   - queue: bytes that may wait for a slow peer.
    ///   - report: called with one line when a peer breaks the framing or a link cannot be made again.
    public init(
        named name: String, loop: EventLoop, queue: Int = 256 << 10,
        report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.name = name
        self.loop = loop
        self.report = report
        receiving = Mutex(Receiving(decoder: FrameDecoder(capacity: Self.receiveCapacity)))
        sending = Mutex(Sending(batch: FrameBatch(capacity: queue)))
    }

    /// Begins to make the link as `source` says. Called once.
    public func start(_ source: LinkSource, handlers: Handlers) throws(WireError) {
        self.handlers.withLock { $0 = handlers }
        let keeper = LinkKeeper(source, loop: loop, report: { [name, report] in report("\(name): \($0)") }) {
            [weak self] in self?.comeUp($0)
        }
        self.keeper.withLock { $0 = keeper }
        try keeper.start()
    }

    /// Ends the link for good.
    public func stop() {
        keeper.withLock { $0 }?.stop()
        goDown()
    }

    public var statistics: PortStatistics { counters.statistics }

    public var isUp: Bool { sending.withLock { $0.socket != nil } }

    /// Counts frames that came in by this port and went nowhere.
    public func countDropped(_ frames: Int) { counters.add(frames, to: .receivedDropped) }

    // MARK: Sending

    /// Queues one frame; `flush` sends. Returns false, and counts a drop, when the peer is away or does not keep up.
    @discardableResult
    public func enqueue(_ frame: Span<UInt8>) -> Bool {
        switch inspect(frame, .sent) {
        case .pass: return take(frame)
        case .drop: return false
        case .replace(let frames):
            var taken = true
            for other in frames where !take(other.span) { taken = false }
            return taken
        case .disconnect:
            loop.perform { [weak self] in self?.endLink() }
            return false
        }
    }

    /// Queues every frame of `batch` and sends.
    public func send(_ batch: FrameBatch) {
        batch.forEachFrame { enqueue($0) }
        flush()
    }

    private func take(_ frame: Span<UInt8>) -> Bool {
        let taken = sending.withLock { sending in sending.socket != nil && sending.batch.append(frame) }
        if taken {
            counters.add(1, to: .sentFrames)
            counters.add(frame.count, to: .sentBytes)
        } else {
            counters.add(1, to: .sentDropped)
        }
        return taken
    }

    /// Sends what is queued, as far as the socket takes it now; the rest follows when it can.
    public func flush() {
        let isBroken = sending.withLock { sending in
            guard let socket = sending.socket, !sending.isBlocked else { return false }
            return !push(&sending, socket)
        }
        if isBroken { loop.perform { [weak self] in self?.endLink() } }
    }

    /// Returns false when the link is broken.
    private func push(_ sending: inout Sending, _ socket: Socket) -> Bool {
        while !sending.batch.isEmpty {
            // Safety: the bytes are the batch's own for the time of this call.
            let sent = unsafe sending.batch.withUnsentBytes { bytes -> Int? in
                do { return unsafe try socket.trySend(bytes) } catch { return nil }
            }
            guard let sent else { return false }
            if sent == 0 {
                sending.isBlocked = true
                try? loop.modify(socket.descriptor, [.readable, .writable])
                return true
            }
            sending.batch.consume(sent)
        }
        return true
    }

    // MARK: The loop's thread

    private func comeUp(_ socket: Socket) {
        receiving.withLock { receiving in
            receiving.decoder.reset()
            receiving.socket = socket
        }
        sending.withLock { sending in
            sending.batch.removeAll()
            sending.isBlocked = false
            sending.socket = socket
        }
        handlers.withLock { $0 }?.link(true)
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] events in self?.serve(socket, events) }
        } catch {
            report("\(name): \(error)")
            endLink()
        }
    }

    private func serve(_ socket: Socket, _ events: EventLoop.Events) {
        if events.contains(.writable) { becameWritable(socket) }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        let handler = handlers.withLock { $0 }
        for _ in 0..<Self.batchesATurn {
            switch receiveBatch(socket, handler) {
            case .bytes: continue
            case .nothing: return
            case .end: return endLink()
            }
        }
    }

    private func becameWritable(_ socket: Socket) {
        sending.withLock { sending in
            guard sending.socket === socket, sending.isBlocked else { return }
            sending.isBlocked = false
            _ = push(&sending, socket)
            if !sending.isBlocked { try? loop.modify(socket.descriptor, .readable) }
        }
    }

    private func receiveBatch(_ socket: Socket, _ handler: Handlers?) -> Socket.Received {
        receiving.withLock { receiving in
            guard receiving.socket === socket else { return .nothing }
            var outcome = Socket.Received.end
            var surplus: [Descriptor] = []
            // Safety: the room is the decoder's own for the time of this call.
            _ = unsafe receiving.decoder.fill { room in
                outcome = (unsafe try? socket.receive(into: room, descriptors: &surplus, waiting: false)) ?? .end
                if case .bytes(let count) = outcome { return count }
                return 0
            }
            guard case .bytes = outcome else { return outcome }
            do throws(FramingError) {
                try deliver(&receiving.decoder, handler)
            } catch {
                report("\(name): \(error); the link is closed")
                return .end
            }
            return outcome
        }
    }

    private func deliver(_ decoder: inout FrameDecoder, _ handler: Handlers?) throws(FramingError) {
        var failure: FramingError?
        var isCut = false
        handler?.frames { body in
            var frames = 0
            var bytes = 0
            do throws(FramingError) {
                _ = try decoder.drain { frame in
                    guard !isCut else { return }
                    frames += 1
                    bytes += frame.count
                    switch self.inspect(frame, .received) {
                    case .pass: body(frame)
                    case .drop: break
                    case .replace(let others): for other in others { body(other.span) }
                    case .disconnect: isCut = true
                    }
                }
            } catch {
                failure = error
            }
            // Before the owner sends anything on: who sees an answer sees the question counted.
            counters.add(frames, to: .receivedFrames)
            counters.add(bytes, to: .receivedBytes)
        }
        if let failure { throw failure }
        if isCut { loop.perform { [weak self] in self?.endLink() } }
    }

    private func inspect(_ frame: Span<UInt8>, _ direction: LinkDirection) -> LinkVerdict {
        // Safety: the span's bytes are valid for the time of this call.
        unsafe frame.withUnsafeBytes { unsafe tap.inspect($0, direction) }
    }

    private func endLink() {
        if goDown() { keeper.withLock { $0 }?.linkEnded() }
    }

    @discardableResult
    private func goDown() -> Bool {
        let socket = receiving.withLock { receiving in receiving.socket.take() }
        guard let socket else { return false }
        sending.withLock { sending in
            sending.socket = nil
            sending.batch.removeAll()
        }
        loop.remove(socket.descriptor)
        socket.shutdown()
        handlers.withLock { $0 }?.link(false)
        return true
    }
}
