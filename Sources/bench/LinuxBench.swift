import FoundationEssentials
import Glibc
import Wire

/// Debian's unmodified kernel on host-cpu beside QEMU (TCG): one hart, the same firmware, kernel, initramfs and command
/// line, a PLIC (the AIA of QEMU 7.2 loses this kernel's UART interrupts). Runs alternate, so that both meet the same
/// machine.
enum LinuxBench {
    /// What scripts/guest/init prints before anything else, and when the shell is about to come.
    private static let firstLine = "Baseboard guest: user space runs"
    private static let ready = "Baseboard guest: ready"
    private static let firmware = ".build/firmware/fw_dynamic.bin"
    private static let kernel = ".build/guest/kernel"
    private static let initramfs = ".build/guest/initramfs"
    private static let commandLine = "console=ttyS0"
    /// Ticks of /proc/PID/stat a second; Linux shows 100 to every program (USER_HZ).
    private static let ticksASecond = 100.0

    private enum Emulator: String, CaseIterable {
        case ours = "host-cpu"
        case theirs = "qemu-system-riscv64"

        func command(console: String) -> (path: String, arguments: [String]) {
            switch self {
            case .ours:
                (
                    BoardBench.folder + "/host-cpu",
                    [
                        "--memory", "512MiB", "--interrupts", "plic", "--firmware", firmware, "--kernel", kernel,
                        "--initrd", initramfs, "--boot-arguments", commandLine, "--listen", "console=" + console,
                    ]
                )
            case .theirs:
                (
                    "/usr/bin/qemu-system-riscv64",
                    [
                        "-M", "virt", "-m", "512M", "-display", "none", "-monitor", "none", "-net", "none", "-bios",
                        firmware, "-kernel", kernel, "-initrd", initramfs, "-append", commandLine, "-chardev",
                        "socket,id=console,server=on,wait=off,path=" + console, "-serial", "chardev:console",
                    ]
                )
            }
        }
    }

    /// A guest from power-on to its end.
    private final class Guest {
        let start: MonotonicTime
        let process: ChildProcess
        private let path: String
        private let console: Socket
        private var text = ""

        init(_ emulator: Emulator) throws {
            path = "/tmp/bb-bench-\(MonotonicTime.now.nanoseconds).sock"
            let null = try Descriptor.open("/dev/null", flags: 2)
            let (program, arguments) = emulator.command(console: path)
            start = .now
            process = try ChildProcess(program, arguments, environment: [], descriptors: [null, null, null])
            var socket: Socket?
            while socket == nil {
                socket = try? Socket.connect(to: path)
                guard socket != nil || MonotonicTime.now.since(start) < .seconds(10) else {
                    process.signal(9)
                    throw BoardBench.Failure(description: "\(program) opened no console")
                }
                if socket == nil { usleep(500) }
            }
            console = socket!
        }

        /// From the start until `mark` is on the console, in milliseconds.
        func time(until mark: String) throws -> Double {
            let deadline = MonotonicTime.after(.seconds(60))
            while !text.contains(mark) {
                guard let some = try console.receiveBytes(limit: 65_536, until: deadline), !some.isEmpty else {
                    throw BoardBench.Failure(description: "the console ended before '\(mark)': \(text.suffix(500))")
                }
                text += String(decoding: some, as: UTF8.self)
            }
            return Double(MonotonicTime.now.since(start).clampedNanoseconds) / 1e6
        }

        /// Percent of a core over `seconds`.
        func load(over seconds: UInt32) throws -> Double {
            let before = try processorTicks()
            let begin = MonotonicTime.now
            sleep(seconds)
            let elapsed = Double(MonotonicTime.now.since(begin).clampedNanoseconds) / 1e9
            return (try processorTicks() - before) / ticksASecond / elapsed * 100
        }

        private func processorTicks() throws -> Double {
            let text = try BoardBench.wholeText("/proc/\(process.pid)/stat")
            // After the name in parentheses: state is field 3, utime and stime are 14 and 15.
            let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
            guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else {
                throw BoardBench.Failure(description: "/proc/\(process.pid)/stat cannot be read")
            }
            return user + system
        }

        func end() {
            process.signal(9)
            _ = process.wait()
            try? FileManager.default.removeItem(atPath: path)
        }
    }

    static func measure() throws -> [BenchRow] {
        var boots: [Emulator: [Double]] = [:]
        var idle: [Emulator: Double] = [:]
        for round in 0..<5 {
            for emulator in Emulator.allCases {
                let guest = try Guest(emulator)
                defer { guest.end() }
                boots[emulator, default: []].append(try guest.time(until: firstLine))
                if round == 0 {
                    _ = try guest.time(until: ready)
                    // The shell starts, and late kernel work ends.
                    _ = try guest.load(over: 3)
                    idle[emulator] = try guest.load(over: 10)
                }
            }
        }
        let version = try Command.run("/usr/bin/qemu-system-riscv64", ["--version"]).output
            .split(separator: " ").first { $0.first?.isNumber == true }
        let peer = "QEMU \(version ?? "") (TCG)"
        return [
            .ratio(
                "linux: power-on to initramfs", median(boots[.ours] ?? []), "ms", reference: peer,
                median(boots[.theirs] ?? []), .lower, than: 1),
            .bounded(
                "linux: idle guest", idle[.ours] ?? .nan, "% core", reference: peer, idle[.theirs] ?? .nan, .lower,
                than: 2),
        ]
    }
}
