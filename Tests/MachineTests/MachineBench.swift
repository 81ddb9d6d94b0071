import LPC
import Machine
import RISCV
import Synchronization
import Testing
import Wire

/// A flash whose content is an array; reads beyond it are erased bytes.
final class ArrayFlash: FlashReader {
    private let content: Mutex<[UInt8]>
    /// Read calls so far.
    let reads = Atomic<Int>(0)
    /// Makes the next reads fail.
    let isBroken = Atomic<Bool>(false)

    struct Broken: Error, CustomStringConvertible {
        var description: String { "the test's flash is broken" }
    }

    init(_ content: [UInt8]) { self.content = Mutex(content) }

    func replace(_ content: [UInt8]) { self.content.withLock { $0 = content } }

    func read(offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
        reads.add(1, ordering: .relaxed)
        if isBroken.load(ordering: .relaxed) { throw Broken() }
        content.withLock { content in
            for index in 0..<buffer.count {
                let position = Int(offset) + index
                buffer[index] = position < content.count ? content[position] : 0xFF
            }
        }
    }
}

/// A machine with what a test needs around it: loop, flash, collected output and events.
final class MachineBench: Sendable {
    let flash: ArrayFlash
    let machine: Machine
    let events = Collected<MachineEvent>()
    private let thread: LoopThread
    private let output = Mutex<[UInt8]>([])

    init(
        _ program: [UInt8], _ configuration: MachineConfiguration = MachineConfiguration(memorySize: 64 << 20),
        root: (PCIePorts) throws -> (any PCIeRootComplex)? = { _ in nil }, lpc: Socket? = nil
    ) throws {
        let thread = try LoopThread()
        self.thread = thread
        flash = ArrayFlash(program)
        let events = events
        machine = try Machine(
            configuration, flash: flash, loop: thread.loop, root: root,
            lpc: { onInterrupt in
                try lpc.map { socket in
                    let host = LPCHost(
                        socket: socket, loop: thread.loop, patience: .seconds(20), report: { _ in },
                        onInterrupt: onInterrupt)
                    try host.start()
                    return host
                }
            },
            onEvent: { events.append($0) })
    }

    /// Everything printed so far.
    var text: String {
        output.withLock { output in
            output += machine.uart.takeOutput()
            return String(decoding: output, as: UTF8.self)
        }
    }

    /// Runs until `condition` holds, then stops the harts.
    func run(
        within duration: Duration = .seconds(20), sourceLocation: SourceLocation = #_sourceLocation,
        until condition: () -> Bool
    ) {
        machine.releaseReset()
        expectEventually(within: duration, sourceLocation: sourceLocation, condition)
    }

    func stop() { machine.powerOff() }
}
