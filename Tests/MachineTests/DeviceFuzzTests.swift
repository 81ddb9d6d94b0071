import Machine
import RISCV
import TestKit
import Testing

@Suite struct `Register fuzz` {
    static let seeds: [UInt64] = [1, 0xDEAD_BEEF, 0x1234_5678_9ABC_DEF0]

    /// Every device with its region's size and the source it may drive.
    private func devices() throws -> (
        thread: LoopThread, devices: [(name: String, size: UInt64, device: any MachineDevice)]
    ) {
        let thread = try LoopThread()
        let wires = [HartWires(), HartWires()]
        let signals = wires.map(\.signals)
        let imsic = IMSIC(base: 0x2800_0000, files: wires.map(\.supervisorInterruptFile))
        let aplic = APLIC(harts: signals) { _ = imsic.deliver(address: $0, data: $1) }
        let list: [(String, UInt64, any MachineDevice)] = [
            ("CLINT", 0x1_0000, CLINT(harts: signals, time: TimeSource())),
            ("IMSIC", 0x2000, imsic),
            ("APLIC M", 0x8000, aplic.domain(.machine)),
            ("APLIC S", 0x8000, aplic.domain(.supervisor)),
            ("PLIC", 0x60_0000, PLIC(harts: signals)),
            ("UART", 0x100, UART(line: InterruptLine(aplic, source: 10))),
            ("PS/2 port", 0x1000, PS2Port(line: InterruptLine(aplic, source: 12))),
            ("LPC window", 0x1_0000, LPCWindow(host: nil, line: InterruptLine(aplic, source: 13))),
            ("RTC", 0x1000, RTC(line: InterruptLine(aplic, source: 11), clock: WallRTCClock(loop: thread.loop))),
            ("test finisher", 0x1000, TestFinisher { _ in }),
        ]
        return (thread, list)
    }

    @Test(arguments: seeds)
    func `no access of any width, offset and value traps, and reads fit their width`(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let (thread, devices) = try devices()
        defer { withExtendedLifetime(thread) {} }
        for (name, size, device) in devices {
            for _ in 0..<20_000 {
                let width = [AccessWidth.byte, .half, .word, .word, .word, .double].randomElement(using: &random)!
                // Half of the offsets among the first registers of a region or a page.
                var offset = random.next() % size
                if random.next() & 1 == 0 { offset = (offset & ~0xFFF | random.next() & 0x3F) % size }
                offset &= ~(width.bytes - 1)
                guard size - offset >= width.bytes else { continue }
                let mask: UInt64 = width == .double ? .max : (1 << (width.bytes * 8)) - 1
                if random.next() & 1 == 0 {
                    let value = [random.next(), 0, .max, random.next() & 0xFF].randomElement(using: &random)! & mask
                    _ = device.write(offset: offset, width: width, value: value)
                } else if let value = device.read(offset: offset, width: width) {
                    #expect(value & ~mask == 0, "\(name) +0x\(String(offset, radix: 16)) (seed \(seed))")
                }
            }
            device.reset()
        }
    }

    @Test(arguments: seeds)
    func `an APLIC under random writes and wires never claims what is not enabled`(_ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let aplic = APLIC(harts: [HartWires().signals]) { _, _ in }
        let machine = aplic.domain(.machine)
        machine.set(0, 0x100)
        machine.set(0x4000, 1)
        for _ in 0..<20_000 {
            let source = UInt64(random.next() % 97)
            switch random.next() % 6 {
            case 0: machine.set(max(source, 1) * 4, UInt32(random.next() & 7))
            case 1: machine.set(0x1EDC, UInt32(source))
            case 2: machine.set(0x1FDC, UInt32(source))
            case 3: aplic.set(source: Int(max(source, 1)), asserted: random.next() & 1 == 0)
            case 4: machine.set(0x1CDC, UInt32(source))
            default:
                let claimed = UInt64(machine.word(0x401C) >> 16)
                guard claimed != 0 else { continue }
                let enabled = machine.word(0x1E00 + claimed / 32 * 4)
                #expect(enabled >> UInt32(claimed % 32) & 1 == 1, "source \(claimed) (seed \(seed))")
            }
        }
    }
}
