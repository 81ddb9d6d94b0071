import FoundationEssentials
import Wire

/// Runs a program to its end and keeps what it printed.
enum Command {
    static func run(_ path: String, _ arguments: [String], environment: [String: String] = [:]) throws -> (
        status: Int32, output: String
    ) {
        let outputPath = "/tmp/bb-bench-out-\(MonotonicTime.now.nanoseconds)"
        // 0x241: O_WRONLY | O_CREAT | O_TRUNC.
        let output = try Descriptor.open(outputPath, flags: 0x241)
        defer { try? FileManager.default.removeItem(atPath: outputPath) }
        let input = try Descriptor.open("/dev/null", flags: 0)
        var variables = ProcessInfo.processInfo.environment
        variables.merge(environment) { _, new in new }
        let child = try ChildProcess(
            path, arguments, environment: variables.map { ($0.key, $0.value) }, descriptors: [input, output, output])
        let exit = child.wait()
        let text = (try? String(contentsOfFile: outputPath, encoding: .utf8)) ?? ""
        guard case .code(let code) = exit else { return (-1, text + (exit?.description ?? "")) }
        return (code, text)
    }
}
