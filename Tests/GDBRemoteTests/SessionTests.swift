import GDBRemote
import TestKit
import Testing

@Suite struct SessionTests {
    private let target = FakeTarget()
    private let session: RemoteSession

    init() { session = RemoteSession(target: target) }

    @Test func `features are told, and the description names every register`() {
        #expect(session.ask("qSupported:swbreak+")?.contains("qXfer:features:read+") == true)
        let whole = session.ask("qXfer:features:read:target.xml:0,fff") ?? ""
        #expect(whole.hasPrefix("l<?xml"))
        for register in target.registers {
            #expect(whole.contains("name=\"\(register.name)\" bitsize=\"64\" regnum=\"\(register.number)\""))
        }
        // In pieces it is the same.
        var pieces = ""
        while true {
            let piece = session.ask("qXfer:features:read:target.xml:\(String(pieces.utf8.count, radix: 16)),40") ?? "l"
            pieces += piece.dropFirst()
            if piece.first == "l" { break }
        }
        #expect(pieces == whole.dropFirst())
        #expect(session.ask("qXfer:features:read:other.xml:0,10") == "E00")
        #expect(session.ask("qXfer:features:read:target.xml:fffffff,10") == "E16")
        #expect(session.ask("qXfer:auxv:read::0,10") == "")
    }

    @Test func `registers are read and written`() {
        target.values[0] = [1, 2, 3, 4, 5, 0x8000_0000, 7, 0]
        let all = session.ask("g") ?? ""
        #expect(all.count == 6 * 16)
        #expect(all.hasSuffix("0000008000000000"))
        #expect(session.ask("p46") == "0700000000000000")
        #expect(session.ask("p47") == "xxxxxxxxxxxxxxxx", "a register without a value")
        #expect(session.ask("p48") == "E16", "a register that is not there")
        #expect(session.ask("P46=ff00000000000001") == "OK")
        #expect(target.values[0][6] == 0x0100_0000_0000_00FF)
        #expect(session.ask("P47=0000000000000000") == "E16")
        #expect(session.ask("P46=00") == "E16", "a short value")
        #expect(session.ask("G" + String(repeating: "01", count: 16)) == "OK", "a prefix of the registers")
        #expect(target.values[0][1] == 0x0101_0101_0101_0101)
        #expect(session.ask("G" + String(repeating: "01", count: 56)) == "E16", "more registers than there are")
        #expect(session.ask("G0102") == "E16")
    }

    @Test func `memory is read and written, as far as it is there`() {
        #expect(session.ask("M1000,4:01020304") == "OK")
        #expect(session.ask([UInt8]("X1004,3:".utf8) + [0x7D, 0x00, 0x24]) == "OK")
        #expect(session.ask("m1000,7") == "010203047d0024")
        #expect(session.ask("X1000,0:") == "OK", "the question whether X is there")
        #expect(session.ask("m0,4") == "E0e")
        #expect(session.ask("m10fff,4") == "00", "the last byte")
        #expect(session.ask("M10fff,2:0000") == "E0e")
        #expect((session.ask("m1000,ffffffffffffffff") ?? "").count == Packet.limit, "as much as one packet holds")
    }

    @Test func `threads are listed and chosen`() {
        #expect(session.ask("qfThreadInfo") == "m1,2")
        #expect(session.ask("qsThreadInfo") == "l")
        #expect(session.ask("qThreadExtraInfo,2") == "686172742031")
        #expect(session.ask("T2") == "OK")
        #expect(session.ask("T3") == "E03")
        #expect(session.ask("Hg3") == "E03")
        #expect(session.ask("Hg2") == "OK")
        #expect(session.ask("qC") == "QC2")
        target.values[1][0] = 5
        #expect(session.ask("p0") == "0500000000000000")
    }

    @Test(arguments: [
        ("vCont;c", [ThreadPlan.run, .run]), ("vCont;s:2", [.stay, .step]), ("vCont;s:2;c", [.run, .step]),
        ("vCont;s:1;c:-1", [.step, .run]), ("vCont;C05:1", [.run, .stay]), ("c", [.run, .run]), ("s", [.step, .stay]),
    ])
    func `what runs is what was asked for`(packet: String, plan: [ThreadPlan]) {
        #expect(session.ask(packet) == nil, "no answer before the stop")
        #expect(target.plans == [plan])
        #expect(session.isRunning)
        #expect(session.ask("g") == "E10", "all-stop: nothing else while it runs")
        #expect(target.interrupts == 0)
        _ = session.receive([0x03])
        #expect(target.interrupts == 1)
        let stop = payloads(session.targetStopped(.interrupted, thread: 1).bytes)
        #expect(stop == ["T02thread:2;5:0000000000000000;"])
        #expect(session.ask("?") == stop[0])
        _ = session.receive([0x03])
        #expect(target.interrupts == 1, "a target that stands is not interrupted")
    }

    @Test func `a resume of a thread that is not there is refused`() {
        #expect(session.ask("vCont;c:3") == "E03")
        #expect(target.plans.isEmpty)
    }

    @Test func `a stop names its kind only to a debugger that knows the words`() {
        _ = session.ask("c")
        #expect(
            payloads(session.targetStopped(.softwareBreakpoint, thread: 0).bytes).first?.contains("swbreak") == false)
        _ = session.ask("qSupported:swbreak+;hwbreak+")
        _ = session.ask("c")
        #expect(
            payloads(session.targetStopped(.softwareBreakpoint, thread: 0).bytes) == [
                "T05swbreak:;thread:1;5:0000000000000000;"
            ])
        _ = session.ask("c")
        #expect(
            payloads(session.targetStopped(.hardwareBreakpoint, thread: 0).bytes).first?.contains("hwbreak") == true)
    }

    @Test func `breakpoints are done, impossible here, or not offered`() {
        #expect(session.ask("Z0,1000,2") == "OK")
        #expect(target.breakpoints == [0x1000])
        #expect(session.ask("Z0,0,2") == "E0e")
        #expect(session.ask("Z2,1000,8") == "")
        #expect(session.ask("z0,1000,2") == "OK")
        #expect(target.breakpoints.isEmpty)
    }

    @Test func `commands of a person`() {
        #expect(session.ask("qRcmd,68656c70") == "6e6f6e650a")
        #expect(session.ask("qRcmd,00") == "E16")
    }

    @Test func `a wrong checksum is asked for again; without acknowledgements it ends the session`() {
        #expect(session.receive("$g#00".utf8).bytes == Array("-".utf8))
        let answer = session.receive("$qC#b4".utf8).bytes
        #expect(session.receive("-".utf8).bytes == Array(answer.dropFirst()), "the last packet again")
        #expect(session.ask("QStartNoAckMode") == "OK")
        #expect(session.receive("$qC#b4".utf8).bytes.first == UInt8(ascii: "$"), "no acknowledgement any more")
        let end = session.receive("$g#00$qC#b4".utf8)
        #expect(end.isClosed && end.bytes.isEmpty && end.reason != nil)
    }

    @Test(arguments: [("D", ["OK"]), ("k", [])])
    func `a debugger leaves`(packet: String, answers: [String]) {
        let output = session.receive(Packet.frame(packet.utf8) + Packet.frame("g".utf8))
        #expect(output.isClosed)
        #expect(payloads(output.bytes) == answers, "and nothing after it is answered")
    }

    @Test func `the end of the target is told to who waits for it`() {
        _ = session.ask("c")
        let output = session.targetStopped(.ended(1), thread: 0)
        #expect(output.isClosed && payloads(output.bytes) == ["W01"])
    }

    @Test func `random bytes and random damage never end badly`() {
        var random = SeededGenerator.fresh()
        let seeds = [
            "qSupported:swbreak+", "g", "p20", "m1000,40", "M1000,4:01020304", "X1000,4:abcd", "Z0,1000,2", "z0,1000,2",
            "vCont;s:1;c", "vCont?", "Hg1", "qfThreadInfo", "qXfer:features:read:target.xml:0,ffb", "qRcmd,68656c70",
            "P1=0000000000000000", "?", "s", "c1000", "QStartNoAckMode", "T1",
        ].map { Array($0.utf8) }
        for round in 0..<4000 {
            let target = FakeTarget()
            let session = RemoteSession(target: target)
            var stream: [UInt8] = []
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                var payload = seeds[Int.random(in: 0..<seeds.count, using: &random)]
                for _ in 0..<Int.random(in: 0...3, using: &random) {
                    let place = Int.random(in: 0...payload.count, using: &random)
                    switch random.next() % 3 {
                    case 0: payload.insert(UInt8.random(in: 0...255, using: &random), at: place)
                    case 1: if place < payload.count { payload[place] ^= 1 << UInt8.random(in: 0...7, using: &random) }
                    default: payload.removeLast(min(place, payload.count))
                    }
                }
                // Half of it with a right checksum, so that it gets past the decoder.
                stream += random.next() % 2 == 0 ? Packet.frame(payload) : random.bytes(8) + payload
            }
            var output = session.receive(stream)
            if session.isRunning { output.bytes += session.targetStopped(.stepped, thread: 0).bytes }
            var decoder = PacketDecoder()
            let damaged = output.bytes.contains { decoder.receive($0) == .corrupt }
            #expect(!damaged && output.bytes.count < 40 * Packet.limit, "seed \(random.seed), round \(round)")
            #expect(target.memory.count == 0x10000)
        }
    }
}
