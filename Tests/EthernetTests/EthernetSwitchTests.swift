import Ethernet
import Testing
import Wire

struct EthernetSwitchTests {
    let now = MonotonicTime.now
    let a = SwitchPort(rawValue: 0)
    let b = SwitchPort(rawValue: 1)
    let c = SwitchPort(rawValue: 2)

    func threePorts(policy: ForwardingPolicy = .permitAll) -> EthernetSwitch {
        var fabric = EthernetSwitch(policy: policy)
        for port in [a, b, c] { fabric.setLink(true, on: port) }
        return fabric
    }

    @Test func `an unknown station is looked for on every other port, a known one only where it is`() {
        var fabric = threePorts()
        let first = frame(to: station(2), from: station(1))
        #expect(fabric.decide(first.span, from: a, at: now) == .forward([SwitchPortSet(b), SwitchPortSet(c)]))
        let answer = frame(to: station(1), from: station(2))
        #expect(fabric.decide(answer.span, from: b, at: now) == .forward(SwitchPortSet(a)))
        #expect(fabric.decide(first.span, from: a, at: now) == .forward(SwitchPortSet(b)))
    }

    @Test func `broadcast goes everywhere but back`() {
        var fabric = threePorts()
        let shout = frame(to: .broadcast, from: station(1))
        #expect(fabric.decide(shout.span, from: b, at: now) == .forward([SwitchPortSet(a), SwitchPortSet(c)]))
    }

    @Test func `a port without link gets nothing`() {
        var fabric = threePorts()
        fabric.setLink(false, on: c)
        let shout = frame(to: .broadcast, from: station(1))
        #expect(fabric.decide(shout.span, from: a, at: now) == .forward(SwitchPortSet(b)))
        fabric.setLink(false, on: b)
        #expect(fabric.decide(shout.span, from: a, at: now) == .drop(.noPort))
    }

    @Test func `a station that moved is found at its new port`() {
        var fabric = threePorts()
        let here = frame(to: .broadcast, from: station(1))
        _ = fabric.decide(here.span, from: a, at: now)
        _ = fabric.decide(here.span, from: c, at: now)
        let to = frame(to: station(1), from: station(2))
        #expect(fabric.decide(to.span, from: b, at: now) == .forward(SwitchPortSet(c)))
    }

    @Test func `a silent station is forgotten after the ageing time`() {
        var fabric = threePorts()
        let here = frame(to: .broadcast, from: station(1))
        _ = fabric.decide(here.span, from: a, at: now)
        let to = frame(to: station(1), from: station(2))
        let atTheLimit = now + .seconds(300)
        #expect(fabric.decide(to.span, from: b, at: atTheLimit) == .forward(SwitchPortSet(a)))
        let beyond = now + .seconds(301)
        #expect(fabric.decide(to.span, from: b, at: beyond) == .forward([SwitchPortSet(a), SwitchPortSet(c)]))
        #expect(fabric.stations(at: beyond).map(\.address) == [station(2)])
    }

    @Test func `a link that goes down takes its stations with it`() {
        var fabric = threePorts()
        let here = frame(to: .broadcast, from: station(1))
        _ = fabric.decide(here.span, from: a, at: now)
        fabric.setLink(false, on: a)
        #expect(fabric.stations(at: now).isEmpty)
    }

    @Test func `invented addresses do not grow the table and do not displace the one that keeps talking`() {
        var fabric = EthernetSwitch(stations: 64)
        for port in [a, b] { fabric.setLink(true, on: port) }
        var time = now
        for number in 0..<10_000 {
            time = time + .milliseconds(1)
            let flood = frame(to: .broadcast, from: station(1000 + UInt64(number)))
            _ = fabric.decide(flood.span, from: b, at: time)
            let steady = frame(to: .broadcast, from: station(1))
            _ = fabric.decide(steady.span, from: a, at: time)
        }
        #expect(fabric.stations(at: time).count <= 64)
        let to = frame(to: station(1), from: station(2))
        #expect(fabric.decide(to.span, from: b, at: time) == .forward(SwitchPortSet(a)))
    }

    @Test func `each frame that no bridge forwards is dropped for its own reason`() {
        var fabric = threePorts()
        let runt = [UInt8](repeating: 0, count: 13)
        #expect(fabric.decide(runt.span, from: a, at: now) == .drop(.malformed))
        let group = frame(to: station(1), from: .broadcast)
        #expect(fabric.decide(group.span, from: a, at: now) == .drop(.groupSource))
        let reserved = frame(to: MACAddress("01:80:c2:00:00:0e")!, from: station(1), .lldp)
        #expect(fabric.decide(reserved.span, from: a, at: now) == .drop(.reserved))
        let one = frame(to: .broadcast, from: station(1))
        _ = fabric.decide(one.span, from: a, at: now)
        let neighbour = frame(to: station(1), from: station(3))
        #expect(fabric.decide(neighbour.span, from: a, at: now) == .drop(.samePort))
    }

    @Test func `the policy has the last word, direction by direction, and can change between frames`() {
        var policy = ForwardingPolicy.permitAll
        policy.set(false, from: c, to: a)
        var fabric = threePorts(policy: policy)
        let outside = frame(to: .broadcast, from: station(9))
        #expect(fabric.decide(outside.span, from: c, at: now) == .forward(SwitchPortSet(b)))
        let inside = frame(to: station(9), from: station(1))
        #expect(fabric.decide(inside.span, from: a, at: now) == .forward(SwitchPortSet(c)))
        let answer = frame(to: station(1), from: station(9))
        #expect(fabric.decide(answer.span, from: c, at: now) == .drop(.policy))
        fabric.policy = .permitAll
        #expect(fabric.decide(answer.span, from: c, at: now) == .forward(SwitchPortSet(a)))
        fabric.policy = .denyAll
        #expect(fabric.decide(answer.span, from: c, at: now) == .drop(.policy))
    }

    @Test func `a set of ports holds all thirty-two`() {
        let all = SwitchPortSet(first: 32)
        var seen: [UInt8] = []
        all.forEach { seen.append($0.rawValue) }
        #expect(seen == Array(0..<32))
        #expect(SwitchPortSet(first: 0).isEmpty)
    }
}
