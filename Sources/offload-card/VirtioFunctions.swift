// The card's functions that are virtio devices: each behind a socket of its own, served by workers of the card.

import BlockStore
import Component
import Logging
import Offload
import PCIe
import QMP
import VFIOUser
import Virtio
import Wire

/// A thread that carries the data of some functions.
final class CardWorker: Sendable {
    let loop: EventLoop
    let worker: VirtioWorker

    init(_ name: String, _ runtime: ComponentRuntime) throws {
        let loop = try EventLoop()
        let worker = VirtioWorker(loop: loop)
        self.loop = loop
        self.worker = worker
        let thread = WorkerThread(name) { worker.run() }
        runtime.onStop {
            loop.stop()
            thread.join()
        }
    }

    /// The endpoint of a device on this worker.
    func endpoint(
        _ port: String, _ device: any VirtioDevice, _ subsystem: UInt16, _ runtime: ComponentRuntime
    ) -> (Endpoint, VirtioFunction?) {
        let description = VirtioFunction.description(of: device, subsystemVendor: 0x1B36, subsystem: subsystem)
        var made: VirtioFunction?
        let endpoint = Endpoint(description) { [worker] bus in
            let function = VirtioFunction(bus, device: device, worker: worker) { runtime.log.warning("\(port): \($0)") }
            made = function
            return function
        }
        return (endpoint, made)
    }
}

/// virtio-blk as a disk function.
struct VirtioDisk: DiskFunction {
    let device: VirtioBlock
    let function: VirtioFunction

    var state: [String: JSONValue] { ["state": .string(function.stateName)] }
    func sizeChanged() { device.resized() }
    func registerFurther(_ runtime: ComponentRuntime) {}
}

extension VirtioFunction {
    /// For people: what the driver has made of it.
    var stateName: String {
        let registers = registers
        if registers.status.contains(.deviceNeedsReset) { return "needs-reset" }
        return registers.isRunning ? "ready" : "disabled"
    }
}

extension OffloadCardCommand {
    // MARK: pcie-console, pcie-rng

    /// Those of these functions that have a socket.
    func startVirtio(_ card: CardFunctions, _ runtime: ComponentRuntime) throws -> [FunctionRecord] {
        let ports = ["pcie-console", "pcie-rng"]
        let listeners = try ports.map { try runtime.listener($0) }
        // A launcher makes the console's socket for every card; without the function nobody is behind it.
        let console = try runtime.listener("console")
        guard listeners.contains(where: { $0 != nil }) else { return [] }
        let worker = try CardWorker("virtio", runtime)
        var records: [FunctionRecord] = []
        if let listener = listeners[0] {
            records.append(try startConsole(worker, listener, console, card, runtime))
        }
        if let listener = listeners[1] {
            let (endpoint, function) = worker.endpoint("pcie-rng", VirtioEntropy(), 0x0B0A, runtime)
            let server = serve("pcie-rng", listener, endpoint, card, runtime)
            records.append(FunctionRecord(port: "pcie-rng", kind: "virtio-rng", server: server, function: function))
        }
        return records
    }

    private func startConsole(
        _ worker: CardWorker, _ listener: Listener, _ console: Listener?, _ card: CardFunctions,
        _ runtime: ComponentRuntime
    ) throws -> FunctionRecord {
        let port = ConsolePort(loop: worker.loop)
        let device = VirtioConsole(loop: worker.loop) { port.output($0) }
        // What is typed at a card in reset is lost, as on a line that nobody listens to.
        port.connect { [weak device] bytes in card.isHeld ? bytes.count : device?.input(bytes.span.bytes) ?? bytes.count
        }
        if let console {
            do throws(WireError) { try port.serve(console) } catch {
                throw ComponentError.wire(port: "console", error)
            }
        }
        let (endpoint, function) = worker.endpoint("pcie-console", device, 0x0B0A, runtime)
        let server = serve("pcie-console", listener, endpoint, card, runtime)
        return FunctionRecord(port: "pcie-console", kind: "virtio-console", server: server, function: function)
    }
}

/// A function as `query-functions` shows it.
struct FunctionRecord: Sendable {
    let port: String
    let kind: String
    let server: VFIOUserServer
    /// Nil for one that is no virtio device.
    var function: VirtioFunction?

    var json: JSONValue {
        var members: [String: JSONValue] = [
            "port": .string(port), "kind": .string(kind), "host-connected": .bool(server.hasClient),
        ]
        if let function { members["state"] = .string(function.stateName) }
        return .object(members)
    }
}
