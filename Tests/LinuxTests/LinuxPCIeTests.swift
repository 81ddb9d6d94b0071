import FoundationEssentials
import Glibc
import QMP
import TestKit
import Testing
import Wire

/// Whether somebody listens at a path: its file is there a moment earlier.
private func isServed(_ path: String) -> Bool { (try? Socket.connect(to: path)) != nil }

/// Root ports and cards as Debian's kernel drives them: one boot, many checks.
///
/// Debian builds its kernel for riscv64 without the hot-plug driver (CONFIG_HOTPLUG_PCI is not set), so a shell does
/// here what pciehp does: it enables the slot's events, sees their interrupts counted, and switches the slot's power.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct LinuxPCIeTests {
    /// A card served at a path, until it is let go.
    private func card(_ path: String) throws -> RunningProcess {
        let process = try RunningProcess(
            binary("offload-card"), ["--listen", "pcie=\(path)", "--die-with-parent"])
        try #require(eventually { isServed(path) }, "\(process.text)")
        return process
    }

    @Test func `Linux sees functions, errors, removal and return of cards, and resets them a thousand times`() throws {
        let folder = TemporaryFolder()
        var cards: [RunningProcess] = []
        var arguments = ["--kernel", Guest.kernel, "--initrd", Guest.initramfs]
        // A card of eight functions, one of two, five of one; root port 2 is empty.
        let places = ["rp0"] + (1..<8).map { "rp0.\($0)" } + ["rp1", "rp1.7"] + (3..<8).map { "rp\($0)" }
        for place in places {
            cards.append(try card(folder.file(place)))
            arguments += ["--connect", "\(place)=\(folder.file(place))"]
        }
        let host = try LoneHost(arguments)
        let console = host.console
        let boot = try Guest.waitForShell(console, keepingMessages: true)
        for port in 1...8 { #expect(boot.contains("0000:00:0\(port).0: AER: enabled with IRQ"), "\(boot)") }
        #expect(try console.run("ls -d /sys/bus/pci/devices/0000:0[1-8]:00.*|wc -l").output == "15\n")
        #expect(try console.run("cat /sys/bus/pci/devices/0000:01:00.0/doe_features/*").output.contains("0001:00"))
        let control = try QMPClient(path: host.folder.file("control"))

        try errors(console, control)
        try resets(console)
        try hotPlug(console, control, path: folder.file("late"))
        try surprise(console, control, cards[0], path: folder.file("rp0"))
        #expect(host.process.isRunning)
    }

    // MARK: Errors

    private func errors(_ console: GuestConsole, _ control: QMPClient) throws {
        for (name, lines) in [
            ("BAD_TLP", ["AER: Correctable error message received from 0000:01:00.3", "BadTLP"]),
            ("COMP_TIME", ["AER: Uncorrectable (Non-Fatal) error message received from 0000:01:00.3", "CmpltTO"]),
            (
                "MALF_TLP",
                ["AER: Uncorrectable (Fatal) error message received from 0000:01:00.3", "has been reset (0)"]
            ),
        ] {
            _ = try control.execute("pcie_aer_inject_error", ["id": "card0.3", "error_status": .string(name)])
            for line in lines { try console.wait(for: line) }
        }
        // The port's own.
        _ = try control.execute("pcie_aer_inject_error", ["id": "rp2", "error_status": "RCVR"])
        try console.wait(for: "AER: Correctable error message received from 0000:00:03.0")
        let counts = try console.run("cat /sys/bus/pci/devices/0000:01:00.3/aer_dev_correctable").output
        #expect(counts.contains("BadTLP 1\n") && counts.contains("TOTAL_ERR_COR 1\n"), "\(counts)")
    }

    // MARK: Resets

    /// 1008 function level resets, 144 behind each of seven ports, the ports at once (Linux resets one function behind a
    /// port at a time, and waits 100 ms each time); then secondary bus resets.
    private func resets(_ console: GuestConsole) throws {
        try console.type(
            """
            for b in 01 02 04 05 06 07 08; do (n=0; while [ $n -lt 144 ]; do for d in /sys/bus/pci/devices/0000:$b:00.*; \
            do echo 1 >$d/reset || exit; n=$((n+1)); done; done; echo $n >/tmp/bus.$b) & done; wait; \
            cat /tmp/bus.* | sort | uniq -c; echo RES''ETS
            """)
        let counts = try console.wait(for: "RESETS\r\n", within: .seconds(240))
        #expect(counts.contains("7 144\r\n"), "\(counts)")
        let port = "/sys/bus/pci/devices/0000:00:02.0/reset_subordinate"
        #expect(try console.run("for n in 1 2 3; do echo 1 >\(port) || exit; done").status == 0)
        // The card answers as before: its BAR 0 has "OFBD" where Linux put it. (Behind the other port the fatal error's
        // reset took the addresses away, and without a driver Linux does not give them back.)
        for function in [0, 7] { #expect(try identity(console, "0000:02:00.\(function)") == "0x4442464F\n") }
    }

    private func identity(_ console: GuestConsole, _ address: String) throws -> String {
        let device = "/sys/bus/pci/devices/\(address)"
        _ = try console.run("echo 1 >\(device)/enable")
        return try console.run("devmem $(head -n 1 \(device)/resource | cut -d ' ' -f 1)").output
    }

    // MARK: Hot-plug

    /// Slot Control and Slot Status of root port 2 by the shell, as pciehp uses them.
    private func hotPlug(_ console: GuestConsole, _ control: QMPClient, path: String) throws {
        _ = try console.run(
            """
            port=/sys/bus/pci/devices/0000:00:03.0/config; rd() { od -An -tx2 -j $1 -N 2 $port; }; \
            wr() { printf "$2" | dd of=$port bs=2 seek=$(($1/2)) conv=notrunc 2>/dev/null; }; \
            count() { awk '/0000:00:03.0/ { print $2 }' /proc/interrupts; }
            """)
        // All events but the command's, and the interrupt; what happened before is cleared.
        _ = try console.run("wr 0x60 '\\351\\023'; wr 0x62 '\\377\\377'")
        #expect(try console.run("rd 0x62").output == " 0000\n")
        let before = try Int(console.run("count").output.dropLast()) ?? -1
        let late = try card(path)
        _ = try control.execute("device_add", ["id": "late", "bus": "rp2", "path": .string(path)])
        #expect(try console.run("rd 0x62; rd 0x5a").output == " 0148\n 2011\n")
        #expect(try console.run("count").output == "\(before + 1)\n")
        _ = try console.run("wr 0x62 '\\377\\377'; echo 1 >/sys/bus/pci/rescan")
        #expect(try identity(console, "0000:03:00.0") == "0x4442464F\n")

        // The attention button, the driver's removal, power off, and the card is let go.
        _ = try control.execute("device_del", ["id": "late"])
        #expect(try console.run("rd 0x62; count").output == " 0041\n\(before + 2)\n")
        _ = try console.run(
            "echo 1 >/sys/bus/pci/devices/0000:03:00.0/remove; wr 0x62 '\\001\\000'; wr 0x60 '\\351\\027'")
        let event = try control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(20)))
        #expect(event.data["device"] == "late" && event.data["reason"] == "released")
        #expect(try console.run("rd 0x62; wr 0x62 '\\377\\377'; rd 0x62").output == " 0118\n 0000\n")
        #expect(late.isRunning)
        // Power on again, and the same card on the same socket.
        _ = try console.run("wr 0x60 '\\351\\023'")
        _ = try control.execute("device_add", ["id": "again", "bus": "rp2", "path": .string(path)])
        _ = try console.run("echo 1 >/sys/bus/pci/rescan")
        #expect(try identity(console, "0000:03:00.0") == "0x4442464F\n")
        late.signal(SIGKILL)
        let end = try control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(20)))
        #expect(end.data["device"] == "again")
    }

    /// The process of function 0 dies: an error where Linux touches it, and a new one is found in its place.
    private func surprise(
        _ console: GuestConsole, _ control: QMPClient, _ card: RunningProcess, path: String
    ) throws {
        let address = try console.run("head -n 1 /sys/bus/pci/devices/0000:01:00.0/resource|cut -d ' ' -f 1").output
        card.signal(SIGKILL)
        let event = try control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(20)))
        #expect(event.data["device"] == "card0")
        try console.type("devmem \(address.dropLast())")
        try console.wait(for: "UnsupReq")
        try console.wait(for: "0xFFFFFFFF")
        _ = try console.run("for d in /sys/bus/pci/devices/0000:01:00.*; do echo 1 >$d/remove; done")
        unlink(path)
        let next = try self.card(path)
        _ = try control.execute("device_add", ["bus": "rp0", "path": .string(path)])
        _ = try console.run("echo 1 >/sys/bus/pci/rescan")
        // The other functions never left their slot.
        #expect(try console.run("ls -d /sys/bus/pci/devices/0000:01:00.*|wc -l").output == "8\n")
        #expect(try identity(console, "0000:01:00.0") == "0x4442464F\n")
        #expect(next.isRunning)
    }
}

/// The drivers of real devices on the board's slots: NVMe and virtio functions of the cards.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct LinuxDriverTests {
    private static let sum = "dd if=/dev/nvme0n1 bs=64k count=64 2>/dev/null | sha256sum"

    /// The disk's card, served at a path.
    private func disk(_ path: String, file: String) throws -> RunningProcess {
        let process = try RunningProcess(
            binary("offload-card"), ["--listen", "pcie-disk=\(path)", "--disk", file, "--die-with-parent"])
        try #require(eventually { isServed(path) }, "\(process.text)")
        return process
    }

    @Test func `drivers are bound again and again, recover from a fatal error, and lose their card under load`() throws
    {
        let folder = TemporaryFolder()
        var generator = SeededGenerator.fresh()
        try Data(generator.bytes(8 << 20)).write(to: URL(filePath: folder.file("disk.img")))
        let content = try run("/bin/sh", ["-c", "head -c 4194304 \(folder.file("disk.img")) | sha256sum"]).output
        let card = try disk(folder.file("disk"), file: folder.file("disk.img"))
        let adapter = try RunningProcess(
            binary("adapter-card"), ["--listen", "pcie=\(folder.file("net"))", "--die-with-parent"])
        try #require(eventually { isServed(folder.file("net")) }, "\(adapter.text)")
        let host = try LoneHost([
            "--kernel", Guest.kernel, "--initrd", Guest.deviceInitramfs, "--connect", "rp0=\(folder.file("disk"))",
            "--connect", "rp1=\(folder.file("net"))",
        ])
        let console = host.console
        try Guest.waitForShell(console, keepingMessages: true)
        let control = try QMPClient(path: host.folder.file("control"))
        _ = try console.run("disk() { until [ -b /dev/nvme0n1 ]; do usleep 10000; done; }; disk")
        #expect(try console.run(Self.sum).output == content)

        // Unbound and bound again.
        for (driver, address, times) in [("nvme", "0000:01:00.0", 3), ("virtio-pci", "0000:02:00.0", 10)] {
            let path = "/sys/bus/pci/drivers/\(driver)"
            let loop =
                "n=0; while [ $n -lt \(times) ]; do echo \(address) >\(path)/unbind && echo \(address) >\(path)/bind"
            #expect(try console.run("\(loop) || break; n=$((n+1)); done; [ $n = \(times) ]").status == 0)
        }
        _ = try console.run("disk")
        #expect(try console.run(Self.sum + "; ls -1 /sys/class/net").output == content + "eth0\nlo\n")
        // Reset while bound: both drivers prepare and come back.
        for address in ["0000:01:00.0", "0000:02:00.0"] {
            #expect(
                try console.run("for n in 1 2 3; do echo 1 >/sys/bus/pci/devices/\(address)/reset; done").status == 0)
        }
        #expect(try console.run(Self.sum).output == content)
        // A fatal error: Linux resets the link, and NVMe goes on.
        _ = try control.execute("pcie_aer_inject_error", ["id": "card0", "error_status": "fatal"])
        try console.wait(for: "AER: device recovery successful")
        #expect(try console.run(Self.sum).output == content)
        // The disk's process dies while it is read: the reader alone has an error, and a new process takes its place.
        try console.type("while dd if=/dev/nvme0n1 of=/dev/null bs=4k 2>/dev/null; do :; done & echo rea''ding")
        try console.wait(for: "reading\r\n")
        card.signal(SIGKILL)
        let event = try control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(20)))
        #expect(event.data["device"] == "card0")
        _ = try console.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/remove; wait")
        unlink(folder.file("disk"))
        let next = try disk(folder.file("disk"), file: folder.file("disk.img"))
        _ = try control.execute("device_add", ["bus": "rp0", "path": .string(folder.file("disk"))])
        _ = try console.run("echo 1 >/sys/bus/pci/rescan; disk")
        #expect(try console.run(Self.sum).output == content)
        #expect(next.isRunning && adapter.isRunning && host.process.isRunning)
    }
}
