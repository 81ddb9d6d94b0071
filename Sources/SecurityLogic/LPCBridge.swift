// The lpc wire in the security logic: POST codes end here, KCS cycles pass to the BMC or do not.
//
//   host ── cycle ──▶ port 0x80 ──▶ onPostCode
//                     KCS, connected ──▶ BMC ── SYNC, SERIRQ ──▶ host
//                     KCS, not connected: nobody drives the bus, counted
//                     else: nobody drives the bus

internal import LPC
internal import Synchronization
public import Wire

/// Stands between host and BMC on the lpc wire. Not connected at first.
public final class LPCBridge: Sendable {
    /// A KCS cycle that did not reach the BMC because the two are not connected.
    public struct Denial: Hashable, Sendable {
        public let port: UInt16
        public let isWrite: Bool
        /// So many so far, this one included.
        public let count: UInt64
    }

    public struct Statistics: Hashable, Sendable {
        /// The last POST code, nil before the first.
        public var postCode: UInt8?
        public var postCodes: UInt64 = 0
        /// KCS cycles that went to the BMC.
        public var forwarded: UInt64 = 0
        public var denied: UInt64 = 0
        public var isConnected = false
    }

    private struct State {
        var statistics = Statistics()
        var host: LPCLink?
        var bmc: LPCLink?
        /// The cycle that the BMC has and has not answered.
        var pending: UInt8?
        /// What the BMC drives, whether the host sees it or not.
        var interrupt = false
        var interruptAtHost = false
        var complaints: [Side: Complaints] = [:]
    }

    private enum Side: String {
        case host = "lpc-host"
        case bmc = "lpc-bmc"
    }

    private let loop: EventLoop
    private let listeners: [(Side, Listener)]
    private let onPostCode: @Sendable (UInt8) -> Void
    private let onDenial: @Sendable (Denial) -> Void
    private let report: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// - Parameters:
    ///   - host, bmc: SOCK_SEQPACKET listeners of ports `lpc-host` and `lpc-bmc`; without one its side is not there.
    ///   - onPostCode: told every POST code, on the loop's thread.
    ///   - onDenial: told the first, second, fourth, eighth … denial, on the loop's thread.
    ///   - report: given lines for the log.
    public init(
        loop: EventLoop, host: Listener?, bmc: Listener?, onPostCode: @escaping @Sendable (UInt8) -> Void,
        onDenial: @escaping @Sendable (Denial) -> Void, report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.loop = loop
        listeners = [(Side.host, host), (Side.bmc, bmc)].compactMap { side, listener in listener.map { (side, $0) } }
        self.onPostCode = onPostCode
        self.onDenial = onDenial
        self.report = report
    }

    /// Begins to serve, one peer at a time on each side.
    public func start() throws(WireError) {
        for (side, listener) in listeners {
            try loop.add(listener.descriptor) { [weak self] _ in self?.accept(listener, side) }
        }
    }

    public var statistics: Statistics { state.withLock { $0.statistics } }

    /// Connects host and BMC or takes them apart; when this returns no further cycle passes. Any thread.
    public func setConnected(_ isConnected: Bool) {
        state.withLock { state in
            state.statistics.isConnected = isConnected
            if !isConnected, let tag = state.pending { answer(tag, .none, 0xFF, &state) }
            updateInterrupt(&state)
        }
    }

    // MARK: Links

    private func accept(_ listener: Listener, _ side: Side) {
        let socket: Socket
        do throws(WireError) { socket = try listener.accept() } catch {
            return report("\(side.rawValue): cannot accept: \(error)")
        }
        let isTaken = state.withLock { state in
            guard (side == .host ? state.host : state.bmc) == nil else { return true }
            set(LPCLink(socket: socket), side, &state)
            updateInterrupt(&state)
            return false
        }
        guard !isTaken else {
            socket.shutdown()
            return report("\(side.rawValue): a second connection is closed")
        }
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] _ in self?.drain(side) }
        } catch {
            drop(side, error.description)
        }
    }

    private func set(_ link: LPCLink?, _ side: Side, _ state: inout State) {
        switch side {
        case .host:
            state.host = link
            state.interruptAtHost = false
            state.pending = nil
        case .bmc:
            state.bmc = link
            state.interrupt = false
        }
    }

    private func drop(_ side: Side, _ reason: String?) {
        state.withLock { state in
            guard let link = side == .host ? state.host : state.bmc else { return }
            loop.remove(link.socket.descriptor)
            link.socket.shutdown()
            if side == .bmc, let tag = state.pending { answer(tag, .none, 0xFF, &state) }
            set(nil, side, &state)
            updateInterrupt(&state)
        }
        if let reason { report("\(side.rawValue): \(reason)") }
    }

    private func complain(_ side: Side, _ text: String) {
        let line = state.withLock { $0.complaints[side, default: Complaints()].line(text) }
        if let line { report("\(side.rawValue): \(line)") }
    }

    private func drain(_ side: Side) {
        for _ in 0..<LPCLink.messagesATurn {
            let link = state.withLock { side == .host ? $0.host : $0.bmc }
            guard let link else { return }
            switch link.next() {
            case .nothing: return
            case .ended(let reason): return drop(side, reason)
            case .refused(let reason): complain(side, reason)
            case .message(let message):
                switch side {
                case .host: take(message)
                case .bmc: takeFromBMC(message)
                }
            }
        }
    }

    // MARK: Messages

    private func take(_ message: LPCMessage) {
        switch message {
        case .read(let tag, LPCPort.postCode):
            state.withLock { state in answer(tag, .ready, state.statistics.postCode ?? 0xFF, &state) }
        case .write(let tag, LPCPort.postCode, let code):
            // Its effects come before its SYNC, those too that are put off to the loop: what the host does next, it does
            // after them.
            state.withLock { state in
                state.statistics.postCode = code
                state.statistics.postCodes &+= 1
            }
            onPostCode(code)
            loop.perform { [weak self] in
                guard let self else { return }
                state.withLock { state in answer(tag, .ready, 0xFF, &state) }
            }
        case .read(let tag, let port): pass(message, tag, port, isWrite: false)
        case .write(let tag, let port, _): pass(message, tag, port, isWrite: true)
        case .sync, .interrupt: complain(.host, "a message that only a peripheral sends is ignored")
        }
    }

    private func pass(_ message: LPCMessage, _ tag: UInt8, _ port: UInt16, isWrite: Bool) {
        let denial = state.withLock { state -> Denial? in
            // A host that begins a cycle has given up the one before.
            state.pending = nil
            guard LPCPort.kcs.contains(port) else {
                answer(tag, .none, 0xFF, &state)
                return nil
            }
            guard state.statistics.isConnected else {
                state.statistics.denied &+= 1
                answer(tag, .none, 0xFF, &state)
                let count = state.statistics.denied
                return count & (count &- 1) == 0 ? Denial(port: port, isWrite: isWrite, count: count) : nil
            }
            guard let bmc = state.bmc, bmc.send(message) else {
                answer(tag, .none, 0xFF, &state)
                return nil
            }
            state.statistics.forwarded &+= 1
            state.pending = tag
            return nil
        }
        if let denial { onDenial(denial) }
    }

    private func takeFromBMC(_ message: LPCMessage) {
        let complaint = state.withLock { state -> String? in
            switch message {
            case .sync(let tag, let sync, let data):
                // Another tag: the answer to a cycle that was given up.
                if state.pending == tag { answer(tag, sync, sync == .ready ? data : 0xFF, &state) }
            case .interrupt(LPCPort.kcsInterrupt, let level):
                state.interrupt = level
                updateInterrupt(&state)
            case .interrupt(let number, _): return "interrupt \(number) is not the BMC's to drive"
            case .read, .write: return "a cycle is ignored: the host alone begins one"
            }
            return nil
        }
        if let complaint { complain(.bmc, complaint) }
    }

    private func answer(_ tag: UInt8, _ sync: LPCMessage.Sync, _ data: UInt8, _ state: inout State) {
        state.pending = nil
        send(.sync(tag: tag, sync, data: data), &state)
    }

    private func updateInterrupt(_ state: inout State) {
        let level = state.interrupt && state.statistics.isConnected
        guard state.host != nil, level != state.interruptAtHost else { return }
        state.interruptAtHost = level
        send(.interrupt(LPCPort.kcsInterrupt, level: level), &state)
    }

    /// To the host. One that does not take five bytes is let go, later: what is being done goes on undisturbed.
    private func send(_ message: LPCMessage, _ state: inout State) {
        guard let host = state.host, !host.send(message) else { return }
        loop.perform { [weak self] in self?.dropHost(host.socket) }
    }

    private func dropHost(_ socket: Socket) {
        guard state.withLock({ $0.host?.socket === socket }) else { return }
        drop(.host, "does not read its messages; the link is closed")
    }
}
