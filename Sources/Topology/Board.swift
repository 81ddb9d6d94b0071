// A checked board: what the launcher builds. Every name is unique, every link joins ports that fit, every setting is
// of its type and within its bounds, every required setting and link is there, every file exists.

public import Component

public struct Board: Sendable {
    public var name: String
    /// In the order of the file; those of an extended board first.
    public var components: [BoardComponent]
    public var links: [BoardLink]

    public func component(named name: String) -> BoardComponent? { components.first { $0.name == name } }

    /// The link at a port, if there is one.
    public func link(at port: BoardPort) -> BoardLink? {
        links.first { $0.first == .port(port) || $0.second == .port(port) }
    }

    /// Longest name of a board or component: socket paths hold 107 bytes.
    public static let maximumNameLength = 24

    /// Names become file names, process arguments and QMP texts: `[a-z][a-z0-9-]*`.
    public static func isName(_ text: some StringProtocol) -> Bool {
        guard let first = text.utf8.first, (0x61...0x7A).contains(first), text.utf8.count <= maximumNameLength else {
            return false
        }
        return text.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D }
    }

    static let nameRule =
        "a name is at most \(maximumNameLength) lower-case letters, digits and '-', and begins with a letter"
}

public struct BoardComponent: Sendable {
    public var name: String
    public var kind: ComponentKind
    /// Those that the topology writes, in the order of the catalogue.
    public var settings: [BoardSetting]
    public var position: SourcePosition

    public func setting(_ name: String) -> SettingValue? { settings.first { $0.name == name }?.value }
}

public struct BoardSetting: Sendable {
    public var name: String
    public var value: SettingValue
}

public enum SettingValue: Equatable, Sendable, CustomStringConvertible {
    case boolean(Bool)
    case integer(Int)
    case byteCount(ByteCount)
    case duration(Duration)
    case text(String)
    /// An absolute path.
    case file(String)

    /// As it is written on a command line.
    public var description: String {
        switch self {
        case .boolean(let value): String(value)
        case .integer(let value): String(value)
        case .byteCount(let value): value.description
        case .duration(let value): value.spelled
        case .text(let value), .file(let value): value
        }
    }
}

/// One port of one component.
public struct BoardPort: Hashable, Sendable, CustomStringConvertible {
    public var component: String
    public var port: String

    public init(component: String, port: String) {
        self.component = component
        self.port = port
    }

    public var description: String { "\(component).\(port)" }
}

public enum LinkEnd: Hashable, Sendable, CustomStringConvertible {
    case port(BoardPort)
    /// A socket of a program outside the board, to which the other end connects.
    case external(String)
    /// A socket file NAME.sock in the board's runtime folder, for programs outside: the other end listens on it.
    case listen(String)

    public var description: String {
        switch self {
        case .port(let port): port.description
        case .external(let path): "external:\(path)"
        case .listen(let name): "listen:\(name)"
        }
    }
}

public struct BoardLink: Sendable {
    public var wire: WireKind
    public var first: LinkEnd
    public var second: LinkEnd
    /// The end that gets the listening socket; nil where a program outside the board has it.
    public var listener: BoardPort?
    public var position: SourcePosition
}
