import Foundation
import RISCV
import Synchronization
import TestKit
import Testing

/// The hart and what it is wired to: code that changes, memory made on demand, devices, sleep, several harts.
@Suite struct HartTests {
    private static let base = TestMachine.ramBase
    /// addi a0, a0, n.
    private static func increment(_ n: UInt32) -> UInt32 { 0x00050513 | n << 20 }
    private static let fenceI: UInt32 = 0x0000_100F
    private static let wfi: UInt32 = 0x1050_0073
    private static let jumpToSelf: UInt32 = 0x0000_006F
    /// jal x0, -offset.
    private static func jumpBack(_ offset: UInt32) -> UInt32 {
        let distance = UInt32(bitPattern: -Int32(offset))
        return 0x6F | (distance >> 20 & 1) << 31 | (distance >> 1 & 0x3FF) << 21 | (distance >> 11 & 1) << 20
            | (distance >> 12 & 0xFF) << 12
    }

    // MARK: code that changes

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `FENCE.I shows code that the hart or anybody else rewrote, in blocks that were linked`(
        _ translation: HartConfiguration.Translation
    ) {
        let machine = TestMachine(image: [], translation: translation)
        let hart = machine.harts[0]
        // A loop in two linked blocks that fences once a round.
        let code = [Self.increment(1), 0x0040_006F, Self.increment(16), Self.fenceI, Self.jumpBack(16)]
        machine.store(code: code, at: Self.base)
        _ = hart.run(budget: 1000)
        #expect(hart.x(10) > 1000 && hart.x(10) < 5000)
        hart.pc = Self.base
        hart.setX(10, 0)
        // As a DMA would: behind the hart's back, while it does not run.
        machine.store(code: [Self.increment(0), 0x0040_006F, Self.increment(3)], at: Self.base)
        _ = hart.run(budget: 5)
        let afterFirstRound = hart.x(10)
        hart.setX(10, 0)
        _ = hart.run(budget: 5000)
        let steps = hart.x(10)
        #expect(afterFirstRound <= 20, "at most one round of the old code before the fence")
        #expect(steps % 3 == 0 && steps > 2000)
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `without FENCE.I code may be stale but never half new`(
        _ translation: HartConfiguration.Translation
    ) {
        let machine = TestMachine(image: [], translation: translation)
        let hart = machine.harts[0]
        machine.store(code: [Self.increment(1), Self.increment(2), Self.jumpBack(8)], at: Self.base)
        _ = hart.run(budget: 3000)
        machine.store(code: [Self.increment(5), Self.increment(7)], at: Self.base)
        hart.pc = Self.base
        hart.setX(10, 0)
        _ = hart.run(budget: 3000)
        #expect(hart.x(10) % 3 == 0 || hart.x(10) % 12 == 0)
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `more code than the decode cache holds runs and memory stays bounded`(
        _ translation: HartConfiguration.Translation
    ) {
        // 24 MiB of code in small blocks: addi, jump to the next.
        let machine = TestMachine(image: [], ramSize: 32 << 20, translation: translation)
        let hart = machine.harts[0]
        let blocks = 3 << 20
        for index in 0..<blocks - 1 {
            machine.store(code: [Self.increment(1), 0x0040_006F], at: Self.base + UInt64(index) * 8)
        }
        machine.store(code: [Self.increment(1), Self.jumpToSelf], at: Self.base + UInt64(blocks - 1) * 8)
        let before = residentKiB()
        while hart.x(10) < UInt64(blocks) { _ = hart.run(budget: 10_000_000) }
        // The three cases run at once: two hold 4 MiB of blocks and 16 MiB of code, which is mapped twice. Unbounded it
        // would be 400 MiB of blocks alone.
        #expect(residentKiB() - before < 96 * 1024)
    }

    @Test func `more translated code than its memory holds is forgotten in time, and runs on`() {
        // Loads make the longest code: 300 000 of them are some 27 MiB. lw x17, 2047(x16) to load other registers too.
        let count = 300_000
        let machine = TestMachine(image: [], ramSize: 4 << 20, translation: .always)
        let hart = machine.harts[0]
        machine.store(code: Array(repeating: 0x3FD8_2883, count: count), at: Self.base)
        // addi a0, a0, 1; auipc t0, 0; lui t1, distance; sub t0, t0, t1; jalr x0, -4(t0)
        let distance = UInt32(count * 4 + 0xFFF) & ~0xFFF
        let rest = UInt32(Int(distance) - count * 4 - 4)
        machine.store(
            code: [
                Self.increment(1), 0x0000_0297, 0x0000_0337 | distance, 0x4062_82B3, 0x0002_8067 | rest << 20,
            ], at: Self.base + UInt64(count) * 4)
        hart.setX(16, Self.base + 0x20_0003)
        machine.store(Self.base + 0x20_0400, 0x8000_0001)
        let budget = 3 * (count + 5)
        #expect(hart.run(budget: budget) == .budget)
        #expect(hart.x(10) == 3 && hart.x(17) == 0xFFFF_FFFF_8000_0001 && hart.pc == Self.base)
        #expect(hart.retiredInstructions == UInt64(budget))
    }

    private func residentKiB() -> Int {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
        return Int(line.filter(\.isNumber)) ?? 0
    }

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `an instruction across two pages is executed, and faults at the page that is missing`(
        _ translation: HartConfiguration.Translation
    ) {
        let machine = TestMachine(image: [], ramSize: 2 * 4096, translation: translation)
        let hart = machine.harts[0]
        let place = Self.base + 4094
        machine.ram.storeBytes(of: 0x0001, toByteOffset: 4092, as: UInt16.self)
        machine.ram.storeBytes(of: UInt16(truncatingIfNeeded: Self.increment(9)), toByteOffset: 4094, as: UInt16.self)
        machine.ram.storeBytes(of: UInt16(Self.increment(9) >> 16), toByteOffset: 4096, as: UInt16.self)
        machine.ram.storeBytes(of: Self.jumpToSelf, toByteOffset: 4098, as: UInt32.self)
        hart.pc = place - 2
        _ = hart.run(budget: 10)
        #expect(hart.x(10) == 9 && hart.pc == place + 4)
        machine.ram.storeBytes(of: UInt16(truncatingIfNeeded: Self.increment(9)), toByteOffset: 8190, as: UInt16.self)
        hart.pc = Self.base + 8190
        _ = hart.run(budget: 1)
        #expect(hart.csr(0x342) == 1 && hart.csr(0x341) == Self.base + 8190 && hart.csr(0x343) == Self.base + 8192)
    }

    // MARK: the address space

    private final class Filled: Sendable {
        let calls = Mutex<[Int]>([])
        let fails = Atomic<Bool>(false)
    }

    @Test func `demand-filled pages are asked for once, again after invalidation, and a failure is an access fault`() {
        let host = mmap(nil, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        defer { munmap(host, 4 * 4096) }
        let filled = Filled()
        let address = UInt(bitPattern: host)
        let machine = TestMachine(image: []) { space in
            space.addMemory(base: 0x2000_0000, size: 4 * 4096, host: host, permissions: .readOnly) { page in
                if filled.fails.load(ordering: .relaxed) { return false }
                let count = filled.calls.withLock {
                    $0.append(page)
                    return $0.count
                }
                let memory = UnsafeMutableRawPointer(bitPattern: address)! + page * 4096
                memory.storeBytes(of: Self.increment(UInt32(count)), as: UInt32.self)
                memory.storeBytes(of: Self.jumpToSelf, toByteOffset: 4, as: UInt32.self)
                return true
            }
        }
        let hart = machine.harts[0]
        hart.pc = 0x2000_1000
        _ = hart.run(budget: 10)
        #expect(hart.x(10) == 1 && filled.calls.withLock { $0 } == [1])
        hart.pc = 0x2000_1000
        _ = hart.run(budget: 10)
        #expect(hart.x(10) == 2 && filled.calls.withLock { $0 } == [1])
        machine.space.invalidateFilledPages()
        hart.reset(pc: 0x2000_1000)
        _ = hart.run(budget: 10)
        #expect(hart.x(10) == 2 && filled.calls.withLock { $0 } == [1, 1])
        // ld a1, 0(a2) and sd a1, 0(a2).
        machine.store(code: [0x0006_3583, 0x00B6_3023], at: Self.base)
        hart.setX(12, 0x2000_2000)
        hart.pc = Self.base + 4
        _ = hart.run(budget: 1)
        #expect(hart.csr(0x342) == 7, "a store to read-only memory is an access fault")
        filled.fails.store(true, ordering: .relaxed)
        hart.setX(12, 0x2000_3000)
        hart.pc = Self.base
        _ = hart.run(budget: 1)
        #expect(hart.csr(0x342) == 5 && hart.csr(0x343) == 0x2000_3000)
        filled.fails.store(false, ordering: .relaxed)
        hart.pc = Self.base
        _ = hart.run(budget: 1)
        #expect(hart.x(11) != 0)
    }

    /// Accepts words only.
    private final class WordDevice: MemoryMappedDevice {
        let value = Atomic<UInt64>(0)
        func read(offset: UInt64, width: AccessWidth) -> UInt64? {
            width == .word ? value.load(ordering: .relaxed) &+ offset : nil
        }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
            if width == .word { self.value.store(value, ordering: .relaxed) }
            return width == .word
        }
    }

    @Test func `devices get aligned accesses of their width and refusals become access faults`() {
        let device = WordDevice()
        let machine = TestMachine(image: []) { $0.addDevice(base: 0x5000_0000, size: 0x10, device: device) }
        let hart = machine.harts[0]
        func step(_ code: UInt32, _ address: UInt64) -> UInt64 {
            machine.store(code: [code, Self.jumpToSelf], at: Self.base)
            hart.reset(pc: Self.base)
            hart.setX(12, address)
            hart.setX(11, 0xFFFF_FFFF_8765_4321)
            _ = hart.run(budget: 1)
            return hart.csr(0x342)!
        }
        // sw a1, 0(a2); lw a1, 0(a2); lwu; ld; sd; jr a2; amoadd.w a1, a1, (a2); lr.w a1, (a2).
        #expect(step(0x00B6_2023, 0x5000_0004) == 0 && device.value.load(ordering: .relaxed) == 0x8765_4321)
        #expect(step(0x0006_2583, 0x5000_0004) == 0 && hart.x(11) == 0xFFFF_FFFF_8765_4325)
        #expect(step(0x0006_6583, 0x5000_0008) == 0 && hart.x(11) == 0x8765_4329)
        #expect(step(0x0006_3583, 0x5000_0008) == 5)
        #expect(step(0x00B6_3023, 0x5000_0008) == 7)
        #expect(step(0x0006_2583, 0x5000_0002) == 5, "misaligned")
        #expect(step(0x0006_2583, 0x5000_0010) == 5, "behind the end")
        #expect(step(0x0006_0067, 0x5000_0000) == 1, "devices hold no code")
        #expect(step(0x00B6_25AF, 0x5000_0000) == 7)
        #expect(step(0x1006_25AF, 0x5000_0000) == 5)
    }

    // MARK: sleep and requests

    @Test func `WFI sleeps without using the processor until a line is raised from another thread`() throws {
        let machine = TestMachine(image: [])
        let hart = machine.harts[0]
        // mie = MSIE (csrrsi via li a0, 8; csrw mie, a0), wfi, addi, loop.
        machine.store(code: [0x0080_0513, 0x3045_1073, Self.wfi, Self.increment(1), Self.jumpToSelf], at: Self.base)
        #expect(hart.run(budget: 100) == .waitForInterrupt)
        #expect(hart.run(budget: 100) == .waitForInterrupt, "nothing changed")
        let signals = machine.wires[0].signals
        let waker = Thread {
            usleep(300_000)
            signals.set(.machineSoftware, true)
        }
        var before = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before)
        let start = ContinuousClock.now
        waker.start()
        var reason = Hart.ExitReason.waitForInterrupt
        while reason == .waitForInterrupt && ContinuousClock.now < start + .seconds(20) {
            hart.waitForInterrupt()
            reason = hart.run(budget: 100)
        }
        var after = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after)
        let used = (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec
        #expect(reason == .budget && hart.x(10) == 9, "woken, but mstatus.MIE is clear: no trap")
        #expect(ContinuousClock.now - start > .milliseconds(290))
        #expect(used < 20_000_000)
    }

    @Test func `WFI ends when mtimecmp or stimecmp is due`() {
        for supervisor in [false, true] {
            let machine = TestMachine(image: [])
            let hart = machine.harts[0]
            var code: [UInt32] = [0x0A00_0513, 0x3045_1073]  // li a0, 0xA0; csrw mie, a0
            if supervisor {
                // li a1, 1; slli a1, a1, 63; csrw menvcfg, a1; csrw stimecmp, a2.
                code += [0x0010_0593, 0x03F5_9593, 0x30A5_9073, 0x14D6_1073]
            } else {
                machine.wires[0].signals.machineTimerDeadline = machine.time.ticks + 2_000_000
            }
            machine.store(code: code + [Self.wfi, Self.jumpToSelf], at: Self.base)
            hart.setX(12, machine.time.ticks + 2_000_000)
            let start = ContinuousClock.now
            var waits = 0
            while hart.run(budget: 100) == .waitForInterrupt && ContinuousClock.now < start + .seconds(20) {
                waits += 1
                hart.waitForInterrupt()
            }
            #expect(ContinuousClock.now - start >= .milliseconds(180) && waits < 100)
            #expect(hart.csr(0x344)! & (supervisor ? 0x20 : 0x80) != 0)
        }
    }

    @Test func `an expired timer that mie disables does not keep a waiting hart awake`() {
        let machine = TestMachine(image: [])
        let hart = machine.harts[0]
        // csrw mie, a0; wfi: MEI alone is enabled, MTI is pending all the time.
        hart.setX(10, 1 << 11)
        machine.wires[0].signals.machineTimerDeadline = 0
        machine.store(code: [0x3045_1073, Self.wfi, Self.jumpToSelf], at: Self.base)
        #expect(hart.run(budget: 100) == .waitForInterrupt)
        let waker = Thread { [signals = machine.wires[0].signals] in
            Thread.sleep(forTimeInterval: 0.1)
            signals.set(.machineExternal, true)
        }
        let start = ContinuousClock.now
        waker.start()
        var waits = 0
        repeat {
            waits += 1
            hart.waitForInterrupt()
        } while hart.run(budget: 100) == .waitForInterrupt && ContinuousClock.now < start + .seconds(20)
        #expect(hart.csr(0x344)! & 1 << 11 != 0 && waits < 100)
    }

    @Test func `stop stays, reset and kick are told once`() {
        let machine = TestMachine(image: [])
        let (hart, signals) = (machine.harts[0], machine.wires[0].signals)
        machine.store(code: [Self.jumpToSelf], at: Self.base)
        signals.requestStop()
        #expect(hart.run(budget: 100) == .stopRequested)
        #expect(hart.run(budget: 100) == .stopRequested)
        signals.clearStop()
        #expect(hart.run(budget: 100) == .budget)
        signals.requestReset()
        #expect(hart.run(budget: 100) == .resetRequested)
        signals.kick()
        #expect(hart.run(budget: 100) == .kicked)
        #expect(hart.run(budget: 100) == .budget)
        #expect(hart.retiredInstructions >= 200)
    }

    @Test func `a busy hart takes a timer interrupt soon after it is due`() {
        let machine = TestMachine(image: [])
        let hart = machine.harts[0]
        // mtvec = base + 0x100; mie = MTIE; mstatus.MIE; loop. Handler: increment, loop.
        machine.store(
            code: [0x3055_9073, 0x0800_0513, 0x3045_1073, 0x0000_0513, 0x3004_6073, Self.jumpToSelf], at: Self.base)
        machine.store(code: [Self.increment(1), Self.jumpToSelf], at: Self.base + 0x100)
        hart.setX(11, Self.base + 0x100)
        machine.wires[0].signals.machineTimerDeadline = machine.time.ticks + 100_000
        let start = ContinuousClock.now
        while hart.x(10) == 0 && ContinuousClock.now < start + .seconds(20) { _ = hart.run(budget: 1_000_000) }
        #expect(hart.x(10) == 1 && hart.csr(0x342) == 1 << 63 | 7)
    }

    // MARK: several harts

    @Test(arguments: HartConfiguration.Translation.allCases)
    func `atomics of two harts on two threads lose nothing`(
        _ translation: HartConfiguration.Translation
    ) throws {
        // Both: rounds of amoadd.d, lr/sc increment, and a spin lock around a plain increment.
        let rounds = 200_000
        let program = try GuestProgram(
            """
            body:
                csrr a7, mhartid
                la s0, counters
                li s1, \(rounds)
                li a1, 1
            1:  amoadd.d x0, a1, (s0)
                addi a2, s0, 64
            2:  lr.w a3, (a2)
                addi a3, a3, 1
                sc.w a4, a3, (a2)
                bnez a4, 2b
                addi a2, s0, 128
            3:  amoswap.w.aq a3, a1, (a2)
                bnez a3, 3b
                ld a3, 192(s0)
                addi a3, a3, 1
                sd a3, 192(s0)
                amoswap.w.rl x0, x0, (a2)
                addi a2, s0, 320
                amoxor.w x0, a1, (a2)
                amoxor.w x0, a1, (a2)
                addi s1, s1, -1
                bnez s1, 1b
                addi a2, s0, 256
                amoadd.d a3, a1, (a2)
            4:  j 4b
                .balign 4096
            counters:
                .zero 4096
            """)
        let machine = TestMachine(harts: 2, image: program.image, translation: translation)
        let harts = machine.harts
        // Where the counters are: the last page of the text, found by its alignment behind the code.
        let counters = try #require(
            stride(from: Self.base + 0x1000, to: Self.base + 0x4000, by: 4096).first { address in
                (0..<512).allSatisfy { machine.load(address + UInt64($0) * 8) == 0 }
            })
        let wires = machine.wires
        let second = Thread { [hart = harts[1]] in while hart.run(budget: 1_000_000) != .stopRequested {} }
        second.stackSize = 1 << 20
        second.start()
        let deadline = ContinuousClock.now + .seconds(60)
        while machine.load(counters + 256) != 2 && ContinuousClock.now < deadline {
            _ = harts[0].run(budget: 1_000_000)
        }
        wires[1].signals.requestStop()
        #expect(eventually { second.isFinished })
        let total = UInt64(2 * rounds)
        #expect(machine.load(counters) == total)
        #expect(machine.load(counters + 64) == total)
        #expect(machine.load(counters + 192) == total)
        #expect(machine.load(counters + 320) == 0)
    }

    @Test func `of two harts that store and then load-reserve with release, one sees the other's store`() {
        let machine = TestMachine(harts: 2, image: [], translation: .always)
        // Rounds: tell the round, wait for the other (a4, a5), store it (a0), lr.d.aqrl the other's (a1), note it (a6).
        machine.store(
            code: [
                0x0016_8693, 0x00D7_3023, 0x0007_B283, 0xFED2_EEE3, 0x00D5_3023, 0x1605_B32F, 0x0068_3023, 0x0088_0813,
                0xFEC6_90E3, Self.jumpToSelf,
            ], at: Self.base)
        let rounds: UInt64 = 100_000
        let (words, notes) = (Self.base + 0x1000, [Self.base + 0x10_0000, Self.base + 0x20_0000])
        for (index, hart) in machine.harts.enumerated() {
            let (mine, other) = (UInt64(index * 128), UInt64(128 - index * 128))
            let registers = [
                10: words + mine, 11: words + other, 12: rounds, 14: words + 256 + mine, 15: words + 256 + other,
            ]
            for (number, value) in registers { hart.setX(number, value) }
            hart.setX(16, notes[index])
        }
        let second = Thread { [hart = machine.harts[1]] in while hart.run(budget: 1_000_000) != .stopRequested {} }
        second.start()
        // On a busy machine the rounds are few.
        let deadline = ContinuousClock.now + .seconds(2)
        while machine.harts[0].x(13) != rounds && ContinuousClock.now < deadline {
            _ = machine.harts[0].run(budget: 100_000)
        }
        machine.wires[1].signals.requestStop()
        #expect(eventually { second.isFinished })
        let done = min(machine.harts[0].x(13), machine.harts[1].x(13)) &- 1
        #expect(done > 10 && done < rounds)
        let broken = (0..<done).filter { round in
            machine.load(notes[0] + round * 8) <= round && machine.load(notes[1] + round * 8) <= round
        }
        #expect(broken.isEmpty, "\(broken.count) of \(done) rounds")
    }
}
