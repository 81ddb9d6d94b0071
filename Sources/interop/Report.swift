// What was tried and how it went: a line when it is known, and all of it as JSON at the end.

import QMP
import Wire

private let standardOutput = Descriptor(adopting: 1)

/// Prints a line at once, also into a pipe.
func show(_ line: String) { try? standardOutput.writeAll(Array((line + "\n").utf8)) }

/// Why a step did not go as it must.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Why a step cannot be done here, through no fault of ours.
struct Inapplicable: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

final class Report {
    enum Outcome: String {
        case passed
        case failed
        case skipped

        var mark: String {
            switch self {
            case .passed: "ok     "
            case .failed: "FAILED "
            case .skipped: "skipped"
            }
        }
    }

    struct Step {
        var part: String
        var name: String
        var outcome: Outcome
        /// Figures, or why it failed.
        var detail: String
        var duration: Duration

        var json: JSONValue {
            [
                "part": .string(part), "step": .string(name), "outcome": .string(outcome.rawValue),
                "detail": .string(detail), "milliseconds": .unsigned(duration.clampedNanoseconds / 1_000_000),
            ]
        }

        var line: String {
            let tenths = duration.clampedNanoseconds / 100_000_000
            let time = "\(tenths / 10).\(tenths % 10) s"
            let head =
                "\(outcome.mark)  \(padded(part, 16))  \(String(repeating: " ", count: max(0, 8 - time.count)))\(time)  "
            return head + name + (detail.isEmpty ? "" : ": " + detail)
        }

        private func padded(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(0, width - text.count))
        }
    }

    private(set) var steps: [Step] = []
    private let isQuiet: Bool
    private let start = MonotonicTime.now

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    var hasFailed: Bool { steps.contains { $0.outcome == .failed } }

    /// Does a step, which returns its figures; a failure is noted and told by false.
    @discardableResult
    func step(_ part: String, _ name: String, _ body: () throws -> String) -> Bool {
        let start = MonotonicTime.now
        var step = Step(part: part, name: name, outcome: .passed, detail: "", duration: .zero)
        do { step.detail = try body() } catch {
            step.outcome = error is Inapplicable ? .skipped : .failed
            step.detail = "\(error)"
        }
        step.duration = MonotonicTime.now.since(start)
        steps.append(step)
        if !isQuiet { show(step.line) }
        return step.outcome == .passed
    }

    var json: JSONValue {
        [
            "outcome": .string(hasFailed ? "failed" : "passed"), "steps": .array(steps.map(\.json)),
            "milliseconds": .unsigned(MonotonicTime.now.since(start).clampedNanoseconds / 1_000_000),
        ]
    }

    var summary: String {
        let failures = steps.count { $0.outcome == .failed }
        let skipped = steps.count { $0.outcome == .skipped }
        let seconds = MonotonicTime.now.since(start).clampedNanoseconds / 1_000_000_000
        return "\(steps.count) steps, \(failures == 0 ? "none failed" : "\(failures) failed")"
            + (skipped == 0 ? "" : ", \(skipped) skipped") + ", \(seconds) s"
    }
}
