// Starting and stopping a capture of a component's links while they run: what a control socket asks for.

import Synchronization
public import Wire

/// At most one capture at a time of a fixed set of links.
public final class CaptureSession: Sendable {
    /// A link that can be captured.
    public struct Link: Sendable {
        public var name: String
        public var tap: LinkTap

        public init(name: String, tap: LinkTap) {
            self.name = name
            self.tap = tap
        }
    }

    /// Why a capture does not start or stop.
    public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case isRunning(path: String)
        case isNotRunning
        /// The file cannot be made, or could not be written to the end.
        case file(String)

        public var description: String {
            switch self {
            case .isRunning(let path): "a capture into \(path) is running: stop it first"
            case .isNotRunning: "no capture is running"
            case .file(let text): text
            }
        }
    }

    private struct Running {
        let path: String
        let capture: PcapngCapture
        let observers: [(link: Link, observer: any LinkObserver)]
    }

    private let links: [Link]
    private let running = Mutex<Running?>(nil)

    public init(_ links: [Link]) { self.links = links }

    /// Records all links into a new file at `path` from now on.
    public func start(path: String) throws(Failure) {
        try running.withLock { (running) throws(Failure) in
            if let running { throw .isRunning(path: running.path) }
            let capture: PcapngCapture
            do throws(WireError) { capture = try PcapngCapture(path: path) } catch { throw .file("\(error)") }
            let observers = links.map { ($0, capture.observer(named: $0.name)) }
            for (link, observer) in observers { link.tap.insert(observer) }
            running = Running(path: path, capture: capture, observers: observers)
        }
    }

    /// Ends the capture. Throws ``Failure/file(_:)`` when it had ended before, for want of room for instance.
    public func stop() throws(Failure) {
        guard let running = running.withLock({ $0.take() }) else { throw .isNotRunning }
        for (link, observer) in running.observers { link.tap.remove(observer) }
        if let failure = running.capture.failure { throw .file("\(failure)") }
    }
}
