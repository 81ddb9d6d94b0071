internal import Foundation
public import QMP
public import Wire

/// A component's executable, started by hand as a person would, once it has said that it is ready.
///
/// The socket of port `P` of a component of kind `K` is the file `K.P` of the folder.
public final class ComponentProcess {
    public let kind: String
    public let folder: TemporaryFolder
    public let child: RunningProcess
    public let control: QMPClient

    /// - Parameters:
    ///   - folder: shared by the components that are to meet; a new one by default.
    ///   - listens: ports to serve beside `control`.
    ///   - connects: using ports, and the file each connects to.
    /// - Throws: ``Failure`` with the component's output when it does not become ready.
    public init(
        _ kind: String, in folder: TemporaryFolder = TemporaryFolder(), listens: [String] = [],
        connects: [String: String] = [:], _ arguments: [String] = []
    ) throws {
        self.kind = kind
        self.folder = folder
        let child = try RunningProcess(
            binary(kind),
            (listens + ["control"]).flatMap { ["--listen", "\($0)=\(folder.file("\(kind).\($0)"))"] }
                + connects.flatMap { ["--connect", "\($0.key)=\(folder.file($0.value))"] } + ["--die-with-parent"]
                + arguments)
        self.child = child
        var client: QMPClient?
        // A path is there before anyone listens on it: connecting is the condition, not the file.
        _ = eventually {
            client = try? QMPClient(path: folder.file("\(kind).control"))
            return client != nil || !child.isRunning
        }
        guard let client else { throw Failure(kind: kind, output: child.text) }
        control = client
        let isReady = eventually {
            let history = (try? client.execute("query-events"))?.arrayValue ?? []
            return history.contains { $0["event"] == "COMPONENT_READY" } || !child.isRunning
        }
        guard isReady, child.isRunning else { throw Failure(kind: kind, output: child.text) }
    }

    /// Connects to a port it serves.
    public func connect(_ port: String, kind socketKind: SocketKind = .stream) throws -> Socket {
        try Socket.connect(to: folder.file("\(kind).\(port)"), kind: socketKind)
    }

    public struct Failure: Error, CustomStringConvertible {
        public let kind: String
        public let output: String
        public var description: String { "\(kind) did not become ready: \(output)" }
    }
}
