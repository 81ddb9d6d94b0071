import Machine
import RISCV
import Synchronization
import Testing

private let (rbr, ier, iir, lcr, mcr, lsr, msr, scr): (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) =
    (0, 1, 2, 3, 4, 5, 6, 7)

private final class Host: UARTHost {
    let outputs = Atomic<Int>(0)
    let rooms = Atomic<Int>(0)
    func outputAvailable() { outputs.add(1, ordering: .relaxed) }
    func inputRoomAvailable() { rooms.add(1, ordering: .relaxed) }
}

@Suite struct `UART device` {
    let board = WireBoard()
    let uart: UART

    init() { uart = UART(line: InterruptLine(board, source: 10)) }

    private var interrupts: Bool { board.isAsserted(10) }

    @Test(
        arguments: [
            (ier, 0x00), (iir, 0x01), (lcr, 0x00), (mcr, 0x00), (lsr, 0x60), (msr, 0xB0), (scr, 0x00),
        ] as [(UInt64, UInt8)])
    func `reset values`(_ register: UInt64, _ value: UInt8) {
        uart.put(scr, 0x5A)
        uart.put(mcr, 0x1F)
        uart.put(ier, 0x0F)
        uart.put(lcr, 0x1B)
        uart.put(iir, 0xC1)
        uart.reset()
        #expect(uart.byte(register) == value)
        #expect(!interrupts)
    }

    @Test func `the divisor latch hides data and interrupt enables`() {
        uart.put(ier, 0x05)
        uart.put(lcr, 0x83)
        uart.put(rbr, 0x34)
        uart.put(ier, 0x12)
        #expect(uart.byte(rbr) == 0x34)
        #expect(uart.byte(ier) == 0x12)
        uart.put(lcr, 0x03)
        #expect(uart.byte(ier) == 0x05)
        #expect(uart.takeOutput().isEmpty)
    }

    @Test func `reserved bits of IER and MCR read as zero`() {
        uart.put(ier, 0xFF)
        uart.put(mcr, 0xFF)
        #expect(uart.byte(ier) == 0x0F)
        #expect(uart.byte(mcr) == 0x1F)
    }

    @Test func `a burst of output reaches the host in one piece with one notice`() {
        let host = Host()
        uart.attach(host)
        for byte in "Hello".utf8 { uart.put(rbr, byte) }
        #expect(host.outputs.load(ordering: .relaxed) == 1)
        #expect(uart.takeOutput() == Array("Hello".utf8))
        uart.put(rbr, 33)
        #expect(host.outputs.load(ordering: .relaxed) == 2)
    }

    @Test func `a host that is behind makes the transmitter busy and loses nothing`() {
        uart.put(ier, 0x02)
        _ = uart.byte(iir)
        var sent = 0
        while uart.byte(lsr) & 0x20 != 0 {
            uart.put(rbr, UInt8(truncatingIfNeeded: sent))
            sent += 1
        }
        #expect(sent == 65_536)
        _ = uart.byte(iir)
        #expect(!interrupts)
        let output = uart.takeOutput()
        #expect(output.count == sent)
        #expect(output.enumerated().allSatisfy { $1 == UInt8(truncatingIfNeeded: $0) })
        #expect(uart.byte(lsr) & 0x20 != 0)
        #expect(interrupts)
    }

    @Test func `the transmitter's interrupt is raised by enabling it and ended by IIR`() {
        uart.put(ier, 0x02)
        #expect(interrupts)
        #expect(uart.byte(iir) == 0x02)
        #expect(!interrupts)
        #expect(uart.byte(iir) == 0x01)
        uart.put(rbr, 1)
        #expect(interrupts)
        uart.put(ier, 0)
        #expect(!interrupts)
    }

    @Test(arguments: [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)] as [(UInt8, Int)])
    func `received bytes interrupt at the trigger level, fewer as a timeout`(_ control: UInt8, _ trigger: Int) {
        uart.put(iir, control)
        uart.put(ier, 0x01)
        #expect(uart.offerInput([UInt8](repeating: 7, count: trigger)) == trigger)
        #expect(interrupts)
        #expect(uart.byte(iir) == 0xC4)
        if trigger > 1 {
            #expect(uart.byte(rbr) == 7)
            #expect(uart.byte(iir) == 0xCC)
        }
        while uart.byte(lsr) & 1 != 0 { #expect(uart.byte(rbr) == 7) }
        #expect(!interrupts)
        #expect(uart.byte(iir) == 0xC1)
        #expect(uart.byte(rbr) == 0)
    }

    @Test func `input beyond the queue is refused and asked for again when there is room`() {
        let host = Host()
        uart.attach(host)
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        #expect(uart.offerInput(bytes) == 4096)
        #expect(uart.offerInput(bytes[4096...]) == 0)
        for index in 0..<2048 {
            #expect(host.rooms.load(ordering: .relaxed) == 0)
            #expect(uart.byte(rbr) == UInt8(truncatingIfNeeded: index))
        }
        #expect(host.rooms.load(ordering: .relaxed) == 1)
        #expect(uart.offerInput(bytes[4096...]) == 904)
        for index in 2048..<5000 { #expect(uart.byte(rbr) == UInt8(truncatingIfNeeded: index)) }
        #expect(host.rooms.load(ordering: .relaxed) == 1)
    }

    @Test func `clearing the receiver drops what the FIFO holds`() {
        uart.put(iir, 0x01)
        _ = uart.offerInput([1, 2, 3])
        uart.put(iir, 0x03)
        #expect(uart.byte(lsr) & 1 == 0)
        // The clear bits count only together with the enable bit; turning the FIFO off clears it as well.
        _ = uart.offerInput([4])
        uart.put(iir, 0x00)
        #expect(uart.byte(lsr) & 1 == 0)
        #expect(uart.byte(iir) == 0x01)
    }

    @Test func `loopback sends to itself and wires the modem lines together`() {
        uart.put(mcr, 0x10)
        #expect(uart.byte(msr) & 0xF0 == 0)
        uart.put(mcr, 0x1F)
        #expect(uart.byte(msr) == 0xFB)
        #expect(uart.byte(msr) == 0xF0)
        uart.put(mcr, 0x1B)
        #expect(uart.byte(msr) == 0xB4)
        uart.put(rbr, 0xA5)
        #expect(uart.byte(lsr) & 1 == 1)
        #expect(uart.byte(rbr) == 0xA5)
        #expect(uart.takeOutput().isEmpty)
    }

    @Test func `loopback beyond the FIFO is an overrun, told once`() {
        uart.put(iir, 0x01)
        uart.put(mcr, 0x10)
        uart.put(ier, 0x04)
        for value in 0..<17 { uart.put(rbr, UInt8(value)) }
        #expect(interrupts)
        #expect(uart.byte(iir) == 0xC6)
        #expect(uart.byte(lsr) & 0x02 == 0x02)
        #expect(uart.byte(lsr) & 0x02 == 0)
        #expect(!interrupts)
        for value in 0..<16 { #expect(uart.byte(rbr) == UInt8(value)) }
    }

    @Test func `modem status changes interrupt until MSR is read`() {
        uart.put(ier, 0x08)
        uart.put(mcr, 0x10)
        #expect(interrupts)
        #expect(uart.byte(iir) == 0x00)
        _ = uart.byte(msr)
        #expect(!interrupts)
    }

    @Test(arguments: [(0, .half), (0, .word), (0, .double), (8, .byte), (0xFF, .byte)] as [(UInt64, AccessWidth)])
    func `wide accesses and missing registers are refused`(_ offset: UInt64, _ width: AccessWidth) {
        #expect(uart.read(offset: offset, width: width) == nil)
        #expect(!uart.write(offset: offset, width: width, value: 0))
    }
}
