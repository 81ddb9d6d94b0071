// A card's disk: file system, random reads and writes whose content is checked, the driver taken off and put on again.

import Wire

struct DiskPart {
    let guest: Guest
    let function: CardFunction
    let report: Report
    let driver: String
    /// How Linux names it under the function's folder, for the shell.
    let pattern: String
    let isLong: Bool

    private var slot: String { function.slot }

    /// Reads and writes until it is stopped or the disk goes away.
    static func load(_ disk: String) -> String {
        "fio --name=load --filename=\(disk) --rw=randrw --bs=4k --iodepth=32 --ioengine=libaio --direct=1 --time_based "
            + "--runtime=600"
    }

    func run() {
        report.step(slot, "the driver \(driver) binds") {
            let disk = try disk()
            let sectors = try guest.run("cat /sys/class/block/\(disk)/size")
            return "\(disk), \((Int(sectors) ?? 0) / 2048) MiB"
        }
        report.step(slot, "ext4: made, written, checked by e2fsck and read again") { try fileSystem() }
        for (size, volume) in [("4k", isLong ? 48 : 12), ("128k", 48)] {
            report.step(slot, "fio: random writes of \(size), each read again and compared") {
                try verify(size, volume)
            }
        }
        report.step(slot, "fio: mixed random reads and writes by two threads, compared") { try mixed() }
        let times = isLong ? 100 : 5
        report.step(slot, "driver unbound and bound \(times) times, the content stays") { try rebind(times) }
    }

    /// The block device's name, such as nvme0n1, once it is there.
    func disk() throws -> String {
        let folder = "/sys/bus/pci/devices/\(try guest.address(slot))"
        return try guest.eventually("basename $(ls -d \(folder)/\(pattern)) | grep .")
    }

    /// The disk can be read, and written again with what it holds.
    func check() throws {
        let disk = "/dev/\(try disk())"
        try guest.run(
            "dd if=\(disk) of=/tmp/piece bs=64k count=16 2>/dev/null && dd if=/tmp/piece of=\(disk) conv=fsync 2>/dev/null "
                + "&& dd if=\(disk) bs=64k count=16 iflag=direct 2>/dev/null | cmp - /tmp/piece")
    }

    private func fileSystem() throws -> String {
        let disk = "/dev/\(try disk())"
        try guest.run("mkfs.ext4 -q -F \(disk)", within: .seconds(120))
        try guest.run("mkdir -p /mnt && mount -t ext4 \(disk) /mnt")
        try guest.run(
            "cp -r /lib /mnt && dd if=/dev/urandom of=/mnt/random bs=64k count=64 2>/dev/null && cd /mnt "
                + "&& find . -type f -exec sha256sum {} + >/tmp/sums", within: .seconds(300))
        try guest.run("umount /mnt && e2fsck -fn \(disk)", within: .seconds(120))
        try guest.run(
            "mount -t ext4 -o ro \(disk) /mnt && cd /mnt && sha256sum -c /tmp/sums >/tmp/check", within: .seconds(300))
        let count = try guest.run("umount /mnt; grep -c OK /tmp/check")
        return "\(count) files"
    }

    private func verify(_ size: String, _ megabytes: Int) throws -> String {
        let disk = "/dev/\(try disk())"
        let text = try guest.run(
            "fio --name=v --filename=\(disk) --rw=randwrite --bs=\(size) --size=\(megabytes)M --iodepth=32 "
                + "--ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --minimal", within: .seconds(600))
        return Self.figures(text)
    }

    private func mixed() throws -> String {
        let disk = "/dev/\(try disk())"
        let text = try guest.run(
            "fio --name=m --filename=\(disk) --rw=randrw --bsrange=512-64k --bs_unaligned=0 --blockalign=512 --size=8M "
                + "--offset_increment=16M --numjobs=2 --iodepth=8 --ioengine=libaio --direct=1 --verify=sha256 "
                + "--verify_fatal=1 --serialize_overlap=1 --group_reporting --minimal", within: .seconds(600))
        return Self.figures(text)
    }

    private func rebind(_ times: Int) throws -> String {
        let address = try guest.address(slot)
        try guest.run("dd if=/dev/urandom of=/dev/\(try disk()) bs=64k count=16 conv=fsync 2>/dev/null")
        let before = try guest.run("dd if=/dev/\(try disk()) bs=64k count=16 2>/dev/null | sha256sum")
        for _ in 0..<times {
            try guest.run("echo \(address) >/sys/bus/pci/drivers/\(driver)/unbind")
            try guest.run("echo \(address) >/sys/bus/pci/drivers/\(driver)/bind")
            _ = try disk()
        }
        let after = try guest.run("dd if=/dev/\(try disk()) bs=64k count=16 2>/dev/null | sha256sum")
        guard before == after else { throw Failure("\(before) became \(after)") }
        return ""
    }

    /// Reads and writes a second, of fio's terse output, version 3.
    private static func figures(_ terse: String) -> String {
        let fields = (terse.split(separator: "\n").last ?? "").split(separator: ";", omittingEmptySubsequences: false)
        guard fields.count > 48 else { return "" }
        return "\(fields[7]) reads, \(fields[48]) writes a second"
    }
}
