/// An error reply of QMP. Spec: QEMU docs/interop/qmp-spec.rst "Error".
public struct QMPError: Error, Hashable, Sendable, CustomStringConvertible {
    /// `GenericError`, `CommandNotFound`, `DeviceNotFound`, …
    public var errorClass: String
    public var text: String

    public init(_ text: String, errorClass: String = "GenericError") {
        self.text = text
        self.errorClass = errorClass
    }

    public static func commandNotFound(_ name: String) -> QMPError {
        QMPError("The command \(name) has not been found", errorClass: "CommandNotFound")
    }

    public var description: String { text }
}

/// An event of QMP. Spec: QEMU docs/interop/qmp-spec.rst "Asynchronous events".
public struct QMPEvent: Hashable, Sendable {
    public var name: String
    public var data: [String: JSONValue]
    /// Wall clock, nanoseconds since 1970.
    public var timestamp: UInt64

    public init(name: String, data: [String: JSONValue], timestamp: UInt64) {
        self.name = name
        self.data = data
        self.timestamp = timestamp
    }

    /// CLOCK_MONOTONIC nanoseconds, present in every event of a Baseboard component.
    public var monotonic: UInt64? { data["monotonic"]?.integerValue.flatMap { UInt64(exactly: $0) } }

    /// The component's count of its events, from 1: tells an event from its copy in `query-events`.
    public var sequence: Int64? { data["sequence"]?.integerValue }

    public var json: JSONValue {
        [
            "event": .string(name), "data": .object(data),
            "timestamp": [
                "seconds": .unsigned(timestamp / 1_000_000_000),
                "microseconds": .unsigned(timestamp / 1000 % 1_000_000),
            ],
        ]
    }

    public init?(json: JSONValue) {
        guard let name = json["event"]?.stringValue else { return nil }
        let seconds = UInt64(clamping: json["timestamp"]?["seconds"]?.integerValue ?? 0)
        let microseconds = UInt64(clamping: json["timestamp"]?["microseconds"]?.integerValue ?? 0)
        self.init(
            name: name, data: json["data"]?.objectValue ?? [:],
            timestamp: (seconds &* 1_000_000 &+ microseconds) &* 1000)
    }
}

/// What a QMP server sends.
public enum QMPServerMessage: Hashable, Sendable {
    case greeting(JSONValue)
    case success(JSONValue, id: JSONValue?)
    case failure(QMPError, id: JSONValue?)
    case event(QMPEvent)

    /// nil when it is none of them.
    public init?(json: JSONValue) {
        if let greeting = json["QMP"] {
            self = .greeting(greeting)
        } else if let value = json["return"] {
            self = .success(value, id: json["id"])
        } else if let error = json["error"] {
            let text = error["desc"]?.stringValue ?? "unknown error"
            self = .failure(QMPError(text, errorClass: error["class"]?.stringValue ?? "GenericError"), id: json["id"])
        } else if let event = QMPEvent(json: json) {
            self = .event(event)
        } else {
            return nil
        }
    }

    public var json: JSONValue {
        func tagged(_ members: [String: JSONValue], _ id: JSONValue?) -> JSONValue {
            var members = members
            if let id { members["id"] = id }
            return .object(members)
        }
        return switch self {
        case .greeting(let greeting): ["QMP": greeting]
        case .success(let value, let id): tagged(["return": value], id)
        case .failure(let error, let id):
            tagged(["error": ["class": .string(error.errorClass), "desc": .string(error.text)]], id)
        case .event(let event): event.json
        }
    }

    /// The message as it goes on the wire.
    public var bytes: [UInt8] { json.encoded() + [0x0D, 0x0A] }
}
