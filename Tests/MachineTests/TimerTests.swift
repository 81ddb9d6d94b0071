import Machine
import RISCV
import Testing
import Wire

@Suite struct `CLINT device` {
    let wires = [HartWires(), HartWires()]
    let time = TimeSource()
    let clint: CLINT

    init() { clint = CLINT(harts: wires.map(\.signals), time: time) }

    @Test func `msip drives the software interrupt of its hart alone`() {
        clint.set(4, 0xFFFF_FFFF)
        #expect(clint.word(4) == 1)
        #expect(clint.word(0) == 0)
        #expect(wires[1].signals.level(of: .machineSoftware))
        #expect(!wires[0].signals.level(of: .machineSoftware))
        clint.set(4, 0)
        #expect(!wires[1].signals.level(of: .machineSoftware))
    }

    @Test func `mtimecmp is one double or two words`() {
        #expect(clint.read(offset: 0x4000, width: .double) == .max)
        #expect(clint.write(offset: 0x4008, width: .double, value: 0x1122_3344_5566_7788))
        #expect(wires[1].signals.machineTimerDeadline == 0x1122_3344_5566_7788)
        #expect(clint.word(0x4008) == 0x5566_7788)
        #expect(clint.word(0x400C) == 0x1122_3344)
        clint.set(0x400C, 0xAABB_CCDD)
        #expect(wires[1].signals.machineTimerDeadline == 0xAABB_CCDD_5566_7788)
    }

    @Test func `mtime runs, can be set, and begins at zero after reset`() throws {
        #expect(clint.write(offset: 0xBFF8, width: .double, value: 1 << 40))
        let first = try #require(clint.read(offset: 0xBFF8, width: .double))
        #expect(first >= 1 << 40)
        #expect(clint.word(0xBFFC) == 0x100)
        expectEventually { clint.read(offset: 0xBFF8, width: .double)! > first }
        clint.reset()
        #expect(clint.read(offset: 0xBFF8, width: .double)! < 1 << 40)
        #expect(wires[0].signals.machineTimerDeadline == .max)
    }

    @Test func `harts that do not exist read as zero and take no writes`() {
        clint.set(8, 1)
        #expect(clint.word(8) == 0)
        #expect(clint.write(offset: 0x4010, width: .double, value: 5))
        #expect(clint.read(offset: 0x4010, width: .double) == 0)
    }

    @Test(
        arguments: [(0, .byte), (0, .half), (0, .double), (0x4000, .byte), (0xBFF8, .half)] as [(UInt64, AccessWidth)])
    func `odd widths are refused`(_ offset: UInt64, _ width: AccessWidth) {
        #expect(clint.read(offset: offset, width: width) == nil)
        #expect(!clint.write(offset: offset, width: width, value: 1))
    }
}

@Suite struct `RTC device` {
    let board = WireBoard()
    let thread: LoopThread
    let rtc: RTC

    init() throws {
        thread = try LoopThread()
        rtc = RTC(line: InterruptLine(board, source: 11), clock: WallRTCClock(loop: thread.loop))
    }

    private var now: UInt64 {
        let low = UInt64(rtc.word(0))
        return UInt64(rtc.word(4)) << 32 | low
    }

    @Test func `it shows the wall clock`() {
        let before = wallClockNanoseconds()
        let shown = now
        #expect(before <= shown && shown <= wallClockNanoseconds())
    }

    @Test func `it can be set, and reset does not forget it`() {
        rtc.set(4, 5)
        rtc.set(0, 0)
        rtc.reset()
        #expect(now >> 32 == 5)
    }

    @Test func `an alarm interrupts when it is due`() {
        rtc.set(0x10, 1)
        let due = now + 20_000_000
        rtc.set(0x0C, UInt32(truncatingIfNeeded: due >> 32))
        rtc.set(0x08, UInt32(truncatingIfNeeded: due))
        expectEventually { board.isAsserted(11) }
        #expect(now >= due)
        #expect(rtc.word(0x18) == 0)
        rtc.set(0x1C, 1)
        #expect(!board.isAsserted(11))
    }

    @Test func `an alarm in the past interrupts at once, a cleared one never`() {
        rtc.set(0x10, 1)
        let future = now + (1 << 40)
        rtc.set(0x0C, UInt32(truncatingIfNeeded: future >> 32))
        rtc.set(0x08, 0)
        #expect(rtc.word(0x18) == 1)
        rtc.set(0x14, 1)
        #expect(rtc.word(0x18) == 0)
        #expect(!board.isAsserted(11))
        rtc.set(0x0C, 0)
        rtc.set(0x08, 1)
        #expect(board.isAsserted(11))
        rtc.reset()
        #expect(!board.isAsserted(11))
        #expect(rtc.word(0x10) == 0)
    }

    @Test(arguments: [AccessWidth.byte, .half, .double])
    func `odd widths are refused`(_ width: AccessWidth) {
        #expect(rtc.read(offset: 0, width: width) == nil)
        #expect(!rtc.write(offset: 0x10, width: width, value: 1))
    }
}

@Suite struct `Test finisher` {
    @Test func `its commands are told apart, other values do nothing`() {
        let commands = Collected<TestFinisher.Command>()
        let finisher = TestFinisher { commands.append($0) }
        for value: UInt32 in [0, 0x5555, 0x7777, 0x0005_3333, 0x1234] { finisher.set(0, value) }
        finisher.set(4, 0x5555)
        #expect(commands.all == [.powerOff, .reset, .fail(code: 5)])
        #expect(finisher.write(offset: 0, width: .half, value: 0x5555))
        #expect(commands.all.count == 4)
        #expect(!finisher.write(offset: 0, width: .byte, value: 0x55))
        #expect(!finisher.write(offset: 0, width: .double, value: 0x5555))
        #expect(finisher.word(0) == 0)
    }
}
