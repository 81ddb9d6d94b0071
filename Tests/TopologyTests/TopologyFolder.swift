import Glibc
import Topology

/// A folder of topologies for one test; removed with its last user.
final class TopologyFolder {
    let path: String

    init() {
        var template = Array("/tmp/bbtopo-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        if let folder = opendir(path) {
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != ".", name != ".." { Self.remove("\(path)/\(name)") }
            }
            closedir(folder)
        }
        _ = Glibc.remove(path)
    }

    func write(_ name: String, _ text: String) { write(name, Array(text.utf8)) }

    func write(_ name: String, _ bytes: [UInt8]) {
        let file = fopen("\(path)/\(name)", "w")!
        _ = bytes.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) }
        fclose(file)
    }

    /// What reading `name` reports, with the folder's path taken out; empty for a board without mistakes.
    func mistakes(_ name: String = "board.yaml", overrides: [String] = []) -> [String] {
        do throws(TopologyError) {
            _ = try TopologyReader.read("\(path)/\(name)", overrides: overrides)
            return []
        } catch {
            return error.diagnostics.map { relative("\($0.position.description): \($0.message)") }
        }
    }

    func relative(_ text: String) -> String {
        text.split(separator: "\(path)/", omittingEmptySubsequences: false).joined()
    }

    func board(_ name: String = "board.yaml", overrides: [String] = []) throws -> Board {
        try TopologyReader.read("\(path)/\(name)", overrides: overrides)
    }
}
