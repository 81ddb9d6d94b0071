internal import Sideband
internal import Synchronization
public import Wire

/// The sideband wires: who may connect, who may command, and what passes between host and BMC.
extension SecurityController {
    enum Peer: Hashable {
        case adapter
        case component(HeldComponent)

        var name: String {
            switch self {
            case .adapter: "sideband-adapter"
            case .component(let component): "sideband-\(component.rawValue)"
            }
        }
    }

    struct Connection {
        let socket: Socket
        let link: SidebandLink
        var assembler = MCTPAssembler(address: .securityLogic)
    }

    /// Accepts one peer at a time on each listener (SOCK_SEQPACKET); call before `powerOn`.
    public func serve(adapter: Listener?, components: [HeldComponent: Listener]) throws(WireError) {
        if let adapter { try serve(adapter, .adapter) }
        for (component, listener) in components { try serve(listener, .component(component)) }
    }

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
        case (.mctp(let packet), .component(let component)) where packet.destination != .securityLogic:
            bridge(packet, from: component)
        case (.mctp(let packet), _):
            let whole = state.withLock { $0.connections[peer]?.assembler.receive(packet) }
            if let whole, whole.isTagOwner { answer(whole, peer) }
        }
    }

    /// Host and BMC talk to each other through the logic until it locks, each under its own name; cards to nobody.
    private func bridge(_ packet: MCTPPacket, from component: HeldComponent) {
        let other: HeldComponent? =
            switch component {
            case .bmc: .host
            case .host: .bmc
            case .card0, .card1, .card2, .card3: nil
            }
        let (target, dropped) = state.withLock { state -> (HeldComponent?, UInt64) in
            guard let other, state.sequencer.isBridged, packet.source == component.endpoint,
                packet.destination == other.endpoint
            else {
                state.bridge.dropped &+= 1
                return (nil, state.bridge.dropped)
            }
            state.bridge.forwarded &+= 1
            return (other, 0)
        }
        if let target { return send(.mctp(packet), to: .component(target)) }
        if dropped & (dropped &- 1) == 0 {
            observer.warning(
                "sideband-\(component.rawValue): a packet for endpoint \(packet.destination.rawValue) is dropped "
                    + "(\(dropped) so far)")
        }
    }

    private func answer(_ message: MCTPMessage, _ peer: Peer) {
        if UpdateRequest.isUpdate(message.body) { return answerUpdate(message, peer) }
        let reply = { @Sendable [self] (response: SecurityResponse) in respond(response.encoded, to: message, peer) }
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

    /// Sends the answer with this body to a request.
    private func respond(_ body: [UInt8], to request: MCTPMessage, _ peer: Peer) {
        let answer = MCTPMessage(
            destination: request.source, source: .securityLogic, isTagOwner: false, tag: request.tag, body: body)
        for packet in answer.packets() { send(.mctp(packet), to: peer) }
    }

    /// The BMC's update commands, while it runs.
    private func answerUpdate(_ message: MCTPMessage, _ peer: Peer) {
        let reply = { @Sendable [self] (response: UpdateResponse) in respond(response.encoded, to: message, peer) }
        let command = message.body[3]
        do throws(SecurityStatus) {
            let request = try UpdateRequest(decoding: message.body)
            let (isRunning, slot, fuses) = state.withLock { state in
                (state.sequencer.released.contains(.bmc), state.sequencer.updatableSlot, state.sequencer.fuses)
            }
            guard peer == .component(.bmc), isRunning else {
                observer.warning("\(peer.name): \(request.name) denied: only a running BMC may update")
                throw .notPermitted
            }
            updates.handle(request, inactive: slot, fuses: fuses) { [self] response, staged in
                loop.perform { [self] in
                    // The record first: who hears that the image is staged may cut the power.
                    guard let staged, let failure = stage(staged) else { return reply(response) }
                    updates.refuse(failure)
                    reply(.refused(command: command, .refused, reason: failure))
                }
            }
        } catch {
            reply(.refused(command: command, error, reason: ""))
        }
    }

    /// Never waits: a peer that does not take its few bytes is let go.
    func send(_ message: SidebandMessage, to peer: Peer) {
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

extension HeldComponent {
    var endpoint: MCTPPacket.EndpointID {
        switch self {
        case .bmc: .bmc
        case .card0: .card0
        case .card1: .card1
        case .card2: .card2
        case .card3: .card3
        case .host: .host
        }
    }
}
