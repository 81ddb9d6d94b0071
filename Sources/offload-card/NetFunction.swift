// The card's network function: a virtio-net device joined to the card's Ethernet port.

import ArgumentParser
import Component
import Ethernet
import Logging
import PCIe
import QMP
import VFIOUser
import Virtio
import Wire

struct NetOptions: ParsableArguments {
    /// The port's name. Held by ComponentCatalog too.
    static let port = "eth0"

    @Option(
        help: "Address of the network function of port pcie-net: six octets, unicast.",
        transform: { text in
            guard let address = MACAddress(text), !address.isMulticast, address != .unspecified else {
                throw ValidationError("write a unicast address, e.g. 52:54:00:0f:00:01")
            }
            return address
        })
    var mac = MACAddress(rawValue: 0x5254_000F_0001)
}

extension OffloadCardCommand {
    // MARK: pcie-net

    /// Queue pairs of the function: as many harts of a guest send and receive without sharing.
    private static let queuePairs = 4

    /// Nil when the port has no socket.
    func startNet(_ card: CardFunctions, _ runtime: ComponentRuntime) throws -> FunctionRecord? {
        let listener = try runtime.listener("pcie-net")
        let ethernet = try runtime.listener(NetOptions.port)
        let path = runtime.connectionPath(NetOptions.port)
        guard let listener else {
            if ethernet != nil || path != nil {
                throw ComponentError.message(
                    "port '\(NetOptions.port)' has no function behind it: give --listen pcie-net=PATH too")
            }
            return nil
        }
        let worker = try CardWorker("net", runtime)
        let port = EthernetPort(named: NetOptions.port, loop: worker.loop) { runtime.log.warning("\($0)") }
        let net = try makeNet(port, ethernet.map { .serves($0) } ?? path.map { .uses(path: $0) })
        runtime.onStop { port.stop() }
        let (endpoint, function) = worker.endpoint("pcie-net", net, 0x0B0A, runtime)
        let server = serve("pcie-net", listener, endpoint, card, runtime)
        let capture = CaptureSession([.init(name: "\(runtime.name).\(port.name)", tap: port.tap)])
        runtime.registerCapture(start: { try capture.start(path: $0) }, stop: { try capture.stop() })
        runtime.control.register(QMPCommand("query-ports") { _ throws(QMPError) in [port.json] })
        return FunctionRecord(port: "pcie-net", kind: "virtio-net", server: server, function: function)
    }

    /// Joined to the port's link; without one the host sees a cable that is not plugged in.
    private func makeNet(_ port: EthernetPort, _ source: LinkSource?) throws -> VirtioNet {
        let address = netOptions.mac
        guard let source else {
            let net = VirtioNet(
                address: address, queuePairs: Self.queuePairs, wire: VirtioNet.Wire(transmit: { _ in }))
            net.setLink(false)
            return net
        }
        do throws(WireError) {
            return try VirtioNet.joined(to: port, source, address: address, queuePairs: Self.queuePairs)
        } catch {
            throw ComponentError.wire(port: NetOptions.port, error)
        }
    }
}

extension EthernetPort {
    fileprivate var json: JSONValue {
        let statistics = statistics
        return [
            "name": .string(name), "link": .bool(isUp), "received-frames": .unsigned(statistics.receivedFrames),
            "received-bytes": .unsigned(statistics.receivedBytes),
            "received-dropped": .unsigned(statistics.receivedDropped),
            "sent-frames": .unsigned(statistics.sentFrames), "sent-bytes": .unsigned(statistics.sentBytes),
            "sent-dropped": .unsigned(statistics.sentDropped),
        ]
    }
}
