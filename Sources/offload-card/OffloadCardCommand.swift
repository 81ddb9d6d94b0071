// The offload card: command line and QMP around `OffloadCard`.

import ArgumentParser
import Component
import Logging
import Offload
import PCIe
import QMP
import VFIOUser
import Wire

@main
struct OffloadCardCommand: ComponentCommand {
    static let kind = "offload-card"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "The board's virtualization offload device, a PCI Express endpoint behind vfio-user.",
        discussion: """
            A host hands it a ring of commands in its memory, rings a doorbell, and is interrupted by MSI-X.

            Example, alone, for QEMU 10.1 or later:
              offload-card --listen pcie=/tmp/offload --listen control=/tmp/qmp
              qemu-system-riscv64 ... -device \\
                '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/offload"}}'
            """)

    @OptionGroup var options: ComponentOptions

    @Option(help: "Model that IDENTIFY answers: at most 16 printable ASCII characters.")
    var model = "Baseboard OC1"

    @Option(help: "Serial number that IDENTIFY answers: at most 16 printable ASCII characters.")
    var serial = "BB-OC-0001"

    /// What IDENTIFY answers as firmware version: that of the command set of docs/wiring.md.
    private static let firmwareVersion = "1.0"

    func validate() throws {
        for (option, text) in [("--model", model), ("--serial", serial)]
        where OffloadIdentity(model: text, serial: "", firmwareVersion: "") == nil {
            throw ValidationError("\(option) '\(text)': not at most 16 printable ASCII characters")
        }
    }

    func start(_ runtime: ComponentRuntime) throws {
        guard
            let identity = OffloadIdentity(model: model, serial: serial, firmwareVersion: Self.firmwareVersion)
        else { throw ValidationError("the identity is not printable ASCII") }
        let listener = try runtime.requireListener("pcie")
        var card: OffloadCard?
        let endpoint = Endpoint(OffloadCard.description) { bus in
            let model = OffloadCard(bus, identity: identity) { runtime.log.warning("pcie: \($0)") }
            card = model
            return model
        }
        let server = VFIOUserServer(listener: listener, device: endpoint) { runtime.log.warning("pcie: \($0)") }
        if let card { register(card, server, runtime) }
        server.start()
        runtime.onStop { server.stop() }
    }

    private func register(_ card: OffloadCard, _ server: VFIOUserServer, _ runtime: ComponentRuntime) {
        runtime.control.register(
            QMPCommand("query-offload") { _ throws(QMPError) in
                let registers = card.snapshot
                return [
                    "state": .string(registers.state.rawValue),
                    "host-connected": .bool(server.hasClient),
                    "fault": registers.fault.map { .string($0.description) } ?? .null,
                    "ring": [
                        "base": .unsigned(registers.ringBase),
                        "size": .integer(Int64(registers.ringSize)),
                        "producer": .integer(Int64(registers.producer)),
                        "consumer": .integer(Int64(registers.consumer)),
                        "vector": .integer(Int64(registers.vector)),
                    ],
                    "commands-served": .unsigned(registers.commandsServed),
                    "model": .string(registers.identity.model),
                    "serial": .string(registers.identity.serial),
                ]
            })
    }
}
