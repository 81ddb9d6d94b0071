import Machine
import RISCV
import Synchronization
import TestKit
import Testing
import Wire

extension MemoryMappedDevice {
    /// A word register's value; a fault fails the test.
    func word(_ offset: UInt64, sourceLocation: SourceLocation = #_sourceLocation) -> UInt32 {
        guard let value = read(offset: offset, width: .word) else {
            Issue.record("read of 0x\(String(offset, radix: 16)) faulted", sourceLocation: sourceLocation)
            return 0
        }
        return UInt32(truncatingIfNeeded: value)
    }

    /// Writes a word register; a fault fails the test.
    func set(_ offset: UInt64, _ value: UInt32, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(write(offset: offset, width: .word, value: UInt64(value)), sourceLocation: sourceLocation)
    }

    /// A byte register's value; a fault fails the test.
    func byte(_ offset: UInt64, sourceLocation: SourceLocation = #_sourceLocation) -> UInt8 {
        guard let value = read(offset: offset, width: .byte) else {
            Issue.record("read of 0x\(String(offset, radix: 16)) faulted", sourceLocation: sourceLocation)
            return 0
        }
        return UInt8(truncatingIfNeeded: value)
    }

    /// Writes a byte register; a fault fails the test.
    func put(_ offset: UInt64, _ value: UInt8, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(write(offset: offset, width: .byte, value: UInt64(value)), sourceLocation: sourceLocation)
    }
}

/// A controller that only remembers the levels of its wires.
final class WireBoard: PlatformInterruptController {
    private let levels = Mutex<[Int: Bool]>([:])

    func set(source: Int, asserted: Bool) { levels.withLock { $0[source] = asserted } }

    func isAsserted(_ source: Int) -> Bool { levels.withLock { $0[source] ?? false } }
}

/// An event loop on a thread of its own, ended with the object.
final class LoopThread: Sendable {
    let loop: EventLoop
    private let thread: WorkerThread

    init() throws {
        let loop = try EventLoop()
        self.loop = loop
        thread = WorkerThread("test-loop") { loop.run() }
    }

    deinit {
        loop.stop()
        thread.join()
    }
}

/// Waits for a condition; a missed deadline fails the test.
func expectEventually(
    within limit: Duration = .seconds(20), sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: () -> Bool
) {
    let holds = eventually(within: limit, condition)
    #expect(holds, "not within \(limit)", sourceLocation: sourceLocation)
}

/// Values that callbacks brought, in order.
final class Collected<Element: Sendable>: Sendable {
    private let values = Mutex<[Element]>([])

    func append(_ value: Element) { values.withLock { $0.append(value) } }

    var all: [Element] { values.withLock { $0 } }
}
