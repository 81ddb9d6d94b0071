import Foundation
import GDBRemote
import QMP
import TestKit
import Testing
import Wire

/// Debian's gdb-multiarch on a real host-cpu.
@Suite struct GDBTests {
    @Test func `registers and memory are shown and set`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let output = try guest.gdb(
            """
            printf "start %d %d %lx\\n", $priv, $mhartid, $misa
            printf "float %.1f\\n", $fa0.double
            tbreak inner
            continue
            printf "same %d\\n", $a0 == $s1 && $pc == (long)&inner
            set $s1 = 1000
            set $mscratch = 0x1234
            set $fa0.double = 2.5
            set $fcsr = 0x43
            set *(long*)&counter = 77
            printf "set %d %lx %.1f %x %x %d\\n", $s1, $mscratch, $fa0.double, $frm, $fflags, *(long*)&counter
            tbreak inner
            continue
            printf "went on with %d\\n", $a0
            print *(long*)0x100
            """, status: 1)
        #expect(output.contains("start 3 0 800000000014112f"), "\(output)")
        #expect(output.contains("float 1.5"), "\(output)")
        #expect(output.contains("same 1"), "\(output)")
        #expect(output.contains("set 1000 1234 2.5 2 3 77"), "\(output)")
        #expect(output.contains("went on with 1001"), "\(output)")
        #expect(output.contains("Cannot access memory at address 0x100"), "\(output)")
    }

    @Test func `breakpoints are hit, frames are unwound, steps are one instruction each`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let output = try guest.gdb(
            """
            break inner
            continue
            set $first = $a0
            continue
            printf "once each time %d\\n", $a0 == $first + 1
            backtrace
            set $base = (long)&inner
            stepi
            printf "pc +%d\\n", $pc - $base
            stepi
            printf "pc +%d\\n", $pc - $base
            stepi
            printf "pc +%d\\n", $pc - $base
            printf "stored %d\\n", *(long*)&counter == $a0
            finish
            printf "back %d\\n", $pc > (long)&outer && $pc < (long)&inner && $a0 == 2 * ($first + 1)
            delete
            hbreak outer
            continue
            printf "hardware %d\\n", $pc == (long)&outer
            x/1i &inner
            """)
        #expect(output.contains("once each time 1"), "\(output)")
        let frames = output.split(separator: "\n").filter { $0.hasPrefix("#") }
        #expect(frames.count >= 3, "\(output)")
        #expect(frames.count >= 3 && frames[0].contains("inner ()") && frames[1].contains("outer ()"))
        #expect(output.contains("pc +4\n") && output.contains("pc +8\n") && output.contains("pc +12\n"), "\(output)")
        #expect(output.contains("stored 1"), "\(output)")
        #expect(output.contains("back 1"), "\(output)")
        #expect(output.contains("hardware 1"), "\(output)")
        #expect(output.contains("auipc\tt0"), "the program is shown without breakpoints: \(output)")
    }

    @Test func `a breakpoint in ROM holds, also across a reset`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let output = try guest.gdb(
            """
            break *0x1004
            break *&outer
            monitor reset
            maintenance flush register-cache
            printf "reset %lx\\n", $pc
            continue
            printf "rom %lx\\n", $pc
            continue
            printf "ram %d %d\\n", $pc == (long)&outer, $s1
            """)
        #expect(output.contains("reset 1000\n"), "\(output)")
        #expect(output.contains("rom 1004\n"), "\(output)")
        #expect(output.contains("ram 1 1\n"), "the firmware was loaded over the breakpoint: \(output)")
    }

    @Test func `an interrupt stops a running guest, and a detached one goes on`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let gdb = try guest.interactiveGDB("continue &\n")
        #expect(gdb.waitForOutput("(gdb)"), "\(gdb.text)")
        #expect(try guest.isRunning())
        gdb.type("interrupt\n")
        #expect(gdb.waitForOutput("SIGINT"), "\(gdb.text)")
        let stopped = try guest.retired()
        gdb.type("printf \"loop %d\\n\", $pc >= (long)&loop && $pc < (long)&counter\n")
        #expect(gdb.waitForOutput("loop 1"), "\(gdb.text)")
        #expect(try guest.retired() == stopped, "nothing runs while the debugger looks")
        gdb.type("detach\n")
        #expect(gdb.waitForOutput("detached"), "\(gdb.text)")
        #expect(try guest.isRunning())
        gdb.type("quit\n")
        #expect(gdb.waitForExit() == 0)
        #expect(guest.host.text.contains("the harts go on"), "\(guest.host.text)")
    }

    @Test func `a debugger that is killed leaves a guest without breakpoints`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let gdb = try guest.interactiveGDB("set breakpoint always-inserted on\nbreak inner\ncontinue\n")
        #expect(gdb.waitForOutput("Breakpoint 1, inner"), "\(gdb.text)")
        gdb.signal(SIGKILL)
        #expect(gdb.waitForExit() == 128 + SIGKILL)
        #expect(try guest.isRunning())
        #expect(try guest.gdb("printf \"word %x\\n\", *(short*)&inner == (short)0x9002").contains("word 0"))
    }

    @Test func `harts are threads, stepped alone`() throws {
        let guest = try DebugGuest(DebugGuest.counting(), harts: 2)
        let output = try guest.gdb(
            """
            info threads
            set scheduler-locking on
            thread 1
            set $one = $pc
            thread 2
            printf "second %d\\n", $mhartid
            set $two = $pc
            stepi
            printf "moved %d\\n", $pc != $two
            thread 1
            printf "stayed %d\\n", $pc == $one
            set scheduler-locking off
            break inner
            continue
            continue
            continue
            printf "thread's hart %d\\n", $_thread - 1 == $mhartid
            """)
        #expect(
            output.contains("Thread 1 (hart 0 [machine])") && output.contains("Thread 2 (hart 1 [machine])"),
            "\(output)")
        #expect(output.contains("second 1"), "\(output)")
        #expect(output.contains("moved 1") && output.contains("stayed 1"), "\(output)")
        #expect(output.contains("thread's hart 1"), "\(output)")
    }

    /// 0x8000_0000 is mapped at its own address plus 0xFFFF_FFFF_0000_0000, at that minus 1 GiB, and nowhere else.
    private static let paged = """
            .text
            .globl _start
        _start:
            la t0, tables + 508*8
            li t1, 0x200000CF
            sd t1, 16(t0)
            sd t1, 8(t0)
            # An entry with A and D clear, which nobody uses.
            li t1, 0x20000007
            sd t1, 0(t0)
            la t0, tables
            srli t0, t0, 12
            li t1, 8 << 60
            or t0, t0, t1
            csrw satp, t0
            li t0, -1
            csrw pmpaddr0, t0
            li t0, 0x1F
            csrw pmpcfg0, t0
            li s2, 0xFFFFFFFF00000000
            la t0, upper
            add t0, t0, s2
            csrw mepc, t0
            li t0, 0x800
            csrs mstatus, t0
            mret
        upper:
            li s3, 0x40000000
            la s4, both
            sub s5, s4, s3
        1:  jalr s4
            jalr s5
            j 1b
            .globl both
        both:
            la t0, calls
            auipc t1, 0
            ld t2, 0(t0)
            addi t2, t2, 1
            sd t2, 0(t0)
            ret
            .data
            .balign 8
            .globl calls
        calls: .dword 0
            .balign 4096
            .globl tables
        tables: .zero 4096

        """

    @Test func `a guest behind page tables is seen as its hart sees it`() throws {
        let guest = try DebugGuest(Self.paged)
        let output = try guest.gdb(
            """
            set $shift = 0xffffffff00000000
            printf "mode %d, satp %lx\\n", $priv, ($satp >> 60) & 15
            hbreak *((long)&both + $shift)
            continue
            delete
            printf "at %d\\n", $pc == (long)&both + $shift
            print/x *(long*)((long)&calls + $shift) > 0
            printf "entry %lx\\n", *(long*)((long)&tables + 508*8 + $shift)
            printf "through it %d\\n", *(int*)0xffffffff00000000 == *(int*)0xffffffff80000000
            printf "entry %lx\\n", *(long*)((long)&tables + 508*8 + $shift)
            maintenance packet Qqemu.PhyMemMode:1
            printf "physical %d\\n", *(long*)&calls > 0
            maintenance packet Qqemu.PhyMemMode:0
            print *(int*)&calls
            """, status: 1)
        #expect(output.contains("mode 1, satp 8\n"), "\(output)")
        #expect(output.contains("at 1\n"), "\(output)")
        #expect(output.components(separatedBy: "entry 20000007\n").count == 3, "A and D stay clear: \(output)")
        #expect(output.contains("through it 1\n"), "\(output)")
        #expect(output.contains("physical 1\n"), "\(output)")
        #expect(output.contains("Cannot access memory at address 0x800"), "not mapped there: \(output)")
    }

    @Test func `a breakpoint holds at its own address and not at another one of the same memory`() throws {
        let guest = try DebugGuest(Self.paged)
        let output = try guest.gdb(
            """
            set $shift = 0xffffffff00000000
            break *((long)&both + $shift)
            continue
            set $calls = *(long*)((long)&calls + $shift)
            printf "upper %d\\n", $pc == (long)&both + $shift
            continue
            printf "upper %d\\n", $pc == (long)&both + $shift
            printf "calls %d\\n", *(long*)((long)&calls + $shift) - $calls
            """)
        #expect(output.components(separatedBy: "upper 1\n").count == 3, "\(output)")
        #expect(output.contains("calls 2\n"), "the call through the other address was made: \(output)")
    }

    @Test func `the guest's own EBREAK traps to the guest`() throws {
        let guest = try DebugGuest(
            DebugGuest.counting(
                """
                la t0, handler
                    csrw mtvec, t0
                    j work
                    .balign 4
                handler:
                    csrr t0, mepc
                    addi t0, t0, 2
                    csrw mepc, t0
                    addi s2, s2, 1
                    mret
                work:
                    c.ebreak
                    addi s1, s1, 1
                    mv a0, s1
                    call outer
                    j work
                """))
        let output = try guest.gdb(
            """
            break inner
            continue
            set $traps = $s2
            continue
            continue
            printf "traps %d, cause %d\\n", $s2 - $traps, $mcause
            tbreak *&work
            continue
            set $before = $s2
            maintenance packet vCont;s:1
            maintenance flush register-cache
            printf "step %d\\n", $pc == (long)&handler
            """)
        #expect(output.contains("traps 2, cause 3\n"), "\(output)")
        #expect(output.contains("step 1\n"), "a trap is a step: \(output)")
    }

    @Test func `a program is loaded and started by the debugger, and its power-off is told`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let output = try guest.gdb(
            """
            load
            printf "entry %lx\\n", $pc
            tbreak outer
            continue
            printf "first %d\\n", $a0
            set *(int*)&inner = 0x001002b7
            set *(int*)((long)&inner+4) = 0x00005537
            set *(int*)((long)&inner+8) = 0x55550513
            set *(int*)((long)&inner+12) = 0x00a2a023
            continue
            """)
        #expect(output.contains("entry 80000000\n"), "\(output)")
        #expect(output.contains("first 1\n"), "\(output)")
        #expect(output.contains("exited normally"), "\(output)")
        #expect(guest.host.waitForExit() == 0)
    }

    @Test func `monitor and debugger agree about who holds the harts`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let control = try guest.control()
        func status() throws -> String? { try control.execute("query-status")["status"]?.stringValue }
        #expect(try status() == "running")
        let gdb = try guest.interactiveGDB("")
        #expect(gdb.waitForOutput("(gdb)"), "\(gdb.text)")
        #expect(try status() == "debug")
        #expect(throws: (any Error).self) { try control.execute("cont") }
        _ = try control.execute("stop")
        #expect(try status() == "debug")
        gdb.type("continue &\n")
        #expect(eventually { (try? status()) == "running" })
        _ = try control.execute("stop")
        #expect(gdb.waitForOutput("SIGINT"), "the debugger hears of it: \(gdb.text)")
        #expect(try status() == "debug")
        gdb.type("continue &\n")
        #expect(eventually { (try? status()) == "running" })
        gdb.type("interrupt\n")
        #expect(eventually { (try? status()) == "debug" })
        gdb.type("detach\n")
        #expect(gdb.waitForOutput("detached"), "\(gdb.text)")
        #expect(try status() == "running")
        gdb.type("quit\n")
        #expect(gdb.waitForExit() == 0)
        // Paused by the monitor: a debugger that only looks leaves it so.
        _ = try control.execute("stop")
        #expect(try status() == "paused")
        _ = try guest.gdb("info registers pc\n")
        #expect(try status() == "paused")
        _ = try control.execute("cont")
        #expect(try guest.isRunning())
    }

    @Test func `a second debugger is told no`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let gdb = try guest.interactiveGDB("")
        #expect(gdb.waitForOutput("(gdb)"), "\(gdb.text)")
        let second = try run(
            "/usr/bin/gdb-multiarch",
            ["-nx", "-batch", "-ex", "set architecture riscv:rv64", "-ex", "target remote \(guest.socket)"])
        #expect(second.output.contains("another debugger is attached"), "\(second.output)")
        gdb.type("printf \"first %d\\n\", $mhartid\n")
        #expect(gdb.waitForOutput("first 0"), "\(gdb.text)")
        gdb.type("quit\n")
        #expect(gdb.waitForExit() == 0)
    }

    @Test func `a debugger that goes away at any byte leaves a guest that runs`() throws {
        let guest = try DebugGuest(DebugGuest.counting())
        let payloads = [
            "qSupported:swbreak+", "Hg0", "g", "m80000000,40", "Z0,80000020,4", "Z1,80000024,4", "vCont;s:1",
            "M80000000,1:17", "vCont;c",
        ]
        let stream = payloads.flatMap { Packet.frame($0.utf8) }
        for count in 0...stream.count {
            let socket = try Socket.connect(to: guest.socket)
            try socket.send(Array(stream[..<count]))
            socket.shutdown()
        }
        #expect(try guest.isRunning())
        let output = try guest.gdb("printf \"code %x\\n\", *(short*)0x80000020 == (short)0x9002\n")
        #expect(output.contains("code 0"), "no breakpoint stays behind: \(output)")
    }
}
