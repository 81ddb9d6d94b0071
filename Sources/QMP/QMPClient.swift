public import Wire

/// A client of one control socket: the blocking use of a script, or message by message inside an event loop.
///
/// Belongs to one thread.
public final class QMPClient {
    /// Why a conversation failed.
    public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case wire(String)
        case refused(QMPError)
        case closed
        case notQMP
        case timedOut

        public var description: String {
            switch self {
            case .wire(let text): text
            case .refused(let error): error.text
            case .closed: "the control connection closed"
            case .notQMP: "the other side does not speak QMP"
            case .timedOut: "no answer in time"
            }
        }
    }

    public let socket: Socket
    private var scanner = JSONScanner()
    private var inbox: [QMPServerMessage] = []
    private var events: [QMPEvent] = []
    private var nextIdentifier: Int64 = 1

    /// Takes over a connected socket; the greeting is still to come.
    public init(socket: Socket) { self.socket = socket }

    /// Connects to `path` and negotiates.
    public convenience init(path: String, until deadline: MonotonicTime = .after(.seconds(10))) throws(Failure) {
        let socket: Socket
        do throws(WireError) { socket = try Socket.connect(to: path) } catch { throw .wire(error.description) }
        self.init(socket: socket)
        _ = try execute("qmp_capabilities", until: deadline)
    }

    /// Sends a command without waiting; returns the id its reply will carry.
    @discardableResult
    public func send(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(Failure) -> JSONValue {
        let identifier = JSONValue.integer(nextIdentifier)
        nextIdentifier += 1
        var message: [String: JSONValue] = ["execute": .string(command), "id": identifier]
        if !arguments.isEmpty { message["arguments"] = .object(arguments) }
        do throws(WireError) { try socket.send(JSONValue.object(message).encoded() + [0x0A]) } catch {
            throw error == .closed(inMessage: false) ? .closed : .wire(error.description)
        }
        return identifier
    }

    /// Sends a command and waits for its reply; events that come meanwhile are kept for `nextEvent`.
    public func execute(
        _ command: String, _ arguments: [String: JSONValue] = [:],
        until deadline: MonotonicTime = .after(.seconds(10))
    ) throws(Failure) -> JSONValue {
        let identifier = try send(command, arguments)
        while true {
            switch try nextMessage(until: deadline) {
            case .success(let value, identifier): return value
            case .failure(let error, identifier), .failure(let error, nil): throw .refused(error)
            case .event(let event): events.append(event)
            case .greeting, .success, .failure: continue
            }
        }
    }

    /// The next event.
    public func nextEvent(until deadline: MonotonicTime) throws(Failure) -> QMPEvent {
        if !events.isEmpty { return events.removeFirst() }
        while true {
            if case .event(let event) = try nextMessage(until: deadline) { return event }
        }
    }

    /// The next event of that name; others before it are dropped.
    public func waitForEvent(_ name: String, until deadline: MonotonicTime) throws(Failure) -> QMPEvent {
        while true {
            let event = try nextEvent(until: deadline)
            if event.name == name { return event }
        }
    }

    private func nextMessage(until deadline: MonotonicTime) throws(Failure) -> QMPServerMessage {
        while inbox.isEmpty { inbox = try receive(until: deadline) }
        return inbox.removeFirst()
    }

    /// One receive call's whole messages (perhaps none), waiting until `deadline`; for an event loop pass `.now` when
    /// the socket is readable. Throws `.closed` at the end.
    public func receive(until deadline: MonotonicTime) throws(Failure) -> [QMPServerMessage] {
        let bytes: [UInt8]?
        do throws(WireError) { bytes = try socket.receiveBytes(limit: 65_536, until: deadline) } catch {
            throw error == .timedOut ? .timedOut : .wire(error.description)
        }
        guard let bytes else { throw .closed }
        var messages: [QMPServerMessage] = []
        for item in scanner.feed(bytes) {
            guard case .object(let object) = item, let json = JSONValue(parsing: object),
                let message = QMPServerMessage(json: json)
            else { throw .notQMP }
            messages.append(message)
        }
        return messages
    }
}
