// The cards on the host's root ports: those of the start, and those that come and go while it runs.

import Component
import Logging
import Machine
import PCIe
import QMP
import Synchronization

/// Which card is where, and the QMP commands that plug, unplug and break them.
///
/// Names are QEMU's: `rp3` is root port 3 and the bus behind it; a card has the `id` that `device_add` gave it, else
/// `card3` or, for its function 1, `card3.1`.
final class Cards: Sendable {
    private let runtime: ComponentRuntime
    private let log: Logger
    /// Those of the start.
    private let present: [(place: FunctionPlace, path: String)]
    private let portCount: Int
    private let state = Mutex<(root: RootComplex?, names: [FunctionPlace: String])>((nil, [:]))

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
        let root = try ports.makeRootComplex(ports: portCount, log: { log.warning("\($0)") }) { [weak self] event in
            self?.note(event)
        }
        for (place, path) in present {
            state.withLock { $0.names[place] = Self.defaultName(place) }
            do throws(RootComplexError) {
                try root.connect(port: place.port, function: place.function, to: path)
            } catch {
                throw ComponentError.message(
                    "\(error). Start the device that serves \(path) before the host, or leave the link out and plug "
                        + "the device in later: device_add bus=\(place) path=\(path)")
            }
        }
        state.withLock { $0.root = root }
        return root
    }

    private static func defaultName(_ place: FunctionPlace) -> String {
        "card" + place.description.dropFirst("rp".count)
    }

    /// Tells the world which card left.
    private func note(_ event: RootComplexEvent) {
        func deleted(_ place: FunctionPlace, _ reason: String) {
            guard let name = state.withLock({ $0.names.removeValue(forKey: place) }) else { return }
            // Spec: QEMU qapi/qdev.json "DEVICE_DELETED".
            runtime.emit(
                "DEVICE_DELETED",
                ["device": .string(name), "bus": .string(place.description), "reason": .string(reason)])
        }
        switch event {
        case .lost(let place, let reason): deleted(place, reason)
        case .released(let places): for place in places { deleted(place, "released") }
        }
    }

    // MARK: QMP

    func register() {
        // Spec: QEMU qapi/qdev.json "device_add", "device_del".
        runtime.control.register(
            QMPCommand(
                "device_add",
                [
                    .required("bus", .string), .optional("driver", .string), .optional("id", .string),
                    .optional("path", .string), .optional("socket", .object),
                ]
            ) { [self] arguments throws(QMPError) in
                try add(arguments)
                return [:]
            })
        runtime.control.register(
            QMPCommand("device_del", [.required("id", .string), .optional("surprise", .boolean)]) {
                [self] arguments throws(QMPError) in
                try delete(
                    arguments["id"]?.stringValue ?? "", isSurprise: arguments["surprise"]?.boolValue ?? false)
                return [:]
            })
        // Spec: QEMU hmp-commands.hx "pcie_aer_inject_error".
        runtime.control.register(
            QMPCommand(
                "pcie_aer_inject_error",
                [
                    .required("id", .string), .required("error_status", .string),
                    .optional("advisory_non_fatal", .boolean), .optional("header0", .integer),
                    .optional("header1", .integer), .optional("header2", .integer), .optional("header3", .integer),
                ]
            ) { [self] arguments throws(QMPError) in try inject(arguments) })
        runtime.control.register(
            QMPCommand("pcie_pme", [.required("id", .string)]) { [self] arguments throws(QMPError) in
                let (root, place) = try card(arguments["id"]?.stringValue ?? "")
                do throws(RootComplexError) {
                    return ["delivered": .bool(try root.requestService(at: place))]
                } catch {
                    throw QMPError("\(error)")
                }
            })
        runtime.control.register(QMPCommand("query-pcie-ports") { [self] _ throws(QMPError) in query() })
    }

    private var root: RootComplex {
        get throws(QMPError) {
            guard let root = state.withLock({ $0.root }) else { throw QMPError("the host has no root ports") }
            return root
        }
    }

    private func add(_ arguments: [String: JSONValue]) throws(QMPError) {
        let root = try root
        let driver = arguments["driver"]?.stringValue ?? "vfio-user-pci"
        guard driver == "vfio-user-pci" else {
            throw QMPError("'\(driver)' is not a valid device model name: the only one is vfio-user-pci")
        }
        let bus = arguments["bus"]?.stringValue ?? ""
        guard let place = FunctionPlace(bus), place.port < portCount else {
            throw QMPError("Bus '\(bus)' not found: they are rp0 to rp\(portCount - 1), or rp0.1 for a function")
        }
        guard let path = arguments["path"]?.stringValue ?? arguments["socket"]?["path"]?.stringValue else {
            throw QMPError("Parameter 'path' is missing: the socket at which the device is served")
        }
        if let type = arguments["socket"]?["type"]?.stringValue, type != "unix" {
            throw QMPError("a socket of type '\(type)': devices are served on unix sockets")
        }
        let name = arguments["id"]?.stringValue ?? Self.defaultName(place)
        guard FunctionPlace(name) == nil, !name.isEmpty else {
            throw QMPError("'\(name)' cannot be a card's id: it is a root port's")
        }
        try reserve(place, name)
        do throws(RootComplexError) {
            try root.connect(port: place.port, function: place.function, to: path, isHotPlug: true)
        } catch {
            state.withLock { $0.names[place] = nil }
            throw QMPError("\(error)")
        }
        log.info("plugged \(path) into \(place) as \(name)")
    }

    /// Takes a place and a name for a card that comes.
    private func reserve(_ place: FunctionPlace, _ name: String) throws(QMPError) {
        let refusal: String? = state.withLock { state in
            if let other = state.names[place] { return "Bus '\(place)' has a card already: '\(other)'" }
            if state.names.contains(where: { $0.value == name }) { return "Duplicate device ID '\(name)'" }
            state.names[place] = name
            return nil
        }
        if let refusal { throw QMPError(refusal) }
    }

    private func card(_ name: String) throws(QMPError) -> (RootComplex, FunctionPlace) {
        let root = try root
        guard let place = state.withLock({ $0.names.first { $0.value == name }?.key }) else {
            throw QMPError("Device '\(name)' not found", errorClass: "DeviceNotFound")
        }
        return (root, place)
    }

    private func delete(_ name: String, isSurprise: Bool) throws(QMPError) {
        let (root, place) = try card(name)
        if isSurprise {
            root.detach(port: place.port, function: place.function)
            return note(.lost(place, reason: "pulled out"))
        }
        guard place.function == 0 else {
            throw QMPError(
                "'\(name)' is function \(place.function) of a card: a card leaves as a whole, by its function 0")
        }
        do throws(RootComplexError) { try root.requestRemoval(port: place.port) } catch { throw QMPError("\(error)") }
    }

    private func inject(_ arguments: [String: JSONValue]) throws(QMPError) -> JSONValue {
        let name = arguments["id"]?.stringValue ?? ""
        let status = arguments["error_status"]?.stringValue ?? ""
        guard let error = PCIError(named: status) else {
            throw QMPError(
                "no error '\(status)': they are correctable, nonfatal, fatal, "
                    + PCIError.names.map(\.name).joined(separator: ", "))
        }
        let words = (0..<4).map { arguments["header\($0)"]?.integerValue }
        let header = words.contains { $0 != nil } ? words.map { UInt32(truncatingIfNeeded: $0 ?? 0) } : nil
        let isAdvisory = arguments["advisory_non_fatal"]?.boolValue ?? false
        // A root port's own name is that of its bus.
        let port = FunctionPlace(name)
        let (root, place) = if let port { (try self.root, port) } else { try card(name) }
        let isLogged: Bool
        do throws(RootComplexError) {
            isLogged = try root.inject(
                error, at: place, onPort: port != nil, header: header, isAdvisory: isAdvisory)
        } catch {
            throw QMPError("\(error)")
        }
        guard isLogged else { throw QMPError("'\(name)' has no PCI Express capability to log an error in") }
        return ["id": .string(name), "error": .string(error.description), "bus": .string("rp\(place.port)")]
    }

    private func query() -> JSONValue {
        let (root, names) = state.withLock { ($0.root, $0.names) }
        guard let root else { return .array([]) }
        return .array(
            (0..<portCount).map { port in
                let slot = root.slot(port: port)
                let cards = names.filter { $0.key.port == port }.sorted { $0.key.function < $1.key.function }
                return [
                    "port": .string("rp\(port)"), "present": .bool(slot.isPresent),
                    "power": .bool(slot.isPowered), "link": .bool(slot.isLinkActive),
                    "cards": .array(cards.map { .string($0.value) }),
                ]
            })
    }
}
