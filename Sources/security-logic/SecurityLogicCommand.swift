// The security-logic executable: reset sequence, flash gate, fuses.
public import ArgumentParser
import Component
import LPC
import Crypto
import Logging
import QMP
public import SecurityLogic
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
        abstract: "The programmable logic that holds host, BMC and cards in reset until the firmware is verified.",
        discussion: """
            Stands between the flash chip (port flash) and its masters (ports spi-adapter, spi-host, spi-bmc, \
            spi-card0 to spi-card3, spi-external): the adapter reads while it verifies, host, BMC and cards read what \
            was verified once they are released, a programmer from outside writes while everything is held. Commands \
            come from the adapter on sideband-adapter. Of the cards those take part whose sideband is linked.

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

    @Option(help: ArgumentHelp("Who verifies the firmware: adapter, logic or both.", valueName: "who"))
    var verifier = SecuritySettings.Verifier.adapter

    @Option(help: ArgumentHelp("When the board locks: release or boot-complete.", valueName: "moment"))
    var lockAt = SecuritySettings.LockMoment.release

    @Option(
        help: ArgumentHelp(
            "How long the host may take to boot; then its slot is given up. Not watched without.",
            valueName: "duration"))
    var bootTimeout: BootTimeout?

    @Option(
        help: ArgumentHelp(
            "Where the logic remembers which slot runs and which did not boot. Without, it forgets.",
            valueName: "file"))
    var state: String?

    func start(_ runtime: ComponentRuntime) throws {
        let fuses = try FuseStore(path: fuses)
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

        let bridge = try startBridge(runtime)
        var components: [HeldComponent: Listener] = [:]
        for component in HeldComponent.allCases {
            components[component] = try runtime.listener("sideband-\(component.rawValue)", kind: .seqpacket)
        }
        // Host and BMC are parts of every board; a card is there when its sideband is linked.
        let present = Set(components.keys).union([.bmc, .host])
        let controller = makeController(runtime, gate, fuses, bridge.link, present)
        bridge.hasBooted.set { controller.bootComplete() }
        try controller.serve(
            adapter: try runtime.listener("sideband-adapter", kind: .seqpacket), components: components)
        registerCommands(runtime, controller, gate, bridge.link)
        controller.powerOn()
    }

    /// What carries the lpc wire, and whom it tells that the host has booted.
    private final class Bridge: Sendable {
        let link: LPCBridge
        let hasBooted: HasBooted

        init(_ link: LPCBridge, _ hasBooted: HasBooted) {
            self.link = link
            self.hasBooted = hasBooted
        }
    }

    private final class HasBooted: Sendable {
        private let body = Mutex<(@Sendable () -> Void)?>(nil)
        func set(_ new: @escaping @Sendable () -> Void) { body.withLock { $0 = new } }
        func call() { body.withLock { $0 }?() }
    }

    private func startBridge(_ runtime: ComponentRuntime) throws -> Bridge {
        let log = runtime.log
        let hasBooted = HasBooted()
        let link = LPCBridge(
            loop: runtime.loop, host: try runtime.listener("lpc-host", kind: .seqpacket),
            bmc: try runtime.listener("lpc-bmc", kind: .seqpacket),
            onPostCode: { code in
                log.debug("POST code 0x\(String(code, radix: 16))")
                if code == LPCPort.bootComplete { hasBooted.call() }
            },
            onDenial: { denial in
                let cycle = "\(denial.isWrite ? "write to" : "read of") port 0x\(String(denial.port, radix: 16))"
                log.warning("lpc: host and BMC are apart: \(cycle) denied (\(denial.count) so far)")
            },
            report: { line in log.warning("\(line)") })
        try link.start()
        return Bridge(link, hasBooted)
    }

    private func makeController(
        _ runtime: ComponentRuntime, _ gate: FlashGate, _ fuses: FuseStore, _ bridge: LPCBridge,
        _ components: Set<HeldComponent>
    ) -> SecurityController {
        let log = runtime.log
        var settings = SecuritySettings()
        settings.components = components
        settings.verifier = verifier
        settings.lockAt = lockAt
        settings.bootTimeout = bootTimeout?.duration
        let file = state.map { BootRecordFile(path: $0) }
        let (record, warning) = file?.load() ?? (BootRecord(), nil)
        if let warning { log.warning("\(warning)") }
        return SecurityController(
            loop: runtime.loop, gate: gate,
            sequencer: SecuritySequencer(fuses: fuses.fuses, settings: settings, record: record),
            storage: .init(
                store: { record throws(FileError) in try file?.store(record) },
                burn: { version throws(FuseStoreError) in
                    try fuses.burn(minimumSecurityVersion: version)
                    return fuses.fuses
                }),
            observer: .init(
                event: { event in
                    log.info("\(event.name)\(event.text)")
                    runtime.emit(event.name, event.data)
                },
                warning: { line in log.warning("\(line)") },
                changed: { snapshot in runtime.setStatus(snapshot.state.description, snapshot.details) },
                bridged: { isBridged in bridge.setConnected(isBridged) }))
    }
}

extension SecuritySettings.Verifier: ExpressibleByArgument {}
extension SecuritySettings.LockMoment: ExpressibleByArgument {}

/// A duration such as 30s.
struct BootTimeout: ExpressibleByArgument {
    let duration: Duration

    init?(argument: String) {
        guard let duration = Duration(parsing: argument), duration > .zero else { return nil }
        self.duration = duration
    }
}
