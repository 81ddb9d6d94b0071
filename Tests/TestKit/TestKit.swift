// What the tests of every room share: a folder to work in, binaries to run, seeds that repeat, conditions to wait for.
internal import Foundation
internal import Wire

/// A unique folder with a short path (a Unix socket's path holds 107 bytes), removed with everything in it.
public final class TemporaryFolder: Sendable {
    public let path: String

    public init() {
        path = "/tmp/bb-" + String(UInt64.random(in: 0...UInt64.max), radix: 36)
        try! FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// The path of a file in the folder.
    public func file(_ name: String) -> String { path + "/" + name }
}

/// The package's folder.
public let packageFolder: String = {
    // This file is Tests/TestKit/TestKit.swift.
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .path
}()

/// A built executable of the package: beside the test bundle that runs, so of the same build.
public func binary(_ name: String) -> String {
    if let folder = ProcessInfo.processInfo.environment["BASEBOARD_BIN_DIR"] { return folder + "/" + name }
    return URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent()
        .appendingPathComponent(name).path
}

/// A child process whose output is collected; killed when its last owner lets go.
///
/// Foundation's Process is not used: among many at once its dispatch sources crashed the test process now and then.
public final class RunningProcess: @unchecked Sendable {
    /// What the reading thread collects; it outlives the owner when a grandchild holds the pipe open.
    private final class Output: @unchecked Sendable {
        let lock = NSLock()
        var bytes: [UInt8] = []
        var hasEnded = false
    }

    private let child: ChildProcess
    private let output = Output()
    private let input: Descriptor
    private let lock = NSLock()
    private var exit: ChildProcess.Exit?

    /// Starts `path`. Both output streams are collected together.
    public init(_ path: String, _ arguments: [String], environment: [String: String] = [:]) throws {
        let (childInput, input) = try Self.pipe()
        let (reader, childOutput) = try Self.pipe()
        self.input = input
        let variables = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        child = try ChildProcess(
            path, arguments, environment: variables.map { ($0.key, $0.value) },
            descriptors: [childInput, childOutput, childOutput])
        Thread.detachNewThread { [output] in
            while let some = try? reader.readSome(limit: 65_536), !some.isEmpty {
                output.lock.withLock { output.bytes += some }
            }
            output.lock.withLock { output.hasEnded = true }
        }
    }

    deinit {
        guard isRunning else { return }
        child.signal(SIGKILL)
        _ = child.wait()
    }

    private static func pipe() throws -> (read: Descriptor, write: Descriptor) {
        var ends: [Int32] = [0, 0]
        guard pipe2(&ends, O_CLOEXEC) == 0 else { throw CocoaError(.fileReadUnknown) }
        return (Descriptor(adopting: ends[0]), Descriptor(adopting: ends[1]))
    }

    public var pid: Int32 { child.pid }

    public var isRunning: Bool {
        lock.withLock {
            if exit == nil { exit = child.wait(waiting: false) }
            return exit == nil
        }
    }

    /// What it printed so far.
    public var text: String { String(decoding: output.lock.withLock { output.bytes }, as: UTF8.self) }

    /// Writes to its standard input.
    public func type(_ text: String) { try? input.writeAll(Array(text.utf8)) }

    /// Waits until its output holds `text`; false when the deadline passes or it ends first.
    public func waitForOutput(_ wanted: String, within limit: Duration = .seconds(20)) -> Bool {
        eventually(within: limit) { text.contains(wanted) || !isRunning } && text.contains(wanted)
    }

    /// Waits for its end; its exit status, 128 + signal when killed, nil when it still runs at the deadline.
    public func waitForExit(within limit: Duration = .seconds(20)) -> Int32? {
        guard eventually(within: limit, { !isRunning }) else { return nil }
        // The last output may still be in the pipe; a grandchild may hold it open for longer than anyone cares.
        _ = eventually(within: .seconds(5)) { output.lock.withLock { output.hasEnded } }
        switch lock.withLock({ exit }) {
        case .code(let code): return code
        case .signal(let number): return 128 + number
        case nil: return nil
        }
    }

    /// Asks it to end.
    public func terminate() { signal(SIGTERM) }

    /// Sends it a signal, unless it has ended.
    public func signal(_ number: Int32) { if isRunning { child.signal(number) } }
}

/// Runs a program to its end; its exit status and its output. Fails the caller by throwing when it cannot start.
public func run(
    _ path: String, _ arguments: [String], environment: [String: String] = [:], within limit: Duration = .seconds(60)
) throws -> (status: Int32?, output: String) {
    let child = try RunningProcess(path, arguments, environment: environment)
    let status = child.waitForExit(within: limit)
    return (status, child.text)
}

/// Polls a condition until it holds; false when the deadline passes. Between two looks it yields the core for 1 ms:
/// for conditions that no descriptor tells.
public func eventually(within limit: Duration = .seconds(20), _ condition: () -> Bool) -> Bool {
    let deadline = MonotonicTime.after(limit)
    while !condition() {
        if MonotonicTime.now > deadline { return condition() }
        usleep(1000)
    }
    return true
}

/// The number of descriptors this process has open.
public func openDescriptorCount() -> Int {
    ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count ?? 1) - 1
}

/// A generator that repeats from its seed (SplitMix64). `fresh()` takes the seed from BASEBOARD_SEED when set; print
/// `seed` in every expectation it feeds.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    public let seed: UInt64
    private var state: UInt64

    public init(seed: UInt64) {
        self.seed = seed
        state = seed
    }

    /// A new seed each run, or the one in BASEBOARD_SEED.
    public static func fresh() -> SeededGenerator {
        let wanted = ProcessInfo.processInfo.environment["BASEBOARD_SEED"].flatMap { UInt64($0) }
        return SeededGenerator(seed: wanted ?? UInt64.random(in: 0...UInt64.max))
    }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// `count` random bytes.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) }
    }
}
