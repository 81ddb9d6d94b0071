// The baseboard management controller: command line and QMP around `ManagementController`.

public import ArgumentParser
public import Component
import DeviceFirmware
public import Ethernet
import FoundationEssentials
import Logging
public import Management
import QMP
import Wire

@main
struct BMC: ComponentCommand {
    static let kind = "bmc"

    static let configuration = CommandConfiguration(
        commandName: kind,
        abstract: "The board's management controller: network presence, and the host's console.",
        discussion: """
            It answers ARP, ping and RMCP presence pings on port eth0, keeps what the host prints on port serial and \
            shows it on port console. Without a sideband it leaves reset at once.

            Its firmware comes from port spi, the security logic's, at every release from reset; without that port it \
            runs what it has built in.

            Example, alone:
              bmc --listen serial=/tmp/serial --listen console=/tmp/console &
              echo hello | socat - UNIX-CONNECT:/tmp/serial
              socat - UNIX-CONNECT:/tmp/console
            """)

    @OptionGroup var options: ComponentOptions

    @Option(help: "Address of eth0: six octets, unicast.")
    var mac = ManagementController.Configuration().mac

    @Option(help: "IPv4 address of eth0 and the length of its network's prefix.")
    var address = ManagementController.Configuration().interface

    @Option(
        help: ArgumentHelp(
            "Export every console line to this station as a syslog message (RFC 5424, UDP port 514).",
            valueName: "address"))
    var syslog: IPv4Address?

    @Option(
        help: ArgumentHelp("Bytes of console kept: a power of two from 4KiB to 16MiB.", valueName: "size"))
    var consoleSize = ByteCount.kibibytes(64)

    @Option(
        help: ArgumentHelp(
            """
            The line on the host's console that means that it has booted; by default that of the firmware, or \
            '\(ManagementController.Configuration.builtInBootLine)'.
            """, valueName: "text"))
    var bootLine: String?

    func validate() throws {
        guard !mac.isMulticast, mac != .unspecified else {
            throw ValidationError("--mac \(mac): a port needs a unicast address, e.g. 52:54:00:b0:00:01")
        }
        if let syslog, !address.isUsable(syslog) || syslog == address.address {
            throw ValidationError(
                "--syslog \(syslog): not another station of \(address): the BMC has no router to reach others by")
        }
        guard consoleSize.bytes.nonzeroBitCount == 1, (4 << 10...16 << 20).contains(consoleSize.bytes) else {
            throw ValidationError("--console-size \(consoleSize): not a power of two from 4KiB to 16MiB")
        }
    }

    func start(_ runtime: ComponentRuntime) throws {
        var configuration = ManagementController.Configuration()
        configuration.mac = mac
        configuration.interface = address
        configuration.collector = syslog
        configuration.hostname = runtime.name
        configuration.consoleCapacity = Int(consoleSize.bytes)
        configuration.bootCompleteLine = bootLine
        let controller = ManagementController(
            configuration, loop: runtime.loop, flash: runtime.connectionPath("spi"),
            report: { runtime.log.warning("\($0)") }, emit: { announce($0, runtime) })
        runtime.setStatus("held")
        register(controller, runtime)

        if let listener = try runtime.listener("console") { try controller.startConsole(listener) }
        if let listener = try runtime.listener("serial") { try controller.startSerial(listener) }
        if let source = try runtime.ethernetSource("eth0") {
            do throws(WireError) { try controller.startNetwork(source) } catch {
                throw ComponentError.wire(port: "eth0", error)
            }
        }
        do throws(WireError) {
            try controller.startPower(runtime.connectionPath("sideband").map { .uses(path: $0) })
        } catch { throw ComponentError.wire(port: "sideband", error) }
        do throws(WireError) {
            if let path = runtime.connectionPath("lpc") { try controller.startSystemInterface(.uses(path: path)) }
        } catch { throw ComponentError.wire(port: "lpc", error) }
        runtime.onStop { controller.stop() }
        let capture = CaptureSession([.init(name: "\(runtime.name).eth0", tap: controller.networkTap)])
        runtime.registerCapture(start: { try capture.start(path: $0) }, stop: { try capture.stop() })
    }

    private func announce(_ event: ManagementController.Event, _ runtime: ComponentRuntime) {
        switch event {
        case .resetAsserted:
            runtime.setStatus("held")
            runtime.emit("RESET_ASSERTED")
        case .resetReleased:
            runtime.setStatus("loading")
            runtime.emit("RESET_RELEASED")
        case .firmwareLoaded(let firmware):
            runtime.setStatus("running", ["firmware": .string(firmware.version.description)])
            runtime.log.info("firmware \(firmware.version), \(firmware.source.rawValue)")
            runtime.emit("FIRMWARE_LOADED", firmware.eventData)
        case .firmwareFailed(let reason):
            runtime.setStatus("failed", ["reason": .string(reason)])
            runtime.log.error("no firmware: \(reason): dead until the next reset")
            runtime.emit("FIRMWARE_LOAD_FAILED", ["reason": .string(reason)])
        case .powerGood: runtime.emit("POWER_GOOD")
        case .firstOutput: runtime.emit("SERIAL_FIRST_OUTPUT")
        case .bootComplete: runtime.emit("BOOT_COMPLETE")
        case .updateStaged: runtime.emit("UPDATE_STAGED")
        case .updateFailed(let reason):
            runtime.log.warning("firmware update: \(reason)")
            runtime.emit("UPDATE_FAILED", ["reason": .string(reason)])
        }
    }

    private func register(_ controller: ManagementController, _ runtime: ComponentRuntime) {
        runtime.control.register(
            QMPCommand("query-bmc") { _ throws(QMPError) in controller.snapshot.json })
        runtime.control.register(
            QMPCommand("update-firmware", [.required("file", .string)]) { arguments throws(QMPError) in
                let path = arguments["file"]?.stringValue ?? ""
                let image: [UInt8]
                do throws(WireError) { image = try Self.readImage(path) } catch { throw QMPError("\(error)") }
                do throws(UpdateAgent.Refusal) { try controller.updateFirmware(image) } catch {
                    throw QMPError("\(path): \(error)")
                }
                return [:]
            })
        runtime.control.register(
            QMPCommand("query-firmware") { _ throws(QMPError) in controller.snapshot.firmware.json })
        runtime.control.register(QMPCommand("query-update") { _ throws(QMPError) in controller.update.json })
        runtime.control.register(
            QMPCommand("query-ipmi") { _ throws(QMPError) in controller.systemInterface.json })
        // Spec: QEMU qapi/char.json "ringbuf-read".
        runtime.control.register(
            QMPCommand(
                "ringbuf-read",
                [.required("device", .string), .required("size", .integer), .optional("format", .string)]
            ) { arguments throws(QMPError) in
                let device = arguments["device"]?.stringValue ?? ""
                guard device == "serial" else { throw QMPError("Device '\(device)' not found; there is 'serial'") }
                let size = arguments["size"]?.integerValue ?? 0
                guard size > 0 else { throw QMPError("size must be greater than zero") }
                let format = arguments["format"]?.stringValue ?? "utf8"
                guard format == "utf8" || format == "base64" else {
                    throw QMPError("format '\(format)' is neither 'utf8' nor 'base64'")
                }
                let bytes = controller.readRingBuffer(Int(clamping: size))
                return .string(
                    format == "base64" ? Data(bytes).base64EncodedString() : String(decoding: bytes, as: UTF8.self))
            })
    }
}

extension BMC {
    /// The largest slot there is, that of a chip of 4 GiB, is far more than an update: this bounds the memory.
    private static let imageLimit = 128 << 20

    private static func readImage(_ path: String) throws(WireError) -> [UInt8] {
        let file = try Descriptor.open(path, flags: 0)
        var bytes: [UInt8] = []
        while let piece = try file.readSome(limit: 1 << 20, subject: path), !piece.isEmpty {
            bytes += piece
            guard bytes.count <= imageLimit else {
                throw .badLength(length: bytes.count, minimum: 0, maximum: imageLimit)
            }
        }
        return bytes
    }
}

extension UpdateAgent {
    var json: JSONValue {
        var members: [String: JSONValue] = [
            "state": .string(phase.rawValue), "sent": .integer(Int64(sent)), "size": .integer(Int64(size)),
        ]
        if phase == .failed { members["reason"] = .string(reason) }
        return .object(members)
    }
}

extension ManagementController.Snapshot {
    private var power: String {
        switch firmware {
        case .none: "held"
        case .loading: "loading"
        case .loaded: "running"
        case .failed: "failed"
        }
    }

    var json: JSONValue {
        let refused = network.refused.map { ($0.key.rawValue, JSONValue.unsigned($0.value)) }
        return [
            "power": .string(power),
            "boot-complete": .bool(hasBootCompleted),
            "mac": .string(mac.description),
            "address": .string(interface.description),
            "network": [
                "link": .bool(isLinkUp),
                "received-frames": .unsigned(port.receivedFrames),
                "received-bytes": .unsigned(port.receivedBytes),
                "received-dropped": .unsigned(port.receivedDropped),
                "sent-frames": .unsigned(port.sentFrames),
                "sent-bytes": .unsigned(port.sentBytes),
                "sent-dropped": .unsigned(port.sentDropped),
                "arp-replies": .unsigned(network.arpReplies),
                "echo-replies": .unsigned(network.echoReplies),
                "presence-pongs": .unsigned(network.presencePongs),
                "datagrams-sent": .unsigned(network.datagramsSent),
                "refused": .object(Dictionary(uniqueKeysWithValues: refused)),
            ],
            "serial": [
                "connected": .bool(isSerialConnected),
                "received-bytes": .unsigned(consoleBytes),
                "dropped-bytes": .unsigned(consoleDropped),
                "console-clients": .integer(Int64(consoleClients)),
            ],
        ]
    }
}

extension ManagementController.SystemInterfaceStatus {
    var json: JSONValue {
        [
            "connected": .bool(isConnected),
            "kcs-state": .string("\(kcsState)"),
            "cycles": .unsigned(cycles),
            "kcs-errors": .unsigned(kcsErrors),
            "requests": .unsigned(requests),
            "refused": .unsigned(refusals),
            "global-enables": .integer(Int64(globalEnables)),
        ]
    }
}

extension ComponentRuntime {
    /// How an Ethernet port comes to its peer; nil when it is not linked.
    func ethernetSource(_ port: String) throws -> LinkSource? {
        if let listener = try listener(port) { return .serves(listener) }
        return connectionPath(port).map { .uses(path: $0) }
    }
}

// Addresses as command-line arguments.
extension MACAddress: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
    public var defaultValueDescription: String { description }
}

extension IPv4Interface: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
    public var defaultValueDescription: String { description }
}

extension IPv4Address: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
}

extension ByteCount: ExpressibleByArgument {
    public init?(argument: String) { self.init(parsing: argument) }
    public var defaultValueDescription: String { description }
}
