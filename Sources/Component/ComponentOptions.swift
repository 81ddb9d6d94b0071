public import ArgumentParser
public import Logging

/// A `PORT=PATH` argument.
public struct PortPath: ExpressibleByArgument, Sendable, Hashable {
    public var port: String
    public var path: String

    public init?(argument: String) {
        guard let equals = argument.firstIndex(of: "="), equals != argument.startIndex,
            argument.index(after: equals) != argument.endIndex
        else { return nil }
        port = String(argument[..<equals])
        path = String(argument[argument.index(after: equals)...])
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// The arguments that every component takes.
public struct ComponentOptions: ParsableArguments, Sendable {
    @Option(help: ArgumentHelp("This component's name in messages and events.", valueName: "name"))
    public var name: String?

    @Option(
        help: ArgumentHelp(
            "Serve a port on a socket at this path, where none was passed by socket activation. Repeatable.",
            valueName: "port=path"))
    public var listen: [PortPath] = []

    @Option(help: ArgumentHelp("Connect a port to the socket at this path. Repeatable.", valueName: "port=path"))
    public var connect: [PortPath] = []

    @Option(help: "Log this level and what is above it: trace, debug, info, notice, warning, error or critical.")
    public var logLevel: Logger.Level = .info

    @Flag(help: "End when the process that started this one ends.")
    public var dieWithParent = false

    public init() {}
}
