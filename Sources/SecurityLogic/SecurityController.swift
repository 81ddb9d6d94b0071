internal import Serprog
public import Sideband
internal import Synchronization
internal import Trust
public import Wire

/// The shell around the sequencer: sideband wires, timers, the gate. Everything happens on the event loop's thread,
/// except what the gate's ports do.
public final class SecurityController: Sendable {
    /// What the controller tells its owner, on the loop's thread.
    public struct Observer: Sendable {
        public var event: @Sendable (SecurityEvent) -> Void
        public var warning: @Sendable (String) -> Void
        /// The sequence took a step; before the step's events.
        public var changed: @Sendable (Snapshot) -> Void

        public init(
            event: @escaping @Sendable (SecurityEvent) -> Void, warning: @escaping @Sendable (String) -> Void,
            changed: @escaping @Sendable (Snapshot) -> Void
        ) {
            self.event = event
            self.warning = warning
            self.changed = changed
        }
    }

    /// The sequence as others may look at it.
    public struct Snapshot: Sendable {
        public let state: SecurityState
        public let mode: SecurityRequest.Mode
        public let released: Set<HeldComponent>
        public let imageName: String?
        public let failureReason: String?
        /// The chip's bytes that host and BMC see once a slot is verified.
        public let slot: Range<UInt64>?

        /// The moment as the flash gate's rules know it.
        var flashPhase: FlashPhase {
            switch state {
            case .held: .held
            case .verifying: mode == .unprotected ? .unprotected : .verifying
            case .released: .released
            case .locked: .locked
            case .failed: .failed
            }
        }

        init(_ sequencer: SecuritySequencer) {
            state = sequencer.state
            mode = sequencer.mode
            released = sequencer.released
            imageName = sequencer.imageName
            failureReason = sequencer.failureReason
            slot = sequencer.released.isEmpty ? nil : 0..<FlashLayout.chipSize
        }
    }

    private enum Peer: Hashable {
        case adapter
        case component(HeldComponent)

        var name: String {
            switch self {
            case .adapter: "sideband-adapter"
            case .component(let component): "sideband-\(component.rawValue)"
            }
        }
    }

    private struct Connection {
        let socket: Socket
        let link: SidebandLink
        var assembler = MCTPAssembler(address: .securityLogic)
    }

    private struct State {
        var sequencer: SecuritySequencer
        var connections: [Peer: Connection] = [:]
    }

    private let loop: EventLoop
    private let gate: FlashGate
    private let observer: Observer
    private let state: Mutex<State>

    public init(loop: EventLoop, gate: FlashGate, sequencer: SecuritySequencer, observer: Observer) {
        self.loop = loop
        self.gate = gate
        self.observer = observer
        state = Mutex(State(sequencer: sequencer))
        gate.whenChanged { [weak self] address in
            guard let self else { return }
            loop.perform { self.handle(.flashChanged(address)) }
        }
    }

    public var snapshot: Snapshot { state.withLock { Snapshot($0.sequencer) } }

    /// Accepts one peer at a time on each listener (SOCK_SEQPACKET); call before `powerOn`.
    public func serve(adapter: Listener?, components: [HeldComponent: Listener]) throws(WireError) {
        if let adapter { try serve(adapter, .adapter) }
        for (component, listener) in components { try serve(listener, .component(component)) }
    }

    /// Begins the sequence; on the loop's thread or before it runs.
    public func powerOn() { handle(.powerOn) }

    /// Holds everything and has the firmware verified again; any thread.
    public func powerCycle() { loop.perform { [self] in handle(.powerCycle) } }

    // MARK: Events and actions

    private func handle(_ event: SecuritySequencer.Event, reply: ((SecurityResponse) -> Void)? = nil) {
        let (actions, after) = state.withLock { state in
            let actions = state.sequencer.handle(event)
            return (actions, Snapshot(state.sequencer))
        }
        // The gate closes before anybody hears of it, and opens for a component before its reset is released.
        if event == .powerCycle { gate.forgetVerified() }
        gate.setState(FlashGateState(phase: after.flashPhase, released: after.released, slot: after.slot))
        if !actions.isEmpty { observer.changed(after) }
        for action in actions {
            switch action {
            case .setReset(let component, let isAsserted):
                send(.signal(.reset, level: !isAsserted), to: .component(component))
            case .pulseAdapterReset:
                send(.signal(.reset, level: false), to: .adapter)
                send(.signal(.reset, level: true), to: .adapter)
            case .respond(let response): reply?(response)
            case .startTimer(let token, let duration):
                loop.schedule(at: .after(duration)) { [self] in handle(.timerFired(token)) }
            case .emit(let event): observer.event(event)
            }
        }
    }

    // MARK: Wires

    private func serve(_ listener: Listener, _ peer: Peer) throws(WireError) {
        try loop.add(listener.descriptor) { [self] _ in accept(listener, peer) }
    }

    private func accept(_ listener: Listener, _ peer: Peer) {
        let socket: Socket
        do throws(WireError) { socket = try listener.accept() } catch {
            observer.warning("\(peer.name): cannot accept: \(error)")
            return
        }
        let level = state.withLock { state -> Bool? in
            guard state.connections[peer] == nil else { return nil }
            state.connections[peer] = Connection(socket: socket, link: SidebandLink(socket: socket))
            switch peer {
            case .adapter: return true
            case .component(let component): return state.sequencer.released.contains(component)
            }
        }
        guard let level else {
            observer.warning("\(peer.name): a second connection is closed")
            socket.shutdown()
            return
        }
        do throws(WireError) {
            try loop.add(socket.descriptor) { [self] _ in receive(socket, peer) }
        } catch {
            observer.warning("\(peer.name): \(error)")
            drop(socket, peer)
            return
        }
        send(.signal(.reset, level: level), to: peer)
    }

    private func receive(_ socket: Socket, _ peer: Peer) {
        guard let link = state.withLock({ $0.connections[peer] })?.link, link.socket === socket else { return }
        do throws(SidebandLink.Failure) {
            // Ready, so this does not wait.
            guard let message = try link.receive(until: .now) else { return drop(socket, peer) }
            take(message, peer)
        } catch .refused(let refusal) {
            observer.warning("\(peer.name): \(refusal)")
        } catch .wire(.timedOut) {
            return
        } catch {
            observer.warning("\(peer.name): \(error)")
            drop(socket, peer)
        }
    }

    private func drop(_ socket: Socket, _ peer: Peer) {
        loop.remove(socket.descriptor)
        socket.shutdown()
        let wasCurrent = state.withLock { state in
            guard state.connections[peer]?.socket === socket else { return false }
            state.connections[peer] = nil
            return true
        }
        guard wasCurrent else { return }
        switch peer {
        case .adapter: handle(.adapterDisconnected)
        case .component(let component): handle(.powerGood(component, false))
        }
    }

    private func take(_ message: SidebandMessage, _ peer: Peer) {
        switch (message, peer) {
        case (.signal(.powerGood, let level), .component(let component)): handle(.powerGood(component, level))
        // Other signals have no meaning here: a peer may be newer.
        case (.signal, _): break
        case (.mctp(let packet), _):
            let whole = state.withLock { $0.connections[peer]?.assembler.receive(packet) }
            if let whole, whole.isTagOwner { answer(whole, peer) }
        }
    }

    private func answer(_ message: MCTPMessage, _ peer: Peer) {
        let reply = { [self] (response: SecurityResponse) in
            let answer = MCTPMessage(
                destination: message.source, source: .securityLogic, isTagOwner: false, tag: message.tag,
                body: response.encoded)
            for packet in answer.packets() { send(.mctp(packet), to: peer) }
        }
        // Message types other than vendor-defined are dropped, as MCTP wants it.
        guard message.body.first.map({ $0 & 0x7F }) == 0x7E else { return }
        let command = message.body.count > 3 ? message.body[3] : 0
        do throws(SecurityStatus) {
            let request = try SecurityRequest(decoding: message.body)
            guard peer == .adapter else {
                observer.warning("\(peer.name): command \(command) denied: only the adapter may command")
                throw .notPermitted
            }
            handle(.request(request), reply: reply)
        } catch {
            reply(.status(command: command, error))
        }
    }

    /// Never waits: a peer that does not take its few bytes is let go.
    private func send(_ message: SidebandMessage, to peer: Peer) {
        guard let socket = state.withLock({ $0.connections[peer] })?.socket else { return }
        let bytes = message.encoded
        // Safety: the buffer is valid in the closure, where it is sent.
        let result: Result<Int, WireError> = unsafe bytes.withUnsafeBytes { buffer in
            do throws(WireError) { return .success(unsafe try socket.trySend(buffer)) } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(bytes.count): return
        case .success: observer.warning("\(peer.name): does not read its messages; the link is closed")
        case .failure(let error): observer.warning("\(peer.name): \(error)")
        }
        // Later, on the loop: actions that are being performed go on undisturbed.
        loop.perform { [self] in drop(socket, peer) }
    }
}
