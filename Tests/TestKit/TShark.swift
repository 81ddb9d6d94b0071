internal import Foundation

/// Writes `capture` to a file, has tshark read it, and returns the tab-separated fields of each packet: a check of our
/// bytes by a program that is not ours. `options` go to tshark as they are.
public func tshark(_ capture: [UInt8], fields: [String], options: [String] = []) throws -> [[String]] {
    let folder = TemporaryFolder()
    let path = folder.file("x.pcapng")
    try Data(capture).write(to: URL(fileURLWithPath: path))
    let (status, output) = try run(
        "/bin/sh",
        ["-c", "exec /usr/bin/tshark \"$@\" 2>/dev/null", "tshark", "-r", path, "-T", "fields"]
            + fields.flatMap { ["-e", $0] } + options)
    guard status == 0 else { throw TSharkFailure(status: status) }
    return output.split(separator: "\n", omittingEmptySubsequences: true)
        .map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
}

/// tshark could not read a capture to its end.
public struct TSharkFailure: Error {
    public let status: Int32?
}
