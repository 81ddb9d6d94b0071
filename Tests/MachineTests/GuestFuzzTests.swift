import Foundation
import LPC
import Machine
import Serprog
import TestKit
import Testing
import Wire

/// Guests that do everything wrong, each in a `host-cpu` of its own: it must neither crash nor grow.
///
/// BASEBOARD_FUZZ_RUNS=1000 runs for long; BASEBOARD_SEED repeats what a failure printed.
@Suite struct `Hostile guests` {
    private static let runs = ProcessInfo.processInfo.environment["BASEBOARD_FUZZ_RUNS"].flatMap { Int($0) } ?? 1
    /// Beside 64 MiB of RAM: the process itself, the harts' decode caches and translated code. Measured: below 60 MiB.
    private static let residentLimit = (64 + 128) << 20

    /// The exit status of a guest that does not find its card.
    private static let absentCard: Int32 = 99

    /// The peak of a process' resident memory so far, in bytes; 0 when it is gone.
    private func residentPeak(_ id: Int32) -> Int {
        guard let text = try? String(contentsOf: URL(filePath: "/proc/\(id)/status"), encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }),
            let number = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { return 0 }
        return number << 10
    }

    /// Runs an ELF file until its end or a limit. `note` names the seed.
    private func expectSurvived(
        _ elf: [UInt8], _ arguments: [String], flash: Bool = false, card kind: String? = nil, note: String
    ) throws {
        let folder = TemporaryFolder()
        let card = try kind.map { try ComponentProcess($0, in: folder, listens: ["pcie"]) }
        let file = folder.file("program.elf")
        try Data(elf).write(to: URL(filePath: file))
        var arguments = ["--elf", file, "--memory", "64MiB", "--timeout", "20s"] + arguments
        let listener = try flash ? Listener(path: folder.file("spi")) : nil
        if flash { arguments += ["--connect", "spi=\(folder.file("spi"))"] }
        if let card { arguments += ["--connect", "rp0=\(folder.file("\(card.kind).pcie"))"] }
        let lpcListener = try flash ? Listener(path: folder.file("lpc"), kind: .seqpacket) : nil
        if flash { arguments += ["--connect", "lpc=\(folder.file("lpc"))"] }
        let process = try RunningProcess(binary("host-cpu"), arguments)
        let lpcServer = try lpcListener.map { listener in
            let socket = try listener.accept(until: .after(.seconds(20)))
            return WorkerThread("test-lpc") { Self.answerBadly(socket) }
        }
        var server: WorkerThread?
        if let listener {
            let socket = try listener.accept(until: .after(.seconds(20)))
            server = WorkerThread("test-flash") {
                let target = ImageTarget(image: [UInt8](repeating: 0, count: 1 << 20))
                var session = SerprogSession(socket: socket, programmerName: "test", target: target)
                _ = try? session.run()
            }
        }
        var peak = 0
        let hasEnded = eventually(within: .seconds(60)) {
            peak = max(peak, residentPeak(process.pid))
            return !process.isRunning
        }
        let status = process.waitForExit()
        server?.join()
        lpcServer?.join()
        #expect(hasEnded, "still runs \(note)")
        // 124: the limit. A guest may also hit the finisher or tohost; a signal would be 128 and more.
        #expect(status.map { $0 < 128 } ?? false, "ended with \(String(describing: status)) \(note): \(process.text)")
        #expect(status != Self.absentCard, "the guest has not found its card \(note): \(process.text)")
        #expect(peak < Self.residentLimit, "\(peak >> 20) MiB resident \(note)")
        guard let card = card?.child else { return }
        #expect(card.isRunning, "the card ended \(note): \(card.text)")
        let cardPeak = residentPeak(card.pid)
        #expect(cardPeak < Self.residentLimit, "the card has \(cardPeak >> 20) MiB resident \(note)")
        card.terminate()
        #expect(card.waitForExit() == 0, "\(card.text)")
    }

    /// An lpc peer whose every answer has something wrong about it but its tag: datagrams of any length, interrupts.
    private static func answerBadly(_ socket: Socket) {
        var random = SeededGenerator(seed: 0x1BC)
        while let bytes = try? socket.receiveBytes(limit: 16), let message = try? LPCMessage(decoding: bytes) {
            try? socket.send(random.bytes(Int.random(in: 1...24, using: &random)))
            let number = UInt8.random(in: 0...15, using: &random)
            try? socket.send(LPCMessage.interrupt(number, level: .random(using: &random)).encoded)
            try? socket.send(LPCMessage.interrupt(LPCPort.kcsInterrupt, level: .random(using: &random)).encoded)
            switch message {
            case .read(let tag, _), .write(let tag, _, _):
                let data = UInt8.random(in: 0...255, using: &random)
                try? socket.send(
                    LPCMessage.sync(tag: tag, LPCMessage.Sync.allCases.randomElement(using: &random)!, data: data)
                        .encoded)
            default: return
            }
        }
    }

    // MARK: every register of every device

    /// What there is to hit: a base, a mask for offsets, and bits that every value written gets.
    private func targets(_ interrupts: String, harts: UInt64) -> [(base: UInt64, mask: UInt64, set: UInt64)] {
        func range(_ range: AddressRange, set: UInt64 = 0) -> (base: UInt64, mask: UInt64, set: UInt64) {
            (range.base, (UInt64(1) << (63 - UInt64(range.size.leadingZeroBitCount))) - 1, set)
        }
        var list = [
            // Bit 15 is clear in every command of the finisher: the machine is not powered off.
            range(MemoryMap.testFinisher, set: 0x8000), range(MemoryMap.rtc), range(MemoryMap.clint),
            range(MemoryMap.uart), range(MemoryMap.ps2), range(MemoryMap.lpc), range(MemoryMap.pciePortIO),
            range(MemoryMap.flash),
            range(MemoryMap.pcieECAM),
            (MemoryMap.pcieECAM.base, 0x1_FFFF, 0), range(MemoryMap.pcieMemory32),
            range(MemoryMap.pcieMemory64(memorySize: 64 << 20)), (0x5_0000, 0xFFFF, 0), (0x8400_0000, 0xFFFF, 0),
            (.max << 32, 0xFFFF_FFFF, 0),
        ]
        if interrupts == "aia" {
            list += [
                range(MemoryMap.machineAPLIC), range(MemoryMap.supervisorAPLIC),
                (MemoryMap.machineIMSICBase, harts * 4096 - 1, 0),
                (MemoryMap.supervisorIMSICBase, harts * 4096 - 1, 0),
            ]
        } else {
            list.append(range(MemoryMap.plic))
        }
        return list
    }

    /// Loads and stores at random for ever, interrupts taken in between; traps go on behind the instruction.
    /// With a card, its registers and configuration are hit most.
    private func deviceProgram(_ interrupts: String, harts: UInt64, card identity: UInt64? = nil, seed: UInt64)
        -> [UInt8]
    {
        var targets = targets(interrupts, harts: harts)
        let (port, function) = (MemoryMap.pcieECAM.base + 1 << 15, MemoryMap.pcieECAM.base + 1 << 20)
        let window = MemoryMap.pcieMemory32.base
        if identity != nil {
            for _ in 0..<8 { targets += [(window, 0x1FFF, 0), (function, 0xFFF, 0)] }
            targets.append((port, 0xFFF, 0))
        }
        var code = Assembler()
        let (begin, handler) = (code.label(), code.label())
        code.j(begin)
        // The handler at +4 (mtvec needs a multiple of 4): on to the next access, whose loop ra points into. An interrupt
        // stays pending, so mie masks it until one access passed.
        code.place(handler)
        let isInterrupt = code.label()
        code.csrr(.t5, 0x342)
        code.blt(.t5, .zero, isInterrupt)
        code.csrw(0x341, .ra)
        code.mret()
        code.place(isInterrupt)
        code.csrw(0x304, .zero)
        code.mret()

        code.place(begin)
        code.li(.t0, 0x8000_0004)
        code.csrw(0x305, .t0)
        // The state of the generator: another one in each hart.
        code.li(.s0, seed | 1)
        code.slli(.t0, .a0, 7)
        code.xor(.s0, .s0, .t0)
        code.li(.s1, 0x8010_0000)
        code.li(.s2, UInt64(targets.count))
        if let identity {
            // Hart 0 finds the card; the others wait, since what they hit would move it away.
            let (wait, isReady) = (code.label(), code.label())
            code.li(.s3, 0x8020_0000)
            code.bne(.a0, .zero, wait)
            // Buses 0, 1, 1; a window of 1 MiB; BAR0 and BAR2 in it; memory space and bus master on.
            for (address, value) in [
                (port + 0x18, 0x01_0100), (port + 0x20, UInt64(window >> 16 | window)), (port + 4, 6),
                (function + 0x10, window), (function + 0x18, window + 0x1000), (function + 4, 6),
            ] as [(UInt64, UInt64)] {
                code.li(.t0, address)
                code.li(.t1, value)
                code.sw(.t1, 0, .t0)
            }
            // The card must be there, or nothing is tried at all.
            let isThere = code.label()
            code.li(.t0, window)
            code.lw(.t0, 0, .t0)
            code.li(.t1, identity)
            code.beq(.t0, .t1, isThere)
            code.li(.t0, MemoryMap.testFinisher.base)
            code.li(.t1, UInt64(Self.absentCard) << 16 | 0x3333)
            code.sw(.t1, 0, .t0)
            code.place(isThere)
            code.li(.t1, 1)
            code.sw(.t1, 0, .s3)
            code.place(wait)
            code.lw(.t1, 0, .s3)
            code.bne(.t1, .zero, isReady)
            code.j(wait)
            code.place(isReady)
        }
        code.csrrsi(0x300, 8)
        code.auipc(.ra)
        code.addi(.ra, .ra, 8)
        let again = code.here()
        func random(_ register: Assembler.Register, _ code: inout Assembler) {
            for (isLeft, amount) in [(true, 13), (false, 7), (true, 17)] {
                if isLeft { code.slli(register, .s0, Int32(amount)) } else { code.srli(register, .s0, Int32(amount)) }
                code.xor(.s0, .s0, register)
            }
            code.addi(register, .s0, 0)
        }
        // A target.
        random(.t0, &code)
        code.remu(.t0, .t0, .s2)
        code.slli(.t0, .t0, 5)
        code.add(.t0, .t0, .s1)
        code.ld(.s3, 0, .t0)
        code.ld(.s4, 8, .t0)
        code.ld(.s5, 16, .t0)
        // An offset; every second time in the first 64 bytes of a page. A quarter is not aligned.
        random(.t1, &code)
        code.and(.t1, .t1, .s4)
        random(.t2, &code)
        let (anywhere, placed, unaligned) = (code.label(), code.label(), code.label())
        code.andi(.t0, .t2, 1)
        code.bne(.t0, .zero, anywhere)
        code.li(.t0, 0xFFFF_FFFF_FFFF_F03F)
        code.and(.t1, .t1, .t0)
        code.place(anywhere)
        code.andi(.t0, .t2, 6)
        code.beq(.t0, .zero, unaligned)
        code.andi(.t1, .t1, -8)
        code.andi(.t0, .t2, 0x8)
        code.bne(.t0, .zero, placed)
        code.addi(.t1, .t1, 4)
        code.place(unaligned)
        code.place(placed)
        code.add(.s3, .s3, .t1)
        // A value: random, small, or all ones.
        random(.s6, &code)
        let valued = code.label()
        code.andi(.t0, .t2, 0x10)
        code.beq(.t0, .zero, valued)
        code.andi(.s6, .s6, 0xFF)
        code.andi(.t0, .t2, 0x20)
        code.beq(.t0, .zero, valued)
        code.addi(.s6, .zero, -1)
        code.place(valued)
        code.or(.s6, .s6, .s5)
        // One of sixteen accesses, each two words long.
        code.srli(.t2, .t2, 8)
        code.andi(.t2, .t2, 15)
        code.slli(.t2, .t2, 3)
        code.auipc(.t0)
        code.add(.t0, .t0, .t2)
        code.i(0x67, 0, .zero, .t0, 12)
        let end = code.label()
        for funct: UInt32 in 0...7 {
            // Loads; function 7 is illegal.
            code.i(0x03, funct, .s7, .s3, 0)
            code.j(end)
        }
        for funct: UInt32 in 0...3 {
            code.store(funct, .s6, 0, .s3)
            code.j(end)
        }
        code.amoaddD(.s7, .s6, .s3)
        code.j(end)
        code.lrD(.s7, .s3)
        code.j(end)
        code.fetch(.s3)
        code.j(end)
        code.fence()
        code.place(end)
        code.xor(.s0, .s0, .s7)
        let isAlive = code.label()
        code.bne(.s0, .zero, isAlive)
        code.addi(.s0, .zero, 77)
        code.place(isAlive)
        code.addi(.t0, .zero, -1)
        code.csrw(0x304, .t0)
        code.j(again)

        var builder = ELFBuilder(code: code.bytes)
        builder.segments.append(
            .init(
                address: 0x8010_0000,
                content: targets.flatMap { target in
                    [target.base, target.mask, target.set, 0].flatMap { ELFBuilder.little($0, 8) }
                }))
        return builder.bytes
    }

    @Test(arguments: ["aia", "plic"], [1, 3])
    func `a guest that hits every register of every device at random gets its faults, and nothing else happens`(
        _ interrupts: String, _ harts: Int
    ) throws {
        var random = SeededGenerator.fresh()
        for _ in 0..<Self.runs {
            let program = deviceProgram(interrupts, harts: UInt64(harts), seed: random.next())
            try expectSurvived(
                program,
                ["--interrupts", interrupts, "--harts", "\(harts)", "--instructions", "\(6_000_000 / harts)"],
                flash: true, note: "(\(interrupts), \(harts) harts, BASEBOARD_SEED=\(random.seed))")
        }
    }

    @Test(arguments: [("offload-card", 0x4442_464F), ("adapter-card", 0x4442_4441)] as [(String, UInt64)])
    func `a guest that hits every register of a card at random neither ends the card nor the host`(
        _ card: String, _ identity: UInt64
    ) throws {
        var random = SeededGenerator.fresh()
        for _ in 0..<Self.runs {
            try expectSurvived(
                deviceProgram("aia", harts: 2, card: identity, seed: random.next()),
                ["--harts", "2", "--instructions", "1000000"], card: card,
                note: "(\(card), BASEBOARD_SEED=\(random.seed))")
        }
    }

    // MARK: random code in random worlds

    /// Code, data and page tables are one heap of random words; a preamble sets every CSR at random and enters a mode.
    private func randomWorld(_ random: inout SeededGenerator) -> [UInt8] {
        let size = 2 << 20
        let base: UInt64 = 0x8000_0000
        // Few words that trap, many addresses in the heap.
        let opcodes: [UInt32] = [
            0x03, 0x07, 0x0F, 0x13, 0x17, 0x1B, 0x23, 0x27, 0x2F, 0x33, 0x37, 0x3B, 0x43, 0x53, 0x63, 0x67, 0x6F, 0x73,
        ]
        func address(_ random: inout SeededGenerator) -> UInt64 { base + random.next() % UInt64(size) & ~1 }
        func entry(_ random: inout SeededGenerator) -> UInt64 {
            let bits = [0xCF, 0xDF, 0x01, 0x01, 0x0F, 0x1B, random.next() & 0x3FF].randomElement(using: &random)!
            let page = (base + random.next() % UInt64(size)) >> 12
            let large = [UInt64.max, .max, .max << 9, .max << 18].randomElement(using: &random)!
            return (page & large) << 10 | bits
        }
        var words: [UInt32] = []
        words.reserveCapacity(size / 4)
        var isTable = false
        while words.count < size / 4 {
            if words.count % 1024 == 0 { isTable = random.next() % 3 == 0 }
            if isTable {
                let value = entry(&random)
                words += [UInt32(truncatingIfNeeded: value), UInt32(truncatingIfNeeded: value >> 32)]
            } else {
                let word = UInt32(truncatingIfNeeded: random.next())
                switch random.next() & 3 {
                case 0: words.append(word)
                case 1: words.append(word & ~0x3 | UInt32(random.next() % 3))
                default: words.append(word & ~0x7F | opcodes.randomElement(using: &random)!)
                }
                // An even count keeps tables at multiples of a page.
                words.append(UInt32(truncatingIfNeeded: random.next()) & ~0x7F | 0x13)
            }
        }
        var preamble = Assembler()
        let writable: [UInt32] = [
            0x302, 0x303, 0x304, 0x306, 0x30A, 0x106, 0x10A, 0x140, 0x142, 0x143, 0x3A0, 0x3B0, 0x3B1, 0x3B2, 0x3B3,
            0x320, 0x350, 0x351, 0x150, 0x151, 0x14D, 0x344, 0x003,
        ]
        // Illegal ones go to an address in the heap: let that be the rest of the preamble's luck, so probe none of them
        // before mtvec leads back here.
        preamble.li(.t0, 0x8020_0000)
        preamble.csrw(0x305, .t0)
        for number in writable.shuffled(using: &random).prefix(12) {
            preamble.li(.t0, [random.next(), .max, random.next() & 0xFFFF].randomElement(using: &random)!)
            preamble.csrw(number, .t0)
        }
        // Everything is allowed by the last entry, so that lower modes get anywhere.
        preamble.li(.t0, .max)
        preamble.csrw(0x3BF, .t0)
        preamble.li(.t0, 0x1F << 56)
        preamble.csrw(0x3A2, .t0)
        let mode = [0, 8, 8, 9, 10].randomElement(using: &random)! as UInt64
        preamble.li(.t0, mode << 60 | random.next() & 0xFFFF << 44 | address(&random) >> 12)
        preamble.csrw(0x180, .t0)
        preamble.li(.t0, address(&random) & ~3 | random.next() & 1)
        preamble.csrw(0x105, .t0)
        preamble.li(.t0, random.next())
        preamble.csrw(0x300, .t0)
        preamble.li(.t0, address(&random))
        preamble.csrw(0x341, .t0)
        preamble.csrw(0x141, .t0)
        preamble.li(.t0, address(&random) & ~3 | random.next() & 1)
        preamble.csrw(0x305, .t0)
        for register: UInt32 in 1...31 {
            let value = [address(&random), address(&random), random.next(), 0x1000_0000].randomElement(using: &random)!
            preamble.li(Assembler.Register(rawValue: register)!, value)
        }
        preamble.mret()

        // What traps while the preamble runs goes on behind itself.
        var skip = Assembler()
        skip.csrr(.t5, 0x341)
        skip.addi(.t5, .t5, 4)
        skip.csrw(0x341, .t5)
        skip.mret()
        var builder = ELFBuilder()
        builder.entry = 0x8021_0000
        builder.segments = [
            .init(
                address: base,
                content: words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }),
            .init(address: 0x8020_0000, content: skip.bytes),
            .init(address: 0x8021_0000, content: preamble.bytes),
        ]
        return builder.bytes
    }

    @Test(arguments: ["none", "hot", "always"])
    func `random code with random page tables in random modes traps as it must, and nothing else happens`(
        _ translation: String
    ) throws {
        var random = SeededGenerator.fresh()
        for run in 0..<3 * Self.runs {
            try expectSurvived(
                randomWorld(&random),
                [
                    "--instructions", "2000000", "--harts", "\(1 + run % 2)", "--translation", translation, "--timeout",
                    "2s",
                ],
                note: "(run \(run), translation \(translation), BASEBOARD_SEED=\(random.seed))")
        }
    }

    // MARK: fetches and atomics where there are no instructions and no memory

    @Test func `fetches, atomics and misaligned accesses are access faults in every device`() throws {
        var code = Assembler()
        let (begin, handler, failed) = (code.label(), code.label(), code.label())
        code.j(begin)
        code.place(handler)
        // s3: the address, s4: the cause; s5: where to go on.
        code.csrr(.t5, 0x342)
        code.bne(.t5, .s4, failed)
        code.csrr(.t5, 0x343)
        code.bne(.t5, .s3, failed)
        code.csrw(0x341, .s5)
        code.mret()
        code.place(failed)
        code.li(.t0, 0x8000_8000)
        // The number of the failing case, as a failure.
        code.slli(.t1, .s6, 1)
        code.addi(.t1, .t1, 1)
        code.sd(.t1, 0, .t0)
        code.j(failed)
        code.place(begin)
        code.li(.t0, 0x8000_0004)
        code.csrw(0x305, .t0)
        let bases = targets("aia", harts: 1).map(\.base).filter { $0 != MemoryMap.flash.base }
        for (index, base) in bases.enumerated() {
            code.li(.s6, UInt64(index + 1))
            func expectFault(_ cause: UInt64, _ address: UInt64, _ body: (inout Assembler) -> Void) {
                code.li(.s3, address)
                code.li(.s4, cause)
                code.auipc(.s5)
                // auipc, addi, body, j: the trap goes on behind the jump to `failed`.
                code.addi(.s5, .s5, 16)
                body(&code)
                code.j(failed)
            }
            expectFault(1, base) { $0.fetch(.s3) }
            expectFault(7, base) { $0.amoaddD(.t1, .t1, .s3) }
            expectFault(5, base) { $0.lrD(.t1, .s3) }
            expectFault(5, base + 1) { $0.ld(.t1, 0, .s3) }
            expectFault(7, base + 1) { $0.sd(.t1, 0, .s3) }
        }
        code.li(.t0, 0x8000_8000)
        code.li(.t1, 1)
        code.sd(.t1, 0, .t0)
        let end = code.here()
        code.j(end)
        var builder = ELFBuilder(code: code.bytes, symbols: [("tohost", 0x8000_8000)])
        builder.segments.append(.init(address: 0x8000_8000, content: [UInt8](repeating: 0, count: 8)))
        let folder = TemporaryFolder()
        let file = folder.file("program.elf")
        try Data(builder.bytes).write(to: URL(filePath: file))
        for translation in ["none", "always"] {
            let (status, output) = try run(
                binary("host-cpu"),
                ["--elf", file, "--memory", "64MiB", "--timeout", "10s", "--translation", translation])
            #expect(status == 0, "case \(String(describing: status)): \(output)")
        }
    }

    @Test func `boot arguments of any length fit or are refused in one line`() throws {
        var random = SeededGenerator.fresh()
        var builder = ELFBuilder(code: [0x6F, 0, 0, 0])
        builder.entry = 0x8000_0000
        let folder = TemporaryFolder()
        let file = folder.file("program.elf")
        try Data(builder.bytes).write(to: URL(filePath: file))
        for length in [0, 50_000, 70_000, 120_000] + (0..<4).map({ _ in Int(random.next() % 70_000) }) {
            let (status, output) = try run(
                binary("host-cpu"),
                [
                    "--elf", file, "--memory", "64MiB", "--instructions", "10", "--boot-arguments",
                    String(repeating: "a", count: length),
                ])
            #expect(
                status == 124 || (status == 1 && output.contains("shorten the boot arguments")),
                "\(length) (BASEBOARD_SEED=\(random.seed)): \(String(describing: status)) \(output)")
            #expect(status == (length < 50_001 ? 124 : length >= 70_000 ? 1 : status))
        }
    }
}
