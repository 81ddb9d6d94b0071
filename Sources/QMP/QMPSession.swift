/// A command that a server offers.
public struct QMPCommand: Sendable {
    /// The type of an argument.
    public enum Kind: String, Sendable { case string, integer, boolean, object, any }

    public struct Parameter: Sendable {
        public var name: String
        public var kind: Kind
        public var isRequired: Bool

        public static func required(_ name: String, _ kind: Kind) -> Parameter {
            Parameter(name: name, kind: kind, isRequired: true)
        }
        public static func optional(_ name: String, _ kind: Kind) -> Parameter {
            Parameter(name: name, kind: kind, isRequired: false)
        }
    }

    public typealias Handler = @Sendable ([String: JSONValue]) throws(QMPError) -> JSONValue

    public var name: String
    public var parameters: [Parameter]
    /// Runs on the control thread; what it throws is the error reply. Must not block for long.
    public var handler: Handler

    public init(_ name: String, _ parameters: [Parameter] = [], _ handler: @escaping Handler) {
        self.name = name
        self.parameters = parameters
        self.handler = handler
    }

    /// Checks `arguments` against the parameters with QEMU's wording, then runs the handler.
    func run(_ arguments: [String: JSONValue]) throws(QMPError) -> JSONValue {
        for name in arguments.keys.sorted() where !parameters.contains(where: { $0.name == name }) {
            throw QMPError("Parameter '\(name)' is unexpected")
        }
        for parameter in parameters {
            guard let value = arguments[parameter.name] else {
                if parameter.isRequired { throw QMPError("Parameter '\(parameter.name)' is missing") }
                continue
            }
            let fits =
                switch parameter.kind {
                case .string: value.stringValue != nil
                case .integer: value.integerValue != nil
                case .boolean: value.boolValue != nil
                case .object: value.objectValue != nil
                case .any: true
                }
            guard fits else {
                throw QMPError("Invalid parameter type for '\(parameter.name)', expected: \(parameter.kind.rawValue)")
            }
        }
        return try handler(arguments)
    }
}

/// One client's conversation with a server, as a pure value: bytes in, messages out.
/// Spec: QEMU docs/interop/qmp-spec.rst.
public struct QMPSession: Sendable {
    private var scanner = JSONScanner()
    /// True once `qmp_capabilities` was answered; events go to such clients only.
    public private(set) var isNegotiated = false

    public init() {}

    /// The greeting of a component `kind`.
    public static func greeting(_ kind: String) -> QMPServerMessage {
        .greeting([
            "version": ["qemu": ["major": 10, "minor": 0, "micro": 0], "package": .string("baseboard \(kind)")],
            "capabilities": [],
        ])
    }

    /// Takes bytes of the client; returns the replies, one for each command.
    public mutating func receive(_ bytes: some Sequence<UInt8>, commands: [String: QMPCommand]) -> [QMPServerMessage] {
        var replies: [QMPServerMessage] = []
        for item in scanner.feed(bytes) {
            guard case .object(let object) = item, let json = JSONValue(parsing: object) else {
                replies.append(.failure(QMPError("JSON parse error, expecting one object"), id: nil))
                continue
            }
            let id = json["id"]
            do throws(QMPError) { replies.append(.success(try execute(json, commands), id: id)) } catch {
                replies.append(.failure(error, id: id))
            }
        }
        return replies
    }

    private mutating func execute(_ json: JSONValue, _ commands: [String: QMPCommand]) throws(QMPError) -> JSONValue {
        for name in json.objectValue?.keys.sorted() ?? [] where !["execute", "arguments", "id"].contains(name) {
            throw QMPError("QMP input member '\(name)' is unexpected")
        }
        guard let name = json["execute"]?.stringValue else {
            throw QMPError("QMP input lacks member 'execute'")
        }
        let arguments: [String: JSONValue]
        switch json["arguments"] {
        case nil: arguments = [:]
        case .object(let members): arguments = members
        default: throw QMPError("QMP input member 'arguments' must be an object")
        }
        if name == "qmp_capabilities" {
            guard !isNegotiated else {
                throw QMPError(
                    "Capabilities negotiation is already complete, command ignored", errorClass: "CommandNotFound")
            }
            if let wanted = arguments["enable"]?.arrayValue, !wanted.isEmpty {
                throw QMPError("Capability \(wanted[0].stringValue ?? "?") is not available")
            }
            isNegotiated = true
            return [:]
        }
        guard isNegotiated else {
            throw QMPError(
                "Expecting capabilities negotiation with 'qmp_capabilities'", errorClass: "CommandNotFound")
        }
        guard let command = commands[name] else { throw .commandNotFound(name) }
        return try command.run(arguments)
    }
}
