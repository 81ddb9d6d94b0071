// The flash executable: an SPI NOR chip behind serprog.
public import ArgumentParser
import Component
import Logging
import QMP
public import SPINOR
import Serprog
import Wire

@main
struct FlashCommand: ComponentCommand {
    static let kind = "flash"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "An SPI NOR flash chip (Macronix MX25L25635F or MX66L1G45G), driven by serprog.",
        discussion: """
            The chip's content is a file of its size: 33554432 bytes, or 134217728. Without --writable the file is never \
            changed: what is written stays in memory and is gone at the next start. With it the status register's \
            protection bits stay too, in the file IMAGE.registers. Any number of masters may connect.

            Example: make an erased chip and read it with flashrom:

              head -c 33554432 /dev/zero | tr '\\0' '\\377' > chip.img
              flash --image chip.img --tcp 4242 &
              flashrom -p serprog:ip=127.0.0.1:4242 -r read.img

            It breaks on command: baseboard qmp flash0 flash-inject-fault kind=power-loss after=10 (docs/wiring.md).
            """)

    @OptionGroup var options: ComponentOptions

    @Option(help: ArgumentHelp("What the chip holds at power-on.", valueName: "file"))
    var image: String

    @Option(help: "The chip: MX25L25635F (32 MiB) or MX66L1G45G (128 MiB).")
    var model = SPINORModel.mx25l25635f

    @Flag(help: "Write to the image file too; one chip at a time may.")
    var writable = false

    @Option(
        help: ArgumentHelp(
            "How long programs and erases take, in percent of the data sheet's typical times, 0 to 10000.",
            valueName: "percent"))
    var busyTime = 1

    @Option(help: ArgumentHelp("Of the bits that an interrupted program or erase leaves.", valueName: "number"))
    var seed: UInt64 = 0

    @Option(help: ArgumentHelp("Serve TCP on 127.0.0.1 too, for flashrom; 0: a free port.", valueName: "port"))
    var tcp: UInt16?

    func validate() throws {
        guard (0...SPINORTiming.maximumPercent).contains(busyTime) else {
            throw ValidationError("--busy-time is 0 to \(SPINORTiming.maximumPercent) percent, not \(busyTime)")
        }
    }

    func start(_ runtime: ComponentRuntime) throws {
        let log = runtime.log
        let report: @Sendable (String) -> Void = { line in log.warning("\(line)") }
        let content = try FlashContent(path: image, count: model.size, writable: writable)
        var registers = SPINORChip.NonvolatileRegisters()
        let registerFile = writable ? try FlashRegisterFile(image: image, registers: &registers) : nil
        let device = SPINORDevice(
            SPINORChip(
                content: content, model: model, timing: SPINORTiming(percent: busyTime), registers: registers,
                seed: seed),
            loop: runtime.loop, registerFile: registerFile, report: report)
        var servers: [SerprogServer] = []
        if let listener = try runtime.listener("spi") {
            servers.append(
                SerprogServer(listener, programmerName: runtime.name, report: report) { device.target() })
        }
        if let tcp {
            let (listener, port) = try Listener.loopback(port: tcp)
            log.info("serprog on 127.0.0.1:\(port)")
            servers.append(
                SerprogServer(listener, programmerName: runtime.name, report: report) { device.target() })
        }
        guard !servers.isEmpty else { throw ComponentError.noSocketToServe(port: "spi") }
        let stopped = servers
        runtime.onStop { for server in stopped { server.stop() } }
        FlashControl(device: device, content: content, model: model, image: image).register(runtime)
    }
}

extension SPINORModel: ExpressibleByArgument {
    public init?(argument: String) { self.init(named: argument) }
    public var defaultValueDescription: String { name }
    public static var allValueStrings: [String] { all.map(\.name) }
}
