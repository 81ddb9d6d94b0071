// A debugger's socket: one debugger at a time, on the event loop.
//
// Model: the machine stops when a debugger connects and goes on when it leaves, however it leaves. A second one is told
// no and let go. While a debugger does not read its answers it is not read either, so nothing piles up.
import GDBRemote
import Synchronization
public import Wire

/// Serves the GDB remote protocol for a machine.
///
/// Unchecked: its variables are only touched on the loop's thread.
public final class GDBServer: @unchecked Sendable {
    /// Bytes of a debugger that are taken at once: a packet and its frame.
    private static let receiveLimit = 0x8000

    private final class Client {
        let socket: Socket
        let debugger: MachineDebugger
        let session: RemoteSession
        var output: [UInt8] = []
        var isClosing = false

        init(_ socket: Socket, _ debugger: MachineDebugger) {
            self.socket = socket
            self.debugger = debugger
            session = RemoteSession(target: debugger)
        }
    }

    private let machine: Machine
    private let loop: EventLoop
    private let report: @Sendable (String) -> Void
    private let onChange: @Sendable () -> Void
    private var client: Client?
    /// Debuggers that are being told no.
    private var turnedAway = 0
    private static let turnedAwayLimit = 4

    /// `report` hears who comes and goes; `onChange` is called, on the loop, when the machine may have stopped or gone
    /// on for the debugger, before the debugger hears of it.
    public init(
        machine: Machine, loop: EventLoop, report: @escaping @Sendable (String) -> Void,
        onChange: @escaping @Sendable () -> Void
    ) {
        self.machine = machine
        self.loop = loop
        self.report = report
        self.onChange = onChange
    }

    /// Serves whoever connects.
    public func serve(_ listener: Listener) throws(WireError) {
        try listener.descriptor.setNonblocking(true)
        try loop.add(listener.descriptor) { [weak self] _ in
            guard let self, let socket = try? listener.accept(until: .now) else { return }
            welcome(socket)
        }
    }

    /// The process ends: whoever is connected is let go. On the loop's thread, or after it.
    public func stop() {
        guard let client else { return }
        flush(client)
        client.socket.shutdown()
    }

    // MARK: on the loop

    private func welcome(_ socket: Socket) {
        guard client == nil else { return turnAway(socket) }
        let debugger = MachineDebugger(machine) { [weak self, loop] in loop.perform { [weak self] in self?.collect() } }
        let client = Client(socket, debugger)
        do throws(WireError) {
            try socket.descriptor.setNonblocking(true)
            try loop.add(socket.descriptor) { [weak self] events in self?.serve(events) }
        } catch {
            report("gdb: \(error)")
            return debugger.leave()
        }
        self.client = client
        report("gdb: a debugger is attached; the harts stand still until it continues")
        onChange()
    }

    /// Answers a second debugger's first packets with why not: that is how a person sees it.
    private func turnAway(_ socket: Socket) {
        report("gdb: another debugger is attached: turned one away")
        guard turnedAway < Self.turnedAwayLimit, (try? socket.descriptor.setNonblocking(true)) != nil else {
            return socket.shutdown()
        }
        let decoder = Mutex((decoder: PacketDecoder(), left: 4))
        let isAdded: Void? = try? loop.add(socket.descriptor) { [weak self] _ in
            let bytes = try? socket.receiveBytes(limit: Self.receiveLimit, until: .now)
            let (packets, isOver) = decoder.withLock { state in
                var packets = 0
                for byte in bytes ?? [] {
                    if case .packet? = state.decoder.receive(byte) { packets += 1 }
                }
                state.left -= packets
                return (packets, state.left <= 0)
            }
            let refusal = [UInt8(ascii: "+")] + Packet.frame("E.another debugger is attached to this machine".utf8)
            for _ in 0..<min(packets, 4) { _ = try? self?.send(refusal, to: socket) }
            guard isOver || bytes == nil else { return }
            self?.loop.remove(socket.descriptor)
            self?.turnedAway -= 1
            socket.shutdown()
        }
        if isAdded != nil { turnedAway += 1 }
    }

    private func serve(_ events: EventLoop.Events) {
        guard let client else { return }
        if events.contains(.writable) {
            flush(client)
            guard self.client === client else { return }
        }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        let bytes: [UInt8]?
        do throws(WireError) {
            bytes = try client.socket.receiveBytes(limit: Self.receiveLimit, until: .now)
        } catch {
            if error == .timedOut { return }
            return drop(client, "\(error)")
        }
        guard let bytes else { return drop(client, "the debugger closed the connection") }
        let wasRunning = client.session.isRunning
        let output = client.session.receive(bytes)
        if client.session.isRunning != wasRunning { onChange() }
        take(output, client)
    }

    /// A hart may have stopped.
    private func collect() {
        guard let client, let (reason, thread) = client.debugger.collect() else { return }
        let output = client.session.targetStopped(reason, thread: thread)
        onChange()
        take(output, client)
    }

    private func take(_ output: RemoteSession.Output, _ client: Client) {
        client.output += output.bytes
        client.isClosing = output.isClosed
        if let reason = output.reason { report("gdb: \(reason)") }
        flush(client)
    }

    private func flush(_ client: Client) {
        do throws(WireError) {
            let sent = try send(client.output, to: client.socket)
            client.output.removeFirst(sent)
        } catch {
            return drop(client, "\(error)")
        }
        if client.output.isEmpty, client.isClosing { return drop(client, nil) }
        try? loop.modify(client.socket.descriptor, client.output.isEmpty ? .readable : .writable)
    }

    /// Sends what the socket takes now.
    private func send(_ bytes: [UInt8], to socket: Socket) throws(WireError) -> Int {
        var sent = 0
        while sent < bytes.count {
            // Safety: `sent` is within the array, which lives through the call.
            let result: Result<Int, WireError> = unsafe bytes.withUnsafeBytes { raw in
                do throws(WireError) {
                    return .success(unsafe try socket.trySend(UnsafeRawBufferPointer(rebasing: raw[sent...])))
                } catch { return .failure(error) }
            }
            let count = try result.get()
            if count == 0 { break }
            sent += count
        }
        return sent
    }

    private func drop(_ client: Client, _ reason: String?) {
        guard self.client === client else { return }
        self.client = nil
        loop.remove(client.socket.descriptor)
        client.socket.shutdown()
        client.debugger.leave()
        report("gdb: \(reason ?? "the debugger detached")" + (machine.state == .running ? "; the harts go on" : ""))
        onChange()
    }
}
