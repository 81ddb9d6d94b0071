// The security-logic executable: reset sequence, flash gate, fuses.
import ArgumentParser
import Component
import Crypto
import LPC
import Logging
import QMP
import SecurityLogic
import Serprog
import Sideband
import Synchronization
import Trust
import Wire

@main
struct SecurityLogicCommand: ComponentCommand {
    static let kind = "security-logic"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "The programmable logic that holds host and BMC in reset until their firmware is verified.",
        discussion: """
            Stands between the flash chip (port flash) and its masters (ports spi-adapter, spi-host, spi-bmc, \
            spi-external): the adapter reads while it verifies, host and BMC read what was verified once they are \
            released, a programmer from outside writes while everything is held. Commands come from the adapter on \
            sideband-adapter.

            Example:

              baseboard provision --output board
              flash --image board.img --listen spi=/tmp/chip &
              security-logic --fuses board/fuses.json --connect flash=/tmp/chip --listen spi-adapter=/tmp/spi \
            --listen sideband-adapter=/tmp/sideband
            """)

    @OptionGroup var options: ComponentOptions

    @Option(
        help: ArgumentHelp(
            "Root key digest and minimum security version, as baseboard provision makes it.", valueName: "file"))
    var fuses: String

    @Option(
        help: ArgumentHelp(
            "Who may do what to the flash, instead of the built-in rules (docs/wiring.md).", valueName: "file"))
    var rules: String?

    @Option(
        help: ArgumentHelp(
            "Serve spi-external on TCP port of 127.0.0.1 too, for flashrom; 0: a free port.", valueName: "port"))
    var tcp: UInt16?

    func start(_ runtime: ComponentRuntime) throws {
        let fuses = try Fuses(path: fuses)
        let log = runtime.log
        guard let chipPath = runtime.connectionPath("flash") else { throw ComponentError.noSocketToUse(port: "flash") }
        let unreachable = Mutex("")
        let connect = { @Sendable () throws(WireError) -> Socket in
            do throws(WireError) {
                let socket = try Socket.connect(to: chipPath)
                unreachable.withLock { $0 = "" }
                return socket
            } catch {
                // The master sees only a refused transaction; who looks here learns why, once for each reason.
                let text = "port 'flash': \(error)"
                let isNews = unreachable.withLock { last in
                    defer { last = text }
                    return last != text
                }
                if isNews { log.warning("\(text)") }
                throw error
            }
        }
        let gate = FlashGate(rules: try rules.map(GateRulesFile.read) ?? .builtIn, connect: connect) { denial in
            log.warning("flash: \(denial)")
        }
        var servers = try FlashMaster.allCases.compactMap { master in
            try runtime.listener("spi-\(master.rawValue)").map { listener in
                SerprogServer(
                    listener, programmerName: "\(runtime.name)/\(master.rawValue)",
                    report: { line in log.warning("\(line)") }, makeTarget: { gate.target(for: master) })
            }
        }
        if let tcp {
            let (listener, port) = try Listener.loopback(port: tcp)
            log.info("spi-external on 127.0.0.1:\(port)")
            servers.append(
                SerprogServer(
                    listener, programmerName: "\(runtime.name)/external",
                    report: { line in log.warning("\(line)") }, makeTarget: { gate.target(for: .external) }))
        }
        let started = servers
        runtime.onStop { for server in started { server.stop() } }

        let bridge = LPCBridge(
            loop: runtime.loop, host: try runtime.listener("lpc-host", kind: .seqpacket),
            bmc: try runtime.listener("lpc-bmc", kind: .seqpacket),
            onPostCode: { code in log.debug("POST code 0x\(String(code, radix: 16))") },
            onDenial: { denial in
                let cycle = "\(denial.isWrite ? "write to" : "read of") port 0x\(String(denial.port, radix: 16))"
                log.warning("lpc: host and BMC are apart: \(cycle) denied (\(denial.count) so far)")
            },
            report: { line in log.warning("\(line)") })
        try bridge.start()

        let controller = SecurityController(
            loop: runtime.loop, gate: gate, sequencer: SecuritySequencer(fuses: fuses),
            observer: .init(
                event: { event in
                    log.info("\(event.name)\(event.text)")
                    runtime.emit(event.name, event.data)
                },
                warning: { line in log.warning("\(line)") },
                changed: { snapshot in
                    // From release until lock; before anybody hears of either.
                    bridge.setConnected(snapshot.state == .released)
                    runtime.setStatus(snapshot.state.description, snapshot.details)
                }))
        var components: [HeldComponent: Listener] = [:]
        for component in HeldComponent.allCases {
            components[component] = try runtime.listener("sideband-\(component.rawValue)", kind: .seqpacket)
        }
        try controller.serve(
            adapter: try runtime.listener("sideband-adapter", kind: .seqpacket), components: components)
        registerCommands(runtime, controller, gate, bridge, fuses)
        controller.powerOn()
    }

    private func registerCommands(
        _ runtime: ComponentRuntime, _ controller: SecurityController, _ gate: FlashGate, _ bridge: LPCBridge,
        _ fuses: Fuses
    ) {
        runtime.control.register(
            QMPCommand("query-security-state") { _ throws(QMPError) in
                let snapshot = controller.snapshot
                let masters = FlashMaster.allCases.map { master -> (String, JSONValue) in
                    let counters = gate.counters(master)
                    return (
                        master.rawValue,
                        [
                            "passed": .unsigned(counters.passed), "denied": .unsigned(counters.denied),
                            "cut": .unsigned(counters.cut),
                            "last-denied-opcode": counters.lastDeniedOpcode.map { .unsigned(UInt64($0)) } ?? .null,
                        ]
                    )
                }
                var answer: [String: JSONValue] = snapshot.details
                answer["state"] = .string(snapshot.state.description)
                answer["mode"] = .string(snapshot.mode == .protected ? "protected" : "unprotected")
                answer["released"] = .array(snapshot.released.map(\.rawValue).sorted().map { .string($0) })
                answer["minimum-security-version"] = .integer(Int64(fuses.minimumSecurityVersion))
                answer["verified-pages"] = .unsigned(UInt64(gate.digests.count))
                answer["lpc"] = bridge.statistics.json
                answer["masters"] = .object(Dictionary(uniqueKeysWithValues: masters))
                return .object(answer)
            })
        runtime.control.register(
            QMPCommand("system_reset") { _ throws(QMPError) in
                controller.powerCycle()
                return [:]
            })
    }
}

extension SecurityController.Snapshot {
    /// Image and reason where there are any.
    var details: [String: JSONValue] {
        var details: [String: JSONValue] = [:]
        if let imageName { details["image"] = .string(imageName) }
        if let failureReason { details["reason"] = .string(failureReason) }
        return details
    }
}

extension LPCBridge.Statistics {
    var json: JSONValue {
        [
            "connected": .bool(isConnected),
            "post-code": postCode.map { .integer(Int64($0)) } ?? .null,
            "post-codes": .unsigned(postCodes),
            "passed": .unsigned(forwarded),
            "denied": .unsigned(denied),
        ]
    }
}

extension SecurityEvent {
    /// The event's QMP data.
    var data: [String: JSONValue] {
        switch self {
        case .resetAsserted(let component), .resetReleased(let component):
            ["component": .string(component.rawValue)]
        case .firmwareVerifying, .boardLocked: [:]
        case .firmwareVerified(let image, let securityVersion, let digest):
            [
                "image": .string(image), "security-version": .integer(Int64(securityVersion)),
                "digest": .string(Hex.encode(digest)),
            ]
        case .firmwareRefused(let image, let reason), .boardFailed(let image, let reason):
            ["image": .string(image), "reason": .string(reason)]
        }
    }

    /// What the log adds to the event's name.
    var text: String {
        switch self {
        case .resetAsserted(let component), .resetReleased(let component): " \(component.rawValue)"
        case .firmwareVerifying, .boardLocked: ""
        case .firmwareVerified(let image, let securityVersion, _): " \(image), security version \(securityVersion)"
        case .firmwareRefused(let image, let reason), .boardFailed(let image, let reason): " \(image): \(reason)"
        }
    }
}
