import TestKit

/// What a board does when its power goes, and what must be afterwards.
struct PowerCutScenario: Sendable, CustomStringConvertible {
    /// Who verifies; where it is the logic alone, no adapter is the master.
    var verifier = "adapter"
    var lockAt = "release"
    var act = ""
    /// The images in slots A, B and golden, of ``PowerCutBench/images``.
    var slots = ["old", "old", "golden"]
    /// Slots with a byte that is wrong.
    var spoilt: [Int] = []
    /// Within what time the host must say that it has booted; nil: it is not watched.
    var bootTimeout: String?
    var isWatched: Bool { bootTimeout != nil }
    /// The image that the board is given once it is up, and then power-cycled for; steps count from there.
    var update: String?
    /// What runs where nothing is cut; nil: nothing can run.
    var result: String?
    /// What may run in the end; where the host's boot is watched, golden too: on a machine that is busy a good image may
    /// not have booted in time.
    var results: Set<String> { Set([result, isWatched ? "golden" : nil].compactMap { $0 }) }
    /// What may run after a cut.
    var survivors: Set<String> { results.union(update == nil ? [] : ["old"]) }
    /// What the fuses ask for where nothing is cut.
    var minimumVersion = 1

    var description: String { "\(act), verifier \(verifier), lock at \(lockAt)" }

    /// Of the component's settings in a topology.
    var settings: [String] {
        ["logic0.verifier=\(verifier)", "logic0.lock-at=\(lockAt)"]
            + (bootTimeout.map { ["logic0.boot-timeout=\($0)"] } ?? [])
    }

    /// What is cut, on every kind of board.
    private static let acts: [PowerCutScenario] = [
        .init(act: "boot", result: "old"),
        .init(act: "recovery from golden", spoilt: [0, 1], result: "golden"),
        .init(act: "boot with nothing good", spoilt: [0, 1, 2]),
        .init(act: "update", update: "new", result: "new", minimumVersion: 2),
        .init(act: "fall-back", slots: ["silent", "old", "golden"], bootTimeout: "3s", result: "old"),
    ]

    private static let boards = ["adapter", "logic", "both"].flatMap { verifier in
        ["release", "boot-complete"].map { (verifier, $0) }
    }

    private static func on(_ board: (verifier: String, lockAt: String), _ act: PowerCutScenario) -> PowerCutScenario {
        var scenario = act
        (scenario.verifier, scenario.lockAt) = board
        return scenario
    }

    static let all: [PowerCutScenario] =
        acts.flatMap { act in boards.map { on($0, act) } } + [
            .init(act: "update that does not boot", bootTimeout: "3s", update: "silent", result: "old"),
            .init(act: "update without a golden image", spoilt: [2], update: "new", result: "new"),
        ]

    /// One of each kind.
    static func sample(_ generator: inout SeededGenerator) -> [PowerCutScenario] {
        acts.map { on(boards.randomElement(using: &generator) ?? boards[0], $0) }
    }
}

/// How many steps a scenario has from which it can be cut.
struct PowerCutSteps: Sendable {
    /// Lines of the timeline.
    var events = 0
    /// Programs and erases of the chip.
    var writes = 0
    /// What happens to the files of boot record and fuses: one is made, written, put in the other's place.
    var files = 0
}

/// A moment at which something loses its power.
struct PowerCut: Sendable, CustomStringConvertible {
    /// The nth of its kind since the scenario began; where the scenario ends before, its end.
    enum Moment: Sendable {
        case event(Int)
        case write(Int)
        case file(Int)

        var kind: String {
            switch self {
            case .event: "event"
            case .write: "write"
            case .file: "file"
            }
        }

        var number: Int {
            switch self {
            case .event(let number), .write(let number), .file(let number): number
            }
        }
    }

    enum Loss: String, CaseIterable, Sendable {
        /// Every process is killed.
        case everything
        /// The chip's process is killed, and the launcher ends the board.
        case chip
        /// The logic's process is killed, and the launcher ends the board.
        case logic
        /// The chip's supply falls in the middle of the write, and the board is power-cycled.
        case supply
    }

    var scenario: PowerCutScenario
    var moment: Moment
    var loss: Loss
    /// Of the bits that the chip's interrupted operation leaves.
    var seed: UInt64

    var description: String {
        "\(scenario): \(loss.rawValue) at \(moment.kind) \(moment.number), chip's seed \(seed)"
    }
}
