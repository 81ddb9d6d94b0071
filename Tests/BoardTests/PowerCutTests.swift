import Dispatch
import Foundation
import Synchronization
import TestKit
import Testing
import Wire

/// Power that falls while whole boards boot, recover, are updated or fall back: whatever the step, the next boot comes up
/// on a verified image, or stays held and says why.
///
/// BASEBOARD_LONG=1 cuts at every line of every scenario's timeline and at every step of the files that it replaces, and
/// at seeded writes of the chip until there are 1000 cuts; otherwise a seeded sample of one scenario of each kind.
/// BASEBOARD_SEED repeats the choice.
@Suite struct PowerCutTests {
    private static let isLong = ProcessInfo.processInfo.environment["BASEBOARD_LONG"] != nil
    /// Cuts of a long run, at least.
    private static let longCount = 1000
    /// Cuts of each scenario in another run.
    private static let sampleSize = 6
    /// Boards side by side: more than one, since a board that is cut or falls back waits more than it computes.
    private static let laneCount = isLong ? 4 : 2

    @Test func `after a power cut at any step the board comes up on a verified image, or stays held and says why`()
        throws
    {
        var generator = SeededGenerator.fresh()
        let benches = try (0..<Self.laneCount).map { _ in try PowerCutBench() }
        let scenarios = Self.isLong ? PowerCutScenario.all : PowerCutScenario.sample(&generator)
        let failures = Mutex<[String]>([])
        @Sendable func note(_ failure: String) {
            print("power cut: \(failure)")
            failures.withLock { $0.append(failure) }
        }

        let steps = Mutex([PowerCutSteps](repeating: PowerCutSteps(), count: scenarios.count))
        Self.share(Array(scenarios.indices), benches) { bench, index in
            do {
                let counted = try bench.rehearse(scenarios[index])
                steps.withLock { $0[index] = counted }
            } catch { note("\(scenarios[index]), uncut: \(error)") }
        }
        try #require(failures.withLock { $0.isEmpty }, "\(failures.withLock { $0 })")

        let cuts = Self.plan(scenarios, steps.withLock { $0 }, &generator)
        let tally = Mutex<[String: Int]>([:])
        let seed = generator.seed
        Self.share(cuts, benches) { bench, cut in
            do {
                let isLate = try bench.play(cut)
                tally.withLock { tally in
                    for word in [cut.loss.rawValue, cut.moment.kind] + (isLate ? ["at the end"] : []) {
                        tally[word, default: 0] += 1
                    }
                }
            } catch { note("\(cut), seed \(seed): \(error)") }
        }
        let words = tally.withLock { $0 }.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        print(
            "power cuts: \(cuts.count) in \(scenarios.count) scenarios, seed \(seed): \(words.joined(separator: ", "))")
        #expect(failures.withLock { $0 }.isEmpty)
        #expect(!Self.isLong || cuts.count >= Self.longCount)
    }

    /// Every step of every scenario and seeded writes, or a sample of both.
    private static func plan(
        _ scenarios: [PowerCutScenario], _ steps: [PowerCutSteps], _ generator: inout SeededGenerator
    ) -> [PowerCut] {
        var cuts: [PowerCut] = []
        func add(_ index: Int, _ moment: PowerCut.Moment, _ loss: PowerCut.Loss) {
            cuts.append(PowerCut(scenario: scenarios[index], moment: moment, loss: loss, seed: generator.next() >> 1))
        }
        func addWrite(_ index: Int) {
            add(
                index, .write(Int.random(in: 1...steps[index].writes, using: &generator)),
                PowerCut.Loss.allCases.randomElement(using: &generator) ?? .everything)
        }
        let writing = scenarios.indices.filter { steps[$0].writes > 0 }
        for index in scenarios.indices {
            let lines = (0..<steps[index].events).map { PowerCut.Moment.event($0 + 1) }
            let files = (0..<steps[index].files).map { PowerCut.Moment.file($0 + 1) }
            let all = isLong ? lines + files : Array((lines + files).shuffled(using: &generator).prefix(sampleSize))
            for moment in all {
                if case .file = moment { add(index, moment, .logic) } else { add(index, moment, .everything) }
            }
            if !isLong, writing.contains(index) { for _ in 0..<sampleSize / 2 { addWrite(index) } }
        }
        guard isLong else { return cuts }
        for number in 0..<max(longCount - cuts.count, 20 * writing.count) { addWrite(writing[number % writing.count]) }
        return cuts
    }

    /// Does every job, each bench one at a time.
    private static func share<Job: Sendable>(
        _ jobs: [Job], _ benches: [PowerCutBench], _ body: @Sendable (PowerCutBench, Job) -> Void
    ) {
        let next = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: benches.count) { lane in
            while true {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < jobs.count else { return }
                body(benches[lane], jobs[index])
            }
        }
    }
}
