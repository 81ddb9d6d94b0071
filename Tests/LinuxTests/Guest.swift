import FoundationEssentials
import QMP
import TestKit
import Testing
import Wire

/// What scripts/fetch-guest and scripts/fetch-opensbi put.
enum Guest {
    static let kernel = packageFolder + "/.build/guest/kernel"
    static let initramfs = packageFolder + "/.build/guest/initramfs"
    /// The same with the drivers of NVMe and virtio, ext4, its tools, and iocheck.
    static let deviceInitramfs = packageFolder + "/.build/guest/initramfs-devices"
    /// The first with the drivers of a BMC's interface and ipmitool; absent where they could not be built.
    static let ipmiInitramfs = packageFolder + "/.build/guest/initramfs-ipmi"
    static let uBoot = packageFolder + "/.build/guest/u-boot.bin"
    static let openSBI = packageFolder + "/.build/firmware/fw_dynamic.bin"

    /// Whether all of it is there.
    static let isFetched = [kernel, initramfs, deviceInitramfs, uBoot, openSBI].allSatisfy {
        FileManager.default.fileExists(atPath: $0)
    }

    /// Waits until the shell asks for a command; what was printed before. (What is typed earlier, login throws away.)
    ///
    /// - Parameter keepingMessages: whether the kernel's messages shall go on to come on the console, in the middle of what
    ///   programs print; otherwise those of emergencies only.
    @discardableResult
    static func waitForShell(_ console: GuestConsole, keepingMessages: Bool = false) throws -> String {
        let boot = try console.wait(for: "Baseboard guest: ready\r\n", within: .seconds(180))
        try console.wait(for: "~ # ")
        if !keepingMessages { _ = try console.run("dmesg -n 1") }
        return boot
    }
}

/// A `host-cpu` alone, with a kernel and a console, and no flash.
final class LoneHost {
    let folder = TemporaryFolder()
    let process: RunningProcess
    let console: GuestConsole

    init(_ arguments: [String]) throws {
        process = try RunningProcess(
            binary("host-cpu"),
            [
                "--firmware", Guest.openSBI, "--listen", "console=\(folder.file("console"))",
                "--listen", "control=\(folder.file("control"))", "--die-with-parent",
            ] + arguments)
        console = try GuestConsole(folder.file("console"))
    }

    func qmp(_ command: String) throws -> JSONValue {
        try QMPClient(path: folder.file("control")).execute(command)
    }
}

/// What a Linux on any machine of ours must be able to do. `harts` is how many it has.
func exercise(_ console: GuestConsole, harts: Int) throws {
    let name = try console.run("uname -a").output
    #expect(name.hasPrefix("Linux ") && name.contains("Debian") && name.contains("riscv64"), "\(name)")
    let processors = try console.run("cat /proc/cpuinfo").output
    #expect(processors.components(separatedBy: "processor\t:").count - 1 == harts, "\(processors)")
    for line in ["isa\t\t: rv64imafdc", "mmu\t\t: sv57"] {
        #expect(processors.components(separatedBy: line).count - 1 == harts, "\(processors)")
    }
    // The same sums here and there, digit by digit: integers by sha256sum, doubles by awk in user space.
    let sums = "seq 1 20000 | sha256sum; seq 1 20000 | md5sum"
    let here = try run("/bin/sh", ["-c", sums]).output
    #expect(try console.run(sums).output == here)
    try compareArithmetic(console)
}

private func compareArithmetic(_ console: GuestConsole) throws {
    var (sum, product, root) = (0.0, 1.0, 1.0)
    for number in 1...5000 {
        sum += 1 / Double(number)
        product = product * 1.000_1 - Double(number % 7) / 1000
        root = (root + 2 / root) / 2
    }
    let program = """
        BEGIN { p = 1; r = 1; for (k = 1; k <= 5000; k++) { s += 1 / k; p = p * 1.0001 - (k % 7) / 1000; \
        r = (r + 2 / r) / 2 }; printf "%.17g %.17g %.17g %.17g\\n", s, p, r, int(s * 1e15) }
        """
    let (status, output) = try console.run("awk '\(program)'")
    #expect(status == 0)
    let values = output.split(separator: " ").map { Double($0.filter { !$0.isWhitespace }) }
    #expect(values == [sum, product, root, (sum * 1e15).rounded(.towardZero)], "\(output)")
}
