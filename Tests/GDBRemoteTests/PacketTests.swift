import GDBRemote
import TestKit
import Testing

@Suite struct PacketTests {
    private func items(_ bytes: [UInt8]) -> [PacketDecoder.Item] {
        var decoder = PacketDecoder()
        return bytes.compactMap { decoder.receive($0) }
    }

    private func items(_ text: String) -> [PacketDecoder.Item] { items(Array(text.utf8)) }

    @Test func `a packet, acknowledgements and the interrupt byte are told apart`() {
        #expect(items("+$g#67-") == [.acknowledgment, .packet(Array("g".utf8)), .retransmission])
        #expect(items([0x03]) == [.interrupt])
        #expect(items([UInt8(ascii: "$"), 0x03] + Array("#03".utf8)) == [.packet([0x03])])
    }

    @Test(arguments: ["$g#66", "$g#6x", "$g#x7", "$#01"])
    func `a packet with a wrong checksum is corrupt`(text: String) {
        #expect(items(text) == [.corrupt])
    }

    @Test func `a packet that begins inside another one replaces it`() {
        #expect(items("$m12$g#67") == [.packet(Array("g".utf8))])
        #expect(items("$g#$g#67") == [.corrupt, .packet(Array("g".utf8))])
    }

    @Test func `every byte survives framing`() {
        let all = (0...255).map { UInt8($0) }
        #expect(items(Packet.frame(all)) == [.packet(all)])
    }

    @Test func `a packet over the limit is refused and the next one is taken`() {
        let limit = [UInt8](repeating: 0x61, count: Packet.limit)
        #expect(items(Packet.frame(limit)) == [.packet(limit)])
        #expect(items(Packet.frame(limit + [0x61]) + Packet.frame([0x67])) == [.oversize, .packet([0x67])])
    }

    @Test func `an escape of nothing is refused`() {
        // '}' alone: its sum is right, its meaning is not.
        #expect(items("$}#7d") == [.oversize])
    }

    @Test(arguments: [
        ("m80000000,10", RemoteCommand.readMemory(address: 0x8000_0000, count: 16)),
        ("mffffffffffffffff,ffffffffffffffff", .readMemory(address: .max, count: .max)),
        ("M10,2:a1B2", .writeMemory(address: 16, [0xA1, 0xB2])),
        ("Xff,1:z", .writeMemory(address: 255, [0x7A])),
        ("p20", .readRegister(32)),
        ("P20=0100000000000000", .writeRegister(32, [1, 0, 0, 0, 0, 0, 0, 0])),
        ("Z0,80000000,2", .insertBreakpoint(.software, address: 0x8000_0000, size: 2)),
        ("z1,4,4", .removeBreakpoint(.hardware, address: 4, size: 4)),
        (
            "vCont;s:1;c",
            .resume([ResumeAction(isStep: true, thread: .thread(1)), ResumeAction(isStep: false, thread: .all)])
        ),
        ("vCont;C05:-1", .resume([ResumeAction(isStep: false, thread: .all)])),
        ("c", .resumeCurrent(isStep: false, address: nil)),
        ("s1000", .resumeCurrent(isStep: true, address: 0x1000)),
        ("C05;1000", .resumeCurrent(isStep: false, address: 0x1000)),
        ("Hg0", .selectForAccess(.any)),
        ("Hc-1", .selectForResume(.all)),
        ("T2", .isThreadAlive(.thread(2))),
        ("qRcmd,68656c70", .monitor("help")),
        (
            "qXfer:features:read:target.xml:0,ffb",
            .transfer(object: "features", annex: "target.xml", offset: 0, count: 0xFFB)
        ),
        ("qSupported:a+;b-", .supported(features: ["a+", "b-"])),
        ("Qqemu.PhyMemMode:1", .setMemoryPhysical(true)),
        ("", .unknown), ("vMustReplyEmpty", .unknown), ("qTStatus", .unknown), ("R00", .unknown), ("Hx1", .unknown),
    ])
    func `a payload has its meaning`(payload: String, command: RemoteCommand) {
        #expect(RemoteCommand(Array(payload.utf8)) == command)
    }

    @Test(arguments: [
        "m", "m80000000", "m80000000,", "m,4", "m80000000,4x", "m10000000000000000,1", "mzz,1",
        "M10,2:a1", "M10,1:a1b2", "M10,2", "M10,2:a", "M10,1:zz", "X10,2:a", "X10,1", "G1", "Gxx", "p", "pg", "p1,",
        "P1",
        "P1=", "P1=1", "P=00", "Z", "Z0", "Z5,0,4", "Z0,80000000", "Z0,80000000,2;X1,0", "z0,,2",
        "Zffffffffffffffff,0,2",
        "cx", "s10x", "C", "Cx", "S05;", "T", "Tx", "Hg", "Hgx", "Hg1x", "D1", "kx", "?x", "gx", "vCont", "vCont;",
        "vCont;x", "vCont;c:", "vCont;c:1x", "vCont;C", "vCont?x", "qRcmd,6", "qRcmd,zz", "qXfer:features",
        "qXfer:features:read:target.xml", "qXfer:features:read:target.xml:0", "qXfer:features:read:target.xml:0,1x",
        "qSupportedx", "QStartNoAckModex", "Qqemu.PhyMemMode:2", "Qqemu.PhyMemMode:", "qThreadExtraInfo,",
    ])
    func `a payload that is not well formed is refused`(payload: String) {
        #expect([.malformed, .unknown].contains(RemoteCommand(Array(payload.utf8))))
        let target = FakeTarget()
        let session = RemoteSession(target: target)
        let answer = session.ask(payload)
        #expect(answer == "E16" || answer == "" || answer == "E0e", "\(answer ?? "none")")
        #expect(target.plans.isEmpty, "nothing runs for it")
    }
}
