import FoundationEssentials
import QMP
import TestKit
import Testing
import Wire

/// topology/linux.yaml: an unmodified kernel on the verified board. One at a time: two cores carry one boot well.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct LinuxBoardTests {
    @Test func `the board boots Linux to a shell that sees its cards, reboots, and obeys the power button`() throws {
        let board = try LiveBoard("topology/linux.yaml")
        try #require(board.up.status == 0, "\(board.up.output)")
        let console = try GuestConsole(try board.socket("host0", "console"))
        // The verified flash's OpenSBI runs, entered by the first stage; the kernel is not the flash's.
        let firmware = try Guest.waitForShell(console)
        for line in ["Baseboard first stage: OpenSBI (", "the machine's kernel (", "OpenSBI v1.", "Linux version "] {
            #expect(firmware.contains(line), "\(firmware)")
        }
        try exercise(console, harts: 1)

        let devices = try console.run("ls -1 /sys/bus/pci/devices").output.split(separator: "\n")
        let functions = (0...4).map { Substring("0000:02:00.\($0)") }
        #expect(devices == ["0000:00:00.0", "0000:00:01.0", "0000:00:02.0", "0000:01:00.0"] + functions)
        for (address, card) in [("0000:01:00.0", "0x0b0b"), ("0000:02:00.0", "0x0b0a")] {
            let folder = "/sys/bus/pci/devices/\(address)"
            let names = "\(folder)/subsystem_vendor \(folder)/subsystem_device"
            #expect(try console.run("cat \(names)").output == "0x1b36\n\(card)\n")
        }
        // Disk, network, console and random numbers: a driver each.
        let drivers = "for f in 1 2 3 4; do basename $(readlink /sys/bus/pci/devices/0000:02:00.$f/driver); done"
        #expect(try console.run(drivers).output == "nvme\nvirtio-pci\nvirtio-pci\nvirtio-pci\n")
        #expect(try console.run("cat /sys/block/nvme0n1/size").output == "131072\n")
        #expect(try console.run("ls /sys/class/net | grep -c eth").output == "2\n")
        // Both meet in the adapter's switch: what one sends the other receives.
        #expect(try console.run("ip link set eth0 up; ip link set eth1 up; netcheck eth0 eth1 2000").status == 0)
        // The adapter's ID register through its BAR, as Linux placed it: "ADBD".
        let register = "devmem $(head -n 1 /sys/bus/pci/devices/0000:01:00.0/resource | cut -d ' ' -f 1)"
        _ = try console.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/enable")
        #expect(try console.run(register).output == "0x44424441\n")

        try interrupt(console)
        try idle(board)
        // Over the reset of `reboot` kernel and initramfs are loaded again, and the cards found again.
        try console.type("reboot")
        try console.wait(for: "reboot: Restarting system")
        try Guest.waitForShell(console)
        #expect(try console.run("ls /sys/bus/pci/devices | wc -l").output == "9\n")
        #expect(try board.timeline().contains("host0 RESET"))

        _ = try board.qmp("host0", "system_powerdown")
        try console.wait(for: "Baseboard guest: poweroff")
        try console.wait(for: "reboot: Power down")
        #expect(eventually { (try? board.record()["state"]?.stringValue) == "stopped" })
        #expect(try board.timeline().contains("host0 POWERDOWN"))
        #expect(try board.baseboard(["ps"]).output.contains("the guest of host0 turned the power off"))
    }

    /// Job control: Ctrl-C ends what runs in the foreground and not the shell; a job in the background goes on.
    private func interrupt(_ console: GuestConsole) throws {
        // What says that it runs is in the foreground itself: the key finds it there.
        try console.type("sleep 1000 & sh -c \"echo star''ted; exec sleep 2000\"")
        try console.wait(for: "started")
        try console.send([0x03])
        #expect(try console.run("jobs").output.contains("Running"))
        #expect(try console.run("kill %1; wait %1").status == 128 + 15)
    }

    /// At the prompt nothing polls: two seconds of it cost less than 4 % of a core (bench has the exact figure).
    private func idle(_ board: LiveBoard) throws {
        let pid = try #require(try board.component("host0")["pid"]?.integerValue)
        func ticks() throws -> Int {
            let status = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
            let fields = status.split(separator: " ")
            return (Int(fields[13]) ?? 0) + (Int(fields[14]) ?? 0)
        }
        let before = try ticks()
        #expect(eventually(within: .seconds(2)) { false } == false)
        #expect(try ticks() - before <= 8)
    }

    @Test func `poweroff in the shell ends the board with exit status 0, and up says why`() throws {
        let folder = TemporaryFolder()
        let environment = ["BASEBOARD_RUNTIME_DIR": folder.path, "NO_COLOR": "1"]
        let up = try RunningProcess(
            binary("baseboard"),
            [
                "up", packageFolder + "/topology/linux.yaml", "--set", "components.host0.interrupts=plic",
                "--set", "components.host0.boot-arguments=quiet panic=7",
            ], environment: environment)
        try #require(up.waitForOutput("BOARD_UP", within: .seconds(120)), "\(up.text)")
        let console = try GuestConsole(folder.path + "/linux/host0.console.sock")
        try Guest.waitForShell(console)
        #expect(try console.run("cat /proc/cmdline").output == "quiet panic=7\n")
        try exercise(console, harts: 1)
        try console.type("poweroff")
        #expect(up.waitForExit(within: .seconds(60)) == 0, "\(up.text)")
        #expect(up.text.contains("the guest of host0 turned the power off"), "\(up.text)")
    }
}
