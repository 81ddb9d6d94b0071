// The network adapter: command line and QMP around the switch, the PCIe functions and, as master, the verification.

import Adapter
public import ArgumentParser
import Component
import DeviceFirmware
public import Ethernet
import Logging
import PCIe
import QMP
import Trust
import VFIOUser
import Virtio
import Wire

@main
struct AdapterCardCommand: ComponentCommand {
    static let kind = "adapter-card"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "The board's network adapter: virtio network functions and Ethernet ports on one switch.",
        discussion: """
            Each of the ports pcie, pcie1 … pcie7 that has a socket is a virtio network function of its own.

            With --master it also verifies the board's firmware: it reads the flash through the security logic (port \
            spi) whenever that releases the adapter's reset (port sideband), and tells it the verdict. Its own firmware \
            is a part of what it verifies: it runs by that from then on, and by what it has built in before. A card that \
            is not the master is dead, functions and switch, while its sideband holds it in reset.

            Example, alone, as a switch between two QEMU machines:
              adapter-card --listen eth-host=/tmp/a --listen eth-ext=/tmp/b
              qemu-system-riscv64 ... -netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/a

            Example, as a network card of a QEMU 10.1 or later:
              adapter-card --listen pcie=/tmp/card --listen eth-ext=/tmp/b
              qemu-system-x86_64 ... -device \\
                '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/card"}}'
            """)

    /// The switch's ports, in the order of their numbers. Held by ComponentCatalog too.
    static let ports = ["eth-bmc", "eth-host", "eth-ext"]

    @OptionGroup var options: ComponentOptions

    @Flag(help: "Verify the board's firmware through the security logic.")
    var master = false

    @Option(help: "Address of the first network function: six octets, unicast; the next ones count up.")
    var mac = MACAddress(rawValue: 0x5254_00AD_0001)

    @Flag(help: "Offer the functions' drivers split rings only, as older devices do.")
    var splitRings = false

    func validate() throws {
        guard !mac.isMulticast, mac != .unspecified else {
            throw ValidationError("--mac \(mac): a port needs a unicast address, e.g. 52:54:00:ad:00:01")
        }
    }

    func start(_ runtime: ComponentRuntime) throws {
        let masterPaths = try masterPaths(runtime)
        // A master runs on standby power: its sideband is the verification's.
        let sideband = master ? nil : runtime.connectionPath("sideband")
        let card = CardFunctions(isHeld: sideband != nil)
        let listeners = try (0..<AdapterCard.functionCount).compactMap { number in
            try runtime.listener(AdapterCard.port(of: number)).map { (number, $0) }
        }
        let (fabric, worker) = try startSwitch(
            runtime, functions: listeners.map { AdapterCard.port(of: $0.0) }, isHeld: card.isHeld)
        let verification = masterPaths.map { makeVerification(spi: $0.spi, runtime, fabric) }
        let functions = zip(listeners, fabric.functions).map { item, port in
            startFunction(item.0, item.1, port, runtime, fabric, worker, verification, card)
        }
        register(runtime, fabric, verification, functions)
        let capture = CaptureSession(fabric.ports.map { .init(name: "\(runtime.name).\($0.name)", tap: $0.tap) })
        runtime.registerCapture(start: { try capture.start(path: $0) }, stop: { try capture.stop() })
        if let verification, let masterPaths {
            do throws(WireError) { try verification.start(.uses(path: masterPaths.sideband)) } catch {
                throw ComponentError.wire(port: "sideband", error)
            }
            runtime.onStop { verification.stop() }
        } else {
            try runtime.startPower(
                sideband,
                hold: {
                    fabric.setHeld(true)
                    card.hold()
                },
                run: {
                    fabric.setHeld(false)
                    card.release()
                })
        }
    }

    // MARK: Switch

    /// The switch has a thread of its own, which serves the functions' queues too: frames never wait for a person at the
    /// control socket, and go from function to function without another thread.
    private func startSwitch(
        _ runtime: ComponentRuntime, functions: [String], isHeld: Bool
    ) throws -> (SwitchFabric, VirtioWorker) {
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        let fabric = SwitchFabric(ports: Self.ports, functions: functions, loop: loop) { runtime.log.warning("\($0)") }
        fabric.setHeld(isHeld)
        for port in Self.ports {
            if let listener = try runtime.listener(port) {
                try fabric.start(port, .serves(listener))
            } else if let path = runtime.connectionPath(port) {
                do throws(WireError) { try fabric.start(port, .uses(path: path)) } catch {
                    throw ComponentError.wire(port: port, error)
                }
            }
        }
        let thread = WorkerThread("switch") { worker.run() }
        runtime.onStop {
            fabric.stop()
            loop.stop()
            thread.join()
        }
        return (fabric, worker)
    }

    // MARK: PCIe functions

    /// A network function and who serves it.
    private struct Function: Sendable {
        var port: FunctionPort
        var net: VirtioNet
        var virtio: VirtioFunction
        var server: VFIOUserServer
    }

    /// Queue pairs of a function: as many harts of a guest send and receive without sharing.
    private static let queuePairs = 4

    private func startFunction(
        _ number: Int, _ listener: Listener, _ port: FunctionPort, _ runtime: ComponentRuntime, _ fabric: SwitchFabric,
        _ worker: VirtioWorker, _ verification: FirmwareVerification?, _ card: CardFunctions
    ) -> Function {
        let name = port.name
        let net = VirtioNet.joined(
            to: port, address: MACAddress(rawValue: mac.rawValue + UInt64(number)), queuePairs: Self.queuePairs)
        let (mac, isMaster) = (mac, master)
        let offering = splitRings ? VirtioFeatures.transport.subtracting(.packedRing) : .transport
        var made: VirtioFunction?
        let endpoint = Endpoint(AdapterCard.description(of: net, function: number)) { bus in
            let virtio = VirtioFunction(bus, device: net, worker: worker, offering: offering) {
                runtime.log.warning("\(name): \($0)")
            }
            made = virtio
            guard number == 0 else { return virtio }
            return AdapterCard(virtio) {
                AdapterRegisters(
                    mac: mac, isMaster: isMaster, verification: verification?.snapshot.register ?? .none,
                    ports: fabric.ports.map { AdapterRegisters.Port(isUp: $0.isUp, statistics: $0.statistics) })
            }
        }
        guard let virtio = made else { preconditionFailure("the endpoint makes its model") }
        card.add(endpoint)
        let server = VFIOUserServer(listener: listener, device: endpoint) { runtime.log.warning("\(name): \($0)") }
        server.start()
        runtime.onStop {
            server.stop()
            virtio.detach()
        }
        return Function(port: port, net: net, virtio: virtio, server: server)
    }

    // MARK: Verification

    /// Where the master reaches the security logic; nil for a card that is none.
    private func masterPaths(_ runtime: ComponentRuntime) throws -> (spi: String, sideband: String)? {
        guard master else {
            if runtime.connectionPath("spi") != nil {
                throw ComponentError.message("port 'spi' is the master's: give --master too")
            }
            return nil
        }
        let paths = ["spi", "sideband"].map { ($0, runtime.connectionPath($0)) }
        for (port, path) in paths where path == nil { throw ComponentError.noSocketToUse(port: port) }
        guard let spi = paths[0].1, let sideband = paths[1].1 else { return nil }
        return (spi, sideband)
    }

    private func makeVerification(
        spi: String, _ runtime: ComponentRuntime, _ fabric: SwitchFabric
    ) -> FirmwareVerification {
        FirmwareVerification(
            loop: runtime.loop, connectFlash: { () throws(WireError) in try Socket.connect(to: spi) },
            report: { runtime.log.warning("\($0)") }, run: { run($0, runtime, fabric) },
            emit: { announce($0, runtime) })
    }

    /// The card does from now on what its firmware says. One that cannot be loaded forwards nothing.
    private func run(_ firmware: FirmwareState, _ runtime: ComponentRuntime, _ fabric: SwitchFabric) {
        switch firmware {
        case .loaded(let firmware):
            fabric.setPolicy(firmware.text("forwarding") == "deny-all" ? .denyAll : .permitAll)
            runtime.log.info("firmware \(firmware.version), \(firmware.source.rawValue)")
            runtime.emit("FIRMWARE_LOADED", firmware.eventData)
        case .failed(let reason):
            fabric.setPolicy(.denyAll)
            runtime.setStatus("failed", ["reason": .string(reason)])
            runtime.log.error("no firmware: \(reason): nothing is forwarded until the next verification")
            runtime.emit("FIRMWARE_LOAD_FAILED", ["reason": .string(reason)])
        case .none, .loading: fabric.setPolicy(.permitAll)
        }
    }

    private func announce(_ event: VerificationSequence.Event, _ runtime: ComponentRuntime) {
        switch event {
        case .verifying:
            runtime.setStatus("running", ["firmware": "verifying"])
            runtime.emit("FIRMWARE_VERIFYING")
        case .verified(let slot, let image, let version):
            runtime.log.info("firmware verified: slot \(slot), \(image), security version \(version)")
            runtime.setStatus(
                "running", ["firmware": "verified", "image": .string(image), "slot": .string(slot.description)])
            runtime.emit(
                "FIRMWARE_VERIFIED",
                [
                    "slot": .string(slot.description), "image": .string(image),
                    "security-version": .integer(Int64(version)),
                ])
        case .slotRefused(let slot, let image, let reason):
            runtime.log.warning("slot \(slot) refused: \(image): \(reason)")
            runtime.emit(
                "SLOT_REFUSED",
                ["slot": .string(slot.description), "image": .string(image), "reason": .string(reason)])
        case .refused(let image, let reason):
            runtime.log.error("firmware refused: \(image): \(reason)")
            let data: [String: JSONValue] = ["image": .string(image), "reason": .string(reason)]
            runtime.setStatus("running", data.merging(["firmware": "refused"]) { own, _ in own })
            runtime.emit("FIRMWARE_REFUSED", data)
        }
    }

    // MARK: Queries

    private func register(
        _ runtime: ComponentRuntime, _ fabric: SwitchFabric, _ verification: FirmwareVerification?,
        _ functions: [Function]
    ) {
        let (mac, isMaster) = (mac, master)
        runtime.control.register(
            QMPCommand("query-adapter") { _ throws(QMPError) in
                [
                    "mac": .string(mac.description),
                    "master": .bool(isMaster),
                    "host-connected": .bool(functions.contains { $0.server.hasClient }),
                    "functions": .array(functions.map(Self.json)),
                    "verification": verification?.snapshot.json ?? .null,
                ]
            })
        runtime.control.register(
            QMPCommand("query-firmware") { _ throws(QMPError) in
                (verification?.snapshot.firmware ?? .loaded(.builtIn)).json
            })
        runtime.control.register(
            QMPCommand("query-ports") { _ throws(QMPError) in .array(fabric.ports.map(\.json)) })
        runtime.control.register(
            QMPCommand("query-stations") { _ throws(QMPError) in
                .array(
                    fabric.stations.map { station in
                        ["mac": .string(station.address.description), "port": .string(station.port)]
                    })
            })
    }
}

extension AdapterCardCommand {
    private static func json(_ function: Function) -> JSONValue {
        let registers = function.virtio.registers
        return [
            "port": .string(function.port.name),
            "mac": .string(function.net.address.description),
            "host-connected": .bool(function.server.hasClient),
            "driver-running": .bool(registers.isRunning),
            "needs-reset": .bool(registers.status.contains(.deviceNeedsReset)),
            "features": .string(registers.driverFeatures.description),
        ]
    }
}

extension SwitchedPort {
    fileprivate var json: JSONValue {
        let statistics = statistics
        return [
            "name": .string(name),
            "link": .bool(isUp),
            "received-frames": .unsigned(statistics.receivedFrames),
            "received-bytes": .unsigned(statistics.receivedBytes),
            "received-dropped": .unsigned(statistics.receivedDropped),
            "sent-frames": .unsigned(statistics.sentFrames),
            "sent-bytes": .unsigned(statistics.sentBytes),
            "sent-dropped": .unsigned(statistics.sentDropped),
        ]
    }
}

extension FirmwareVerification.Snapshot {
    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = [
            "phase": .string(phase.rawValue), "slot": slot.map { .string($0.description) } ?? .null,
            "runs": .unsigned(runs),
            "duration": duration.map { .unsigned($0.clampedNanoseconds) } ?? .null,
        ]
        switch verdict {
        case .verified(let manifest, _):
            members["verdict"] = "verified"
            members["image"] = .string(manifest.name)
            members["security-version"] = .integer(Int64(manifest.securityVersion))
        case .refused(let refusal, let imageName):
            members["verdict"] = "refused"
            members["image"] = imageName.map { .string($0) } ?? .null
            members["reason"] = .string(refusal.description)
        case nil:
            members["verdict"] = .null
        }
        return .object(members)
    }
}

extension MACAddress: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
    public var defaultValueDescription: String { description }
}
