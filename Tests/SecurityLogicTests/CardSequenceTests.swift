import SecurityLogic
import Sideband
import TestKit
import Testing
import Trust

/// Boards with cards that are held in reset: the order of release, and what becomes of it when power is good early, late,
/// never, or no longer.
@Suite struct CardSequenceTests {
    private static let all: Set<HeldComponent> = [.bmc, .card0, .card1, .host]

    private func settings(
        _ components: Set<HeldComponent> = all, _ change: (inout SecuritySettings) -> Void = { _ in }
    ) -> SecuritySettings {
        Sequences.settings {
            $0.components = components
            change(&$0)
        }
    }

    private func release(_ component: HeldComponent) -> [SecuritySequencer.Action] {
        [.setReset(component, isAsserted: false), .emit(.resetReleased(component))]
    }

    /// A sequencer whose image was verified, and what that did.
    private func verified(_ settings: SecuritySettings) -> (SecuritySequencer, [SecuritySequencer.Action]) {
        var sequencer = Sequences.sequencer(.verifying, settings)
        let actions = sequencer.handle(.request(Sequences.report(true)))
        return (sequencer, Array(Sequences.withoutTimers(actions).dropFirst(2)))
    }

    @Test func `power-on and power cycle hold what is there, and tell of nothing else`() {
        for components in [Self.all, [.host], [.bmc, .host, .card3]] as [Set<HeldComponent>] {
            var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: settings(components))
            for event in [.powerOn, .powerCycle] as [SecuritySequencer.Event] {
                let told = Sequences.events(sequencer.handle(event))
                #expect(told == HeldComponent.allCases.filter(components.contains).map { .resetAsserted($0) })
            }
        }
    }

    @Test func `the BMC is released first, then each card, then the host`() {
        var (sequencer, first) = verified(settings())
        #expect(first == release(.bmc))
        for (component, next) in [(HeldComponent.bmc, HeldComponent.card0), (.card0, .card1), (.card1, .host)] {
            let actions = sequencer.handle(.powerGood(component, true))
            #expect(Sequences.withoutTimers(actions) == release(next))
            #expect(Sequences.timers(actions).map(\.duration) == [.milliseconds(50)])
            #expect(sequencer.isBridged == (next == .host), "host and BMC talk once both run, whatever cards do")
        }
        #expect(Sequences.events(sequencer.handle(.powerGood(.host, true))) == [.boardLocked])
        #expect(sequencer.released == Self.all)
    }

    @Test(arguments: HeldComponent.allCases)
    func `a component that never has power good is passed over after its time`(silent: HeldComponent) throws {
        let everything = Set(HeldComponent.allCases)
        var (sequencer, _) = verified(settings(everything))
        var timer = try #require(
            Sequences.timers(
                {
                    var other = Sequences.sequencer(.verifying, settings(everything))
                    return other.handle(.request(Sequences.report(true)))
                }()
            ).first)
        for component in HeldComponent.allCases {
            #expect(sequencer.released.contains(component), "\(component)")
            #expect(sequencer.state == .released)
            let actions =
                component == silent
                ? sequencer.handle(.timerFired(timer.token)) : sequencer.handle(.powerGood(component, true))
            if let next = Sequences.timers(actions).first { timer = next }
            #expect(!actions.isEmpty, "\(component)")
        }
        #expect(sequencer.state == .locked)
        #expect(sequencer.released == everything)
    }

    @Test func `power that was good before the release counts, power that was good before the hold does not`() {
        var sequencer = Sequences.sequencer(.verifying, settings())
        for component in [HeldComponent.card0, .card1, .host] { _ = sequencer.handle(.powerGood(component, true)) }
        _ = sequencer.handle(.request(Sequences.report(true)))
        #expect(sequencer.released == [.bmc])
        let actions = sequencer.handle(.powerGood(.bmc, true))
        #expect(
            Sequences.events(actions) == [
                .resetReleased(.card0), .resetReleased(.card1), .resetReleased(.host), .boardLocked,
            ])
        #expect(Sequences.timers(actions).isEmpty)
        // Now everything is held again, and nobody says that its power went: that of a card that hangs.
        _ = sequencer.handle(.powerCycle)
        _ = sequencer.handle(.request(.setMode(.unprotected)))
        _ = sequencer.handle(.request(Sequences.report(true)))
        #expect(sequencer.released == [.bmc])
        _ = sequencer.handle(.powerGood(.bmc, true))
        #expect(sequencer.released == [.bmc, .card0])
    }

    @Test func `power that is lost while it is waited for is waited for on`() throws {
        var (sequencer, _) = verified(settings())
        let waiting = try #require(Sequences.timers(sequencer.handle(.powerGood(.bmc, true))).first)
        #expect(sequencer.handle(.powerGood(.card0, false)).isEmpty)
        #expect(sequencer.handle(.powerGood(.card1, true)).isEmpty, "not its turn")
        #expect(sequencer.handle(.powerGood(.card1, false)).isEmpty, "and gone before it is")
        let next = sequencer.handle(.timerFired(waiting.token))
        #expect(Sequences.withoutTimers(next) == release(.card1))
        #expect(sequencer.handle(.powerGood(.card0, true)).isEmpty, "too late: it was passed over")
        #expect(sequencer.handle(.timerFired(waiting.token)).isEmpty, "an old timer means nothing")
        #expect(Sequences.withoutTimers(sequencer.handle(.powerGood(.card1, true))) == release(.host))
    }

    @Test func `power that is lost by one that was released changes nothing for the others`() {
        var (sequencer, _) = verified(settings())
        _ = sequencer.handle(.powerGood(.bmc, true))
        _ = sequencer.handle(.powerGood(.card0, true))
        #expect(sequencer.handle(.powerGood(.card0, false)).isEmpty)
        #expect(sequencer.released == [.bmc, .card0, .card1])
        _ = sequencer.handle(.powerGood(.card1, true))
        _ = sequencer.handle(.powerGood(.host, true))
        #expect(sequencer.state == .locked)
    }

    @Test(arguments: [HeldComponent.bmc, .card0, .card1, .host])
    func `a power cycle while one is waited for holds all and forgets whom`(awaited: HeldComponent) {
        var (sequencer, _) = verified(settings())
        for component in HeldComponent.allCases where Self.all.contains(component) {
            if component == awaited { break }
            _ = sequencer.handle(.powerGood(component, true))
        }
        #expect(sequencer.released.contains(awaited))
        #expect(sequencer.state == .released)
        let actions = sequencer.handle(.powerCycle)
        for component in Self.all { #expect(actions.contains(.setReset(component, isAsserted: true))) }
        #expect(sequencer.released.isEmpty && sequencer.state == .held)
        #expect(sequencer.handle(.powerGood(awaited, true)).isEmpty)
        #expect(sequencer.released.isEmpty)
    }

    @Test(arguments: [SecurityState.released, .locked])
    func `what fails a board that runs holds the cards too`(state: SecurityState) {
        let held: [SecurityEvent] = HeldComponent.allCases.filter(Self.all.contains).map { .resetAsserted($0) }
        var (sequencer, _) = verified(settings(Self.all) { if state == .released { $0.lockAt = .bootComplete } })
        for component in HeldComponent.allCases { _ = sequencer.handle(.powerGood(component, true)) }
        #expect(sequencer.state == state)
        let told = Sequences.events(sequencer.handle(.flashChanged(0x80_1000)))
        #expect(Array(told.dropLast()) == held)
        #expect(sequencer.state == .failed && sequencer.released.isEmpty)
    }

    @Test func `a host that does not boot has the cards held before the next slot is tried`() throws {
        var sequencer = Sequences.sequencer(.verifying, settings(Self.all) { $0.bootTimeout = .seconds(9) })
        _ = sequencer.handle(.request(Sequences.report(true)))
        var last: [SecuritySequencer.Action] = []
        for component in HeldComponent.allCases { last += sequencer.handle(.powerGood(component, true)) }
        let watch = try #require(Sequences.timers(last).last)
        #expect(watch.duration == .seconds(9))
        let actions = sequencer.handle(.timerFired(watch.token))
        #expect(actions.contains(.setReset(.card0, isAsserted: true)))
        #expect(actions.contains(.setReset(.card1, isAsserted: true)))
        #expect(sequencer.state == .held && sequencer.released.isEmpty)
    }

    @Test func `a board of nothing that is held locks at once`() {
        let (sequencer, actions) = verified(settings([]))
        #expect(Sequences.events(actions) == [.boardLocked])
        #expect(sequencer.state == .locked && !sequencer.isBridged)
    }

    @Test func `no order of events releases a component out of turn`() {
        var generator = SeededGenerator.fresh()
        let seed = generator.seed
        for _ in 0..<300 {
            let components = Set(HeldComponent.allCases.filter { _ in Bool.random(using: &generator) })
            var sequencer = SecuritySequencer(fuses: Sequences.fuses, settings: settings(components))
            _ = sequencer.handle(.powerOn)
            var timers: [SecuritySequencer.TimerToken] = []
            for _ in 0..<60 {
                let component = HeldComponent.allCases.randomElement(using: &generator) ?? .bmc
                let event: SecuritySequencer.Event =
                    switch Int.random(in: 0..<12, using: &generator) {
                    case 0: .powerCycle
                    case 1: .request(.setMode(.unprotected))
                    case 2: .request(Sequences.report(true))
                    case 3: timers.randomElement(using: &generator).map { .timerFired($0) } ?? .bootComplete
                    case 4: .flashChanged(0)
                    default: .powerGood(component, Bool.random(using: &generator))
                    }
                timers += Sequences.timers(sequencer.handle(event)).map(\.token)
                let order = HeldComponent.allCases.filter(components.contains)
                #expect(
                    sequencer.released == Set(order.prefix(sequencer.released.count)), "seed \(seed): \(event)")
                let mayRun = sequencer.state == .released || sequencer.state == .locked
                #expect(mayRun || sequencer.released.isEmpty, "seed \(seed): \(event)")
                #expect(sequencer.state != .locked || sequencer.released.count == order.count, "seed \(seed)")
            }
        }
    }
}
