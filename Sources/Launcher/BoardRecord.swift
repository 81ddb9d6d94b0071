// board.json: what a board is and how it fares, for `ps`, `down`, `logs`, `console` and for programs.

public import QMP

public struct BoardRecord: Sendable, Equatable {
    public enum State: String, Sendable {
        /// Processes run; not everything has happened that makes a board up.
        case starting
        case up
        /// It did not come up, or a part of it died. Components may still run: `supervisor` tells.
        case failed
        case stopping
        case stopped
    }

    public struct Component: Sendable, Equatable {
        public enum State: String, Sendable { case starting, ready, ended }

        public var name: String
        public var kind: String
        public var pid: Int32 = 0
        public var state = State.starting
        /// The component's own word for its state, from `query-status` or `STATUS=`.
        public var status = ""
        /// Fields that `query-status` tells beside it.
        public var details: [String: JSONValue] = [:]
        /// How it ended, such as "exit status 3".
        public var end: String?
        public var log: String
        /// Listening sockets by port.
        public var sockets: [String: String] = [:]

        public init(name: String, kind: String, log: String) {
            self.name = name
            self.kind = kind
            self.log = log
        }
    }

    public var name: String
    public var topology: String
    public var state = State.starting
    /// Why it failed or stopped; empty otherwise.
    public var reason = ""
    /// The supervisor's pid.
    public var supervisor: Int32
    public var isDetached: Bool
    /// When `up` began: CLOCK_MONOTONIC nanoseconds.
    public var started: UInt64
    /// From there to the board being up or failed, in nanoseconds.
    public var settledAfter: UInt64?
    /// What `up` ended with.
    public var exitCode: Int32?
    public var components: [Component] = []

    public init(name: String, topology: String, supervisor: Int32, isDetached: Bool, started: UInt64) {
        self.name = name
        self.topology = topology
        self.supervisor = supervisor
        self.isDetached = isDetached
        self.started = started
    }
}

extension BoardRecord {
    public var json: JSONValue {
        var members: [String: JSONValue] = [
            "name": .string(name), "topology": .string(topology), "state": .string(state.rawValue),
            "reason": .string(reason), "supervisor": .integer(Int64(supervisor)), "detached": .bool(isDetached),
            "started": .unsigned(started), "components": .array(components.map(\.json)),
        ]
        if let settledAfter { members["settledAfter"] = .unsigned(settledAfter) }
        if let exitCode { members["exitCode"] = .integer(Int64(exitCode)) }
        return .object(members)
    }

    public init?(json: JSONValue) {
        guard let name = json["name"]?.stringValue, let topology = json["topology"]?.stringValue,
            let state = json["state"]?.stringValue.flatMap(State.init(rawValue:)),
            let supervisor = json["supervisor"]?.integerValue.flatMap(Int32.init(exactly:)),
            let started = json["started"]?.integerValue, let components = json["components"]?.arrayValue
        else { return nil }
        self.init(
            name: name, topology: topology, supervisor: supervisor, isDetached: json["detached"]?.boolValue ?? false,
            started: UInt64(clamping: started))
        self.state = state
        reason = json["reason"]?.stringValue ?? ""
        settledAfter = json["settledAfter"]?.integerValue.map { UInt64(clamping: $0) }
        exitCode = json["exitCode"]?.integerValue.flatMap(Int32.init(exactly:))
        self.components = components.compactMap { Component(json: $0) }
    }

    /// The record of a board that runs or ran in `folder`; a board that says it runs while no supervisor holds the lock
    /// is dead, and said to be.
    public static func read(_ folder: RuntimeFolder) -> BoardRecord? {
        guard let bytes = Files.read(folder.recordPath), let json = JSONValue(parsing: bytes),
            var record = BoardRecord(json: json)
        else { return nil }
        if record.state != .stopped, folder.runningPID == nil {
            if record.state != .failed || record.exitCode == nil {
                record.reason = "its supervisor (pid \(record.supervisor)) died"
            }
            record.state = .failed
            for index in record.components.indices where record.components[index].state != .ended {
                record.components[index].state = .ended
            }
        }
        return record
    }
}

extension BoardRecord.Component {
    public var json: JSONValue {
        var members: [String: JSONValue] = [
            "name": .string(name), "kind": .string(kind), "pid": .integer(Int64(pid)),
            "state": .string(state.rawValue), "status": .string(status), "details": .object(details),
            "log": .string(log), "sockets": .object(sockets.mapValues(JSONValue.string)),
        ]
        if let end { members["end"] = .string(end) }
        return .object(members)
    }

    init?(json: JSONValue) {
        guard let name = json["name"]?.stringValue, let kind = json["kind"]?.stringValue,
            let log = json["log"]?.stringValue,
            let state = json["state"]?.stringValue.flatMap(BoardRecord.Component.State.init(rawValue:))
        else { return nil }
        self.init(name: name, kind: kind, log: log)
        self.state = state
        pid = json["pid"]?.integerValue.flatMap(Int32.init(exactly:)) ?? 0
        status = json["status"]?.stringValue ?? ""
        details = json["details"]?.objectValue ?? [:]
        end = json["end"]?.stringValue
        sockets = json["sockets"]?.objectValue?.compactMapValues(\.stringValue) ?? [:]
    }

    /// What `query-status` answered, without what is known anyway.
    public mutating func take(status answer: JSONValue) {
        guard case .object(var members) = answer else { return }
        status = members["status"]?.stringValue ?? status
        for known in ["status", "running", "kind", "name"] { members[known] = nil }
        details = members
    }

    /// The last column of the table of components.
    public var detailText: String {
        let words = details.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.stringValue ?? $0.value.text())" }
        return ([end ?? status] + (end == nil ? words : [])).filter { !$0.isEmpty }.joined(separator: " ")
    }
}

extension BoardRecord {
    /// `board server: up after 0.412 s (pid 4711)`
    public var headline: String {
        var text = "board \(name): \(state.rawValue)"
        if state == .up, let settledAfter { text += " after \(seconds(settledAfter))" }
        if !reason.isEmpty { text += ": \(reason)" }
        if state != .stopped, components.contains(where: { $0.state != .ended }) { text += " (pid \(supervisor))" }
        return text
    }

    /// The table of components: name, kind, pid, state, details.
    public var table: String {
        var rows = [["COMPONENT", "KIND", "PID", "STATE", "DETAILS"]]
        for component in components {
            rows.append([
                component.name, component.kind, String(component.pid), component.state.rawValue, component.detailText,
            ])
        }
        let widths = (0..<4).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = (0..<4).map { padded(row[$0], widths[$0]) } + [row[4]]
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed()) + "\n"
        }.joined()
    }
}

/// `0.412 s`
public func seconds(_ nanoseconds: UInt64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    return "\(milliseconds / 1000)." + String(1000 + milliseconds % 1000).dropFirst() + " s"
}
