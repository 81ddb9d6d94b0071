import FoundationEssentials
import Testing
import TestKit
import Wire

struct WorkerThreadTests {
    /// This process's address space in KiB.
    private static func addressSpace() -> Int {
        let text = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmSize:") }
        return line.flatMap { Int($0.filter(\.isNumber)) } ?? 0
    }

    /// In a process of its own: a stack is 8 MiB of address space, so a thousand of them show.
    @Test func `threads that nobody joins take their stacks with them`() async {
        await #expect(processExitsWith: .success) {
            let before = Self.addressSpace()
            let (near, far) = try Socket.pair()
            for _ in 0..<1000 {
                WorkerThread("short") { try? far.send([1] as [UInt8]) }
                #expect(try near.receiveBytes(limit: 1, until: .after(.seconds(10))) == [1])
            }
            #expect(before > 0 && Self.addressSpace() < before + 1 << 20)
        }
    }
}
