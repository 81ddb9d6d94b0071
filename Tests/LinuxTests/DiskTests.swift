import FoundationEssentials
import QMP
import TestKit
import Testing
import Wire

/// The offload card's disk under an unmodified Linux: both interfaces, files, faults, and resets under load.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct DiskTests {
    /// A disk of the card, and how Linux names it.
    struct Disk: CustomStringConvertible, Sendable {
        var interface: String
        var device: String
        var driver: String
        var description: String { interface }
    }

    static let disks = [
        Disk(interface: "nvme", device: "/dev/nvme0n1", driver: "nvme"),
        Disk(interface: "virtio-blk", device: "/dev/vda", driver: "virtio-pci"),
    ]

    /// A host at whose first root port is a card with a disk of 16 MiB.
    final class Bench {
        let folder = TemporaryFolder()
        let card: ComponentProcess
        let host: LoneHost
        var console: GuestConsole { host.console }

        init(_ disk: Disk, _ arguments: [String] = []) throws {
            let path = folder.file("disk.img")
            let file = try Descriptor.open(path, flags: 0x42)
            try file.writeAll([UInt8](repeating: 0xA5, count: 16 << 20))
            card = try ComponentProcess(
                "offload-card", in: folder, listens: ["pcie-disk"],
                ["--disk", path, "--disk-interface", disk.interface] + arguments)
            host = try LoneHost([
                "--kernel", Guest.kernel, "--initrd", Guest.deviceInitramfs, "--connect",
                "rp0=\(folder.file("offload-card.pcie-disk"))",
            ])
            try Guest.waitForShell(host.console)
            try waitForDevice(disk)
        }

        /// Waits until Linux has the disk, or has it no more: some ten seconds at most.
        func waitForDevice(_ disk: Disk, isThere: Bool = true) throws {
            let condition = "[ \(isThere ? "" : "! ")-b \(disk.device) ]"
            try run("i=0; until \(condition) || [ $i -ge 500 ]; do usleep 20000; i=$((i+1)); done; \(condition)")
        }

        func hostQMP(_ command: String, _ arguments: [String: JSONValue]) throws {
            _ = try QMPClient(path: host.folder.file("control")).execute(command, arguments)
        }

        /// Runs a command that must end with status 0; its output.
        @discardableResult
        func run(_ command: String) throws -> String {
            let (status, output) = try console.run(command)
            try #require(status == 0, "\(command): \(output)")
            return output
        }

        func qmp(_ command: String, _ arguments: [String: JSONValue] = [:]) throws -> JSONValue {
            try card.control.execute(command, arguments)
        }

        /// Ends the guest in order; nothing went wrong in its kernel.
        func end() throws {
            let log = try console.run("dmesg").output
            for word in ["Oops", "BUG:", "WARNING:", "Call Trace"] { #expect(!log.contains(word), "\(log)") }
            try console.type("poweroff")
            #expect(host.process.waitForExit(within: .seconds(60)) == 0, "\(host.process.text)")
        }
    }

    @Test(arguments: disks)
    func `random reads and writes are as written, and a file system made there is whole`(_ disk: Disk) throws {
        let bench = try Bench(disk)
        #expect(try bench.run("cat /sys/class/block/\(disk.device.dropFirst(5))/size") == "32768\n")
        let check = try bench.run("iocheck \(disk.device) 2000 4 \(UInt32.random(in: 1...(.max)))")
        #expect(check.contains("iocheck: all as written"), "\(check)")
        try bench.run("mkfs.ext4 -q -F \(disk.device)")
        try bench.run("mount -t ext4 \(disk.device) /mnt")
        try bench.run("seq 1 100000 >/mnt/a && mkdir /mnt/d && cp /mnt/a /mnt/d/b && sync && rm /mnt/a && fstrim /mnt")
        try bench.run("umount /mnt")
        let fsck = try bench.run("e2fsck -fn \(disk.device)")
        #expect(fsck.contains("Pass 5"), "\(fsck)")
        // What was written is there after another mount, and is what was meant.
        try bench.run("mount -t ext4 -o ro \(disk.device) /mnt")
        let sums = try bench.run("sha256sum </mnt/d/b")
        #expect(try sums == TestKit.run("/bin/sh", ["-c", "seq 1 100000 | sha256sum"]).output)
        try bench.run("umount /mnt")
        let state = try bench.qmp("query-disk")
        #expect(state["failures"] == 0 && state["state"] == "ready", "\(state)")
        #expect(state["flushes"]?.integerValue ?? 0 > 0 && state["discards"]?.integerValue ?? 0 > 0, "\(state)")
        try bench.end()
    }

    @Test(arguments: disks)
    func `the driver unbinds and binds again under load, and the disk works afterwards`(_ disk: Disk) throws {
        let bench = try Bench(disk)
        let address = "0000:01:00.0"
        let folder = "/sys/bus/pci/drivers/\(disk.driver)"
        for _ in 0..<3 {
            // The check ends with errors of the device that goes away under it; which one is not ours to say.
            try bench.run("iocheck \(disk.device) 100000000 4 >/tmp/check 2>&1 & usleep 300000; true")
            try bench.run("echo \(address) >\(folder)/unbind; wait; [ ! -b \(disk.device) ]")
            #expect(!(try bench.run("cat /tmp/check")).contains("not what was written"))
            try bench.run("echo \(address) >\(folder)/bind")
            try bench.waitForDevice(disk)
            #expect(try bench.run("iocheck \(disk.device) 200").contains("all as written"))
        }
        try bench.end()
    }

    /// Debian builds its kernel for riscv64 without pciehp: a shell does what that does, it takes the device away and looks
    /// for new ones. NVMe's card is pulled out first, as by surprise. virtio_blk waits for its requests without end when
    /// its device vanishes (Linux's own weakness, on any machine), so its device is taken away first.
    @Test(arguments: disks)
    func `a disk taken away under load gives errors and no hang, and one plugged in again works`(_ disk: Disk) throws {
        let bench = try Bench(disk)
        try bench.run("iocheck \(disk.device) 100000000 4 >/tmp/check 2>&1 & usleep 300000; true")
        let isSurprise = disk.interface == "nvme"
        if isSurprise { try bench.hostQMP("device_del", ["id": "card0", "surprise": true]) }
        try bench.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/remove")
        try bench.run("wait; true")
        if !isSurprise { try bench.hostQMP("device_del", ["id": "card0", "surprise": true]) }
        let check = try bench.run("cat /tmp/check")
        #expect(check.contains("FAILED") && !check.contains("not what"), "\(check)")
        try bench.waitForDevice(disk, isThere: false)
        #expect(eventually { (try? bench.qmp("query-disk")["host-connected"]) == false })
        try bench.hostQMP(
            "device_add", ["bus": "rp0", "path": .string(bench.folder.file("offload-card.pcie-disk"))])
        try bench.run("echo 1 >/sys/bus/pci/rescan")
        try bench.waitForDevice(disk)
        #expect(try bench.run("iocheck \(disk.device) 200").contains("all as written"))
        try bench.end()
    }

    @Test func `a medium that fails gives I/O errors where it was told to, and works again when that is over`() throws {
        let disk = Self.disks[0]
        let bench = try Bench(disk)
        _ = try bench.qmp(
            "disk-inject-fault",
            ["effect": "error", "operations": ["read"], "offset": .integer(8 << 20), "length": 4096])
        let read = "dd if=\(disk.device) of=/dev/null bs=4096 count=1 iflag=direct skip="
        #expect(try bench.console.run(read + "2047 2>&1").status == 0)
        let (status, output) = try bench.console.run(read + "2048 2>&1")
        // ENODATA: what Linux makes of an NVMe medium error.
        #expect(status != 0 && output.contains("No data available"), "\(output)")
        #expect(try bench.console.run(read + "2049 2>&1").status == 0)
        _ = try bench.qmp("disk-clear-faults")
        #expect(try bench.console.run(read + "2048 2>&1").status == 0)
        // A temperature beyond the threshold is in the health log; the driver goes on.
        _ = try bench.qmp("disk-set-temperature", ["kelvin": 360])
        #expect(try bench.run("iocheck \(disk.device) 200").contains("all as written"))
        // The controller fails: the driver resets it and goes on by itself.
        let resets = try bench.qmp("query-disk")["resets"]?.integerValue ?? 0
        _ = try bench.qmp("disk-fail", ["reason": "a test"])
        #expect(try bench.console.run("iocheck \(disk.device) 200").output.contains("iocheck:"))
        #expect(
            eventually(within: .seconds(60)) {
                let state = try? bench.qmp("query-disk")
                return state?["state"] == "ready" && state?["resets"]?.integerValue ?? 0 > resets
            })
        #expect(try bench.run("iocheck \(disk.device) 200").contains("all as written"))
        try bench.console.type("poweroff")
        #expect(bench.host.process.waitForExit(within: .seconds(60)) == 0)
    }

    /// 1000 resets with BASEBOARD_LONG=1, by hand or at night; some at every run.
    private static var resetCount: Int { ProcessInfo.processInfo.environment["BASEBOARD_LONG"] == nil ? 40 : 1000 }

    @Test func `controller resets under load lose nothing, and function level resets bring back a disk that works`()
        throws
    {
        let disk = Self.disks[0]
        let bench = try Bench(disk)
        let before = try bench.qmp("query-disk")["resets"]?.integerValue ?? 0
        // The driver sends again what a reset took away: the check goes on over all of them.
        try bench.run("iocheck \(disk.device) 100000000 4 >/tmp/check 2>&1 & true")
        let loop =
            "i=0; while [ $i -lt \(Self.resetCount) ]; do echo 1 >/sys/class/nvme/nvme0/reset_controller "
            + "|| exit 1; i=$((i+1)); done"
        try bench.run("(\(loop))")
        let after = try bench.qmp("query-disk")["resets"]?.integerValue ?? 0
        #expect(after - before >= Int64(Self.resetCount), "\(after - before)")
        try bench.run("killall iocheck; wait; true")
        #expect(!(try bench.run("cat /tmp/check")).contains("iocheck: block"))
        #expect(try bench.run("iocheck \(disk.device) 500").contains("all as written"))

        let address = "/sys/bus/pci/devices/0000:01:00.0"
        #expect(try bench.run("cat \(address)/reset_method").contains("flr"))
        try bench.run(
            "(i=0; while [ $i -lt \(Self.resetCount) ]; do echo 1 >\(address)/reset || exit 1; i=$((i+1)); done)")
        #expect(try bench.run("iocheck \(disk.device) 500").contains("all as written"))
        try bench.end()
    }
}
