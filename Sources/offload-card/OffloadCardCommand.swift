// The offload card: command line and QMP around `OffloadCard`.

import ArgumentParser
import BlockStore
import Component
import DeviceFirmware
import Logging
import NVMe
import Offload
import PCIe
import QMP
import Sideband
import VFIOUser
import Virtio
import Wire

@main
struct OffloadCardCommand: ComponentCommand {
    static let kind = "offload-card"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "The board's virtualization offload device: PCI Express functions, each behind a vfio-user socket.",
        discussion: """
            Port pcie takes a ring of commands in the host's memory, pcie-net is a network card at port eth0, pcie-disk \
            a disk, pcie-console a serial line to port console, pcie-rng a source of random numbers. Serve any of them. \
            All are dead while the sideband holds the card in reset; without a sideband it leaves reset at once. Released, \
            the card loads its own firmware by port spi first; without that port it runs what it has built in.

            Example, a disk alone, for QEMU 10.1 or later:
              truncate -s 64M disk.img
              offload-card --listen pcie-disk=/tmp/disk --disk disk.img --listen control=/tmp/qmp
              qemu-system-x86_64 -object memory-backend-memfd,id=m,size=1G,share=on -m 1G -M memory-backend=m ... \\
                -device '{"driver":"vfio-user-pci","socket":{"path":"/tmp/disk","type":"unix"}}'
            """)

    @OptionGroup var options: ComponentOptions

    @Option(help: "Model that IDENTIFY answers: at most 16 printable ASCII characters.")
    var model = "Baseboard OC1"

    @Option(help: "Serial number that IDENTIFY answers: at most 16 printable ASCII characters.")
    var serial = "BB-OC-0001"

    @OptionGroup(title: "Disk") var diskOptions: DiskOptions

    @OptionGroup(title: "Network") var netOptions: NetOptions

    func validate() throws {
        for (option, text) in [("--model", model), ("--serial", serial)]
        where OffloadIdentity(model: text, serial: "", firmwareVersion: "") == nil {
            throw ValidationError("\(option) '\(text)': not at most 16 printable ASCII characters")
        }
    }

    func start(_ runtime: ComponentRuntime) throws {
        let (sideband, flash) = (runtime.connectionPath("sideband"), runtime.connectionPath("spi"))
        let card = CardFunctions(isHeld: sideband != nil || flash != nil)
        let firmware = CardFirmware(runtime, path: flash)
        let functions =
            [
                try startRing(card, firmware, runtime), try startNet(card, runtime),
                try startDisk(card, firmware, runtime),
            ].compactMap { $0 }
            + (try startVirtio(card, runtime))
        guard !functions.isEmpty else {
            throw ComponentError.message(
                "no function has a socket to serve: give --listen PORT=PATH for some of pcie, pcie-net, "
                    + "pcie-disk, pcie-console, pcie-rng")
        }
        runtime.control.register(
            QMPCommand("query-functions") { _ throws(QMPError) in .array(functions.map(\.json)) })
        // What is built in is there at once.
        let load: (@Sendable (PowerLine.PowerUp) -> Void)? = if flash == nil { nil } else { { firmware.load($0) } }
        try runtime.startPower(
            sideband, hold: { card.hold() },
            run: {
                firmware.run()
                card.release()
            }, beforePowerGood: load, event: { firmware.power($0) })
    }

    /// Serves an endpoint, a function of the card, on a port's socket until the component ends.
    func serve(
        _ port: String, _ listener: Listener, _ endpoint: Endpoint, _ card: CardFunctions, _ runtime: ComponentRuntime
    ) -> VFIOUserServer {
        card.add(endpoint)
        let server = VFIOUserServer(listener: listener, device: endpoint) { runtime.log.warning("\(port): \($0)") }
        server.start()
        runtime.onStop { server.stop() }
        return server
    }

    // MARK: pcie

    /// Nil when the port has no socket.
    private func startRing(
        _ functions: CardFunctions, _ firmware: CardFirmware, _ runtime: ComponentRuntime
    ) throws -> FunctionRecord? {
        guard let listener = try runtime.listener("pcie") else { return nil }
        guard
            let identity = OffloadIdentity(
                model: model, serial: serial, firmwareVersion: LoadedFirmware.builtIn.version.description)
        else { throw ValidationError("the identity is not printable ASCII") }
        var card: OffloadCard?
        let endpoint = Endpoint(OffloadCard.description) { bus in
            let model = OffloadCard(bus, identity: identity) { runtime.log.warning("pcie: \($0)") }
            card = model
            return model
        }
        let server = serve("pcie", listener, endpoint, functions, runtime)
        if let card {
            firmware.show(in: card)
            register(card, server, runtime)
        }
        return FunctionRecord(port: "pcie", kind: "control-ring", server: server)
    }

    // MARK: pcie-disk

    /// Nil when the port has no socket.
    private func startDisk(
        _ card: CardFunctions, _ firmware: CardFirmware, _ runtime: ComponentRuntime
    ) throws -> FunctionRecord? {
        guard let listener = try runtime.listener("pcie-disk") else {
            if diskOptions.disk != nil || diskOptions.diskSize != nil {
                throw ComponentError.message("a disk, and nobody to see it: give --listen pcie-disk=PATH too")
            }
            return nil
        }
        guard let store = try diskOptions.open() else {
            throw ComponentError.message(
                "port 'pcie-disk' has no disk: give --disk FILE, or --disk-size 64MiB for one in memory")
        }
        let interface = diskOptions.diskInterface
        let (endpoint, disk, function) =
            switch interface {
            case .nvme: try makeNVMe(store, firmware, runtime)
            case .virtioBlk: try makeVirtioBlock(store, runtime)
            }
        let server = serve("pcie-disk", listener, endpoint, card, runtime)
        DiskControl(store: store, interface: interface, server: server, function: disk).register(runtime)
        return FunctionRecord(port: "pcie-disk", kind: interface.rawValue, server: server, function: function)
    }

    private func makeNVMe(
        _ store: BlockStore, _ firmware: CardFirmware, _ runtime: ComponentRuntime
    ) throws -> (Endpoint, any DiskFunction, VirtioFunction?) {
        let revision = LoadedFirmware.builtIn.version.revision
        guard let configuration = NVMeConfiguration(serial: serial, firmware: revision, namespaces: [store]) else {
            throw ValidationError("the identity is not printable ASCII")
        }
        var made: NVMeController?
        let endpoint = Endpoint(NVMeController.description(configuration)) { bus in
            let controller = NVMeController(bus, configuration) { runtime.log.warning("pcie-disk: \($0)") }
            made = controller
            return controller
        }
        guard let controller = made else { throw ComponentError.message("the endpoint made no controller") }
        firmware.show(in: controller)
        runtime.onStop { controller.end() }
        return (endpoint, NVMeDisk(controller: controller), nil)
    }

    private func makeVirtioBlock(
        _ store: BlockStore, _ runtime: ComponentRuntime
    ) throws -> (Endpoint, any DiskFunction, VirtioFunction?) {
        let worker = try CardWorker("disk", runtime)
        let device = VirtioBlock(store, serial: serial, loop: worker.loop)
        let (endpoint, function) = worker.endpoint("pcie-disk", device, 0x0B0A, runtime)
        guard let function else { throw ComponentError.message("the endpoint made no function") }
        return (endpoint, VirtioDisk(device: device, function: function), function)
    }

    // MARK: Queries

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
