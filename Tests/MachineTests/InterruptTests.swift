import Machine
import RISCV
import Testing

@Suite struct `PLIC device` {
    let wires = [HartWires(), HartWires()]
    let plic: PLIC

    init() { plic = PLIC(harts: wires.map(\.signals)) }

    private func claim(_ context: UInt64) -> UInt64 { 0x20_0004 + context * 0x1000 }
    private func threshold(_ context: UInt64) -> UInt64 { 0x20_0000 + context * 0x1000 }
    private func enable(_ context: UInt64, _ word: UInt64) -> UInt64 { 0x2000 + context * 0x80 + word * 4 }

    @Test func `a source interrupts the context that enabled it, until claimed and completed`() {
        plic.set(4 * 10, 3)
        plic.set(enable(1, 0), 1 << 10)
        plic.set(source: 10, asserted: true)
        #expect(plic.word(0x1000) == 1 << 10)
        #expect(wires[0].signals.level(of: .supervisorExternal))
        #expect(!wires[0].signals.level(of: .machineExternal))
        #expect(!wires[1].signals.level(of: .supervisorExternal))
        #expect(plic.word(claim(0)) == 0)
        #expect(plic.word(claim(1)) == 10)
        #expect(!wires[0].signals.level(of: .supervisorExternal))
        #expect(plic.word(claim(1)) == 0)
        // Still high when completed: it asks again.
        plic.set(claim(1), 10)
        #expect(wires[0].signals.level(of: .supervisorExternal))
        #expect(plic.word(claim(1)) == 10)
        plic.set(source: 10, asserted: false)
        plic.set(claim(1), 10)
        #expect(!wires[0].signals.level(of: .supervisorExternal))
    }

    @Test func `completion by a context that has not enabled the source is ignored`() {
        plic.set(4 * 10, 1)
        plic.set(enable(1, 0), 1 << 10)
        plic.set(source: 10, asserted: true)
        #expect(plic.word(claim(1)) == 10)
        plic.set(claim(0), 10)
        #expect(plic.word(claim(1)) == 0)
        plic.set(claim(1), 10)
        #expect(plic.word(claim(1)) == 10)
    }

    @Test func `a forwarded request stays when its wire falls`() {
        plic.set(4 * 40, 1)
        plic.set(enable(3, 1), 1 << 8)
        plic.set(source: 40, asserted: true)
        plic.set(source: 40, asserted: false)
        #expect(wires[1].signals.level(of: .supervisorExternal))
        #expect(plic.word(claim(3)) == 40)
        plic.set(claim(3), 40)
        #expect(plic.word(claim(3)) == 0)
    }

    @Test func `the highest priority wins, then the lowest number, above the threshold`() {
        for (source, priority) in [(5, 2), (6, 7), (7, 7), (8, 1)] as [(Int, UInt32)] {
            plic.set(UInt64(4 * source), priority)
            plic.set(source: source, asserted: true)
        }
        plic.set(enable(0, 0), 0xFFFF_FFFF)
        #expect(plic.word(enable(0, 0)) == 0xFFFF_FFFE)
        plic.set(threshold(0), 1)
        #expect(plic.word(claim(0)) == 6)
        #expect(plic.word(claim(0)) == 7)
        #expect(plic.word(claim(0)) == 5)
        #expect(plic.word(claim(0)) == 0)
        #expect(!wires[0].signals.level(of: .machineExternal))
        plic.set(threshold(0), 0)
        #expect(wires[0].signals.level(of: .machineExternal))
    }

    @Test func `priority zero never interrupts, and priorities have three bits`() {
        plic.set(enable(0, 0), 1 << 9)
        plic.set(source: 9, asserted: true)
        #expect(plic.word(claim(0)) == 0)
        plic.set(4 * 9, 0xFFFF_FFFF)
        #expect(plic.word(4 * 9) == 7)
        plic.set(0, 7)
        #expect(plic.word(0) == 0)
    }

    @Test func `reset forgets all but the wires`() {
        plic.set(4 * 9, 7)
        plic.set(enable(0, 0), 1 << 9)
        plic.set(source: 9, asserted: true)
        plic.reset()
        #expect(!wires[0].signals.level(of: .machineExternal))
        #expect(plic.word(4 * 9) == 0)
        #expect(plic.word(0x1000) == 1 << 9)
    }

    @Test(arguments: [AccessWidth.byte, .half, .double])
    func `odd widths are refused`(_ width: AccessWidth) {
        #expect(plic.read(offset: 0x20_0000, width: width) == nil)
        #expect(!plic.write(offset: 0x20_0000, width: width, value: 1))
    }
}

@Suite struct `IMSIC device` {
    let wires = [HartWires(), HartWires()]
    let imsic: IMSIC

    init() { imsic = IMSIC(base: 0x2800_0000, files: wires.map(\.supervisorInterruptFile)) }

    @Test func `a write makes the identity pending in the file of its page`() {
        imsic.set(0x1000, 77)
        #expect(wires[1].supervisorInterruptFile.register(0x82) == 1 << (77 - 64))
        #expect(wires[0].supervisorInterruptFile.register(0x82) == 0)
        imsic.set(0x0004, UInt32(9).byteSwapped)
        #expect(wires[0].supervisorInterruptFile.register(0x80) == 1 << 9)
        #expect(imsic.word(0) == 0)
    }

    @Test func `identity zero, too large ones and other offsets are ignored`() {
        imsic.set(0, 0)
        imsic.set(0, 256)
        imsic.set(0, 0xFFFF_FFFF)
        imsic.set(8, 1)
        for select: UInt64 in [0x80, 0x82, 0x84, 0x86] {
            #expect(wires[0].supervisorInterruptFile.register(select) == 0)
        }
    }

    @Test func `messages are taken only at its own addresses`() {
        #expect(imsic.deliver(address: 0x2800_1000, data: 3))
        #expect(wires[1].supervisorInterruptFile.register(0x80) == 8)
        for address: UInt64 in [0x2800_2000, 0x27FF_FFFC, 0x2800_0002, 0, .max, .max - 3] {
            #expect(!imsic.deliver(address: address, data: 3))
        }
        #expect(wires[0].supervisorInterruptFile.register(0x80) == 0)
    }

    @Test(arguments: [AccessWidth.byte, .half, .double])
    func `odd widths are refused`(_ width: AccessWidth) {
        #expect(imsic.read(offset: 0, width: width) == nil)
        #expect(!imsic.write(offset: 0, width: width, value: 1))
    }
}

private struct Sent: Equatable, Sendable {
    var address: UInt64
    var data: UInt32
}

@Suite struct `APLIC device` {
    let wires = [HartWires(), HartWires()]
    private let sent = Collected<Sent>()
    let aplic: APLIC
    let machine: any MachineDevice
    let supervisor: any MachineDevice

    init() {
        let sent = sent
        aplic = APLIC(harts: wires.map(\.signals)) { sent.append(Sent(address: $0, data: $1)) }
        machine = aplic.domain(.machine)
        supervisor = aplic.domain(.supervisor)
    }

    private func sourcecfg(_ source: UInt64) -> UInt64 { source * 4 }
    private func target(_ source: UInt64) -> UInt64 { 0x3000 + source * 4 }

    /// Message bases as firmware sets them for IMSIC pages 4 KiB apart, one bit of hart index.
    private func setUpMessages() {
        machine.set(0x1BC0, 0x2_4000)
        machine.set(0x1BC4, 1 << 12)
        machine.set(0x1BC8, 0x2_8000)
        machine.set(0x1BCC, 0)
    }

    /// Delegates a source and makes it an enabled high-level one that sends `identity` to hart 1.
    private func setUp(source: UInt64, identity: UInt32) {
        setUpMessages()
        machine.set(sourcecfg(source), 1 << 10)
        supervisor.set(0, 0x104)
        supervisor.set(sourcecfg(source), 6)
        supervisor.set(target(source), 1 << 18 | identity)
        supervisor.set(0x1EDC, UInt32(source))
    }

    @Test func `a level source sends one message a rise, and again when software asks while it is high`() {
        setUp(source: 10, identity: 33)
        aplic.set(source: 10, asserted: true)
        #expect(sent.all == [Sent(address: 0x2800_1000, data: 33)])
        #expect(supervisor.word(0x1C00) == 0)
        #expect(supervisor.word(0x1D00) == 1 << 10)
        supervisor.set(0x2000, 10)
        #expect(sent.all.count == 2)
        aplic.set(source: 10, asserted: false)
        supervisor.set(0x2000, 10)
        #expect(sent.all.count == 2)
        aplic.set(source: 10, asserted: true)
        #expect(sent.all.count == 3)
    }

    @Test func `a disabled source stays pending and is sent when enabled`() {
        setUp(source: 10, identity: 33)
        supervisor.set(0x1FDC, 10)
        aplic.set(source: 10, asserted: true)
        #expect(sent.all.isEmpty)
        #expect(supervisor.word(0x1C00) == 1 << 10)
        supervisor.set(0x1E00, 1 << 10)
        #expect(sent.all.count == 1)
        #expect(supervisor.word(0x1E00) == 1 << 10)
    }

    @Test func `a disabled domain sends nothing until it is enabled`() {
        setUp(source: 10, identity: 33)
        supervisor.set(0, 0x004)
        aplic.set(source: 10, asserted: true)
        #expect(sent.all.isEmpty)
        supervisor.set(0, 0x104)
        #expect(sent.all.count == 1)
        #expect(supervisor.word(0) == 0x8000_0104)
    }

    @Test func `a pending level source is withdrawn when its wire falls before it is sent`() {
        setUp(source: 10, identity: 33)
        supervisor.set(0x1FDC, 10)
        aplic.set(source: 10, asserted: true)
        aplic.set(source: 10, asserted: false)
        supervisor.set(0x1EDC, 10)
        #expect(sent.all.isEmpty)
    }

    @Test(
        arguments: [(4, [false, true, true, false, true], 2), (5, [true, false, true, false], 2)]
            as [(UInt32, [Bool], Int)])
    func `edge sources count edges`(_ mode: UInt32, _ levels: [Bool], _ messages: Int) {
        setUp(source: 3, identity: 9)
        if mode == 5 { aplic.set(source: 3, asserted: true) }
        supervisor.set(sourcecfg(3), mode)
        let before = sent.all.count
        for level in levels { aplic.set(source: 3, asserted: level) }
        #expect(sent.all.count - before == messages)
    }

    @Test func `machine messages use the machine's base, and the lock bit keeps both`() {
        setUpMessages()
        machine.set(0, 0x104)
        machine.set(sourcecfg(5), 4)
        machine.set(target(5), 1 << 18 | 5)
        machine.set(0x1EDC, 5)
        machine.set(0x1BC4, 1 << 31 | 1 << 12)
        machine.set(0x1BC0, 0)
        machine.set(0x1BC8, 0)
        #expect(machine.word(0x1BC0) == 0x2_4000)
        #expect(machine.word(0x1BC8) == 0x2_8000)
        #expect(supervisor.word(0x1BC8) == 0)
        aplic.set(source: 5, asserted: true)
        #expect(sent.all == [Sent(address: 0x2400_1000, data: 5)])
    }

    @Test func `hart groups shift by their own fields`() {
        // LHXW 2, HHXW 1, HHXS 4 (+ 12 pages), LHXS 1: hart 7 is group 1, member 3.
        machine.set(0x1BC0, 0)
        machine.set(0x1BC4, 4 << 24 | 1 << 20 | 1 << 16 | 2 << 12)
        machine.set(0, 0x004)
        machine.set(0x3000, 7 << 18 | 42)
        #expect(sent.all == [Sent(address: (1 << 16 | 3 << 1) << 12, data: 42)])
        #expect(machine.word(0x3000) == 7 << 18 | 42)
    }

    @Test func `genmsi does nothing in direct mode`() {
        machine.set(0, 0x100)
        machine.set(0x3000, 7 << 18 | 42)
        #expect(sent.all.isEmpty)
        #expect(machine.word(0x3000) == 0)
    }

    @Test func `what is not delegated is nobody's in the child, and the leaf delegates nothing`() {
        supervisor.set(sourcecfg(4), 6)
        #expect(supervisor.word(sourcecfg(4)) == 0)
        machine.set(sourcecfg(4), 1 << 10)
        #expect(machine.word(sourcecfg(4)) == 1 << 10)
        supervisor.set(sourcecfg(4), 6)
        #expect(supervisor.word(sourcecfg(4)) == 6)
        supervisor.set(sourcecfg(4), 1 << 10)
        #expect(supervisor.word(sourcecfg(4)) == 0)
        supervisor.set(sourcecfg(4), 7)
        // Taking it back makes it inactive below.
        machine.set(sourcecfg(4), 1)
        #expect(supervisor.word(sourcecfg(4)) == 0)
        #expect(machine.word(sourcecfg(4)) == 1)
        // A child that does not exist.
        machine.set(sourcecfg(4), 1 << 10 | 1)
        #expect(machine.word(sourcecfg(4)) == 1)
    }

    @Test func `inactive sources have no enable, no target, and reserved modes are inactive`() {
        machine.set(target(4), 1 << 18 | 3)
        machine.set(0x1EDC, 4)
        #expect(machine.word(target(4)) == 0)
        #expect(machine.word(0x1E00) == 0)
        machine.set(sourcecfg(4), 2)
        #expect(machine.word(sourcecfg(4)) == 0)
        machine.set(sourcecfg(4), 4)
        machine.set(0x1EDC, 4)
        machine.set(sourcecfg(4), 0)
        machine.set(sourcecfg(4), 4)
        #expect(machine.word(0x1E00) == 0)
    }

    @Test func `direct mode drives the line of the target and claims the best source`() {
        machine.set(0, 0x100)
        for (source, priority) in [(3, 9), (4, 2), (5, 2)] as [(UInt64, UInt32)] {
            machine.set(sourcecfg(source), 4)
            machine.set(target(source), 1 << 18 | priority)
            machine.set(0x1EDC, UInt32(source))
            aplic.set(source: Int(source), asserted: true)
        }
        #expect(!wires[1].signals.level(of: .machineExternal))
        machine.set(0x4020, 1)
        #expect(wires[1].signals.level(of: .machineExternal))
        #expect(!wires[0].signals.level(of: .machineExternal))
        #expect(machine.word(0x4038) == 4 << 16 | 2)
        #expect(machine.word(0x403C) == 4 << 16 | 2)
        #expect(machine.word(0x403C) == 5 << 16 | 2)
        machine.set(0x4028, 9)
        #expect(machine.word(0x403C) == 0)
        #expect(!wires[1].signals.level(of: .machineExternal))
        machine.set(0x4028, 0)
        #expect(machine.word(0x403C) == 3 << 16 | 9)
        #expect(!wires[1].signals.level(of: .machineExternal))
    }

    @Test func `in direct mode a level source's pending bit is its wire`() {
        machine.set(0, 0x100)
        machine.set(sourcecfg(6), 7)
        #expect(machine.word(0x1C00) == 1 << 6)
        machine.set(0x1DDC, 6)
        #expect(machine.word(0x1C00) == 1 << 6)
        aplic.set(source: 6, asserted: true)
        #expect(machine.word(0x1C00) == 0)
        machine.set(0x1CDC, 6)
        #expect(machine.word(0x1C00) == 0)
        #expect(machine.word(target(6)) == 1)
        machine.set(target(6), 0)
        #expect(machine.word(target(6)) == 1)
    }

    @Test func `a forced interrupt ends with a claim of nothing`() {
        machine.set(0, 0x100)
        machine.set(0x4000, 1)
        machine.set(0x4004, 1)
        #expect(wires[0].signals.level(of: .machineExternal))
        #expect(machine.word(0x401C) == 0)
        #expect(!wires[0].signals.level(of: .machineExternal))
        #expect(machine.word(0x4004) == 0)
    }

    @Test func `a detached source is set by software alone, also big-endian`() {
        machine.set(0, 0x100)
        machine.set(sourcecfg(12), 1)
        aplic.set(source: 12, asserted: true)
        #expect(machine.word(0x1C00) == 0)
        #expect(machine.word(0x1D00) == 0)
        machine.set(0x2004, UInt32(12).byteSwapped)
        #expect(machine.word(0x1C00) == 1 << 12)
        machine.set(0x1D00, 1 << 12)
        #expect(machine.word(0x1C00) == 0)
    }

    @Test func `the last source exists and the next does not`() {
        machine.set(sourcecfg(96), 4)
        machine.set(sourcecfg(97), 4)
        #expect(machine.word(sourcecfg(96)) == 4)
        #expect(machine.word(sourcecfg(97)) == 0)
        machine.set(0x1E00 + 12, 0xFFFF_FFFF)
        #expect(machine.word(0x1E00 + 12) == 1)
        machine.set(0x1EDC, 0xFFFF_FFFF)
        machine.set(0x1E7C, 0xFFFF_FFFF)
        #expect(machine.word(0x1E7C) == 0)
    }

    @Test func `reset disables both domains`() {
        setUp(source: 10, identity: 33)
        machine.reset()
        #expect(supervisor.word(0) == 0x8000_0000)
        #expect(machine.word(sourcecfg(10)) == 0)
        #expect(machine.word(0x1BC0) == 0)
    }

    @Test(arguments: [AccessWidth.byte, .half, .double])
    func `odd widths are refused`(_ width: AccessWidth) {
        #expect(machine.read(offset: 0, width: width) == nil)
        #expect(!supervisor.write(offset: 0, width: width, value: 1))
    }
}
