// Options for running a bare-metal program (--elf), and how such a run ends.

import ArgumentParser
import Component
import Glibc
import Logging
import Machine
import QMP
import RISCV
import Synchronization
import Wire

struct ProgramOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Run this bare-metal RV64 ELF file instead of the flash; the exit status is its result.",
            discussion: """
                Segments are loaded by physical address; every hart starts at the entry in M-mode with a0 = mhartid and a1 = \
                devicetree. The program ends by tohost (bit 0 set: the result is the value shifted right by one) or by the \
                test finisher. The exit status is the result's low byte (255 where that is 0): 0 means passed. What it prints by \
                HTIF or COM1 is on standard output.
                """, valueName: "file"))
    var elf: String?

    @Option(
        help: ArgumentHelp(
            "At the end write memory from begin_signature to end_signature, in hexadecimal.", valueName: "file"))
    var signature: String?

    @Option(help: ArgumentHelp("Bytes a line of the signature, 1 to 4096.", valueName: "bytes"))
    var signatureGranularity = 4

    @Option(
        help: ArgumentHelp("End a program after this time, as 10s or 500ms, with status 124.", valueName: "duration"),
        transform: { text in
            guard let duration = Duration(parsing: text), duration > .zero else {
                throw ValidationError("write a number and ns, us, ms, s or min")
            }
            return duration
        })
    var timeout: Duration?

    @Option(
        help: ArgumentHelp(
            "End a program when a hart retired or trapped so often, with status 124.", valueName: "count"))
    var instructions: UInt64?

    /// The status of a run that a limit ended, as timeout(1) has it.
    static let limitStatus: Int32 = 124

    /// The exit status of a program that ended by itself: the low byte, as exit(3) and so Spike take it, but never zero
    /// for a failure.
    static func status(result: UInt64) -> Int32 { result != 0 && result & 0xFF == 0 ? 255 : Int32(result & 0xFF) }

    /// The exit status after a failure by the test finisher, which is never zero.
    static func status(failure code: UInt16) -> Int32 { max(Int32(code & 0xFF), 1) }

    func validate() throws {
        if elf == nil {
            let needy = [
                ("--signature", signature != nil), ("--timeout", timeout != nil),
                ("--instructions", instructions != nil),
            ]
            if let option = needy.first(where: \.1)?.0 { throw ValidationError("\(option) needs --elf") }
        }
        guard 1...4096 ~= signatureGranularity else {
            throw ValidationError("--signature-granularity is 1 to 4096 bytes and not \(signatureGranularity)")
        }
    }

    /// The program to run, read and checked; `nil` without --elf.
    func program(memory: AddressRange, _ runtime: ComponentRuntime) throws -> Program? {
        guard let elf else { return nil }
        let image = try ELFImage(path: elf, memory: memory)
        if image.symbol("tohost") == nil && timeout == nil && instructions == nil {
            runtime.log.notice(
                "\(elf): has no symbol tohost: it ends by the test finisher only; --timeout and --instructions are limits"
            )
        }
        return Program(
            image: image, options: self,
            signature: try signature.map { path in
                let range = try image.signature(in: memory)
                return (range, path, try Descriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644))
            })
    }
}

/// A program of --elf and where its signature goes.
struct Program: Sendable {
    let image: ELFImage
    let options: ProgramOptions
    /// Opened before the run: a path that cannot be written is told at once.
    let signature: (range: Range<UInt64>, path: String, file: Descriptor)?

    private static let standardOutput = Descriptor(adopting: 1)
    private static let standardError = Descriptor(adopting: 2)

    /// To standard output. A reader that went away is no reason to end a test.
    @Sendable static func print(_ bytes: [UInt8]) { try? standardOutput.writeAll(bytes) }

    func boot(_ log: Logger) -> DirectBoot {
        DirectBoot(
            image: image, instructionLimit: options.instructions,
            print: { bytes, isError in
                if isError { try? Self.standardError.writeAll(bytes) } else { Self.print(bytes) }
            },
            report: { log.warning("\($0)") })
    }

    /// Writes the signature. The machine has stopped.
    func finish(_ machine: Machine) throws(WireError) {
        guard let (range, path, file) = signature else { return }
        let start = Int(range.lowerBound - MemoryMap.ramBase)
        let content = machine.memoryContent(start..<start + range.count)
        try file.writeAll(Signature.text(content, granularity: options.signatureGranularity), subject: path)
    }
}

/// How a run ends: the rest of its output, its signature, its exit status. On the event loop.
final class RunEnding: Sendable {
    private let program: Program?
    private let runtime: ComponentRuntime
    private let parts = Mutex<(machine: Machine, serial: SerialBridge)?>(nil)

    init(program: Program?, runtime: ComponentRuntime) {
        self.program = program
        self.runtime = runtime
    }

    /// Before the machine runs.
    func connect(_ machine: Machine, _ serial: SerialBridge) {
        parts.withLock { $0 = (machine, serial) }
        guard let timeout = program?.options.timeout else { return }
        runtime.loop.schedule(at: .after(timeout)) { [weak self] in self?.giveUp(timeout) }
    }

    private func giveUp(_ timeout: Duration) {
        guard let machine = parts.withLock({ $0?.machine }), machine.state != .poweredOff else { return }
        machine.powerOff()
        let places = machine.hartStatus().map { "hart \($0.id) is at 0x" + String($0.programCounter, radix: 16) }
        runtime.log.error("not ended after \(timeout.spelled) (--timeout): \(places.joined(separator: ", "))")
        runtime.emit("SHUTDOWN", ["guest": false, "reason": "timeout"])
        end(ProgramOptions.limitStatus)
    }

    /// What each hart has retired since reset, for the events that end a run.
    var instructionsRetired: JSONValue {
        let harts = parts.withLock { $0 }?.machine.harts ?? []
        return .array(harts.map { .unsigned($0.retiredInstructions) })
    }

    /// Ends the process with `status`. The machine has stopped.
    func end(_ status: Int32) {
        guard let (machine, serial) = parts.withLock({ $0 }) else { return runtime.stop(exitCode: status) }
        serial.finish()
        guard let program else { return runtime.stop(exitCode: status) }
        do throws(WireError) {
            try program.finish(machine)
            runtime.stop(exitCode: status)
        } catch {
            runtime.log.error("\(error)")
            runtime.stop(exitCode: 1)
        }
    }
}
