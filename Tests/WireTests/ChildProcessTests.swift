import TestKit
import Testing
import Wire

@Suite struct ChildProcessTests {
    @Test func `descriptors land in order whatever their numbers were, and nothing else is passed`() throws {
        let folder = TemporaryFolder()
        let files = try (0..<6).map { try Descriptor.open(folder.file("f\($0)"), flags: 0x242) }
        let null = try Descriptor.open("/dev/null", flags: 2)
        let child = try ChildProcess(
            "/bin/sh", ["-c", "for n in 3 4 5 6 7 8; do echo \"$WORD$n\" >&$n; done; ls /proc/self/fd | wc -l >&3"],
            environment: [("WORD", "place "), ("PATH", "/bin:/usr/bin")], descriptors: [null, null, null] + files)
        #expect(child.wait() == .code(0))
        for (index, file) in files.enumerated() {
            let bytes = try Descriptor.open(folder.file("f\(index)"), flags: 0).readSome(limit: 100)
            let text = String(decoding: bytes ?? [], as: UTF8.self)
            #expect(text.hasPrefix("place \(index + 3)\n"))
            // Nine descriptors and the one that ls opened.
            if index == 0 { #expect(text.hasSuffix("\n10\n")) }
            _ = file
        }
    }

    @Test func `the end is told by descriptor, code and signal`() throws {
        let null = try Descriptor.open("/dev/null", flags: 2)
        let child = try ChildProcess("/bin/sleep", ["100"], environment: [], descriptors: [null, null, null])
        let ended = try child.exitDescriptor()
        #expect(child.wait(waiting: false) == nil)
        child.signal(15)
        let loop = try EventLoop()
        try loop.add(ended) { _ in loop.stop() }
        loop.run()
        let exit = try #require(child.wait())
        #expect(exit == .signal(15))
        #expect(exit.description == "killed by signal 15 (Terminated)")
    }

    @Test func `a missing program is one clear error`() throws {
        let null = try Descriptor.open("/dev/null", flags: 2)
        do throws(WireError) {
            _ = try ChildProcess("/nowhere/flash", [], environment: [], descriptors: [null])
            Issue.record("started nothing")
        } catch { #expect(error.description == "/nowhere/flash: posix_spawn: No such file or directory") }
    }
}
