import Foundation
import TestKit

/// The `openssl` program: the foreign implementation that these tests compare with.
struct OpenSSLCommand {
    struct Failure: Error {
        let status: Int32
        let output: String
    }

    /// A folder of its own, removed by `remove()`.
    let folder: URL

    init() throws {
        folder = URL(fileURLWithPath: "/tmp/crypto-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    func remove() {
        try? FileManager.default.removeItem(at: folder)
    }

    func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

    func write(_ name: String, _ bytes: some Sequence<UInt8>) throws {
        try Data(bytes).write(to: folder.appendingPathComponent(name))
    }

    func read(_ name: String) throws -> [UInt8] {
        try Array(Data(contentsOf: folder.appendingPathComponent(name)))
    }

    /// Runs `openssl` with `arguments` in the folder; returns what it wrote to standard output.
    @discardableResult
    func callAsFunction(_ arguments: String...) throws -> String {
        let (status, text) = try run(
            "/bin/sh", ["-c", "cd \"$0\" && exec /usr/bin/openssl \"$@\" </dev/null", folder.path] + arguments)
        guard status == 0 else { throw Failure(status: status ?? -1, output: text) }
        return text
    }
}
