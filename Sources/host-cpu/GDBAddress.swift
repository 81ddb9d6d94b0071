// `--gdb`

import ArgumentParser
import Logging
import Serprog
import Wire

/// Where to serve a debugger.
enum GDBAddress: ExpressibleByArgument {
    case path(String)
    /// A port of 127.0.0.1, 0 for a free one.
    case tcp(UInt16)

    init?(argument: String) {
        if argument.hasPrefix("tcp:") {
            guard let port = UInt16(argument.dropFirst(4)) else { return nil }
            self = .tcp(port)
        } else if argument.isEmpty {
            return nil
        } else {
            self = .path(argument)
        }
    }

    /// The listening socket; says where it is when that was left open.
    func listen(_ log: Logger) throws -> Listener {
        switch self {
        case .path(let path): return try Listener(path: path)
        case .tcp(let wanted):
            let (listener, port) = try Listener.loopback(port: wanted)
            log.notice("gdb: target remote 127.0.0.1:\(port)")
            return listener
        }
    }
}
