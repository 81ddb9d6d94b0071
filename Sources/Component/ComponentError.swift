public import Wire

/// Why a component cannot start or go on. The text names the thing and the way out.
public enum ComponentError: Error, Sendable, Equatable, CustomStringConvertible {
    case noSocketToServe(port: String)
    case noSocketToUse(port: String)
    case unknownPorts([String], known: [String])
    case portGivenTwice(String)
    case activation(String)
    case wire(port: String, WireError)
    /// Anything else, in the component's own words.
    case message(String)

    public var description: String {
        switch self {
        case .noSocketToServe(let port):
            """
            port '\(port)' has no socket to serve: pass a listening one by socket activation \
            (LISTEN_FDNAMES=\(port)) or give --listen \(port)=PATH
            """
        case .noSocketToUse(let port):
            "port '\(port)' is not connected: give --connect \(port)=PATH"
        case .unknownPorts(let names, let known):
            "no such port: \(names.joined(separator: ", ")); the ports are \(known.joined(separator: ", "))"
        case .portGivenTwice(let port): "port '\(port)' was given a socket twice"
        case .activation(let text): "socket activation: \(text)"
        case .wire(let port, let error): "port '\(port)': \(error)"
        case .message(let text): text
        }
    }
}
