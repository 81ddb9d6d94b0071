import FoundationEssentials
import Machine
import RISCV
import Synchronization
import TestKit
import Testing
import Wire

/// Programs for the flash window; all of them start at 0x2000_0000.
enum Program {
    static let uart: UInt64 = 0x1000_0000
    static let finisher: UInt64 = 0x10_0000

    /// Prints text, then writes `command` to the test finisher and waits for ever.
    static func print(_ text: String, then command: UInt64) -> [UInt8] {
        var program = Assembler()
        program.li(.t0, uart)
        for byte in text.utf8 {
            program.li(.t1, UInt64(byte))
            program.sb(.t1, 0, .t0)
        }
        program.li(.t0, finisher)
        program.li(.t1, command)
        program.sw(.t1, 0, .t0)
        let forever = program.here()
        program.wfi()
        program.j(forever)
        return program.bytes
    }

    /// Increments the word at 0x8000_0000 + 8 × mhartid for ever.
    static var count: [UInt8] {
        var program = Assembler()
        program.li(.t0, MemoryMap.ramBase)
        program.slli(.t1, .a0, 3)
        program.add(.t0, .t0, .t1)
        let loop = program.here()
        program.ld(.t2, 0, .t0)
        program.addi(.t2, .t2, 1)
        program.sd(.t2, 0, .t0)
        program.j(loop)
        return program.bytes
    }

    /// Echoes input to output by interrupt through the PLIC's or the APLIC's machine level: configures the controller,
    /// sleeps in WFI, and handles the interrupt inline (MIE off: WFI ends, mip is looked at).
    static func echo(_ interrupts: HartConfiguration.InterruptArchitecture) -> [UInt8] {
        var program = Assembler()
        program.li(.s0, uart)
        program.li(.s1, 0xC00_0000)
        switch interrupts {
        case .plic:
            program.li(.t0, 1)
            program.sw(.t0, 40, .s1)  // priority of source 10
            program.li(.t1, 0xC00_2000)
            program.li(.t0, 1 << 10)
            program.sw(.t0, 0, .t1)  // enable for context 0
            program.li(.s2, 0xC20_0004)  // claim
        case .aia:
            // MSI mode: machine messages for hart 0 to 0x2400_0000, source 10 as identity 5.
            program.li(.t1, 0xC00_1BC0)
            program.li(.t0, 0x2_4000)
            program.sw(.t0, 0, .t1)
            program.li(.t0, 0x104)
            program.sw(.t0, 0, .s1)
            program.li(.t0, 6)
            program.sw(.t0, 40, .s1)
            program.li(.t1, 0xC00_3028)
            program.li(.t0, 5)
            program.sw(.t0, 0, .t1)
            program.li(.t1, 0xC00_1EDC)
            program.li(.t0, 10)
            program.sw(.t0, 0, .t1)
            // The hart's file: eidelivery 1, eithreshold 0, identity 5 enabled.
            for (select, value) in [(0x70, 1), (0x72, 0), (0xC0, 1 << 5)] as [(UInt64, UInt64)] {
                program.li(.t0, select)
                program.csrw(0x350, .t0)
                program.li(.t0, value)
                program.csrw(0x351, .t0)
            }
        }
        program.li(.t0, 1 << 11)
        program.csrs(0x304, .t0)  // mie.MEIE
        program.li(.t0, 1)
        program.sb(.t0, 1, .s0)  // IER: received data
        let wait = program.here()
        program.wfi()
        program.csrr(.t0, 0x344)
        program.li(.t1, 1 << 11)
        program.and(.t0, .t0, .t1)
        program.beq(.t0, .zero, wait)
        switch interrupts {
        case .plic: program.lw(.s3, 0, .s2)
        case .aia: program.csrw(0x35C, .zero)  // claim mtopei
        }
        let drain = program.here()
        let done = program.label()
        program.lbu(.t0, 5, .s0)
        program.andi(.t0, .t0, 1)
        program.beq(.t0, .zero, done)
        program.lbu(.t1, 0, .s0)
        program.sb(.t1, 0, .s0)
        program.j(drain)
        program.place(done)
        switch interrupts {
        case .plic: program.sw(.s3, 0, .s2)
        case .aia:
            // A high level is announced again, in case a byte came after the last look.
            program.li(.t1, 0xC00_2000)
            program.li(.t0, 10)
            program.sw(.t0, 0, .t1)
        }
        program.j(wait)
        return program.bytes
    }
}

@Suite struct `A machine` {
    @Test func `a program in flash prints on the UART and powers off`() throws {
        let bench = try MachineBench(Program.print("Hello\n", then: 0x5555))
        #expect(bench.machine.state == .held)
        bench.run { bench.events.all == [.powerOff] }
        #expect(bench.text == "Hello\n")
        #expect(bench.machine.state == .poweredOff)
    }

    @Test func `a failure is reported with its code`() throws {
        let bench = try MachineBench(Program.print("", then: 0x002A_3333))
        bench.run { bench.events.all == [.failed(code: 42)] }
    }

    @Test func `a reset asked for by the guest starts the new content of the flash`() throws {
        let bench = try MachineBench(Program.print("one ", then: 0x7777))
        let next = Program.print("two", then: 0x5555)
        bench.flash.replace(Program.print("one ", then: 0x7777))
        bench.machine.releaseReset()
        expectEventually { bench.events.all.contains(.guestReset) }
        bench.flash.replace(next)
        expectEventually { bench.events.all.last == .powerOff }
        #expect(bench.text.hasPrefix("one "))
        #expect(bench.text.hasSuffix("two"))
    }

    @Test func `the first instructions are the reset vector's: a0 is the hart, a1 the devicetree`() throws {
        // Copies what it was given to RAM: a0 to slot a0, the devicetree's first word behind them.
        var program = Assembler()
        program.li(.t0, MemoryMap.ramBase)
        program.slli(.t1, .a0, 4)
        program.add(.t0, .t0, .t1)
        program.lw(.t2, 0, .a1)
        program.sw(.t2, 8, .t0)
        program.addi(.t2, .a0, 1)
        program.sd(.t2, 0, .t0)
        let forever = program.here()
        program.wfi()
        program.j(forever)
        let bench = try MachineBench(program.bytes, MachineConfiguration(memorySize: 64 << 20, hartCount: 4))
        let ram = bench.machine.memory.mapping
        func double(_ offset: Int) -> UInt64 { ram.bytes.load(fromByteOffset: offset, as: UInt64.self) }
        bench.run { (0..<4).allSatisfy { double($0 * 16) == UInt64($0) + 1 } }
        for hart in 0..<4 { #expect(UInt32(truncatingIfNeeded: double(hart * 16 + 8)) == 0xEDFE_0DD0) }
        bench.stop()
    }

    @Test func `paused harts stand still, and go on where they were`() throws {
        let bench = try MachineBench(Program.count, MachineConfiguration(memorySize: 64 << 20, hartCount: 2))
        let ram = bench.machine.memory.mapping
        func counters() -> [UInt64] { [0, 8].map { ram.bytes.load(fromByteOffset: $0, as: UInt64.self) } }
        bench.run { counters().allSatisfy { $0 > 1000 } }
        bench.machine.pause()
        #expect(bench.machine.state == .paused)
        let stopped = counters()
        let status = bench.machine.hartStatus()
        #expect(status.count == 2)
        #expect(status.allSatisfy { MemoryMap.flash.contains($0.programCounter) && $0.mode == 3 })
        #expect(status.allSatisfy { $0.instructionsRetired > 4000 })
        #expect(counters() == stopped)
        bench.machine.resume()
        expectEventually { counters()[0] > stopped[0] && counters()[1] > stopped[1] }
        // Reset keeps RAM; the program counts on from there.
        bench.machine.reset()
        let kept = counters()
        #expect(kept[0] > stopped[0])
        expectEventually { counters()[0] > kept[0] }
        bench.machine.holdInReset()
        #expect(bench.machine.state == .held)
        #expect(bench.machine.hartStatus().allSatisfy { $0.programCounter == 0x1000 && $0.instructionsRetired == 0 })
    }

    @Test(arguments: [HartConfiguration.InterruptArchitecture.aia, .plic])
    func `input interrupts a sleeping hart through the controller`(
        _ interrupts: HartConfiguration.InterruptArchitecture
    ) throws {
        let bench = try MachineBench(
            Program.echo(interrupts), MachineConfiguration(memorySize: 64 << 20, interrupts: interrupts))
        bench.machine.releaseReset()
        var expected = ""
        for round in 0..<50 {
            let text = "round \(round) "
            expected += text
            #expect(bench.machine.uart.offerInput(Array(text.utf8)) == text.utf8.count)
            expectEventually { bench.text == expected }
        }
        bench.stop()
    }

    @Test func `a flash that cannot be read is reported once and faults`() throws {
        let bench = try MachineBench(Program.print("late", then: 0x5555))
        bench.flash.isBroken.store(true, ordering: .relaxed)
        bench.run { !bench.events.all.isEmpty }
        #expect(bench.events.all == [.flashUnreadable("the test's flash is broken")])
        bench.machine.holdInReset()
        bench.flash.isBroken.store(false, ordering: .relaxed)
        bench.run { bench.events.all.last == .powerOff }
        #expect(bench.text == "late")
    }

    @Test func `flash is read in chunks, and each page once`() throws {
        // Reads the first 256 KiB twice, a word a page.
        var program = Assembler()
        program.li(.t3, 2)
        let again = program.here()
        program.li(.t0, MemoryMap.flash.base)
        program.li(.t1, MemoryMap.flash.base + 256 << 10)
        program.li(.t2, 4096)
        let loop = program.here()
        program.lw(.t4, 0, .t0)
        program.add(.t0, .t0, .t2)
        program.bltu(.t0, .t1, loop)
        program.addi(.t3, .t3, -1)
        program.bne(.t3, .zero, again)
        let bench = try MachineBench(program.bytes + Program.print("done", then: 0x5555))
        bench.run { bench.events.all == [.powerOff] }
        #expect(bench.text == "done")
        #expect(bench.flash.reads.load(ordering: .relaxed) <= 5)
    }

    @Test func `stores into the flash window fault`() throws {
        // mtvec leads to code that prints mcause as a letter: 7 (store access fault) is H.
        var program = Assembler()
        let handler = program.label()
        program.auipc(.t0)
        program.addi(.t0, .t0, 32)
        program.csrw(0x305, .t0)
        program.li(.t1, MemoryMap.flash.base)
        program.sw(.t1, 0, .t1)
        while program.words.count < 8 { program.addi(.zero, .zero, 0) }
        program.place(handler)
        program.csrr(.t0, 0x342)
        program.addi(.t0, .t0, 65)
        program.li(.t1, Program.uart)
        program.sb(.t0, 0, .t1)
        let bench = try MachineBench(program.bytes + Program.print("", then: 0x5555))
        bench.run { bench.events.all == [.powerOff] }
        #expect(bench.text == "H")
    }

    @Test func `messages reach interrupt files and RAM, and vanish elsewhere`() throws {
        let bench = try MachineBench([])
        let machine = bench.machine
        machine.deliver(address: 0x2800_0000, data: 6)
        #expect(machine.harts[0].supervisorInterruptFile.register(0x80) == 1 << 6)
        machine.deliver(address: 0x8000_1000, data: 0xABCD_1234)
        #expect(machine.memory.mapping.bytes.load(fromByteOffset: 0x1000, as: UInt32.self) == 0xABCD_1234)
        for address: UInt64 in [0, 0x2800_1000, 0x8000_1001, 0x8400_0000, 0x83FF_FFFE, .max] {
            machine.deliver(address: address, data: 1)
        }
    }

    @Test(arguments: [
        (MachineConfiguration(memorySize: 1 << 20), "1048576 bytes of memory"),
        (MachineConfiguration(memorySize: (512 << 20) + 4096), "in steps of 2 MiB"),
        (MachineConfiguration(memorySize: 128 << 30), "64 MiB to 64 GiB"),
        (MachineConfiguration(hartCount: 0), "0 harts"),
        (MachineConfiguration(hartCount: 9), "1 to 8"),
    ])
    func `impossible configurations are refused in words`(_ configuration: MachineConfiguration, _ words: String) {
        do throws(MachineError) {
            try configuration.check()
            Issue.record("accepted")
        } catch {
            #expect(error.description.contains(words))
        }
    }
}

@Suite struct `PCIe host bridge` {
    /// Remembers accesses; function 00:01.0 answers.
    final class Root: PCIeRootComplex {
        let log = Collected<String>()
        func configRead(_ offset: UInt64, width: Int) -> UInt64 {
            offset >> 12 == 8 ? 0x1B36_0000 | offset & 0xFFF : .max
        }
        func configWrite(_ offset: UInt64, width: Int, value: UInt64) {
            log.append("config \(String(offset, radix: 16)) \(width) \(value)")
        }
        func memoryRead(_ address: UInt64, width: Int) -> UInt64 { address }
        func memoryWrite(_ address: UInt64, width: Int, value: UInt64) {
            log.append("memory \(String(address, radix: 16)) \(width) \(value)")
        }
        func reset() { log.append("reset") }
    }

    @Test func `accesses of the windows reach the root complex`() throws {
        let root = Root()
        var program = Assembler()
        program.li(.t0, 0x3000_8000)  // 00:01.0
        program.lw(.s0, 4, .t0)
        program.lbu(.s1, 5, .t0)
        program.sw(.s0, 16, .t0)
        program.li(.t0, 0x3FFF_F000)  // ff:1f.7
        program.lw(.s2, 0, .t0)
        program.li(.t0, 0x4000_0010)
        program.lw(.s3, 0, .t0)
        program.sb(.s3, 1, .t0)
        program.li(.t0, 0x4_0000_0008)
        program.ld(.s4, 0, .t0)
        program.sd(.s4, 8, .t0)
        let bench = try MachineBench(
            program.bytes + Program.print("", then: 0x5555), root: { _ in root })
        bench.run { bench.events.all == [.powerOff] }
        let hart = bench.machine.harts[0]
        #expect(hart.x(8) == 0x1B36_0004)
        #expect(hart.x(9) == 5)
        #expect(hart.x(18) == .max)
        #expect(hart.x(19) == 0x4000_0010)
        #expect(hart.x(20) == 0x4_0000_0008)
        #expect(
            root.log.all == [
                "reset", "config 8010 4 \(0x1B36_0004)", "memory 40000011 1 16",
                "memory 400000010 8 \(0x4_0000_0008)",
            ])
    }

    @Test func `pins rotate over four sources, and a source is high while any of its pins is`() throws {
        let ports = Mutex<PCIePorts?>(nil)
        let bench = try MachineBench(
            [], MachineConfiguration(memorySize: 64 << 20, interrupts: .plic),
            root: { given in
                ports.withLock { $0 = given }
                return nil
            })
        let given = try #require(ports.withLock { $0 })
        #expect(given.memory.size == 64 << 20)
        let plic = try #require(bench.machine.interruptController as? PLIC)
        // Sources 32 to 35 are bits 0 to 3 of the second pending word; a claim for context 0 takes each.
        plic.set(0x2004, 0xF)
        for source in 32..<36 { plic.set(UInt64(source * 4), 1) }
        func claimed() -> UInt32 { plic.word(0x20_0004) }
        for (device, pin, source) in [(1, 0, 33), (1, 3, 32), (3, 2, 33), (2, 0, 34), (31, 0, 35)]
            as [(Int, Int, UInt32)]
        {
            given.setINTx(device: device, pin: pin, true)
            #expect(claimed() == source)
            given.setINTx(device: device, pin: pin, false)
            plic.set(0x20_0004, source)
        }
        given.setINTx(device: 1, pin: 0, true)
        given.setINTx(device: 3, pin: 2, true)
        given.setINTx(device: 1, pin: 0, false)
        #expect(claimed() == 33)
        plic.set(0x20_0004, 33)
        #expect(claimed() == 33)
        given.setINTx(device: 3, pin: 2, false)
        plic.set(0x20_0004, 33)
        #expect(claimed() == 0)
        given.setINTx(device: 32, pin: 0, true)
        given.setINTx(device: 0, pin: 4, true)
        #expect(claimed() == 0)
    }
}
