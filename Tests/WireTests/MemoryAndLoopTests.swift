import Synchronization
import TestKit
import Testing
import Wire

@Suite struct SharedMemoryTests {
    @Test func `a file shorter than the mapping is refused, for an access beyond it would kill the process`() throws {
        let memory = try SharedMemory(create: "short", size: 4096)
        #expect(throws: WireError.outOfRange(offset: 0, count: 8192, limit: 4096)) {
            try MappedMemory(memory.descriptor, count: 8192)
        }
        #expect(throws: WireError.outOfRange(offset: .max, count: 4096, limit: 4096)) {
            try MappedMemory(memory.descriptor, offset: .max, count: 4096)
        }
        #expect(memory.descriptor.isSealedAgainstShrinking)
    }

    @Test(arguments: [
        (0, 4096, true), (4095, 1, true), (4096, 0, true), (4096, 1, false), (UInt64.max, 1, false),
        (1, UInt64.max, false),
    ])
    func `bounds are checked without overflow`(offset: UInt64, count: UInt64, inside: Bool) throws {
        let memory = try SharedMemory(create: "bounds", size: 4096)
        #expect(memory.mapping.contains(offset: offset, count: count) == inside)
    }
}

@Suite struct EventLoopTests {
    @Test func `calls, timers and descriptors are served in one thread until it is stopped`() throws {
        let loop = try EventLoop()
        let notifier = try EventNotifier()
        let seen = Mutex<[String]>([])
        try loop.add(notifier.descriptor) { _ in
            notifier.drain()
            seen.withLock { $0.append("descriptor") }
            loop.schedule(at: .after(.milliseconds(1))) {
                seen.withLock { $0.append("timer") }
                loop.stop()
            }
        }
        let cancelled = loop.schedule(at: .now) { Issue.record("a cancelled timer fired") }
        loop.cancel(cancelled)
        loop.perform {
            seen.withLock { $0.append("call") }
            notifier.signal()
        }
        loop.run()
        #expect(seen.withLock { $0 } == ["call", "descriptor", "timer"])
    }

    @Test func `a removed descriptor is not called, and a new one of the same number is not mistaken for it`() throws {
        let loop = try EventLoop()
        let first = try EventNotifier()
        try loop.add(first.descriptor) { _ in Issue.record("called after removal") }
        loop.remove(first.descriptor)
        first.signal()
        loop.schedule(at: .after(.milliseconds(2))) { loop.stop() }
        loop.run()
    }
}

private final class Recorder: LinkObserver {
    let seen = Mutex<[[UInt8]]>([])
    let verdict: LinkVerdict
    init(_ verdict: LinkVerdict) { self.verdict = verdict }
    func message(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict {
        let copy = unsafe Array(bytes)
        seen.withLock { $0.append(copy) }
        return verdict
    }
}

@Suite struct LinkTapTests {
    @Test func `a tap costs nothing it can see until an observer is put in, and again after it is out`() {
        let tap = LinkTap()
        let recorder = Recorder(.drop)
        let message: [UInt8] = [1, 2]
        func inspect() -> LinkVerdict { unsafe message.withUnsafeBytes { unsafe tap.inspect($0, .sent) } }
        #expect(inspect() == .pass)
        tap.insert(recorder)
        #expect(inspect() == .drop)
        tap.remove(recorder)
        #expect(inspect() == .pass)
        #expect(recorder.seen.withLock { $0 } == [[1, 2]])
    }
}
