import Foundation
import Machine
import QMP
import RISCV
import Synchronization
import TestKit
import Testing
import Wire

/// Whole runs by `--clock instructions`: what they print and what they retire.
@Suite struct InstructionClockRunTests {
    private static let guest = packageFolder + "/.build/guest"
    private static let openSBI = packageFolder + "/.build/firmware/fw_dynamic.bin"
    private static let hasLinux = [guest + "/kernel", guest + "/initramfs", openSBI].allSatisfy {
        FileManager.default.fileExists(atPath: $0)
    }

    private struct Outcome {
        var output: [UInt8] = []
        var retired: JSONValue?
        var status: Int32?
    }

    /// Runs host-cpu to its end. `disturbed`: with a monitor that keeps stopping the hart, a console that is read
    /// slowly, and a busy machine.
    private func outcome(_ arguments: [String], disturbed: Bool) throws -> Outcome {
        let folder = TemporaryFolder()
        let host = try RunningProcess(
            binary("host-cpu"),
            [
                "--clock", "instructions", "--memory", "256MiB", "--die-with-parent",
                "--listen", "console=\(folder.file("console"))", "--listen", "control=\(folder.file("control"))",
            ] + arguments)
        let console = try connect(folder.file("console"))
        let listener = try QMPClient(path: folder.file("control"))
        let isOver = Atomic<Bool>(false)
        let threads =
            disturbed
            ? (0..<3).map { number in
                WorkerThread("disturb") {
                    let monitor = number == 0 ? try? QMPClient(path: folder.file("control")) : nil
                    while !isOver.load(ordering: .relaxed) {
                        if number == 0, (try? monitor?.execute("query-cpus")) == nil { return }
                    }
                }
            } : []
        var outcome = Outcome()
        let deadline = MonotonicTime.after(.seconds(120))
        while let bytes = try console.receiveBytes(limit: disturbed ? 512 : 65_536, until: deadline) {
            outcome.output += bytes
        }
        outcome.retired = try listener.waitForEvent("SHUTDOWN", until: deadline).data["instructions-retired"]
        isOver.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        outcome.status = host.waitForExit()
        return outcome
    }

    /// Two outputs, which are too long to be shown.
    private func expectSame(_ one: [UInt8], _ two: [UInt8]) {
        let place = zip(one, two).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        let isSame = one == two
        #expect(isSame, "\(one.count) and \(two.count) bytes, parting at \(place ?? -1)")
    }

    private func connect(_ path: String) throws -> Socket {
        var socket: Socket?
        _ = eventually {
            socket = try? Socket.connect(to: path)
            return socket != nil
        }
        return try #require(socket)
    }

    /// Prints the time by every way there is to it, waits by timer and by the clock's alarm, prints a lot, and ends.
    private static let program = """
            .text
            .globl _start
        _start:
            la sp, stack
            li s0, 0x10000000
            li s1, 0x101000
            li s2, 0x200bff8
            li s3, 0x2004000
            li s4, 200
            li t0, 0x80
            csrw mie, t0
        round:
            # The clock's time, and how long its alarm takes, in turns of a loop.
            lwu a0, 0(s1)
            call print
            lwu t0, 4(s1)
            lwu t1, 0(s1)
            li t2, 12345
            add t1, t1, t2
            sw t0, 12(s1)
            sw t1, 8(s1)
            li a0, 0
        1:  addi a0, a0, 1
            lw t0, 24(s1)
            bnez t0, 1b
            call print
            csrr a0, time
            call print
            ld a0, 0(s2)
            call print
            # A wait for the timer.
            ld t0, 0(s2)
            addi t0, t0, 321
            sd t0, 0(s3)
            wfi
            li t0, -1
            sd t0, 0(s3)
            csrr a0, minstret
            call print
            addi s4, s4, -1
            bnez s4, round
            # More than every buffer on the way holds.
            li s5, 150000
        2:  andi t0, s5, 63
            addi t0, t0, 32
            sb t0, 0(s0)
            addi s5, s5, -1
            bnez s5, 2b
            csrr a0, minstret
            call print
            li t0, 0x100000
            li t1, 0x5555
            sw t1, 0(t0)
        3:  j 3b
        # a0 as hexadecimal, once the transmitter is ready.
        print:
            li t1, 60
        4:  lbu t2, 5(s0)
            andi t2, t2, 0x20
            beqz t2, 4b
            srl t2, a0, t1
            andi t2, t2, 15
            addi t2, t2, '0'
            li t3, '9'
            ble t2, t3, 5f
            addi t2, t2, 'a' - '9' - 1
        5:  sb t2, 0(s0)
            addi t1, t1, -4
            bgez t1, 4b
            li t2, 10
            sb t2, 0(s0)
            ret
            .data
            .balign 16
            .zero 64
        stack:

        """

    @Test func `a program prints the same bytes and retires the same count, whatever else happens`() throws {
        let program = try DebugGuest.assemble(Self.program)
        let calm = try outcome(["--firmware", program.flat], disturbed: false)
        #expect(calm.status == 0)
        #expect(calm.output.count > 150_000, "\(calm.output.count)")
        let disturbed = try outcome(["--firmware", program.flat], disturbed: true)
        #expect(calm.retired != nil && calm.retired == disturbed.retired)
        #expect(calm.status == disturbed.status)
        expectSame(calm.output, disturbed.output)
        // The clock's first word is that of the epoch, a few instructions later.
        let other = try outcome(["--firmware", program.flat, "--epoch", "0"], disturbed: false)
        let first = String(decoding: other.output.prefix(16), as: UTF8.self)
        #expect(UInt64(first, radix: 16).map { $0 < 1_000_000 } == true, "\(first)")
        let isOther = other.output != calm.output
        #expect(isOther)
    }

    @Test(.enabled(if: hasLinux, "run scripts/fetch-guest"))
    func `Linux boots twice to the same bytes and the same count`() throws {
        let commands =
            "busybox mkdir -p /proc; busybox mount -t proc proc /proc; busybox sleep 0.3; busybox date; "
            + "busybox cat /proc/interrupts /proc/sys/kernel/random/uuid; busybox seq 1 3000; busybox dmesg; "
            + "busybox poweroff -f"
        let arguments = [
            "--firmware", Self.openSBI, "--kernel", Self.guest + "/kernel", "--initrd", Self.guest + "/initramfs",
            "--boot-arguments", "console=ttyS0 rdinit=/bin/busybox -- sh -c \"\(commands)\"",
        ]
        let calm = try outcome(arguments, disturbed: false)
        #expect(calm.status == 0)
        let text = String(decoding: calm.output, as: UTF8.self)
        #expect(text.contains("Thu Jan  1 00:00:") && text.contains("reboot: Power down"), "\(text.suffix(1000))")
        let disturbed = try outcome(arguments, disturbed: true)
        #expect(calm.retired != nil && calm.retired == disturbed.retired)
        #expect(calm.status == disturbed.status)
        expectSame(calm.output, disturbed.output)
    }

    @Test(arguments: [
        (["--clock", "instructions", "--harts", "2"], "use one hart, or the wall clock"),
        (["--epoch", "0"], "--epoch sets the clock of --clock instructions"),
        (["--clock", "instructions", "--epoch", "9223372036"], "the clock's last second"),
        (["--clock", "moon"], "clock"),
    ])
    func `what cannot be is refused`(arguments: [String], reason: String) throws {
        let result = try run(binary("host-cpu"), arguments)
        #expect(result.status != 0)
        #expect(result.output.contains(reason), "\(result.output)")
    }

    @Test func `a console that reads nothing holds the hart, and a monitor still reaches it`() throws {
        let program = try DebugGuest.assemble(
            """
                .globl _start
            _start:
                li s0, 0x10000000
            1:  sb s1, 0(s0)
                addi s1, s1, 1
                j 1b

            """)
        let folder = TemporaryFolder()
        let host = try RunningProcess(
            binary("host-cpu"),
            [
                "--clock", "instructions", "--memory", "64MiB", "--die-with-parent", "--firmware", program.flat,
                "--listen", "console=\(folder.file("console"))", "--listen", "control=\(folder.file("control"))",
            ])
        let console = try connect(folder.file("console"))
        let control = try QMPClient(path: folder.file("control"))
        func retired() throws -> Int64? {
            try control.execute("query-cpus").arrayValue?.first?["instructions-retired"]?.integerValue
        }
        var last: Int64?
        // Held: the count stands still from one look to the next a tenth of a second later.
        let isHeld = eventually(within: .seconds(60)) {
            let now = try? retired()
            usleep(100_000)
            defer { last = now }
            return now != nil && now == last
        }
        #expect(isHeld)
        // Read on: it goes on, and nothing was lost.
        var expected: UInt8?
        var isInOrder = true
        for _ in 0..<64 {
            for byte in try console.receiveBytes(limit: 65_536, until: .after(.seconds(10))) ?? [] {
                if let wanted = expected, wanted != byte { isInOrder = false }
                expected = byte &+ 1
            }
        }
        #expect(isInOrder)
        #expect(eventually { (try? retired()) ?? 0 > last ?? 0 })
        _ = try control.execute("quit")
        #expect(host.waitForExit() == 0)
    }
}
