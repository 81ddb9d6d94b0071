import FoundationEssentials
import QMP
import Wire

/// Whole boards, started as a user starts them.
enum BoardBench {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// The folder of this executable, where the others are.
    static let folder: String = {
        let path = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
    }()

    private static func baseboard(_ arguments: [String], folder runtime: String) throws -> String {
        let result = try Command.run(
            folder + "/baseboard", arguments, environment: ["BASEBOARD_RUNTIME_DIR": runtime])
        guard result.status == 0 else {
            throw Failure(description: "baseboard \(arguments.joined(separator: " ")): \(result.output)")
        }
        return result.output
    }

    /// Runs `body` beside a whole idle board of topology/server.yaml.
    private static func withBoard<Result>(_ body: (_ runtime: String, _ upTime: Duration) throws -> Result) throws
        -> Result
    {
        let runtime = "/tmp/bb-bench-\(MonotonicTime.now.nanoseconds)"
        defer { try? FileManager.default.removeItem(atPath: runtime) }
        let start = MonotonicTime.now
        _ = try baseboard(["up", "-d", "topology/server.yaml"], folder: runtime)
        let upTime = MonotonicTime.now.since(start)
        defer { _ = try? baseboard(["down"], folder: runtime) }
        return try body(runtime, upTime)
    }

    /// From the start of `baseboard up -d` to its end, which is when the firmware's table is on the console.
    static func boot() throws -> [BenchRow] {
        var times: [Double] = []
        var spawns: [Double] = []
        for round in 0..<6 {
            let time = try withBoard { _, upTime in Double(upTime.clampedNanoseconds) / 1e6 }
            let start = MonotonicTime.now
            for _ in 0..<7 { _ = try Command.run(folder + "/flash", ["--help"]) }
            let spawn = Double(MonotonicTime.now.since(start).clampedNanoseconds) / 1e6
            // The first round warms the caches.
            if round > 0 {
                times.append(time)
                spawns.append(spawn)
            }
        }
        return [
            .bounded(
                "boot: up to firmware table", median(times), "ms", reference: "starting 7 processes that print --help",
                median(spawns), .lower, than: 500)
        ]
    }

    /// Resident memory of all processes of an idle board, the guest's RAM apart.
    static func memory() throws -> [BenchRow] {
        try withBoard { runtime, _ in
            guard let board = JSONValue(parsing: try baseboard(["ps", "--json"], folder: runtime)) else {
                throw Failure(description: "ps --json printed no JSON")
            }
            var pids: [Int64] = []
            func collect(_ value: JSONValue) {
                for key in ["pid", "supervisor"] { if let pid = value[key]?.integerValue { pids.append(pid) } }
                value.objectValue?.values.forEach(collect)
                value.arrayValue?.forEach(collect)
            }
            collect(board)
            let unique = Set(pids)
            guard unique.count >= 6 else { throw Failure(description: "ps --json named \(unique.count) processes") }
            var (resident, shared) = (0.0, 0.0)
            for pid in unique {
                let memory = try memoryMiB(pid)
                resident += memory.resident
                shared += memory.proportional
            }
            return [
                .bounded(
                    "memory: whole idle board", resident, "MiB",
                    reference: "the same, what \(unique.count) processes share counted once", shared, .lower, than: 150)
            ]
        }
    }

    /// From the end of a component to the launcher's report of it.
    static func death() throws -> [BenchRow] {
        var (reports, waits): ([Double], [Double]) = ([], [])
        for _ in 0..<5 {
            let report = try withBoard { runtime, _ in
                guard let board = JSONValue(parsing: try baseboard(["ps", "--json"], folder: runtime))?[0],
                    let card = board["components"]?.arrayValue?.first(where: { $0["name"] == "offload0" }),
                    let pid = card["pid"]?.integerValue, let supervisor = board["supervisor"]?.integerValue
                else { throw Failure(description: "ps --json named no offload0") }
                let ended = try ProcessIdentifier.endDescriptor(of: Int32(supervisor))
                let start = MonotonicTime.now
                ProcessIdentifier.signal(Int32(pid), 9)
                // The supervisor reports, stops the rest, and ends.
                try waitForEnd(ended)
                for line in try baseboard(["timeline", "--json"], folder: runtime).split(separator: "\n") {
                    guard let entry = JSONValue(parsing: String(line)), entry["event"] == "COMPONENT_ENDED",
                        entry["data"]?["name"] == "offload0", let time = entry["monotonic"]?.integerValue
                    else { continue }
                    return Double(time) - Double(start.nanoseconds)
                }
                throw Failure(description: "the timeline tells no death of offload0")
            }
            reports.append(report / 1e6)
            let null = try Descriptor.open("/dev/null", flags: 2)
            let sleeper = try ChildProcess("/bin/sleep", ["100"], environment: [], descriptors: [null, null, null])
            let ended = try sleeper.exitDescriptor()
            let start = MonotonicTime.now
            sleeper.signal(9)
            try waitForEnd(ended)
            waits.append(Double(MonotonicTime.now.since(start).clampedNanoseconds) / 1e6)
            _ = sleeper.wait()
        }
        return [
            .bounded(
                "death: kill to report", median(reports), "ms", reference: "kill to wake of a sleep's parent",
                median(waits), .lower, than: 100)
        ]
    }

    private static func waitForEnd(_ descriptor: Descriptor) throws {
        let loop = try EventLoop()
        try loop.add(descriptor) { _ in loop.stop() }
        loop.run()
    }

    /// A file of /proc, which has no size to be read by.
    static func wholeText(_ path: String) throws -> String {
        let descriptor = try Descriptor.open(path, flags: 0)
        var bytes: [UInt8] = []
        while let some = try descriptor.readSome(limit: 65_536, subject: path), !some.isEmpty { bytes += some }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Resident memory (Rss) and its share (Pss) in MiB, without the pages of guest RAM, which are the memfd `ram`.
    private static func memoryMiB(_ pid: Int64) throws -> (resident: Double, proportional: Double) {
        var inRAM = false
        var (resident, proportional) = (0.0, 0.0)
        for line in try wholeText("/proc/\(pid)/smaps").split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard let first = words.first else { continue }
            if !first.hasSuffix(":") {
                inRAM = line.contains("/memfd:ram")
            } else if !inRAM, words.count > 1, let kibibytes = Double(words[1]) {
                if first == "Rss:" { resident += kibibytes }
                if first == "Pss:" { proportional += kibibytes }
            }
        }
        return (resident / 1024, proportional / 1024)
    }
}
