// COM1 between the UART and the sockets that carry it: the BMC's serial wire and people's consoles.
//
// Model: everything here runs on the event loop, except two notices from hart threads that only post a call to it. All
// ends see all output; input of all ends is merged. An end that reads too slowly loses output, as on a serial line without
// flow control; the guest is never slowed by a spectator, unless the bridge was told to lose nothing. An end that types too fast is read no further until the
// guest has taken what it typed. The surprise: a console gets the last output first, so that who attaches late sees
// the boot.
import Synchronization
public import Wire

/// Carries a UART's bytes to and from any number of sockets.
public final class SerialBridge: UARTHost {
    /// Consoles at once; each costs a descriptor and its buffers.
    static let maximumConsoles = 16
    /// Output kept for an end that is behind: four full socket buffers.
    static let pendingLimit = 1 << 20
    /// Output shown to a console that attaches.
    static let backlogLimit = 64 << 10
    private static let receiveLimit = 4096

    /// One socket.
    private final class End: Sendable {
        let name: String
        let socket: Socket
        let state = Mutex(State())
        struct State {
            var output: [UInt8] = []
            /// Received and not yet accepted by the UART: while there is any, the socket is not read.
            var input: ArraySlice<UInt8> = []
            var dropped = 0
        }

        init(name: String, socket: Socket) {
            self.name = name
            self.socket = socket
        }
    }

    private struct State {
        var ends: [End] = []
        var backlog: [UInt8] = []
        var outputCount: UInt64 = 0
    }

    private let losesNothing: Bool
    private let uart: UART
    private let loop: EventLoop
    private let report: @Sendable (String) -> Void
    private let mirror: (@Sendable ([UInt8]) -> Void)?
    private let state = Mutex(State())

    /// `mirror` gets all output too, on the loop. `report` hears when an end leaves or loses bytes. With `losesNothing`
    /// the UART keeps its output while an end is behind, and the guest waits.
    public init(
        uart: UART, loop: EventLoop, losesNothing: Bool = false, mirror: (@Sendable ([UInt8]) -> Void)? = nil,
        report: @escaping @Sendable (String) -> Void
    ) {
        self.losesNothing = losesNothing
        self.uart = uart
        self.loop = loop
        self.mirror = mirror
        self.report = report
        uart.attach(self)
    }

    /// Bytes that the guest has sent so far.
    public var outputCount: UInt64 { state.withLock { $0.outputCount } }

    /// The consoles attached now.
    public var endCount: Int { state.withLock { $0.ends.count } }

    /// Joins one connected socket, such as the BMC's.
    public func join(_ socket: Socket, name: String) throws(WireError) {
        let end = End(name: name, socket: socket)
        state.withLock { $0.ends.append(end) }
        try loop.add(socket.descriptor) { [weak self] events in self?.serve(end, events) }
    }

    /// Serves consoles to whoever connects.
    public func serve(_ listener: Listener) throws(WireError) {
        try loop.add(listener.descriptor) { [weak self] _ in
            guard let self, let socket = try? listener.accept() else { return }
            welcome(socket)
        }
    }

    private func welcome(_ socket: Socket) {
        let (isFull, backlog) = state.withLock { ($0.ends.count > Self.maximumConsoles, $0.backlog) }
        guard !isFull else {
            report("console: more than \(Self.maximumConsoles) clients: turned one away")
            return socket.shutdown()
        }
        let end = End(name: "console", socket: socket)
        end.state.withLock { $0.output = backlog }
        state.withLock { $0.ends.append(end) }
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] events in self?.serve(end, events) }
        } catch {
            return leave(end, "\(error)")
        }
        push(end)
    }

    // MARK: UARTHost, on hart threads

    public func outputAvailable() { loop.perform { [weak self] in self?.spread() } }

    public func inputRoomAvailable() { loop.perform { [weak self] in self?.offerAgain() } }

    // MARK: on the loop

    /// What an end that is behind gets to read the rest of the output, when the machine has stopped for good.
    static let finishPatience = Duration.seconds(2)

    /// Takes what the UART still has and sends what is pending, after the harts have stopped. On the loop.
    public func finish() {
        let deadline = MonotonicTime.after(Self.finishPatience)
        spread()
        for end in state.withLock({ $0.ends }) {
            while end.state.withLock({ !$0.output.isEmpty }), state.withLock({ $0.ends.contains { $0 === end } }) {
                guard (try? end.socket.wait(for: .writable, until: deadline)) != nil else { break }
                push(end)
                spread()
            }
        }
    }

    /// Takes the UART's output and sends it to every end.
    private func spread() {
        if losesNothing && isAnyoneBehind { return }
        let bytes = uart.takeOutput()
        guard !bytes.isEmpty else { return }
        mirror?(bytes)
        let ends = state.withLock { state in
            state.outputCount &+= UInt64(bytes.count)
            state.backlog += bytes
            let excess = state.backlog.count - Self.backlogLimit
            // Cut in large steps: the array moves its rest each time.
            if excess > Self.backlogLimit { state.backlog.removeFirst(excess) }
            return state.ends
        }
        for end in ends {
            let lost = end.state.withLock { state in
                let room = Self.pendingLimit - state.output.count
                state.output += bytes.prefix(room)
                let isFirst = state.dropped == 0
                state.dropped += max(0, bytes.count - room)
                return isFirst && state.dropped > 0
            }
            if lost { report("\(end.name): reads too slowly: output is lost") }
            push(end)
        }
    }

    /// Whether some end has so much to read that more might not fit.
    private var isAnyoneBehind: Bool {
        state.withLock { $0.ends }.contains { end in end.state.withLock { $0.output.count > Self.pendingLimit / 2 } }
    }

    private func serve(_ end: End, _ events: EventLoop.Events) {
        if events.contains(.writable) {
            push(end)
            if losesNothing { spread() }
        }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        let bytes: [UInt8]?
        do throws(WireError) {
            bytes = try end.socket.receiveBytes(limit: Self.receiveLimit, until: .now)
        } catch {
            if case .timedOut = error { return }
            return leave(end, "\(error)")
        }
        guard let bytes else { return leave(end, nil) }
        end.state.withLock { $0.input += bytes }
        offer(end)
    }

    /// Sends what is pending, and waits for room only while something is.
    private func push(_ end: End) {
        let failure: WireError? = end.state.withLock { state in
            do throws(WireError) {
                while !state.output.isEmpty {
                    let output = state.output
                    // Safety: the array lives through the call.
                    let result: Result<Int, WireError> = unsafe output.withUnsafeBytes { raw in
                        do throws(WireError) { return .success(unsafe try end.socket.trySend(raw)) } catch {
                            return .failure(error)
                        }
                    }
                    let sent = try result.get()
                    if sent == 0 { break }
                    state.output.removeFirst(sent)
                }
                return nil
            } catch {
                return error
            }
        }
        if let failure {
            if case .closed = failure { return leave(end, nil) }
            return leave(end, "\(failure)")
        }
        watch(end)
    }

    private func offer(_ end: End) {
        end.state.withLock { state in
            guard !state.input.isEmpty else { return }
            let taken = uart.offerInput(state.input)
            state.input = state.input.dropFirst(taken)
            if state.input.isEmpty { state.input = [] }
        }
        watch(end)
    }

    private func offerAgain() {
        for end in state.withLock({ $0.ends }) { offer(end) }
    }

    private func watch(_ end: End) {
        let events: EventLoop.Events = end.state.withLock { state in
            var events: EventLoop.Events = []
            if state.input.isEmpty { events.insert(.readable) }
            if !state.output.isEmpty { events.insert(.writable) }
            return events
        }
        do throws(WireError) { try loop.modify(end.socket.descriptor, events) } catch { leave(end, "\(error)") }
    }

    private func leave(_ end: End, _ reason: String?) {
        loop.remove(end.socket.descriptor)
        let wasThere = state.withLock { state in
            let count = state.ends.count
            state.ends.removeAll { $0 === end }
            return state.ends.count < count
        }
        if wasThere, end.name != "console" || reason != nil {
            report("\(end.name): \(reason ?? "the peer closed the connection")")
        }
        end.socket.shutdown()
        // It may have been the one that the others waited for.
        if losesNothing { loop.perform { [weak self] in self?.spread() } }
    }
}
