import Sideband
import Synchronization
import TestKit
import Testing
import Wire

/// A component's end of the sideband, with the test as the security logic.
@Suite struct PowerLineTests {
    /// A component that notes what it is told, in order.
    final class Component: Sendable {
        private struct State {
            var notes: [String] = []
            var powerUps: [PowerLine.PowerUp] = []
        }
        private let state = Mutex(State())
        private let line = Mutex<PowerLine?>(nil)
        let thread: LoopThread

        init(loadsFirmware: Bool = false) throws {
            let thread = try LoopThread()
            self.thread = thread
            var handlers = PowerLine.Handlers(
                hold: { [weak self] in self?.note("hold") }, run: { [weak self] in self?.note("run") },
                event: { [weak self] (event: PowerLine.Event) in self?.note("\(event)") },
                packet: { [weak self] (packet: MCTPPacket) in self?.note("packet of \(packet.source.rawValue)") },
                report: { [weak self] (text: String) in self?.note(text) })
            if loadsFirmware { handlers.beforePowerGood = { [weak self] powerUp in self?.keep(powerUp) } }
            let made = PowerLine(loop: thread.loop, handlers)
            line.withLock { $0 = made }
        }

        var power: PowerLine { line.withLock { $0! } }
        var notes: [String] { state.withLock { $0.notes } }
        var powerUps: [PowerLine.PowerUp] { state.withLock { $0.powerUps } }
        private func keep(_ powerUp: PowerLine.PowerUp) { state.withLock { $0.powerUps.append(powerUp) } }
        private func note(_ text: String) { state.withLock { $0.notes.append(text) } }

        /// Waits until this is all that was told.
        func expect(_ notes: String..., sourceLocation: SourceLocation = #_sourceLocation) {
            let isSo = eventually { self.notes == notes }
            #expect(isSo, "\(self.notes)", sourceLocation: sourceLocation)
        }

        /// Ends the loop; the last thing a test does with it.
        func end() { thread.end() }
    }

    private func deadline() -> MonotonicTime { .after(.seconds(20)) }

    /// A component behind a wire, and the wire's far end.
    private func wired(loadsFirmware: Bool = false) throws -> (Component, SidebandLink) {
        let (near, far) = try Socket.pair(kind: .seqpacket)
        let component = try Component(loadsFirmware: loadsFirmware)
        try component.power.start(.connected(near))
        return (component, SidebandLink(socket: far))
    }

    @Test func `without a sideband a component leaves reset at once`() throws {
        let component = try Component()
        defer { component.end() }
        #expect(component.power.isHeld)
        try component.power.start(nil)
        component.expect("resetReleased", "run", "powerGood")
        #expect(!component.power.isHeld && !component.power.isConnected)
    }

    @Test func `RESET# released and asserted, again and again, is told once each and answered`() throws {
        let (component, logic) = try wired()
        defer { component.end() }
        try logic.send(.signal(.reset, level: false))
        for round in 1...3 {
            for _ in 0..<2 { try logic.send(.signal(.reset, level: true)) }
            #expect(try logic.receive(until: deadline()) == .signal(.powerGood, level: true))
            for _ in 0..<2 { try logic.send(.signal(.reset, level: false)) }
            #expect(try logic.receive(until: deadline()) == .signal(.powerGood, level: false))
            #expect(eventually { component.notes.count == round * 5 })
        }
        #expect(
            Array(component.notes.prefix(5)) == ["resetReleased", "run", "powerGood", "hold", "resetAsserted"])
        #expect(component.notes == Array(repeating: component.notes.prefix(5), count: 3).flatMap { $0 })
    }

    @Test func `what is done before power is good delays it, and another reset makes it void`() throws {
        let (component, logic) = try wired(loadsFirmware: true)
        defer { component.end() }
        try logic.send(.signal(.reset, level: true))
        #expect(eventually { component.powerUps.count == 1 })
        #expect(component.notes == ["resetReleased"] && component.power.isHeld)
        let first = component.powerUps[0]
        #expect(first.isCurrent)
        try logic.send(.signal(.reset, level: false))
        #expect(try logic.receive(until: deadline()) == .signal(.powerGood, level: false))
        #expect(!first.isCurrent)
        first.succeed()
        first.fail("too late")
        try logic.send(.signal(.reset, level: true))
        #expect(eventually { component.powerUps.count == 2 })
        first.succeed()
        // What never ran is not held.
        component.expect("resetReleased", "resetAsserted", "resetReleased")
        component.powerUps[1].succeed()
        #expect(try logic.receive(until: deadline()) == .signal(.powerGood, level: true))
        component.expect("resetReleased", "resetAsserted", "resetReleased", "run", "powerGood")
        component.powerUps[1].fail("it runs already")
        #expect(!component.powerUps[1].isCurrent)
    }

    @Test func `what fails before power is good leaves the component as in reset, until the next release`() throws {
        let (component, logic) = try wired(loadsFirmware: true)
        defer { component.end() }
        try logic.send(.signal(.reset, level: true))
        #expect(eventually { component.powerUps.count == 1 })
        component.powerUps[0].fail("no firmware")
        component.expect("resetReleased", #"powerFailed(reason: "no firmware")"#)
        #expect(component.power.isHeld)
        try logic.send(.signal(.reset, level: false))
        try logic.send(.signal(.reset, level: true))
        #expect(eventually { component.powerUps.count == 2 })
        component.powerUps[1].succeed()
        #expect(eventually { !component.power.isHeld })
    }

    @Test func `a logic that goes takes RESET# with it, and one that comes back is obeyed`() throws {
        let folder = TemporaryFolder()
        let listener = try Listener(path: folder.file("logic"), kind: .seqpacket)
        let component = try Component()
        defer { component.end() }
        try component.power.start(.uses(path: folder.file("logic")))
        let first = SidebandLink(socket: try listener.accept(until: deadline()))
        try first.send(.signal(.reset, level: true))
        #expect(try first.receive(until: deadline()) == .signal(.powerGood, level: true))
        first.socket.shutdown()
        component.expect(
            "resetReleased", "run", "powerGood", "sideband: the security logic is gone: in reset until it is back",
            "hold",
            "resetAsserted")
        let second = SidebandLink(socket: try listener.accept(until: deadline()))
        #expect(component.power.isHeld)
        try second.send(.signal(.reset, level: true))
        #expect(try second.receive(until: deadline()) == .signal(.powerGood, level: true))
        component.power.stop()
    }

    @Test func `datagrams that are no messages and signals that are not its own are not obeyed`() throws {
        let (component, logic) = try wired()
        defer { component.end() }
        for bytes in [[9], [1, 0], [1, 0, 2], [2, 9, 9, 9, 9, 9]] as [[UInt8]] { try logic.socket.send(bytes) }
        #expect(eventually { component.notes.count == 4 })
        #expect(component.notes.allSatisfy { $0.hasPrefix("sideband: ") }, "\(component.notes)")
        for signal in [SidebandMessage.Signal.powerGood, .attention, .init(rawValue: 77)] {
            try logic.send(.signal(signal, level: true))
        }
        try logic.send(MCTPMessage(destination: .card0, source: .securityLogic, isTagOwner: true, tag: 0, body: [1]))
        #expect(eventually { component.notes.last == "packet of 8" })
        #expect(component.power.isHeld && component.notes.count == 5)
        try component.power.send(
            MCTPMessage(destination: .securityLogic, source: .card0, isTagOwner: true, tag: 2, body: [1, 2]))
        guard case .mctp(let packet) = try logic.receive(until: deadline()) else {
            Issue.record("no packet")
            return
        }
        #expect(packet.source == .card0 && packet.payload == [1, 2])
        let alone = try Component()
        defer { alone.end() }
        #expect(throws: WireError.closed(inMessage: false)) {
            try alone.power.send(
                MCTPMessage(destination: .securityLogic, source: .card0, isTagOwner: true, tag: 2, body: [1]))
        }
    }
}
