public import QMP

/// One event of a board, with the time since `up`.
public struct TimelineEntry: Sendable, Equatable {
    /// Nanoseconds since `up` began.
    public var time: UInt64
    /// CLOCK_MONOTONIC nanoseconds, as the component said them.
    public var monotonic: UInt64
    public var kind: String
    public var component: String
    public var event: String
    /// What the event carries, without the fields that every event has.
    public var data: [String: JSONValue]

    public init(
        time: UInt64, monotonic: UInt64, kind: String, component: String, event: String, data: [String: JSONValue]
    ) {
        self.time = time
        self.monotonic = monotonic
        self.kind = kind
        self.component = component
        self.event = event
        self.data = data
    }

    /// `   0.132 s  security-logic logic0    RESET_RELEASED bmc0`
    public var text: String {
        let milliseconds = time / 1_000_000
        let seconds = String(milliseconds / 1000)
        let fraction = String(1000 + milliseconds % 1000).dropFirst()
        let clock = padded("\(seconds).\(fraction)", 8, left: true)
        let words = data.sorted { $0.key < $1.key }.map { key, value in
            data.count == 1 ? Self.word(value) : "\(key)=\(Self.word(value))"
        }
        return
            ([
                "\(clock) s ", padded(kind, 14), padded(component, 10), event,
            ] + words).joined(separator: " ")
    }

    private static func word(_ value: JSONValue) -> String {
        guard let text = value.stringValue else { return value.text() }
        // A digest's beginning tells it from another; the JSON has all of it.
        if text.utf8.count > 32, text.utf8.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }) {
            return text.prefix(16) + "…"
        }
        // What a component or a guest says must not move the cursor of whoever reads it.
        let isPlain =
            !text.isEmpty && text.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7F && $0 != "\"" }
        return isPlain ? text : value.text()
    }

    /// One line of timeline.jsonl.
    public var json: JSONValue {
        [
            "time": .unsigned(time), "monotonic": .unsigned(monotonic), "kind": .string(kind),
            "component": .string(component), "event": .string(event), "data": .object(data),
        ]
    }

    public init?(json: JSONValue) {
        guard let time = json["time"]?.integerValue, let monotonic = json["monotonic"]?.integerValue,
            let kind = json["kind"]?.stringValue, let component = json["component"]?.stringValue,
            let event = json["event"]?.stringValue
        else { return nil }
        self.init(
            time: UInt64(clamping: time), monotonic: UInt64(clamping: monotonic), kind: kind, component: component,
            event: event, data: json["data"]?.objectValue ?? [:])
    }

    /// A component's event; `started` is when `up` began, on the same clock.
    init(_ event: QMPEvent, kind: String, component: String, started: UInt64, now: UInt64) {
        let monotonic = event.monotonic ?? now
        var data = event.data
        for field in ["monotonic", "sequence"] { data[field] = nil }
        // Who speaks is in the line already.
        for (field, own) in [("kind", kind), ("name", component)] where data[field]?.stringValue == own {
            data[field] = nil
        }
        self.init(
            time: monotonic > started ? monotonic - started : 0, monotonic: monotonic, kind: kind, component: component,
            event: event.name, data: data)
    }

    /// The entries of a timeline file, in order of time. A line that was cut or damaged is left out.
    public static func read(_ path: String) -> [TimelineEntry] {
        guard let bytes = Files.read(path) else { return [] }
        return bytes.split(separator: 0x0A).compactMap { line in
            JSONValue(parsing: Array(line)).flatMap { TimelineEntry(json: $0) }
        }.sorted { $0.time < $1.time }
    }
}

/// `text` with spaces up to `width` characters.
public func padded(_ text: String, _ width: Int, left: Bool = false) -> String {
    let space = String(repeating: " ", count: max(0, width - text.count))
    return left ? space + text : text + space
}
