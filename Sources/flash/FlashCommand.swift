// The flash executable: an SPI NOR chip behind serprog.
import ArgumentParser
import Component
import Logging
import QMP
import SPINOR
import Serprog
import Wire

@main
struct FlashCommand: ComponentCommand {
    static let kind = "flash"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "An SPI NOR flash chip (Macronix MX25L25635F, 32 MiB), driven by serprog.",
        discussion: """
            The chip's content is a file of 33554432 bytes. Without --writable the file is never changed: what is \
            written stays in memory and is gone at the next start. Any number of masters may connect.

            Example: make an erased chip and read it with flashrom:

              head -c 33554432 /dev/zero | tr '\\0' '\\377' > chip.img
              flash --image chip.img --tcp 4242 &
              flashrom -p serprog:ip=127.0.0.1:4242 -r read.img
            """)

    @OptionGroup var options: ComponentOptions

    @Option(help: ArgumentHelp("What the chip holds at power-on.", valueName: "file"))
    var image: String

    @Flag(help: "Write to the image file too; one chip at a time may.")
    var writable = false

    @Option(help: ArgumentHelp("Serve TCP on 127.0.0.1 too, for flashrom; 0: a free port.", valueName: "port"))
    var tcp: UInt16?

    func start(_ runtime: ComponentRuntime) throws {
        let content = try FlashContent(path: image, count: MX25L25635F.size, writable: writable)
        let device = SPINORDevice(content: content)
        let log = runtime.log
        let report: @Sendable (String) -> Void = { line in log.warning("\(line)") }
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
        register(runtime, device, content)
    }

    private func register(_ runtime: ComponentRuntime, _ device: SPINORDevice, _ content: FlashContent) {
        let image = image
        runtime.control.register(
            QMPCommand("query-flash") { _ throws(QMPError) in
                let counters = device.counters
                return .object([
                    "model": "MX25L25635F", "size": .integer(Int64(content.count)), "image": .string(image),
                    "writable": .bool(content.isPersistent), "reads": .unsigned(counters.reads),
                    "bytes-read": .unsigned(counters.bytesRead), "programs": .unsigned(counters.programs),
                    "erases": .unsigned(counters.erases), "refused-writes": .unsigned(counters.refusedWrites),
                    "unknown-opcodes": .unsigned(counters.unknownOpcodes),
                ])
            })
    }
}
