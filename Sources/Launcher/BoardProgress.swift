// From nothing to a board that is up, refused, failed or stopped: a pure value. The supervisor tells it what happened,
// and does what it answers.

internal import Component
public import QMP
public import Topology
public import Wire

public struct BoardProgress: Sendable, Equatable {
    /// What `up` ends with, and its exit code.
    public enum Outcome: Sendable, Equatable {
        case up
        /// The firmware was not accepted: the board stays held.
        case refused(String)
        /// A component died, a guest panicked, the time ran out, the disk is full.
        case failed(String)
        /// The guest turned the power off.
        case poweredOff(String)
        /// Somebody asked for the end.
        case stopped

        public var exitCode: Int32 {
            switch self {
            case .up, .poweredOff, .stopped: 0
            case .failed: 1
            case .refused: 3
            }
        }
    }

    public enum Action: Sendable, Equatable {
        /// `up` has its outcome: print it, let a detached start go.
        case settle(Outcome)
        /// End every component; then end with this outcome.
        case stop(Outcome)
    }

    /// Whether a refused board is kept (detached) for `ps` and `qmp`, or stopped.
    private let keepsRefused: Bool
    private let needsBoot: Bool
    private var waiting: Set<String>
    private var booted = false
    private var shutDown: Set<String> = []
    public private(set) var settled: Outcome?
    public private(set) var stopping: Outcome?

    public init(_ board: Board, keepsRefused: Bool) {
        self.keepsRefused = keepsRefused
        waiting = Set(board.components.map(\.name))
        // The BMC tells when the host has booted, by what it reads on the host's COM1. On a board where nobody listens
        // there, all being ready is all there is to know.
        needsBoot = board.links.contains { link in
            guard link.wire == .serial, case .port(let first) = link.first, case .port(let second) = link.second else {
                return false
            }
            let kinds = [first, second].compactMap { board.component(named: $0.component)?.kind.name }
            return Set(kinds) == ["host-cpu", "bmc"]
        }
    }

    public mutating func ready(_ component: String) -> [Action] {
        waiting.remove(component)
        return settleIfUp()
    }

    public mutating func event(_ component: String, _ event: QMPEvent) -> [Action] {
        switch event.name {
        case "BOOT_COMPLETE":
            booted = true
            return settleIfUp()
        case "BOARD_FAILED":
            let image = event.data["image"]?.stringValue ?? "firmware"
            let reason = event.data["reason"]?.stringValue ?? "no reason given"
            return fail(.refused("verification failed: image '\(image)': \(reason)"), stop: !keepsRefused)
        case "FIRMWARE_LOAD_FAILED":
            let reason = event.data["reason"]?.stringValue ?? "no reason given"
            return fail(.refused("\(component) has no firmware: \(reason)"), stop: !keepsRefused)
        case "GUEST_PANICKED":
            return fail(.failed("the guest of \(component) panicked"), stop: true)
        case "SHUTDOWN":
            shutDown.insert(component)
            return []
        default:
            return []
        }
    }

    /// `text` says who and how.
    public mutating func ended(_ component: String, _ end: ChildProcess.Exit, _ text: String) -> [Action] {
        guard stopping == nil else { return [] }
        if end == .code(0), shutDown.contains(component) {
            return finish(.poweredOff("the guest of \(component) turned the power off"))
        }
        return finish(.failed(text))
    }

    /// Something without which the board cannot go on.
    public mutating func broke(_ text: String) -> [Action] { finish(.failed(text)) }

    public mutating func timedOut(after limit: String) -> [Action] {
        guard settled == nil else { return [] }
        return finish(.failed("not up within \(limit): waiting for \(missing.joined(separator: ", "))"))
    }

    /// A board that was refused stays so in its record.
    public mutating func stopRequested() -> [Action] {
        if let settled, case .refused = settled { return finish(settled) }
        return finish(.stopped)
    }

    /// What still has to happen, for people.
    public var missing: [String] {
        var missing = waiting.sorted().map { "\($0) to be ready" }
        if needsBoot, !booted { missing.append("the host to boot (BOOT_COMPLETE)") }
        return missing
    }

    private mutating func settleIfUp() -> [Action] {
        guard stopping == nil, waiting.isEmpty, booted || !needsBoot else { return [] }
        switch settled {
        case nil, .refused:
            settled = .up
            return [.settle(.up)]
        default: return []
        }
    }

    /// A board that is not up fails by this; one that is up was told so already, and goes on.
    private mutating func fail(_ outcome: Outcome, stop: Bool) -> [Action] {
        guard stopping == nil else { return [] }
        if settled == nil { return stop ? finish(outcome) : settle(outcome) }
        return settle(outcome)
    }

    private mutating func settle(_ outcome: Outcome) -> [Action] {
        settled = outcome
        return [.settle(outcome)]
    }

    private mutating func finish(_ outcome: Outcome) -> [Action] {
        guard stopping == nil else { return [] }
        stopping = outcome
        if settled == nil { return settle(outcome) + [.stop(outcome)] }
        return [.stop(outcome)]
    }
}
