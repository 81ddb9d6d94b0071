// The server processor and chipset: command line and QMP around a `Machine`.

public import ArgumentParser
public import Component
import Glibc
import Logging
import LPC
import Machine
import PCIe
import QMP
import RISCV
import Sideband
import Wire

/// `--interrupts`
enum InterruptOption: String, ExpressibleByArgument, CaseIterable {
    case aia
    case plic
}

/// `--translation`
enum TranslationOption: String, ExpressibleByArgument, CaseIterable {
    case none
    case hot
    case always

    var translation: HartConfiguration.Translation {
        switch self {
        case .none: .none
        case .hot: .hot
        case .always: .always
        }
    }
}

/// `--clock`
enum ClockOption: String, ExpressibleByArgument, CaseIterable {
    case wall
    case instructions
}

@main
struct HostCPU: ComponentCommand {
    static let kind = "host-cpu"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "The server processor and chipset: RV64GC harts on the map of the RISC-V virt machine.",
        discussion: """
            Starts from the flash on port spi when the sideband releases reset, or at once without a sideband. COM1 is on \
            ports console and serial, cards are on the root ports rp0 to rp7.

            Example, alone, with a flash chip:
              flash --image board.img --listen spi=/tmp/spi &
              host-cpu --connect spi=/tmp/spi --listen console=/tmp/console &
              socat -,raw,echo=0 UNIX-CONNECT:/tmp/console

            Linux, without a flash:
              host-cpu --firmware fw_dynamic.bin --kernel kernel --initrd initramfs --listen console=/tmp/console

            A bare-metal test program:
              host-cpu --elf rv64ui-p-add --timeout 10s && echo passed
            """)

    @OptionGroup var options: ComponentOptions

    @Option(help: "RAM at 0x8000_0000, 64MiB to 64GiB in steps of 2MiB.")
    var memory = ByteCount.mebibytes(512)

    @Option(help: "Harts, 1 to 8.")
    var harts = 1

    @Option(help: "Interrupt controllers: aia (APLIC and IMSIC) or plic.")
    var interrupts = InterruptOption.aia

    @Option(help: "The kernel's command line: /chosen/bootargs in the devicetree.")
    var bootArguments: String?

    @Option(
        help: ArgumentHelp("A kernel, flat image, at 0x8020_0000: entered instead of the flash's.", valueName: "file"))
    var kernel: String?

    @Option(help: ArgumentHelp("The kernel's initramfs, high in RAM.", valueName: "file"))
    var initrd: String?

    @Option(
        help: ArgumentHelp(
            "A firmware, flat image such as OpenSBI's fw_dynamic.bin, at 0x8000_0000: no flash is needed then.",
            valueName: "file"))
    var firmware: String?

    @Option(
        help: """
            What guest time is made of: wall, or instructions, 10 ns each: then a run with one hart repeats to the \
            instruction (docs/instruction-clock.md).
            """)
    var clock = ClockOption.wall

    @Option(
        help: ArgumentHelp(
            "With --clock instructions: the time of the real-time clock at power-on, in seconds since 1970.",
            valueName: "seconds"))
    var epoch: UInt64?

    @Option(
        help: ArgumentHelp(
            "Serve the GDB remote protocol on a Unix socket at this path, or on tcp:PORT of 127.0.0.1 (0: a free one).",
            valueName: "path|tcp:port"))
    var gdb: GDBAddress?

    @Option(help: "Code to translate to the host's: none, hot, or always. Results are the same; to find mistakes.")
    var translation = TranslationOption.hot

    @Option(help: ArgumentHelp("Write the devicetree of such a machine to a file, and end.", valueName: "file"))
    var dumpDevicetree: String?

    @OptionGroup(title: "Programs without firmware") var programOptions: ProgramOptions

    @Option(
        help: """
            Root ports at least, 1 to 8: the empty ones are slots for cards that come later. Without it there are as \
            many as the last card needs.
            """)
    var rootPorts = 1

    private var machineConfiguration: MachineConfiguration {
        MachineConfiguration(
            memorySize: memory.bytes, hartCount: harts, interrupts: interrupts == .aia ? .aia : .plic,
            bootArguments: bootArguments, translation: translation.translation,
            clock: clock == .wall ? .wall : .instructions, epoch: epoch ?? MachineConfiguration.defaultEpoch)
    }

    /// The configuration with its boot files, open and checked.
    private func configurationWithImages() throws -> MachineConfiguration {
        var configuration = machineConfiguration
        configuration.images = BootImages(
            firmware: try firmware.map { try BootImage(.firmware, path: $0) },
            kernel: try kernel.map { try BootImage(.kernel, path: $0) },
            initialRAMDisk: try initrd.map { try BootImage(.initialRAMDisk, path: $0) })
        try configuration.check()
        return configuration
    }

    func validate() throws {
        do throws(MachineError) { try machineConfiguration.check() } catch {
            throw ValidationError("\(error)")
        }
        if epoch != nil && clock == .wall {
            throw ValidationError("--epoch sets the clock of --clock instructions; the wall clock is the host's")
        }
        guard (1...8).contains(rootPorts) else {
            throw ValidationError("\(rootPorts) root ports: a host has 1 to 8")
        }
        if programOptions.elf != nil && [firmware, kernel, initrd].contains(where: { $0 != nil }) {
            throw ValidationError("--elf runs a program alone: leave out --firmware, --kernel and --initrd")
        }
    }

    func start(_ runtime: ComponentRuntime) throws {
        var configuration = try configurationWithImages()
        let lpc = try runtime.connection("lpc", kind: .seqpacket)
        configuration.hasLPC = lpc != nil
        if let dumpDevicetree {
            let tree = configuration.devicetree
            let file = try Descriptor.open(dumpDevicetree, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
            try file.writeAll(tree, subject: dumpDevicetree)
            throw CleanExit.message("\(dumpDevicetree): \(tree.count) bytes; dtc -I dtb -O dts shows them")
        }
        let program = try programOptions.program(memory: machineConfiguration.ram, runtime)
        let needsFlash = firmware == nil && program == nil
        let spi = try needsFlash ? runtime.requireConnection("spi") : runtime.connection("spi")
        let flash = spi.map { SerprogFlash(socket: $0) }
        let log = runtime.log
        let cards = try Cards(runtime, rootPorts: rootPorts)
        let ending = RunEnding(program: program, runtime: runtime)
        var rootComplex: RootComplex?
        let machine = try Machine(
            configuration, flash: flash, boot: program?.boot(log), loop: runtime.loop,
            root: { ports in
                rootComplex = try cards.makeRootComplex(ports)
                return rootComplex
            },
            lpc: { onInterrupt in
                guard let lpc else { return nil }
                let host = LPCHost(
                    socket: lpc, loop: runtime.loop, report: { log.warning("\($0)") }, onInterrupt: onInterrupt)
                try host.start()
                return host
            },
            onEvent: { announce($0, runtime, ending) })

        let console = try runtime.listener("console")
        let mirror = console == nil && program != nil ? Program.print : nil
        let serial = SerialBridge(
            uart: machine.uart, loop: runtime.loop, losesNothing: clock == .instructions, mirror: mirror
        ) { log.warning("\($0)") }
        if let console { try serial.serve(console) }
        if let socket = try runtime.connection("serial") { try serial.join(socket, name: "serial") }

        let status = HostStatus(machine: machine, runtime: runtime)
        HostCommands(machine: machine, serial: serial, root: rootComplex, runtime: runtime, status: status).register()
        cards.register()
        let debugServer = GDBServer(
            machine: machine, loop: runtime.loop, report: { log.info("\($0)") }, onChange: { status.refresh() })
        if let listener = try runtime.listener("gdb") { try debugServer.serve(listener) }
        if let listener = try gdb?.listen(log) {
            try debugServer.serve(listener)
            runtime.onStop { listener.removePath() }
        }
        ending.connect(machine, serial)

        // The wires' owners live as long as the process.
        runtime.onStop { withExtendedLifetime((machine, serial, cards)) { debugServer.stop() } }
        // Nobody addresses the host by MCTP in this design yet.
        try runtime.startPower(
            runtime.connectionPath("sideband"), hold: { machine.holdInReset() }, run: { machine.releaseReset() },
            // A debugger that waited for power has the harts before their first instruction.
            event: { if $0 == .powerGood { status.refresh() } })
    }

    private func announce(_ event: MachineEvent, _ runtime: ComponentRuntime, _ ending: RunEnding) {
        switch event {
        case .guestReset:
            runtime.emit("RESET", ["guest": true, "reason": "guest-reset"])
        case .powerOff:
            runtime.setStatus("shutdown")
            runtime.emit(
                "SHUTDOWN",
                ["guest": true, "reason": "guest-shutdown", "instructions-retired": ending.instructionsRetired])
            ending.end(0)
        case .failed(let code):
            runtime.log.error("the guest ended with failure code \(code)")
            runtime.setStatus("guest-panicked")
            runtime.emit(
                "GUEST_PANICKED",
                [
                    "action": "poweroff", "code": .integer(Int64(code)),
                    "instructions-retired": ending.instructionsRetired,
                ])
            ending.end(programOptions.elf == nil ? 1 : ProgramOptions.status(failure: code))
        case .exited(let result):
            if result != 0 { runtime.log.error("the program failed with result \(result)") }
            runtime.setStatus("shutdown")
            runtime.emit(
                "SHUTDOWN",
                [
                    "guest": true, "reason": "guest-shutdown", "result": .unsigned(result),
                    "instructions-retired": ending.instructionsRetired,
                ])
            ending.end(ProgramOptions.status(result: result))
        case .instructionLimit(let hart, let pc):
            runtime.log.error(
                "not ended: hart \(hart) used up --instructions and is at 0x\(String(pc, radix: 16))")
            runtime.setStatus("shutdown")
            runtime.emit("SHUTDOWN", ["guest": false, "reason": "instruction-limit"])
            ending.end(ProgramOptions.limitStatus)
        case .flashUnreadable(let reason):
            runtime.log.error("flash: \(reason)")
        case .imageUnreadable(let reason):
            runtime.log.error("\(reason)")
            runtime.setStatus("shutdown")
            runtime.stop(exitCode: 1)
        }
    }
}

extension ByteCount: ExpressibleByArgument {
    public init?(argument: String) { self.init(parsing: argument) }
}
