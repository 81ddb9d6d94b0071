// The cards on the host's root ports.

import Component
import Logging
import Machine
import PCIe

/// Cards that are there from the start.
final class Cards: Sendable {
    private let runtime: ComponentRuntime
    private let log: Logger
    /// By port and function.
    private let present: [(place: FunctionPlace, path: String)]
    private let portCount: Int

    /// Finds the connections of the ports rp0 … rp7.7. Throws where a card has functions but no function 0.
    init(_ runtime: ComponentRuntime, rootPorts: Int) throws {
        self.runtime = runtime
        log = runtime.log
        present = (0..<8).flatMap { port in
            (0..<8).compactMap { function in
                let place = FunctionPlace(port: port, function: function)
                return runtime.connectionPath(place.description).map { (place, $0) }
            }
        }
        for (place, _) in present where !present.contains(where: { $0.place == FunctionPlace(port: place.port) }) {
            throw ComponentError.message(
                "port \(place) is connected and rp\(place.port) is not: software finds a card by its function 0; "
                    + "connect one there")
        }
        // Ports above the last card's would be empty slots that firmware has to look into.
        portCount = max(rootPorts, (present.last?.place.port ?? 0) + 1)
    }

    /// The root complex with its cards.
    func makeRootComplex(_ ports: PCIePorts) throws -> RootComplex {
        let log = log
        let root = try ports.makeRootComplex(ports: portCount) { log.warning("\($0)") }
        for (place, path) in present {
            try root.connect(port: place.port, function: place.function, to: path)
        }
        return root
    }
}
