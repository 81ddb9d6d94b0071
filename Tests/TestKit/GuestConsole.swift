internal import Foundation
internal import Wire

/// A guest's console as a person uses it: types lines, waits for what comes.
public final class GuestConsole {
    private let socket: Socket
    /// What came and was not waited for yet.
    private var text = ""

    /// Connects to a console socket; the component may still be making it.
    public init(_ path: String) throws {
        var socket: Socket?
        _ = eventually {
            socket = try? Socket.connect(to: path)
            return socket != nil
        }
        guard let socket else { throw Missing(wanted: "a console at \(path)", seen: "") }
        self.socket = socket
    }

    /// The deadline passed, or the console ended.
    public struct Missing: Error, CustomStringConvertible {
        public let wanted: String
        public let seen: String
        public var description: String { "waited for '\(wanted)' on the console, which said:\n\(seen)" }
    }

    /// Waits until `wanted` comes; everything before it.
    @discardableResult
    public func wait(for wanted: String, within limit: Duration = .seconds(60)) throws -> String {
        let deadline = MonotonicTime.after(limit)
        while true {
            if let range = text.range(of: wanted) {
                defer { text = String(text[range.upperBound...]) }
                return String(text[..<range.lowerBound])
            }
            guard let bytes = try? socket.receiveBytes(limit: 65_536, until: deadline) else {
                throw Missing(wanted: wanted, seen: text)
            }
            text += String(decoding: bytes, as: UTF8.self)
        }
    }

    /// Waits until the console's other end is gone; everything that came until then.
    public func waitForEnd(within limit: Duration = .seconds(60)) throws -> String {
        let deadline = MonotonicTime.after(limit)
        while let bytes = try socket.receiveBytes(limit: 65_536, until: deadline) {
            text += String(decoding: bytes, as: UTF8.self)
        }
        return text
    }

    /// Types a line.
    public func type(_ line: String) throws { try send(Array((line + "\r").utf8)) }

    /// Types anything.
    public func send(_ bytes: [UInt8]) throws { try socket.send(bytes) }

    /// Runs a command in a POSIX shell; its output, lines ended by line feeds, and its exit status.
    public func run(_ command: String) throws -> (status: Int, output: String) {
        // The marks are written so that the echo of what is typed, however it is wrapped, does not hold them.
        try type("echo BEG''IN; \(command); echo EN''D $?.")
        try wait(for: "BEGIN\r\n")
        let output = try wait(for: "END ")
        let status = try wait(for: ".")
        return (Int(status) ?? -1, output.replacingOccurrences(of: "\r\n", with: "\n"))
    }
}
